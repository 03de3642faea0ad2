"""The gate: whether a version of a model does worse than the one that is current. Pure.

Two policies on the same set of tasks are compared figure by figure. The difference has a 95 %
interval: of pairs where both have the outcomes of the same episodes, else of two independent
estimates. *Worse* is a difference whose whole interval is beyond a margin on the wrong
side. So chance alone lets through too little to matter, and never holds up a version that is as
good: of those about one in forty, for each figure.

How often it is right (`QUALITY`) must not be worse at all. What it spends (`SPENT`) may be more
where it is right more often.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from trainer.gym.scores import HIGHER, SHARES, Figure, Scores
from trainer.intervals import Interval, difference, paired

Verdict: TypeAlias = Literal["better", "even", "worse", "excused", "too few", "missing", "shown"]
"""``excused``: it spends more, and is right more often. ``too few``: nothing can be said.
``missing``: the candidate was not measured in this. ``shown``: no figure of the gate."""

QUALITY: Final = HIGHER
"""Figures that a version must not be worse in."""

SPENT: Final = frozenset({"cost", "rounds", "critical_steps"})
"""Figures that may only be worse where `RIGHT` is better."""

RIGHT: Final = "accuracy"
"""The figure without which nothing is known of a version."""

SHARE_MARGIN: Final = 0.01
"""How much less a share may be (or a reward, from 0 to 1): one task in a hundred, which is less
than two seeds of one recipe differ by."""

SPENT_MARGIN: Final = 0.05
"""How much more may be spent, as a share of what the current version spends."""

MIN_ROLLOUTS: Final = 50
"""Rollouts of a figure that says something: of fewer, an interval is as wide as the differences
that a gate is to find, and nothing would be refused."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure of two versions."""

    set: str
    figure: str
    unit: str = ""
    current: Figure | None = None
    candidate: Figure | None = None
    change: float = 0.0
    """The candidate's less the current version's, with its interval."""
    low: float = 0.0
    high: float = 0.0
    paired: bool = False
    """Whether it is of the same episodes."""
    verdict: Verdict = "shown"


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions, figure by figure."""

    rows: tuple[Row, ...] = ()

    @property
    def against(self) -> list[Row]:
        """What speaks against the candidate."""
        return [row for row in self.rows if row.verdict in ("worse", "missing")]

    @property
    def why(self) -> str:
        """Why it is not let through, in words; empty if it is."""
        if bad := self.against:
            return "; ".join(_words(row) for row in bad)
        known = [row for row in self.rows if row.figure == RIGHT]
        if not known:
            return f"nothing is known of its {RIGHT}"
        both = [row for row in known if row.current and row.candidate]
        if not both:
            return f"nothing is known of the current version's {RIGHT}"
        if all(row.verdict == "too few" for row in both):
            return f"its {RIGHT} is known of too few rollouts; {MIN_ROLLOUTS} say something"
        return ""


def compare(current: Sequence[Scores], candidate: Sequence[Scores]) -> Compared:
    """Two versions on every set that the current one was measured on, and what else there is.

    Args:
        current: One for each set, of the version that answers.
        candidate: Of the one that is to.
    """
    rows: list[Row] = []
    theirs = {each.set: each for each in candidate}
    for ours in current:
        rows += _set(ours, theirs.pop(ours.set, None))
    for only in theirs.values():
        rows += [_alone(only.set, figure) for figure in only.figures]
    return Compared(rows=tuple(rows))


def _set(current: Scores, candidate: Scores | None) -> list[Row]:
    rows: list[Row] = []
    for figure in current.figures:
        other = candidate.get(figure.name) if candidate is not None else None
        if other is None or candidate is None:
            missing: Verdict = "missing" if figure.name in QUALITY | SPENT else "shown"
            rows.append(_row(current.set, figure, None, verdict=missing))
            continue
        pairs = _pairs(current, candidate, figure.name)
        change = difference(_of(other), _of(figure)) if pairs is None else paired(*pairs)
        rows.append(
            _row(
                current.set,
                figure,
                other,
                change=change.value,
                low=change.low,
                high=change.high,
                paired=pairs is not None,
                verdict=_verdict(figure, other, change),
            )
        )
    if candidate is not None:
        there = {figure.name for figure in current.figures}
        rows += [_alone(current.set, each) for each in candidate.figures if each.name not in there]
    return _excused(rows)


def _row(of: str, figure: Figure, other: Figure | None, **more: object) -> Row:
    row = Row(set=of, figure=figure.name, unit=figure.unit, current=figure, candidate=other)
    return msgspec.structs.replace(row, **more)


def _alone(of: str, figure: Figure) -> Row:
    return Row(set=of, figure=figure.name, unit=figure.unit, candidate=figure)


def _pairs(current: Scores, candidate: Scores, name: str) -> tuple[list[float], list[float]] | None:
    """The outcomes of both in the episodes that both have; None if those are too few."""
    of, less = candidate.outcomes.get(name, {}), current.outcomes.get(name, {})
    both = [each for each in less if each in of]
    if len(both) < MIN_ROLLOUTS:
        return None
    return [of[each] for each in both], [less[each] for each in both]


def _of(figure: Figure) -> Interval:
    return Interval(figure.value, figure.low, figure.high)


def _verdict(current: Figure, candidate: Figure, change: Interval) -> Verdict:
    if current.name not in QUALITY | SPENT:
        return "shown"
    if min(current.n, candidate.n) < MIN_ROLLOUTS:
        return "too few"
    more = current.name in HIGHER
    gain, loss = (change.low, -change.high) if more else (-change.high, change.low)
    margin = SHARE_MARGIN if more else SPENT_MARGIN * abs(current.value)
    if loss > margin:
        return "worse"
    return "better" if gain > 0 else "even"


def _excused(rows: Iterable[Row]) -> list[Row]:
    """What is spent for being right more often is spent well."""
    rows = list(rows)
    if not any(row.figure == RIGHT and row.verdict == "better" for row in rows):
        return rows
    return [
        msgspec.structs.replace(row, verdict="excused")
        if row.figure in SPENT and row.verdict == "worse"
        else row
        for row in rows
    ]


def _words(row: Row) -> str:
    if row.verdict == "missing" or row.candidate is None or row.current is None:
        return f"{row.figure} on {row.set} was not measured"
    return (
        f"{row.figure} on {row.set} is {shown(row.candidate.value, row.figure)}, "
        f"and {shown(row.current.value, row.figure)} before"
    )


def shown(value: float, figure: str) -> str:
    """A value as tables show it: shares in per cent."""
    return f"{value:.1%}" if figure in SHARES else f"{value:.4g}"
