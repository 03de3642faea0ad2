"""Facts to units: which runs are kept, in which order, and why the others are not.

It keeps what it sorts on the disk: a unit at a time is in memory. Else it is pure.

A unit is what is chosen from together: the runs of a task, or of a group, that settled together. It
is decided by all of the facts, never by how many of them came at a time, and units stand in the
order in which their last run ended: what ends later comes later, so that a data set grows at its
end.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import pstdev
from typing import Final, NamedTuple, TypeAlias

import msgspec

from protocol.errors import Conflict
from trainer.advantages import advantages, scheme
from trainer.datasets.facts import Facts
from trainer.datasets.sorting import Key, Queue, Sorted
from trainer.datasets.spec import Spec

KEPT: Final = "kept"

RECOVERY: Final = "recovery share"
"""Waits until there are enough trajectories without a recovery beside it."""

OPEN: Final = "open"
"""It, or another run of its unit, goes on."""


Weights: TypeAlias = tuple[str, str]
"""A model, as `Facts.model`, and a version of it."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of a run."""

    facts: Facts
    why: str
    """`KEPT`, or why not."""


class Pairing(msgspec.Struct, frozen=True, gc=False):
    """Two runs that are compared."""

    better: str
    worse: str
    parts: int
    """The place of the reply at which they part, from 0."""


class Unit(msgspec.Struct, frozen=True):
    """The runs of a task, or of a group, and what became of each."""

    key: str
    verdicts: tuple[Verdict, ...]
    pairs: tuple[Pairing, ...] = ()

    @property
    def kept(self) -> list[Facts]:
        """The runs that are written."""
        return [each.facts for each in self.verdicts if each.why == KEPT]


class Planned:
    """The units of a data set, in their order; read as often as wanted.

    Args:
        units: What became of each, before they share what there is room for.
        spec: See `Spec`.
    """

    def __init__(self, units: Sorted[Unit], spec: Spec) -> None:
        self._units, self._spec = units, spec

    def __len__(self) -> int:
        return len(self._units)

    def __iter__(self) -> Iterator[Unit]:
        return _shared(self._units, self._spec) if self._spec.kind == "sft" else iter(self._units)


def plan(known: Iterable[Facts], spec: Spec) -> Planned:
    """The units of a data set.

    Raises:
        Conflict: There are rollouts of old weights, and the spec wants that to be an error.
        DiskFault: There is no room for what is sorted.
    """
    looked, units = Sorted(Facts, 3), Sorted(Unit, 4)
    for each in known:
        if each.out:
            unit = Unit("", (Verdict(each, f"not selected: {each.out}"),))
            units.add(_order(unit), unit)
        else:
            looked.add((each.key, each.began, each.run), each)
    old = _stale(looked.by(1, 2), spec)
    for runs in _units(looked, 1_000 * spec.settle_s):
        unit = _decide(runs, spec, old)
        units.add(_order(unit), unit)
    return Planned(units, spec)


def _order(unit: Unit) -> Key:
    """The last end of its runs; one that goes on comes after all that have ended."""
    ends = [each.facts.ended for each in unit.verdicts]
    return int(not all(ends)), max(ends), unit.key, unit.verdicts[0].facts.run


def _units(looked: Iterable[Facts], settle_ms: int) -> Iterator[list[Facts]]:
    """The runs of each key, parted where nothing was at work for the settling time.

    Args:
        looked: By key, and of each as they began.
        settle_ms: Milliseconds of that.
    """
    unit: list[Facts] = []
    until = 0
    for each in looked:
        if unit and (each.key != unit[0].key or each.began > until + settle_ms):
            yield unit
            unit, until = [], 0
        unit.append(each)
        until = max(until, each.ended or each.began)
    if unit:
        yield unit


def _decide(unit: list[Facts], spec: Spec, old: frozenset[Weights]) -> Unit:
    key = unit[0].key
    if not all(each.ended for each in unit):
        return Unit(key, tuple(Verdict(each, OPEN) for each in unit))
    match spec.kind:
        case "sft":
            return Unit(key, tuple(Verdict(each, _imitable(each, spec)) for each in unit))
        case "rl":
            return Unit(key, _group(unit, spec, old))
        case _:
            return _paired(key, unit, spec)


# ---------------------------------------------------------------------------------------- imitation


def _imitable(run: Facts, spec: Spec) -> str:
    """Why a trajectory is none to imitate; "" if it may be."""
    if run.unscorable:
        return f"unscorable: {run.unscorable}"
    if not run.finished or not run.answered:
        return "no answer of the policy's"
    if run.accuracy is None and not spec.sft.unchecked:
        return "not known whether right"
    if run.accuracy is not None and run.accuracy < spec.sft.right:
        return "wrong"
    if run.stuck:
        return "not recovered"
    return "" if run.sayable else "not sayable in the dialect"


def _shared(units: Iterable[Unit], spec: Spec) -> Iterator[Unit]:
    """One trajectory of each unit, so that recoveries keep within their share.

    One that would exceed it waits, and is put where there is room for it: so nothing depends on
    what comes later.
    """
    waiting = Queue(Unit)
    used: Counter[str] = Counter()
    kept = recoveries = 0

    def room() -> bool:
        return recoveries + 1 <= spec.sft.recovery * (kept + 1)

    def chosen(unit: Unit, choice: Facts | None) -> Unit:
        nonlocal kept, recoveries
        if choice is not None:
            kept, recoveries = kept + 1, recoveries + choice.recovers
            used.update(choice.workers)
        return _chosen(unit, choice)

    for unit in units:
        choice = _best(unit, used, recovery=room())
        if choice is None and _best(unit, used, recovery=True) is not None:
            waiting.append(unit)
            continue
        yield chosen(unit, choice)
        while waiting and room():
            late = waiting.popleft()
            yield chosen(late, _best(late, used, recovery=True))
    while waiting:
        unit = waiting.popleft()
        verdicts = tuple(Verdict(each.facts, each.why or RECOVERY) for each in unit.verdicts)
        yield msgspec.structs.replace(unit, verdicts=verdicts)


def _best(unit: Unit, used: Counter[str], *, recovery: bool) -> Facts | None:
    """The trajectory to keep: a recovery where there is room for one, then the least wasteful.

    Among equals the one whose workers the data set has least of, so that no tool is left out; then
    the one of the fewest rounds, and the cheapest.
    """

    def rank(run: Facts) -> tuple[bool, int, float, int, int, str]:
        usage = sum(used[name] for name in run.workers) / max(1, len(run.workers))
        return not run.recovers, run.repeats, usage, run.rounds, run.cost, run.run

    may = [
        each.facts
        for each in unit.verdicts
        if not each.why and (recovery or not each.facts.recovers)
    ]
    return min(may, key=rank) if may else None


def _chosen(unit: Unit, choice: Facts | None) -> Unit:
    verdicts = (
        Verdict(each.facts, KEPT if each.facts is choice else each.why or "another was kept")
        for each in unit.verdicts
    )
    return msgspec.structs.replace(unit, verdicts=tuple(verdicts))


# -------------------------------------------------------------------------------- policy gradients


def _stale(looked: Iterable[Facts], spec: Spec) -> frozenset[Weights]:
    """The versions that are too old.

    Those of a model count in the order in which a run last began with each: after a rollback the
    one that answers again is the newest. A run goes on with the version that it began with, so
    when it ended says nothing of that.

    Args:
        looked: As they began.
        spec: See `Spec`.
    """
    if spec.kind != "rl" or spec.rl.stale == "keep":
        return frozenset()
    order: dict[str, dict[str, None]] = {}
    for each in looked:
        versions = order.setdefault(each.model, {})
        for version in each.versions if each.tokens else ():
            versions.pop(version, None)
            versions[version] = None
    found: set[Weights] = set()
    for model, versions in order.items():
        known = list(versions)
        old = known[: max(0, len(known) - 1 - spec.rl.lag)]
        found |= {(model, version) for version in old}
        if old and spec.rl.stale == "error":
            raise Conflict(
                f"there are rollouts of {len(old)} versions that lie more than {spec.rl.lag} "
                f"behind {known[-1]!r}: {', '.join(sorted(old)[:4])}; they are no data for policy "
                "gradients",
                hint=f"Select one: --policy-version {known[-1]}; "
                "or leave old ones out: --stale drop.",
            )
    return frozenset(found)


def _group(unit: list[Facts], spec: Spec, old: frozenset[Weights]) -> tuple[Verdict, ...]:
    why: dict[str, str] = {}
    for run in unit:
        if run.unscorable:
            why[run.run] = f"unscorable: {run.unscorable}"
        elif not run.tokens:
            why[run.run] = "no tokens"
        elif run.unfit:
            why[run.run] = run.unfit
        elif old.intersection((run.model, version) for version in run.versions):
            why[run.run] = "stale"
        elif run.reward is None:
            why[run.run] = "no reward"
    scored = [run for run in unit if run.run not in why]
    rewards = [run.reward for run in scored if run.reward is not None]
    outcome = KEPT
    if len(scored) < spec.rl.group:
        outcome = "group too small"
    elif pstdev(rewards) <= spec.rl.min_std or _flat(rewards, spec):
        outcome = "rewards alike"
    elif spec.rl.mixed and not _mixed(scored, spec):
        outcome = "outcomes alike"
    return tuple(Verdict(run, why.get(run.run, outcome)) for run in unit)


def _flat(rewards: list[float], spec: Spec) -> bool:
    """Whether the scheme of advantages has nothing to say of a group."""
    worth = advantages([Worth("", each) for each in rewards], scheme(spec.rl.advantages))
    return all(each.flat for each in worth)


class Worth(NamedTuple):
    """What `advantages` looks at."""

    group: str
    reward: float | None


def _mixed(scored: list[Facts], spec: Spec) -> bool:
    """Whether some are right and some wrong; yes where that is not known of all."""
    known = [run.accuracy for run in scored if run.accuracy is not None]
    return len(known) < len(scored) or len({each >= spec.sft.right for each in known}) > 1


# --------------------------------------------------------------------------------------- preference


def parting(one: Facts, other: Facts) -> int | None:
    """The place of the reply at which two runs part; None if they don't share what was asked."""
    for place, (asked, again) in enumerate(zip(one.asked, other.asked, strict=False)):
        if asked != again:
            return None
        if one.replied[place] != other.replied[place]:
            return place
    return None


def _paired(key: str, unit: list[Facts], spec: Spec) -> Unit:
    may = {run.run: run for run in unit if not _incomparable(run)}
    found: list[tuple[int, float, str, str]] = []
    for better in may.values():
        for worse in may.values():
            gain = (better.reward or 0.0) - (worse.reward or 0.0)
            if gain < spec.preference.margin or gain <= 0:
                continue
            if (place := parting(better, worse)) is not None:
                found.append((-place, -gain, better.run, worse.run))
    pairs: list[Pairing] = []
    taken: set[str] = set()
    for place, _, better_run, worse_run in sorted(found):  # what they share longest, first
        if taken.isdisjoint((better_run, worse_run)):
            taken |= {better_run, worse_run}
            pairs.append(Pairing(better_run, worse_run, -place))
    verdicts = (
        Verdict(run, KEPT if run.run in taken else _incomparable(run) or "no pair") for run in unit
    )
    return Unit(key, tuple(verdicts), tuple(pairs))


def _incomparable(run: Facts) -> str:
    if run.unscorable:
        return f"unscorable: {run.unscorable}"
    if run.reward is None:
        return "no reward"
    return "" if run.sayable else "not sayable in the dialect"
