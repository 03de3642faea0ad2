"""The table: what each stage of the making is worth, over several seeds, beside every baseline.

::

    found = study(folder, plan, seeds=(0, 1, 2), count=300)
    print(as_markdown(found))

What is done stays done: begun again, it goes on with what is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trainer.conductor import stages
from trainer.conductor.exam import BASELINES, GATED, Exam
from trainer.conductor.plan import Plan
from trainer.gym.baselines import VOTERS
from trainer.gym.evaluate import Report
from trainer.gym.scores import HIGHER, Scores
from trainer.gym.teacher import SLOPPY
from trainer.intervals import Interval, across, paired
from trainer.learner.sinks import lines

UNTRAINED: Final = "untrained"
SFT: Final = "SFT"
SFT_RL: Final = "SFT, then RL"
CORRECTED: Final = "SFT, then correction"
WHOLE: Final = "SFT, correction, RL"
"""All stages."""
RL: Final = "RL without SFT"
LONGER: Final = "SFT for as long"
"""The control: as many seconds of SFT as all stages took together."""
MAJORITY: Final = f"majority of {VOTERS} samples of SFT"
BAD: Final = "SFT by a bad teacher"
BAD_RL: Final = "the same, then RL"

TRAINED: Final = (
    *(UNTRAINED, RL, SFT, MAJORITY, LONGER, SFT_RL),
    *(CORRECTED, WHOLE, BAD, BAD_RL),
)
"""All but the baselines, as the table has them."""

PAIRS: Final = (
    *((SFT_RL, SFT), (WHOLE, CORRECTED), (BAD_RL, BAD)),
    *((CORRECTED, LONGER), (WHOLE, LONGER)),
)
"""What may gain over what: RL over what it began with, and the rest over more of SFT."""

ALONE: Final = 4
"""Steps of practice after SFT for one without it. An untrained model's replies are as long as they
may be, and so are its runs: a step takes many times as long."""

FIGURES: Final = ("accuracy", "valid", "recovery", "rounds", "cost", "critical_steps", "reward")
"""What the table shows."""

FILE: Final = "result.json"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of one seed, or a baseline."""

    variant: str
    seed: int
    seconds: float = 0.0
    """That its training took, all its stages; 0 for what is not trained."""
    reports: tuple[Report, ...] = ()
    """One for each set."""

    def scores(self, name: str) -> Scores | None:
        """Its scores on a set, or None."""
        return next((each.total for each in self.reports if each.total.set == name), None)


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All results."""

    plan: Plan
    sets: tuple[str, ...]
    episodes: int
    """Of each set."""
    results: tuple[Result, ...]

    def of(self, variant: str) -> list[Result]:
        """The results of a variant, by seed."""
        return [each for each in self.results if each.variant == variant]

    @property
    def variants(self) -> list[str]:
        """All that there are, in their order."""
        return list(dict.fromkeys(each.variant for each in self.results))


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
    """
    exam = Exam(plan, count, sets)
    results = [_baseline(folder, exam, name, say) for name in BASELINES]
    for seed in seeds:
        own = msgspec.structs.replace(plan, seed=seed)
        results += _seed(folder / f"seed-{seed}", own, exam, processes, say)
    order = {name: place for place, name in enumerate([*BASELINES, *TRAINED])}
    results.sort(key=lambda each: (order[each.variant], each.seed))
    return Study(plan=plan, sets=tuple(sets), episodes=count, results=tuple(results))


def _seed(
    folder: Path, plan: Plan, exam: Exam, processes: int, say: Callable[[str], None]
) -> Iterator[Result]:
    stages.begin(folder, plan)
    say(f"seed {plan.seed}: vocabulary")
    base = stages.base(folder, plan)
    yield from _taught(folder, plan, exam, base, processes, say)
    yield from _untaught(folder, plan, exam, base, say)
    say(f"seed {plan.seed}: {BAD}")
    bad = msgspec.structs.replace(plan, rates=SLOPPY)
    sft = stages.sft(at := folder / "bad", bad, base, processes=processes)
    took = _seconds(at)
    yield _measured(at, exam, sft, BAD, plan, took)
    rl = stages.rl(at := folder / "bad-rl", plan, sft)
    yield _measured(at, exam, rl, BAD_RL, plan, took + _seconds(at))


def _untaught(
    folder: Path, plan: Plan, exam: Exam, base: Path, say: Callable[[str], None]
) -> Iterator[Result]:
    """What there is without SFT, on the first set alone: it is slow, and knows nothing."""
    first = tuple(exam.episodes)[:1]
    say(f"seed {plan.seed}: {UNTRAINED}")
    yield _measured(folder / "base-exam", exam, base, UNTRAINED, plan, 0.0, sets=first)
    say(f"seed {plan.seed}: {RL}")
    rl = msgspec.structs.replace(plan.rl, steps=max(1, plan.rl.steps // ALONE))
    alone = stages.rl(at := folder / "rl-alone", msgspec.structs.replace(plan, rl=rl), base)
    yield _measured(at, exam, alone, RL, plan, _seconds(at), sets=first)


def _taught(
    folder: Path,
    plan: Plan,
    exam: Exam,
    base: Path,
    processes: int,
    say: Callable[[str], None],
) -> Iterator[Result]:
    """SFT, what correction and RL make of it, and what more SFT would have."""
    say(f"seed {plan.seed}: {SFT}")
    sft = stages.sft(at := folder / "sft", plan, base, processes=processes)
    took = _seconds(at)
    yield _measured(at, exam, sft, SFT, plan, took)
    yield _measured(folder / "majority", exam, sft, MAJORITY, plan, took, voters=VOTERS)
    say(f"seed {plan.seed}: {SFT_RL}")
    rl = stages.rl(at := folder / "sft-rl", plan, sft)
    yield _measured(at, exam, rl, SFT_RL, plan, took + _seconds(at))
    say(f"seed {plan.seed}: {CORRECTED}")
    corrected = stages.correction(at := folder / "correction", plan, sft)
    whole = took + _seconds(at)
    yield _measured(at, exam, corrected, CORRECTED, plan, whole)
    say(f"seed {plan.seed}: {WHOLE}")
    rl = stages.rl(at := folder / "rl", plan, corrected)
    whole += _seconds(at)
    yield _measured(at, exam, rl, WHOLE, plan, whole)
    say(f"seed {plan.seed}: {LONGER}")
    steps = round(plan.sft.steps * whole / took) if took else plan.sft.steps
    more = msgspec.structs.replace(plan, sft=msgspec.structs.replace(plan.sft, steps=steps))
    control = stages.sft(at := folder / "longer", more, base, processes=processes)
    yield _measured(at, exam, control, LONGER, plan, _seconds(at))


def _seconds(folder: Path) -> float:
    """How long the steps of a stage took, the making of their batches included."""
    return sum(
        float(each["wait_s"]) + float(each["step_s"]) for each in lines(folder / stages.METRICS)
    )


def _measured(
    folder: Path,
    exam: Exam,
    model: Path,
    variant: str,
    plan: Plan,
    seconds: float,
    *,
    voters: int = 1,
    sets: Sequence[str] = (),
) -> Result:
    return _kept(
        folder,
        lambda: Result(
            variant=variant,
            seed=plan.seed,
            seconds=seconds,
            reports=tuple(exam.model(model, variant, voters=voters, sets=sets)),
        ),
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


def over_seeds(results: Sequence[Result], name: str, figure: str) -> Interval | None:
    """A figure on a set over the seeds, with a 95 % interval of its mean; None if nobody has it.

    Of a single result it is the figure's own interval, over the episodes.
    """
    found = [
        known
        for each in results
        if (scores := each.scores(name)) is not None
        and (known := scores.get(figure)) is not None
        and known.n
    ]
    if not found:
        return None
    if len(found) == 1:
        return Interval(found[0].value, found[0].low, found[0].high)
    return across([each.value for each in found])


def gained(found: Study, of: str, less: str, name: str, figure: str = "reward") -> Interval | None:
    """How much more one variant has than another, over pairs: the same seed, the same episode.

    None if there are no pairs.
    """
    others = {each.seed: each.scores(name) for each in found.of(less)}
    pairs: list[tuple[float, float]] = []
    for result in found.of(of):
        mine, other = result.scores(name), others.get(result.seed)
        if mine is None or other is None:
            continue
        before = other.outcomes.get(figure, {})
        for episode, value in mine.outcomes.get(figure, {}).items():
            if episode in before:
                pairs.append((value, before[episode]))
    if len(pairs) < 2:
        return None
    return paired([one for one, _ in pairs], [other for _, other in pairs])


def as_markdown(found: Study) -> str:
    """The table of each set, and what RL gains."""
    parts = [_table(found, name) for name in found.sets]
    return "\n\n".join([*parts, _gains(found)])


def _table(found: Study, name: str) -> str:
    lines = [f"**{name}**, {found.episodes} episodes", ""]
    lines.append(f"| | minutes | {' | '.join(FIGURES)} |")
    lines.append("|---" * (len(FIGURES) + 2) + "|")
    for variant in found.variants:
        results = [each for each in found.of(variant) if each.scores(name) is not None]
        if not results:
            continue
        minutes = sum(each.seconds for each in results) / len(results) / 60
        cells = [_cell(over_seeds(results, name, figure), figure) for figure in FIGURES]
        shown = f"{minutes:.1f}" if minutes else ""
        lines.append(f"| {variant} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Interval | None, figure: str) -> str:
    if value is None:
        return ""
    scale, digits = (100.0, 1) if figure in HIGHER - {"reward"} else (1.0, 2)
    if figure == "cost":
        digits = 0
    middle, low, high = (each * scale for each in value)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _gains(found: Study) -> str:
    lines = ["| reward gained, pairs of the same episode | set | |", "|---|---|---|"]
    for of, less in PAIRS:
        for name in found.sets:
            gain = gained(found, of, less, name)
            if gain is not None:
                shown = f"{gain.value:+.3f} ({gain.low:+.3f} … {gain.high:+.3f})"
                lines.append(f"| {of} over {less} | {name} | {shown} |")
    return "\n".join(lines)
