"""The study: what each stage of the making is worth, over several seeds, beside every baseline.

::

    found = study(folder, plan, seeds=(0, 1, 2), count=300)
    print(as_markdown(found))               # `trainer.conductor.results`

What is done stays done: begun again, it goes on with what is missing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from trainer.conductor import stages
from trainer.conductor.exam import BASELINES, GATED, Exam
from trainer.conductor.plan import Plan
from trainer.conductor.results import (
    BAD,
    BAD_LONGER,
    BAD_RL,
    CORRECTED,
    DRAWN,
    LONGER,
    MAJORITY,
    RL,
    SFT,
    SFT_RL,
    TRAINED,
    UNTRAINED,
    Lengths,
    Result,
    Study,
    ordered,
)
from trainer.gym.baselines import VOTERS
from trainer.gym.evaluate import Report
from trainer.gym.teacher import SLOPPY
from trainer.learner.sinks import lines

LENGTHS: Final = Lengths()

FILE: Final = "result.json"
EXAM: Final = "exam.json"


def study(
    folder: Path,
    plan: Plan,
    seeds: Sequence[int],
    count: int,
    *,
    sets: Sequence[str] = GATED,
    processes: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> Study:
    """Train and measure every variant.

    Args:
        folder: Where all of it is kept.
        plan: How a conductor is made; its seed is replaced.
        seeds: Of the conductors.
        count: Episodes of each set.
        sets: Which sets.
        processes: That play the teacher's episodes.
        say: Told what is begun.

    Raises:
        Conflict: What is there was measured in another exam, or made by another plan.
    """
    exam = Exam(plan, count, sets)
    measured = {
        "episodes": count,
        "sets": list(sets),
        "families": list(plan.families),
        "reward": msgspec.to_builtins(plan.rl.reward),
        "sha256": exam.sha256,
    }
    stages.settle(folder / EXAM, measured, "what was measured in another exam")
    results = [_baseline(folder, exam, name, say) for name in BASELINES]
    for seed in seeds:
        own = msgspec.structs.replace(plan, seed=seed)
        one = Seed(folder / f"seed-{seed}", own, processes, say)
        results += (one.result(variant, exam) for variant in TRAINED)
    return Study(
        plan=plan,
        lengths=LENGTHS,
        sets=tuple(sets),
        episodes=count,
        results=ordered(results),
    )


class _Way(NamedTuple):
    """How a variant comes from another one."""

    folder: str
    after: str
    make: Callable[[Path, Plan, Path, int], Path]
    """Told its folder, the plan, what it begins with, and how many processes play the teacher."""
    planned: Callable[[Plan, Lengths], Plan] = lambda plan, _: plan


def _sft(at: Path, plan: Plan, start: Path, processes: int) -> Path:
    return stages.sft(at, plan, start, processes=processes)


def _correction(at: Path, plan: Plan, start: Path, _: int) -> Path:
    return stages.correction(at, plan, start)


def _rl(at: Path, plan: Plan, start: Path, _: int) -> Path:
    return stages.rl(at, plan, start)


def more(plan: Plan, steps: int) -> Plan:
    """The plan of so many steps of teaching after a plan's teaching.

    Of lessons that were not given yet, at the rates of correction: those of the beginning would
    have it forget.
    """
    said = plan.correction
    sft = msgspec.structs.replace(
        plan.sft,
        steps=steps,
        after=plan.sft.after + plan.sft.steps,
        context=0.0,
        rate=said.rate,
        matrix_rate=said.matrix_rate,
        warmup=said.warmup,
    )
    return msgspec.structs.replace(plan, sft=sft)


def longer(plan: Plan, lengths: Lengths) -> Plan:
    """The plan of as much more teaching as practice takes."""
    return more(plan, round(plan.rl.steps * lengths.as_long))


def badly(plan: Plan, lengths: Lengths) -> Plan:
    """The plan of some more teaching, by a teacher that errs often and is imitated in it."""
    further = more(plan, max(1, plan.sft.steps // lengths.spoiled))
    sft = msgspec.structs.replace(further.sft, slips=True)
    return msgspec.structs.replace(further, rates=SLOPPY, sft=sft)


def badly_longer(plan: Plan, lengths: Lengths) -> Plan:
    """The plan of as much more of that teacher as practice takes."""
    return more(badly(plan, lengths), round(plan.rl.steps * lengths.spoiled_as_long))


def few(plan: Plan, lengths: Lengths) -> Plan:
    """The plan of a little practice."""
    steps = max(1, plan.rl.steps // lengths.alone)
    return msgspec.structs.replace(plan, rl=msgspec.structs.replace(plan.rl, steps=steps))


WAYS: Final = {
    SFT: _Way("sft", UNTRAINED, _sft),
    SFT_RL: _Way("sft-rl", SFT, _rl),
    LONGER: _Way("longer", SFT, _sft, longer),
    CORRECTED: _Way("correction", SFT, _correction),
    BAD: _Way("bad", SFT, _sft, badly),
    BAD_RL: _Way("bad-rl", BAD, _rl),
    BAD_LONGER: _Way("bad-longer", BAD, _sft, badly_longer),
    RL: _Way("rl-alone", UNTRAINED, _rl, few),
}
"""How each variant is made that is a stage's."""

