"""Make the model that the package ships: ``make conductor``.

From a plan and its seed: vocabulary, weights, SFT, correction, RL; then how sure it has to be of a
typed question, an exam, and the gate beside the model that is shipped. One that does worse is
refused with the table, and nothing is changed. What is written is a folder of Transformers whose
weights are float16, with its card.
"""

import argparse
import hashlib
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.actions import Json
from protocol.errors import Conflict, NotFound, PodiumError
from trainer.conductor import stages
from trainer.conductor.exam import Exam
from trainer.conductor.plan import Plan, described, load
from trainer.conductor.teaching import parts_of
from trainer.gym import typed
from trainer.gym.evaluate import Report
from trainer.gym.scores import Scores
from trainer.gym.splits import SETS
from trainer.learner.sinks import lines
from trainer.small import CARD
from trainer.versions.gate import Compared, compare, shown

PLAN: Final = Path(__file__).with_suffix(".toml")
"""How the shipped model is made."""

MAX_BYTES: Final = 10_000_000
"""Of all its files: what everybody downloads with the package."""

FILES: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
"""What is taken over as it is."""

WEIGHTS: Final = "model.safetensors"
WORDINGS: Final = "wordings.json"

EPISODES: Final = 300
"""Of each set of the exam."""

TYPED: Final = 400
"""Seeds of typed questions, of each set, by which it is found how sure it has to be; as many others
by which it is measured. Most of them can be done by the shipped pool."""

TYPED_FROM: Final = 10**6
"""The first of them: none of the exam's."""

ASKED: Final = 40_000
"""Seeds of questions whose wordings are learned: twice as many have one in forty more."""

MARKED: Final = 32
"""Episodes of each set by which a gym is known."""

CURVE_POINTS: Final = 50
"""Of each stage's curve in the card, at most."""

LIMITS: Final = (
    "It knows questions about countries and cities in the gym's English: one value, two to eight "
    "values or their sum, mean, largest or smallest, a value of what was found, and one sum on "
    "them. Comparisons in words, searches, programs and all else are the rules'.",
    "It points at values and writes none: an answer is a value, or a list of values.",
    "Its entities have to be marked; in a typed question that is done by the lexer of the rules.",
    "Of several cities of one name it takes the largest, and does not say so.",
    "It was trained on small English wordings only, and is no language model.",
)
"""What it can't do, in its card."""


def ship(work: Path, plan: Plan, to: Path, *, count: int = EPISODES, asked: int = ASKED) -> Path:
    """Make a model and put it in the place of the shipped one.

    Args:
        work: Where it is made; begun again, it goes on.
        plan: See `Plan`.
        to: The folder of the shipped model, or where there will be one.
        count: Episodes of each set of the exam.
        asked: See `ASKED`.

    Raises:
        Conflict: See `put`; where it does worse than the shipped one, the message has the table.
    """
    stages.begin(work, plan)
    made = stages.sft(work / "sft", plan, stages.base(work, plan))
    made = stages.correction(work / "correction", plan, made)
    made = stages.rl(work / "rl", plan, made)
    return put(made, plan, to, draft=work / "shipped", count=count, asked=asked, stages_of=work)


def put(
    made: Path,
    plan: Plan,
    to: Path,
    *,
    draft: Path,
    count: int = EPISODES,
    asked: int = ASKED,
    seeds: int = TYPED,
    target: float = typed.TARGET,
    stages_of: Path | None = None,
) -> Path:
    """Measure a model and put it in the place of the shipped one; see `ship`.

    Args:
        made: Its folder.
        plan: What it was made by.
        to: The folder of the shipped one.
        draft: Where it is prepared.
        count: See `ship`.
        asked: See `ship`.
        seeds: See `TYPED`.
        target: See `typed.TARGET`.
        stages_of: The folder of its stages, for their curves.

    Raises:
        NotFound: There is no whole model in its folder.
        Conflict: It does worse than the shipped one, is wrong too often in what it decides of typed
            questions, or is too large.
    """
    if missing := [name for name in (*FILES, WEIGHTS) if not (made / name).exists()]:
        raise NotFound(
            f"{made} has no {', '.join(missing)}",
            hint="name the folder of a model that a stage has made: .../correction/model",
        )
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(made / name, draft / name)
    _weights(made, draft)  # rounded: what is shipped is what is measured
    exam = Exam(plan, count)
    reports = exam.model(draft, "candidate")
    gym = gym_of(plan)
    found = compared(exam, to, reports, gym) if (to / CARD).exists() else Compared()
    if found.rows and found.why:
        raise Conflict(
            f"the shipped model stays, since {found.why}\n{table(found)}",
            hint="train longer, or with another plan or seed",
        )
    _write(draft / WORDINGS, typed.wordings(range(asked)), 0)
    card = {**_card(draft, plan, reports, asked), "gym": gym}
    card["curves"] = curves(stages_of) if stages_of is not None else {}
    _write(draft / CARD, {**card, "threshold": 0.0})
    card |= _threshold(draft, seeds, target)
    _write(draft / CARD, card)
    if (size := sum(each.stat().st_size for each in draft.iterdir())) > MAX_BYTES:
        raise Conflict(f"the model has {size:,} bytes; at most {MAX_BYTES:,} are shipped")
    to.mkdir(parents=True, exist_ok=True)
    for each in draft.iterdir():  # the card last: it names the weights
        if each.name != CARD:
            shutil.move(each, to / each.name)
    shutil.move(draft / CARD, to / CARD)
    return to


