"""The stages of making a conductor, each in a folder of its own and resumed where it stopped.

::

    FOLDER/
        plan.json     what it is made by; another plan needs another folder
        base/         vocabulary and untrained weights
        sft/          checkpoints, metrics.jsonl, and model/ when it is done
        correction/   the same
        rl/           the same
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from protocol.actions import Json
from protocol.errors import Conflict
from trainer.conductor.correcting import Correcting
from trainer.conductor.plan import Correction, Plan, Rl, Sft, described
from trainer.conductor.practising import Practising
from trainer.conductor.teaching import Teaching, texts
from trainer.datasets.chat import Chat
from trainer.gym.gate import GYM, WHOLE
from trainer.learner.fit import EVERY, Source, fit
from trainer.learner.learner import Learner
from trainer.learner.loading import placed
from trainer.learner.options import Objective, Options, Steps
from trainer.learner.sinks import FileSink
from trainer.small import make, save, train_tokenizer

PLAN: Final = "plan.json"
MODEL: Final = "model"
METRICS: Final = "metrics.jsonl"

PLAYED_EVERY: Final = 10
"""Steps between two checkpoints where each plays its episodes first, which takes long."""


def begin(folder: Path, plan: Plan) -> None:
    """Say by what a folder's conductor is made.

    Raises:
        Conflict: It is made by another plan.
    """
    settle(folder / PLAN, described(plan), "a conductor of another plan")


def settle(path: Path, said: Json, other: str) -> None:
    """Say by what that is made which a folder holds, as it stays there.

    Args:
        path: The file that says so.
        said: What it says.
        other: What the folder holds if it says something else.

    Raises:
        Conflict: It does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(said)) + b"\n"
    if not path.exists():
        path.write_bytes(data)
    elif path.read_bytes() != data:
        raise Conflict(f"{path.parent} holds {other}, see {path}", hint="name another folder")


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
        plan: See `Plan`. With no steps the model is the one that it begins with.
        start: The folder of the model that it begins with.
        processes: That play the teacher's episodes.
    """
    stage = _Stage("SFT", plan.sft, Objective(per="token"), EVERY)
    return _made(folder, plan, start, stage, lambda _: Teaching(plan, start, processes))


def correction(folder: Path, plan: Plan, start: Path) -> Path:
    """The folder of the model that was corrected; see `sft`."""

    def source(learner: Learner) -> AbstractContextManager[Source]:
        model, words, name = learner.model, learner.tokenizer, _name(learner)
        return nullcontext(Correcting(plan, model, words, Chat.load(start), name))

    stage = _Stage("correction", plan.correction, Objective(per="token"), PLAYED_EVERY)
    return _made(folder, plan, start, stage, source)


def rl(folder: Path, plan: Plan, start: Path) -> Path:
    """The folder of the model that has practised; see `sft`."""
    said = plan.rl

    def source(learner: Learner) -> AbstractContextManager[Source]:
        return nullcontext(Practising(plan, learner.model, learner.tokenizer, _name(learner)))

    objective = Objective(per="rollout", clip_low=said.clip_low, clip_high=said.clip_high)
    stage = _Stage("RL", said, objective, PLAYED_EVERY)
    return _made(folder, plan, start, stage, source)


class _Stage(NamedTuple):
    """What tells one stage from another, beside what it learns from."""

    title: str
    said: Sft | Correction | Rl
    objective: Objective
    every: int
    """Steps between two checkpoints."""


def _made(
    folder: Path,
    plan: Plan,
    start: Path,
    stage: _Stage,
    sourced: Callable[[Learner], AbstractContextManager[Source]],
) -> Path:
    """The model that a stage makes, where it isn't there."""
    done = folder / MODEL
    if done.exists():
        return done
    if not stage.said.steps:
        return start
    steps = _falling(stage.said)
    device = placed(plan.device)
    # What a GPU takes for a model this small is the calls, of which padding needs the fewest; and
    # in float32 everywhere, rollouts are read as they were sampled.
    options = Options(
        objective=stage.objective,
        steps=steps,
        tokens=plan.tokens,
        packing="padded" if device.startswith("cuda") else "auto",
        autocast="off",
        seed=plan.seed,
    )
    learner = Learner.open(start, options, device=device)
    with sourced(learner) as source:
        fit(
            learner,
            source,
            stage.said.steps,
            checkpoints=folder / "checkpoints",
            every=stage.every,
            sinks=[FileSink(folder / METRICS, stage.title.lower())],
            title=stage.title,
        )
    draft = _draft(folder, MODEL)
    learner.write(draft)
    draft.rename(done)
    return done


def _falling(said: Sft | Correction | Rl) -> Steps:
    """Rates that go up in the warm-up, and then down to the floor."""
    return Steps(
        kind="muon",
        rate=said.rate,
        matrix_rate=said.matrix_rate,
        schedule="linear",
        warmup=min(said.warmup, max(1, said.steps // 2)),
        total=said.steps + 1,
        floor=said.floor,
    )


def _name(learner: Learner) -> Callable[[], str]:
    """What rollouts call the weights that made them."""
    return lambda: f"step-{learner.updates}"


def _draft(folder: Path, name: str) -> Path:
    draft = folder / f".draft-{name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft
