"""What is known of conductors that were made alike: every variant of each seed, and the baselines.

::

    print(as_markdown(found))               # a table of each set, and what each stage gains
    gained(found, SFT_RL, SFT, ["seen"])    # by these models, and by models that are made so
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from statistics import fmean
from typing import Final, NamedTuple, Self

import msgspec

from trainer.conductor.exam import BASELINES
from trainer.conductor.plan import Plan
from trainer.gym.baselines import VOTERS
from trainer.gym.evaluate import Report
from trainer.gym.scores import SHARES, Scores
from trainer.intervals import Interval, across, paired, share

UNTRAINED: Final = "untrained"
SFT: Final = "SFT"
SFT_RL: Final = "SFT, then RL"
CORRECTED: Final = "SFT, then correction"
"""How the shipped model is made."""
RL: Final = "RL without SFT"
LONGER: Final = "SFT, then as long of SFT"
"""The control: it goes on from the same model, for as long as RL takes, see `Lengths`."""
MAJORITY: Final = f"majority of {VOTERS} samples of SFT"
BAD: Final = "SFT, spoiled by a bad teacher"
BAD_RL: Final = "spoiled, then RL"
BAD_LONGER: Final = "spoiled, then as long of the bad teacher"

TRAINED: Final = (
    *(UNTRAINED, RL, SFT, MAJORITY, SFT_RL, LONGER),
    *(CORRECTED, BAD, BAD_RL, BAD_LONGER),
)
"""All but the baselines, as the table has them."""

BY_RL: Final = ((SFT_RL, SFT), (SFT_RL, LONGER), (BAD_RL, BAD), (BAD_RL, BAD_LONGER))
"""What RL has to gain over: what it began with, and as much more of SFT."""

PAIRS: Final = (*BY_RL, (CORRECTED, SFT), (CORRECTED, LONGER), (CORRECTED, SFT_RL))
"""What may gain over what."""

DRAWN: Final = "drawn"
"""The first set, where what is said is drawn at a temperature of 1: what RL makes better. Else it
is what is held most likely, which is right also where every other decision drawn is a slip."""

UNSEEN_WORDS: Final = "unseen-words"
"""The set that is reported and that nobody has to do well."""

SIGNED: Final = frozenset({"regret_stop", "reward"})
"""Figures that may be less than nothing."""

DIGITS: Final = 6
"""Of a baseline's figures after the point, that machines agree on."""

FIGURES: Final = (
    *("accuracy", "valid", "recovery", "rounds", "cost", "critical_steps"),
    *("regret_stop", "reward"),
)
"""What the table shows, see `trainer.gym.evaluate`."""


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """How long a study's variants are made, beside what its plan says.

    In steps and not by the clock: what else a machine does would decide how good a control gets.
    """

    alone: int = 30
    """Steps of practice after SFT for one without it. An untrained model's replies are as long as
    they may be, and so are its runs: a step takes many times as long."""
    spoiled: int = 14
    """Steps of good teaching for one of a bad teacher after it: a few make habits of its slips."""
    as_long: float = 17
    """Steps of teaching that take as long as one of practice: 13 to 22 by the clock, of three seeds
    on a machine that had other work."""
    spoiled_as_long: float = 24
    """The same after a bad teacher, where runs are longer."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of one seed, or a baseline."""

    variant: str
    seed: int
    seconds: float = 0.0
    """That its training took, all its stages; 0 for what is not trained."""
    reports: tuple[Report, ...] = ()
    """One for each set, and of a trained one what it draws, see `DRAWN`."""

    def scores(self, name: str) -> Scores | None:
        """Its scores on a set, or None."""
        return next((each.total for each in self.reports if each.total.set == name), None)


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All results."""

    plan: Plan
    lengths: Lengths
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

    @property
    def known_words(self) -> tuple[str, ...]:
        """The sets all of whose words were learned."""
        return tuple(name for name in self.sets if name != UNSEEN_WORDS)

    @property
    def seeds(self) -> list[int]:
        """Of the conductors that were made."""
        return sorted({each.seed for each in self.results if each.variant in TRAINED})

    def only(self, seed: int) -> Self:
        """The baselines, and one of the seeds."""
        results = (
            each for each in self.results if each.seed == seed or each.variant not in TRAINED
        )
        return msgspec.structs.replace(self, results=tuple(results))

    def comparable(self, other: Self) -> bool:
        """Whether both measured the same, but for the seeds.

        A gym that was changed is known by its baselines, which do something else there.
        """
        alike = msgspec.structs.replace(other.plan, seed=self.plan.seed) == self.plan
        return alike and self._measure() == other._measure()

    def _measure(self) -> tuple[object, ...]:
        """What has to be the same where seeds are compared, but for the plan."""
        baselines = {
            (each.variant, report.total.set, known.name): (known.n, round(known.value, DIGITS))
            for each in self.results
            if each.variant not in TRAINED
            for report in each.reports
            for known in report.total.figures
        }
        return self.lengths, self.sets, self.episodes, baselines

    def slim(self) -> Self:
        """The same without what each episode came to, but for what is compared in pairs.

        That is the reward; and on the first set also who was right, and at what cost.
        """

        def kept(scores: Scores, figures: Collection[str]) -> Scores:
            outcomes = {name: each for name, each in scores.outcomes.items() if name in figures}
            return msgspec.structs.replace(scores, outcomes=outcomes)

        def slimmed(report: Report) -> Report:
            families = {name: kept(each, ()) for name, each in report.families.items()}
            first = report.total.set == self.sets[0]
            total = kept(report.total, ("reward", *(("accuracy", "cost") if first else ())))
            return msgspec.structs.replace(report, total=total, families=families)

        results = (
            msgspec.structs.replace(each, reports=tuple(map(slimmed, each.reports)))
            for each in self.results
        )
        return msgspec.structs.replace(self, results=tuple(results))


def joined(first: Study, others: Iterable[Study]) -> Study:
    """The seeds of several that are comparable as one; of a seed that two have, the first's."""
    found = list(first.results)
    for each in others:
        seeds = {result.seed for result in found if result.variant in TRAINED}
        found += (r for r in each.results if r.variant in TRAINED and r.seed not in seeds)
    return msgspec.structs.replace(first, results=ordered(found))


def ordered(results: Iterable[Result]) -> tuple[Result, ...]:
    """As tables have them: the baselines, then each variant by its seeds."""
    order = {name: place for place, name in enumerate([*BASELINES, *TRAINED])}
    return tuple(sorted(results, key=lambda each: (order[each.variant], each.seed)))


def over_seeds(results: Sequence[Result], name: str, figure: str) -> Interval | None:
    """A figure on a set over the seeds, with a 95 % interval of its mean; None if nobody has it.

    Of a single result it is the figure's own interval, over the episodes. None goes beyond what
    the figure can be.
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
    values = [each.value for each in found]
    if figure in SHARES and len(set(values)) == 1:  # alike: as sure as one of them is, no surer
        return share(round(values[0] * found[0].n), found[0].n)
    middle, low, high = across(values)
    return Interval(
        middle,
        low if figure in SIGNED else max(0.0, low),
        min(1.0, high) if figure in SHARES else high,
    )


def cost_beside(result: Result, other: Result, name: str) -> float | None:
    """What one spends over what another does, in the episodes of a set that both got right.

    None where there are none, or the other spends nothing.
    """
    own, theirs = (
        {} if (scores := each.scores(name)) is None else scores.outcomes for each in (result, other)
    )
    right = [
        episode
        for episode, hit in own.get("accuracy", {}).items()
        if hit and theirs.get("accuracy", {}).get(episode)
    ]
    most = sum(theirs["cost"][episode] for episode in right) if right else 0.0
    return sum(own["cost"][episode] for episode in right) / most if most else None


class Gain(NamedTuple):
    """How much more one variant has than another, with 95 % intervals."""

    pairs: Interval
    """Of these very models, over pairs: the same seed, the same set, the same episode."""
    seeds: Interval | None
    """Of models that are made so: over what each seed gains, by Student's t; None of one seed."""


def gained(
    found: Study, of: str, less: str, sets: Collection[str], figure: str = "reward"
) -> Gain | None:
    """How much more one variant has than another on some sets together. None without pairs."""
    pairs: list[tuple[float, float]] = []
    means: list[float] = []
    others = {each.seed: each for each in found.of(less)}
    for result in found.of(of):
        if result.seed in others:
            other = others[result.seed]
            own = [
                pair
                for name in sets
                for pair in _pairs(result.scores(name), other.scores(name), figure)
            ]
            pairs += own
            means += [fmean(more - before for more, before in own)] if own else []
    if len(pairs) < 2:
        return None
    of_pairs = paired([one for one, _ in pairs], [other for _, other in pairs])
    return Gain(of_pairs, across(means) if len(means) > 1 else None)


def _pairs(of: Scores | None, less: Scores | None, figure: str) -> Iterator[tuple[float, float]]:
    mine, before = ({} if each is None else each.outcomes.get(figure, {}) for each in (of, less))
    yield from ((mine[episode], before[episode]) for episode in mine if episode in before)


def as_markdown(found: Study) -> str:
    """The table of each set, and what one variant gains over another."""
    parts = [_table(found, name) for name in (*found.sets, DRAWN)]
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
    scale, digits = (100.0, 1) if figure in SHARES else (1.0, 2)
    if figure == "cost":
        digits = 0
    middle, low, high = (each * scale for each in value)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _gains(found: Study) -> str:
    lines = [
        "| reward gained | set | by these models, in pairs of the same episode | over the seeds |",
        "|---|---|---|---|",
    ]
    known = found.known_words
    for of, less in PAIRS:
        each = ((name,) for name in (*found.sets, DRAWN))
        for sets in (*each, *([known] if len(known) > 1 else [])):
            gain = gained(found, of, less, sets)
            if gain is not None:
                of_what = sets[0] if len(sets) == 1 else f"all but {UNSEEN_WORDS}"
                cells = (_gain(gain.pairs), "" if gain.seeds is None else _gain(gain.seeds))
                lines.append(f"| {of} over {less} | {of_what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gain(value: Interval) -> str:
    return f"{value.value:+.4f} ({value.low:+.4f} … {value.high:+.4f})"