def compared(exam: Exam, shipped: Path, reports: Sequence[Report], gym: str) -> Compared:
    """The shipped model and another in the same episodes.

    One of another gym may have been taught what this one holds out: they are compared where
    nothing is.

    Args:
        exam: The episodes.
        shipped: The folder of the shipped one.
        reports: What the other one did in them.
        gym: See `gym_of`.
    """
    card = msgspec.json.decode((shipped / CARD).read_bytes())
    same = card.get("gym") == gym
    fair = [name for name in exam.episodes if same or not SETS[name].held_out]
    mine = [each for each in reports if each.total.set in fair]
    return compare(_totals(exam.model(shipped, "shipped", sets=fair)), _totals(mine))


def gym_of(plan: Plan) -> str:
    """What tells a gym from one that asks, or holds out, something else."""
    return Exam(plan, MARKED).sha256


def table(found: Compared) -> str:
    """Two models, a figure a line."""
    rows = [
        f"{row.set:20} {row.figure:15} {shown(row.current.value, row.figure):>9} "
        f"{shown(row.candidate.value, row.figure):>9}  {row.verdict}"
        for row in found.rows
        if row.current is not None and row.candidate is not None and row.verdict != "shown"
    ]
    return "\n".join([f"{'set':20} {'figure':15} {'shipped':>9} {'this':>9}  verdict", *rows])


def curves(folder: Path) -> dict[str, Json]:
    """The figures of each stage's training, thinned out."""
    found: dict[str, Json] = {}
    for stage in ("sft", "correction", "rl"):
        if rows := lines(folder / stage / stages.METRICS):
            found[stage] = list(rows[:: math.ceil(len(rows) / CURVE_POINTS)])
    return found


def _totals(reports: Iterable[Report]) -> list[Scores]:
    return [each.total for each in reports]


def _weights(made: Path, draft: Path) -> None:
    """The weights as float16, and a config that says so."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    halves = {name: each.astype(np.float16) for name, each in load_file(made / WEIGHTS).items()}
    save_file(halves, draft / WEIGHTS, metadata={"format": "pt"})
    (draft / WEIGHTS).chmod(0o644)
    config: dict[str, Json] = msgspec.json.decode((made / "config.json").read_bytes())
    _write(draft / "config.json", {**config, "dtype": "float16"})


def _card(draft: Path, plan: Plan, reports: Sequence[Report], asked: int) -> dict[str, Any]:
    tokenizer = hashlib.sha256((draft / "tokenizer.json").read_bytes()).hexdigest()
    wordings = hashlib.sha256((draft / WORDINGS).read_bytes()).hexdigest()
    taught = [parts_of(plan, step) for step in range(plan.sft.steps)]
    return {
        "name": "conductor",
        "weights": hashlib.sha256((draft / WEIGHTS).read_bytes()).hexdigest(),
        "workers": list(typed.WORKERS),
        "pool": typed.pool_text(),
        "plan": described(plan),
        "data": {
            "what": "the gym's set 'train', played by its teacher and then by the model itself, "
            "some of it in storms; drawn from seeds, nothing else",
            "seed": plan.seed,
            "lessons": sum(len(lessons) for lessons, _ in taught),
            "drilled": sum(len(pools) for _, pools in taught),
            "corrected": plan.correction.steps * plan.correction.episodes,
            "practised": plan.rl.steps * plan.rl.groups * plan.rl.members,
            "wordings_of": asked,
            "tokenizer_sha256": tokenizer,
            "wordings_sha256": wordings,
        },
        "exam": [
            {
                key: value
                for key, value in msgspec.to_builtins(each.total).items()
                if key != "outcomes"
            }
            for each in reports
        ],
        "limits": list(LIMITS),
    }


def _threshold(draft: Path, seeds: int, target: float) -> dict[str, Json]:
    """How sure the model has to be, and what comes of it on other questions."""
    first = range(TYPED_FROM, TYPED_FROM + seeds)
    others = range(first.stop, first.stop + seeds)
    played = [one for name in typed.SETS for one in typed.play(draft, typed.typed(first, name))]
    least = typed.threshold(played, target)
    if least is None:
        raise Conflict(
            "the model is not shipped, since of the typed questions that it decides fewer than "
            f"{target:.1%} are right, however sure it has to be",
            hint="train longer, or with another plan or seed",
        )
    found = {
        name: typed.summary(typed.play(draft, typed.typed(others, name)), least)
        for name in typed.SETS
    }
    return {"threshold": least, "typed": msgspec.to_builtins(found)}


def _write(path: Path, value: object, indent: int = 1) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=indent) + b"\n")


def main(given: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    words = argparse.ArgumentParser(prog="trainer.conductor.shipping", description=__doc__)
    words.add_argument("--plan", type=Path, default=PLAN, help="how it is made")
    words.add_argument("--work", type=Path, default=Path("build/conductor"), help="where")
    words.add_argument("--to", type=Path, required=True, help="the folder of the shipped model")
    words.add_argument("--model", type=Path, help="a model that is made already, to be shipped")
    words.add_argument("--count", type=int, default=EPISODES, help="episodes of each set")
    said = words.parse_args(given)
    try:
        plan = load(said.plan)
        if said.model is not None:
            put(said.model, plan, said.to, draft=said.work / "shipped", count=said.count)
        else:
            ship(said.work, plan, said.to, count=said.count)
    except PodiumError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return error.exit_code
    sys.stderr.write(f"written to {said.to}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
