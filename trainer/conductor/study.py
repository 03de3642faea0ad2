"""The study: what each stage of the making is worth, over several seeds, beside every baseline.

::

    found = study(folder, plan, seeds=(0, 1, 2), count=300)
    print(as_markdown(found))               # `trainer.conductor.results`

What is done stays done: begun again, it goes on with what is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

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
    measured = {
        "episodes": count,
        "sets": list(sets),
        "families": list(plan.families),
        "reward": msgspec.to_builtins(plan.rl.reward),
    }
    stages.settle(folder / EXAM, measured, "what was measured in another exam")
    exam = Exam(plan, count, sets)
    results = [_baseline(folder, exam, name, say) for name in BASELINES]
    for seed in seeds:
        own = msgspec.structs.replace(plan, seed=seed)
        results += _Seed(folder / f"seed-{seed}", own, exam, processes, say).results()
    return Study(
        plan=plan,
        lengths=LENGTHS,
        sets=tuple(sets),
        episodes=count,
        results=ordered(results),
    )


class _Seed:
    """One seed: its stages, each in a folder of its own with what was measured of it."""

    def __init__(
        self, folder: Path, plan: Plan, exam: Exam, processes: int, say: Callable[[str], None]
    ) -> None:
        self._folder, self._plan, self._exam = folder, plan, exam
        self._processes, self._say = processes, say
        self._first = tuple(exam.episodes)[:1]

    def results(self) -> Iterator[Result]:
        """All its variants."""
        stages.begin(self._folder, self._plan)
        self._say(f"seed {self._plan.seed}: vocabulary")
        base = stages.base(self._folder, self._plan)
        sft, took = self._stage(SFT, "sft", self._plan, base, self._sft)
        yield self._measured(SFT, "sft", sft, took)
        yield from self._taught(sft, took)
        yield from self._taught_badly(sft, took)
        yield from self._untaught(base)

    def _taught(self, sft: Path, took: float) -> Iterator[Result]:
        """What practice and correction make of it, and what more SFT does."""
        plan = self._plan
        yield self._measured(MAJORITY, "majority", sft, took, sets=self._first, voters=VOTERS)
        rl, practised = self._stage(SFT_RL, "sft-rl", plan, sft, stages.rl)
        yield self._measured(SFT_RL, "sft-rl", rl, took + practised)
        steps = round(plan.rl.steps * LENGTHS.as_long)
        longer, further = self._stage(LONGER, "longer", more(plan, steps), sft, self._sft)
        yield self._measured(LONGER, "longer", longer, took + further)
        corrected, mended = self._stage(CORRECTED, "correction", plan, sft, stages.correction)
        yield self._measured(CORRECTED, "correction", corrected, took + mended)

    def _untaught(self, base: Path) -> Iterator[Result]:
        """What there is without SFT, on the first set alone: it is slow, and knows nothing."""
        yield self._measured(UNTRAINED, "base-exam", base, 0.0, sets=self._first)
        steps = max(1, self._plan.rl.steps // LENGTHS.alone)
        few = msgspec.structs.replace(self._plan.rl, steps=steps)
        plan = msgspec.structs.replace(self._plan, rl=few)
        rl, took = self._stage(RL, "rl-alone", plan, base, stages.rl)
        yield self._measured(RL, "rl-alone", rl, took, sets=self._first)

    def _taught_badly(self, sft: Path, took: float) -> Iterator[Result]:
        """What a bad teacher makes of it, whose slips are imitated; and what practice does then."""
        plan = badly(self._plan)
        bad, spoiled = self._stage(BAD, "bad", plan, sft, self._sft)
        yield self._measured(BAD, "bad", bad, took := took + spoiled)
        rl, practised = self._stage(BAD_RL, "bad-rl", self._plan, bad, stages.rl)
        yield self._measured(BAD_RL, "bad-rl", rl, took + practised)
        steps = round(plan.rl.steps * LENGTHS.spoiled_as_long)
        longer, further = self._stage(BAD_LONGER, "bad-longer", more(plan, steps), bad, self._sft)
        yield self._measured(BAD_LONGER, "bad-longer", longer, took + further)

    def _sft(self, at: Path, plan: Plan, start: Path) -> Path:
        return stages.sft(at, plan, start, processes=self._processes)

    def _stage(
        self,
        variant: str,
        name: str,
        plan: Plan,
        start: Path,
        make: Callable[[Path, Plan, Path], Path],
    ) -> tuple[Path, float]:
        """The model that a stage makes, and the seconds of its steps, batches included."""
        self._say(f"seed {plan.seed}: {variant}")
        made = make(self._folder / name, plan, start)
        return made, _seconds(self._folder / name)

    def _measured(
        self,
        variant: str,
        name: str,
        model: Path,
        seconds: float,
        *,
        voters: int = 1,
        sets: Sequence[str] = (),
    ) -> Result:
        def made() -> Result:
            reports = self._exam.model(model, variant, voters=voters, sets=sets)
            if voters == 1:
                reports += map(
                    _drawn, self._exam.model(model, variant, temperature=1.0, sets=self._first)
                )
            return Result(
                variant=variant, seed=self._plan.seed, seconds=seconds, reports=tuple(reports)
            )

        return _kept(self._folder / name, made)


def _drawn(report: Report) -> Report:
    """What was drawn, under a name of its own."""
    return msgspec.structs.replace(report, total=msgspec.structs.replace(report.total, set=DRAWN))


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


def badly(plan: Plan) -> Plan:
    """The plan of some more teaching, by a teacher that errs often and is imitated in it."""
    further = more(plan, max(1, plan.sft.steps // LENGTHS.spoiled))
    sft = msgspec.structs.replace(further.sft, slips=True)
    return msgspec.structs.replace(further, rates=SLOPPY, sft=sft)


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