ON_FIRST: Final = frozenset({UNTRAINED, RL, MAJORITY})
"""What is measured on the first set alone: it is slow."""


class Seed:
    """One seed: its stages, each in a folder of its own with what was measured of it.

    Args:
        folder: Of this seed.
        plan: How a conductor is made; its seed is this one.
        processes: That play the teacher's episodes.
        say: Told what is begun.
        lengths: How long its variants are made.

    Raises:
        Conflict: The folder is of another plan.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        processes: int = 1,
        say: Callable[[str], None] = lambda _: None,
        lengths: Lengths = LENGTHS,
    ) -> None:
        self._folder, self._plan = folder, plan
        self._processes, self._say, self._lengths = processes, say, lengths
        stages.begin(folder, plan)

    def made(self, variant: str) -> tuple[Path, float]:
        """The model of a variant of `WAYS`, and the seconds of all its steps.

        What it comes from is made before it, where it isn't there.
        """
        if variant == UNTRAINED:
            return stages.base(self._folder, self._plan), 0.0
        way = WAYS[variant]
        start, took = self.made(way.after)
        at = self._folder / way.folder
        if not (at / stages.MODEL).exists():
            self._say(f"seed {self._plan.seed}: {variant}")
        model = way.make(at, way.planned(self._plan, self._lengths), start, self._processes)
        return model, took + _seconds(at)

    def result(self, variant: str, exam: Exam) -> Result:
        """What was measured of a variant of `TRAINED`, or is now in an exam."""
        folder = {UNTRAINED: "base-exam", MAJORITY: "majority"}
        of = SFT if variant == MAJORITY else variant
        model, seconds = self.made(of)
        at = self._folder / (folder.get(variant) or WAYS[variant].folder)
        return _kept(at, lambda: self._measured(exam, variant, model, seconds))

    def _measured(self, exam: Exam, variant: str, model: Path, seconds: float) -> Result:
        first = tuple(exam.episodes)[:1]
        sets = first if variant in ON_FIRST else ()
        voters = VOTERS if variant == MAJORITY else 1
        reports = exam.model(model, variant, voters=voters, sets=sets)
        if voters == 1:
            reports += map(_drawn, exam.model(model, variant, temperature=1.0, sets=first))
        seed = self._plan.seed
        return Result(variant=variant, seed=seed, seconds=seconds, reports=tuple(reports))


def _drawn(report: Report) -> Report:
    """What was drawn, under a name of its own."""
    return msgspec.structs.replace(report, total=msgspec.structs.replace(report.total, set=DRAWN))


def _seconds(folder: Path) -> float:
    """How long the steps of a stage took, the making of their batches included."""
    return sum(
        float(each["wait_s"]) + float(each["step_s"]) for each in lines(folder / stages.METRICS)
    )


def _baseline(folder: Path, exam: Exam, name: str, say: Callable[[str], None]) -> Result:
    say(f"baseline: {name}")
    return _kept(
        folder / "baselines" / name,
        lambda: Result(variant=name, seed=0, reports=tuple(exam.baseline(name))),
    )


def _kept(folder: Path, made: Callable[[], Result]) -> Result:
    """A result that is there, or that is made and kept."""
    path = folder / FILE
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Result)
    result = made()
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(result))
    draft.replace(path)
    return result
