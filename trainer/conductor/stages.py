"""The stages of making a conductor, each in a folder of its own and resumed where it stopped.

::

    FOLDER/
        plan.json     what it is made by; another plan needs another folder
        base/         vocabulary and untrained weights
        sft/          checkpoints, metrics.jsonl, and model/ when it is done
        rl/           the same
"""

import shutil
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import Conflict
from trainer.conductor.plan import Plan, described
from trainer.conductor.practising import Practising
from trainer.conductor.teaching import Teaching, texts
from trainer.gym.gate import GYM, WHOLE
from trainer.learner.fit import fit
from trainer.learner.learner import Learner
from trainer.learner.options import Objective, Options, Steps
from trainer.learner.sinks import FileSink
from trainer.small import make, save, train_tokenizer

PLAN: Final = "plan.json"
MODEL: Final = "model"
METRICS: Final = "metrics.jsonl"

RL_WARMUP: Final = 5
"""Steps in which the rate of practice goes up: its model is taught already."""

RL_EVERY: Final = 10
"""Steps of practice between two checkpoints: each plays its episodes first, which takes long."""


def begin(folder: Path, plan: Plan) -> None:
    """Say by what a folder's conductor is made.

    Raises:
        Conflict: It is made by another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(described(plan))) + b"\n"
    path = folder / PLAN
    if path.exists() and path.read_bytes() != data:
        raise Conflict(f"{folder} holds a conductor of another plan", hint="name another folder")
    path.write_bytes(data)


def base(folder: Path, plan: Plan) -> Path:
    """The folder of the untrained model, made if it is not there."""
    made = folder / "base"
    if not made.exists():
        draft = _draft(folder, "base")
        words = train_tokenizer(texts(plan), plan.vocabulary)
        save(draft, make(plan.shape, words, plan.seed), words, {GYM: WHOLE})
        draft.rename(made)
    return made


def sft(folder: Path, plan: Plan, start: Path, *, processes: int = 1) -> Path:
    """The folder of the model that was taught; teaching goes on where it stopped.

    Args:
        folder: Of this stage.
        plan: See `Plan`.
        start: The folder of the model that it begins with.
        processes: That play the teacher's episodes.
    """
    done = folder / MODEL
    if done.exists():
        return done
    said = plan.sft
    steps = Steps(
        kind="muon",
        rate=said.rate,
        matrix_rate=said.matrix_rate,
        schedule="linear",
        warmup=min(said.warmup, max(1, said.steps // 2)),
        total=said.steps + 1,
        floor=said.floor,
    )
    learner = _learner(plan, start, steps, Objective(per="token"))
    with Teaching(plan, start, processes) as source:
        fit(
            learner,
            source,
            said.steps,
            checkpoints=folder / "checkpoints",
            sinks=[FileSink(folder / METRICS, "sft")],
            title="SFT",
        )
    return _written(folder, learner)


def rl(folder: Path, plan: Plan, start: Path) -> Path:
    """The folder of the model that has practised; practice goes on where it stopped.

    Args:
        folder: Of this stage.
        plan: See `Plan`.
        start: The folder of the model that it begins with.
    """
    done = folder / MODEL
    if done.exists():
        return done
    said = plan.rl
    steps = Steps(kind="muon", rate=said.rate, matrix_rate=said.matrix_rate, warmup=RL_WARMUP)
    objective = Objective(per="rollout", clip_low=said.clip_low, clip_high=said.clip_high)
    learner = _learner(plan, start, steps, objective)
    source = Practising(plan, learner.model, learner.tokenizer, lambda: f"step-{learner.updates}")
    fit(
        learner,
        source,
        said.steps,
        checkpoints=folder / "checkpoints",
        every=RL_EVERY,
        sinks=[FileSink(folder / METRICS, "rl")],
        title="RL",
    )
    return _written(folder, learner)


def _learner(plan: Plan, start: Path, steps: Steps, objective: Objective) -> Learner:
    options = Options(objective=objective, steps=steps, tokens=plan.tokens, seed=plan.seed)
    return Learner.open(start, options, device=plan.device)


def _written(folder: Path, learner: Learner) -> Path:
    draft = _draft(folder, MODEL)
    learner.write(draft)
    draft.rename(folder / MODEL)
    return folder / MODEL


def _draft(folder: Path, name: str) -> Path:
    draft = folder / f".draft-{name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft
