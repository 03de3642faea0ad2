"""The registry: which workers a deployment offers to runs that begin, folded from what was said.

A worker is added, changed, renamed or withdrawn while runs are going. One that is changed is
another worker: it has a queue of its own, so that runs which have recorded the earlier one go on
with that one, and runs that begin get the later one. What is registered is offered when it has been
seen to work, a whole change at a time, and not at all if a part of it can't.

Workers that share a process change together, for they share a session.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from protocol.actions import UNHOSTED, Count, Pool, WorkerSpec
from protocol.errors import Busy, Usage
from protocol.subjects import AGAIN


class WorkerRegistered(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="WorkerRegistered"
):
    """A worker is to be offered."""

    spec: WorkerSpec
    """Its ``queue`` is no other definition's."""
    replaces: str = ""
    """The name of the worker whose place in the pool it takes; empty for the last place."""
    folder: str = ""
    """Where its modules are imported from."""
    table: str = ""
    """The table of the pool file that takes all that its server offers; empty if it was named."""


class WorkerWithdrawn(msgspec.Struct, frozen=True, kw_only=True, tag="WorkerWithdrawn"):
    """A worker is to be offered no more. Runs that have it keep it."""

    name: str


class WorkersOrdered(msgspec.Struct, frozen=True, kw_only=True, tag="WorkersOrdered"):
    """The order in which policies are shown the workers."""

    names: tuple[str, ...]


class ChangeAdmitted(msgspec.Struct, frozen=True, kw_only=True, tag="ChangeAdmitted"):
    """All that a change registers has been seen to work: runs that begin get it."""

    change: Count


class ChangeRefused(msgspec.Struct, frozen=True, kw_only=True, tag="ChangeRefused"):
    """Something that a change registers can't work: nothing of it counts."""

    change: Count
    why: str


Proposal: TypeAlias = WorkerRegistered | WorkerWithdrawn | WorkersOrdered
Verdict: TypeAlias = ChangeAdmitted | ChangeRefused
RegistryEvent: TypeAlias = Proposal | Verdict


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of the registry's log: all of its events or none."""

    n: Count
    """From 1, without gaps."""
    at: Count
    """Milliseconds since the epoch."""
    by: str = ""
    events: tuple[RegistryEvent, ...]


class Registered(NamedTuple):
    """A definition that was registered."""

    spec: WorkerSpec
    folder: str
    table: str
    change: int
    """By which it was registered first."""
    at: int
    worked: bool
    """Whether it has ever been seen to work, so that runs may have it."""


class Registry(NamedTuple):
    """What was said so far. Nothing of it is ever changed in place."""

    n: int = 0
    offered: tuple[WorkerSpec, ...] = ()
    """What runs that begin get, in its order."""
    known: Mapping[str, Registered] = {}
    """Every definition that was ever tried and has to be hosted, by its place; the latest last."""
    pending: Change | None = None
    """What is being tried."""
    refused: Mapping[int, str] = {}
    """Changes that came to nothing, and why."""

    @property
    def pool(self) -> Pool:
        """The pool of a run that begins."""
        return Pool(self.offered)

    @property
    def tried(self) -> tuple[WorkerSpec, ...]:
        """What would be offered if what is pending were admitted."""
        return _offered(self.offered, self.pending.events) if self.pending else self.offered

    @property
    def registered(self) -> Mapping[str, Registered]:
        """What would be known if what is pending were admitted."""
        return _known_after(self.known, self.pending, worked=True) if self.pending else self.known

    def table_of(self, spec: WorkerSpec) -> str:
        """See `WorkerRegistered.table`."""
        known = self.known.get(spec.place)
        return "" if known is None else known.table

    @property
    def hosted(self) -> tuple[WorkerSpec, ...]:
        """Every definition that runs may have: what is offered first, then the latest."""
        there = places(self.offered)
        known = [each.spec for each in self.known.values() if each.worked]
        return (*self.offered, *(spec for spec in reversed(known) if spec.place not in there))

    @property
    def earlier(self) -> dict[str, Registered]:
        """Definitions that runs may have, and are neither offered nor tried; the latest last."""
        there = places((*self.offered, *self.tried))
        known = self.known.items()
        return {place: each for place, each in known if each.worked and place not in there}


EMPTY: Final = Registry()


def places(specs: Iterable[WorkerSpec]) -> set[str]:
    """Those of some workers where actors host them: nobody hosts people and child runs."""
    return {spec.place for spec in specs if spec.kind not in UNHOSTED}


def folded(registry: Registry, changes: Iterable[Change]) -> Registry:
    """The registry after these changes, too. Total: what fits nothing before it is nothing."""
    for change in changes:
        registry = _after(registry, change)
    return registry


def _after(registry: Registry, change: Change) -> Registry:
    registry = registry._replace(n=change.n)
    if any(isinstance(event, Proposal) for event in change.events):
        registry = registry._replace(pending=change)
    for event in change.events:
        pending, known = registry.pending, registry.known
        match event:
            case ChangeAdmitted(change=n) if pending is not None and pending.n == n:
                offered = _offered(registry.offered, pending.events)
                known = _known_after(known, pending, worked=True)
                registry = registry._replace(offered=offered, known=known, pending=None)
            case ChangeRefused(change=n, why=why) if pending is not None and pending.n == n:
                known = _known_after(known, pending, worked=False)
                refused = {**registry.refused, n: why}
                registry = registry._replace(known=known, pending=None, refused=refused)
    return registry


def _known_after(
    known: Mapping[str, Registered], change: Change, *, worked: bool
) -> dict[str, Registered]:
    """What is known after a change: of one that did not work, the places that it has taken."""
    after = dict(known)
    for event in change.events:
        if not isinstance(event, WorkerRegistered) or event.spec.kind in UNHOSTED:
            continue
        place, first = event.spec.place, known.get(event.spec.place)
        if first is None or worked:
            since = (first.change, first.at) if first else (change.n, change.at)
            after.pop(place, None)
            after[place] = Registered(event.spec, event.folder, event.table, *since, worked)
    return after


def _offered(
    offered: tuple[WorkerSpec, ...], events: Iterable[RegistryEvent]
) -> tuple[WorkerSpec, ...]:
    there = {spec.name: spec for spec in offered}
    order = list(there)
    for event in events:
        match event:
            case WorkerRegistered(spec=spec, replaces=replaces):
                there[spec.name] = spec
                if replaces in order:
                    order[order.index(replaces)] = spec.name
                else:
                    order.append(spec.name)
            case WorkerWithdrawn(name=name):
                order = [each for each in order if each != name]
            case WorkersOrdered(names=names):
                places = {name: place for place, name in enumerate(names)}
                order.sort(key=lambda name: places.get(name, len(places)))
    return tuple(there[name] for name in dict.fromkeys(order))


# ------------------------------------------------------------------------------------------- to say


def change(
    registry: Registry,
    wanted: Pool,
    *,
    at: int,
    by: str = "",
    folder: str = "",
    tables: Mapping[str, str] | None = None,
    renewed: frozenset[str] = frozenset(),
) -> Change | None:
    """What makes a pool the one that is offered; None if it is already.

    Args:
        registry: What was said before.
        wanted: The pool.
        at: Milliseconds since the epoch.
        by: Who wants it.
        folder: Where its modules are imported from.
        tables: The tables that take all that a server offers, by the names of their workers.
        renewed: Names of workers that are taken for changed though their definition is the same:
            what stands behind it is another.

    Raises:
        Busy: Another change is being tried.
        Usage: A name in ``renewed`` is no worker of the pool.
    """
    if registry.pending is not None:
        raise Busy(
            f"change {registry.pending.n} of the workers is still being tried",
            hint="wait until `podium worker list` shows what came of it",
        )
    if unknown := sorted(renewed - wanted.by_name().keys()):
        raise Usage(
            f"there is no worker {unknown[0]!r} to renew",
            hint=f"the pool has: {', '.join(wanted.by_name())}",
        )
    events = list(_proposed(registry, wanted, folder, tables or {}, renewed))
    result = _offered(registry.offered, events)
    names = tuple(spec.name for spec in wanted.workers)
    if tuple(spec.name for spec in result) != names:
        events.append(WorkersOrdered(names=names))
    if not events:
        return None
    n = registry.n + 1
    tried = places(result) - places(registry.offered)
    verdict = [] if tried else [ChangeAdmitted(change=n)]
    return Change(n=n, at=at, by=by, events=(*events, *verdict))


def verdict(registry: Registry, why: str, *, at: int, by: str = "") -> Change:
    """What came of the change that is pending: nothing, if there is a reason."""
    assert registry.pending is not None
    tried = registry.pending.n
    event = ChangeRefused(change=tried, why=why) if why else ChangeAdmitted(change=tried)
    return Change(n=registry.n + 1, at=at, by=by, events=(event,))


def _proposed(
    registry: Registry,
    wanted: Pool,
    folder: str,
    tables: Mapping[str, str],
    renewed: frozenset[str],
) -> Iterator[Proposal]:
    there = {spec.name: spec for spec in registry.offered}
    leaving = [spec for spec in registry.offered if spec.name not in wanted.by_name()]
    staying = {spec.place: spec.name for spec in registry.offered if spec not in leaving}
    used = set(registry.known)
    hosts = {each.spec.host for each in registry.known.values()}
    renamed: dict[str, str] = {}
    for group in _groups(wanted.workers):
        unhosted = group[0].kind in UNHOSTED
        again = bool(renewed & {spec.name for spec in group}) and not unhosted
        pairs = None if again else _known(registry, group, staying)
        if pairs is None and not again and (pairs := _renamed(leaving, group)):
            renamed |= {new.name: was.name for was, new in pairs if new.name not in there}
            leaving = [spec for spec in leaving if spec.name not in renamed.values()]
        if pairs is None and unhosted:
            pairs = [(spec, spec) for spec in group]
        made = [_as(*pair) for pair in pairs] if pairs else _defined(group, used, hosts)
        for spec in made:
            before, table = there.get(spec.name), tables.get(spec.name, "")
            if before != spec or table != registry.table_of(spec):
                replaces = spec.name if before else renamed.get(spec.name, "")
                yield WorkerRegistered(spec=spec, replaces=replaces, folder=folder, table=table)
    for spec in leaving:
        yield WorkerWithdrawn(name=spec.name)


def _groups(workers: Iterable[WorkerSpec]) -> list[list[WorkerSpec]]:
    """Those that share a process, together."""
    groups: dict[tuple[str, str], list[WorkerSpec]] = {}
    for spec in workers:
        key = ("host", spec.host) if spec.host else ("worker", spec.place)
        groups.setdefault(key, []).append(spec)
    return list(groups.values())


_Pairs: TypeAlias = list[tuple[WorkerSpec, WorkerSpec]]
"""Definitions that are known, each with the one that is wanted."""


def _known(
    registry: Registry, group: Sequence[WorkerSpec], staying: Mapping[str, str]
) -> _Pairs | None:
    """A group as it is offered, as a run has recorded it, or as it was offered; else None."""
    if group[0].kind in UNHOSTED:
        offered = {spec.name for spec in registry.offered}
        return [(spec, spec) for spec in group if spec.name in offered] or None
    if found := _same(registry.offered, group):
        return found
    hosted, tried = registry.hosted, [each.spec for each in registry.known.values()]
    return (
        _recorded(hosted, group, staying) or _same(hosted, group) or _same(reversed(tried), group)
    )


def _recorded(
    there: Sequence[WorkerSpec], group: Sequence[WorkerSpec], staying: Mapping[str, str]
) -> _Pairs | None:
    """A group that is hosted just where its definitions say, in one process."""
    pairs = [
        (found, spec)
        for spec in group
        if (found := _at(there, spec))
        and (spec.queue or staying.get(spec.place, spec.name) == spec.name)
    ]
    return pairs if len(pairs) == len(group) and len({was.host for was, _ in pairs}) == 1 else None


def _same(there: Iterable[WorkerSpec], group: Sequence[WorkerSpec]) -> _Pairs | None:
    """The first group of just these definitions."""
    wanted = {spec.name: definition(spec) for spec in group}
    for each in _groups(there):
        if {spec.name: definition(spec) for spec in each} == wanted:
            by_name = {spec.name: spec for spec in each}
            return [(by_name[spec.name], spec) for spec in group]
    return None


def _renamed(leaving: Sequence[WorkerSpec], group: Sequence[WorkerSpec]) -> _Pairs | None:
    """A group that is offered under names that go, and is the same otherwise."""
    wanted = {_nameless(spec): spec for spec in group}
    for there in _groups(leaving):
        found = {_nameless(spec): spec for spec in there}
        if found.keys() == wanted.keys() and len(there) == len(group) == len(wanted):
            return [(found[key], spec) for key, spec in wanted.items()]
    return None


def _as(known: WorkerSpec, wanted: WorkerSpec) -> WorkerSpec:
    """What is wanted, where what is known is hosted."""
    if wanted.kind in UNHOSTED:
        return wanted
    queue = "" if known.place == wanted.name else known.place
    return msgspec.structs.replace(wanted, queue=queue, host=known.host)


def _defined(group: Sequence[WorkerSpec], used: set[str], hosts: set[str]) -> Iterator[WorkerSpec]:
    """A group that is new: with places and a process that no other definition has had."""
    host = _free(_base(group[0].host), hosts) if group[0].host else ""
    for spec in group:
        place = _free(spec.name, used)
        queue = "" if place == spec.name else place
        yield msgspec.structs.replace(spec, queue=queue, host=host)


def _free(name: str, used: set[str]) -> str:
    found, number = name, 1
    while found in used:
        number += 1
        found = f"{name}{AGAIN}{number}"
    used.add(found)
    return found


def _base(host: str) -> str:
    return host.partition(AGAIN)[0]


def definition(spec: WorkerSpec) -> bytes:
    """A worker as a pool file defines it: all of it but where a deployment hosts it."""
    bare = msgspec.structs.replace(spec, queue="", host=_base(spec.host))
    return msgspec.json.encode(bare, order="deterministic")


def _nameless(spec: WorkerSpec) -> bytes:
    bare = msgspec.structs.replace(spec, name="", queue="", host="shared" if spec.host else "")
    return msgspec.json.encode(bare, order="deterministic")


# ----------------------------------------------------------------------------------------- to look


def as_recorded(there: Iterable[WorkerSpec], recorded: WorkerSpec) -> bool:
    """Whether a worker is hosted just where a run has recorded it."""
    return recorded.kind in UNHOSTED or _at(there, recorded) is not None


def _at(there: Iterable[WorkerSpec], spec: WorkerSpec) -> WorkerSpec | None:
    """What has the place of a worker, and is the same."""
    # A run may have it under the name that it had before.
    bare = _nameless(spec)
    found = (each for each in there if each.place == spec.place and _nameless(each) == bare)
    return next(found, None)


def begun(registry: Registry, pool: Pool) -> Iterator[WorkerSpec]:
    """The workers of a run that begins: each where it is hosted.

    One that is hosted nowhere stays where its name says: somebody may host it yet.
    """
    hosted = registry.hosted
    for group in _groups(pool.workers):
        yield from _hosting(hosted, group) or [as_defined(hosted, spec) or spec for spec in group]


def forked(registry: Registry, pool: Pool) -> Iterator[WorkerSpec]:
    """The workers of a fork: where runs that begin have them, else where they were recorded.

    So what it makes again is made with the code of a worker that was renewed meanwhile.
    """
    hosted = registry.hosted
    for group in _groups(pool.workers):
        if found := _hosting(registry.offered, group):
            yield from found
        elif all(as_recorded(hosted, spec) for spec in group):
            yield from group
        else:
            yield from _hosting(hosted, group) or [
                spec if as_recorded(hosted, spec) else as_defined(hosted, spec) or spec
                for spec in group
            ]


def _hosting(there: Iterable[WorkerSpec], group: Sequence[WorkerSpec]) -> list[WorkerSpec] | None:
    """A group in the first process that hosts all of it: its workers share a session."""
    if group[0].kind in UNHOSTED:
        return list(group)
    wanted = [definition(spec) for spec in group]
    for each in _groups(there):
        have = {definition(spec): spec for spec in each}
        if have.keys() >= set(wanted):
            return [have[bare] for bare in wanted]
    return None


def as_defined(there: Iterable[WorkerSpec], wanted: WorkerSpec) -> WorkerSpec | None:
    """The first of those that are hosted that has this definition; None if none has."""
    if wanted.kind in UNHOSTED:
        return wanted
    bare = definition(wanted)
    return next((each for each in there if definition(each) == bare), None)
