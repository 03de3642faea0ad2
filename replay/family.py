"""What belongs to a run: its child runs, and as much of another run as a fork shares with it.

Whoever takes a run somewhere else, into a file or into the archive, takes these along.
"""

from typing import NamedTuple

from protocol.codec import decode_commit, digest
from protocol.errors import InvalidData
from protocol.events import AttemptStarted
from protocol.subjects import child_id
from replay.chain import Messages, RunLog, Stored, assemble
from replay.forks import attach
from replay.history import entries
from replay.log import EventLog
from replay.shelf import merged


class Family(NamedTuple):
    """A run and what belongs to it."""

    run: str
    runs: dict[str, Messages]
    """The messages of each, by id; the run itself comes first."""
    parts: frozenset[str] = frozenset()
    """Runs of which there is only the beginning that a fork shares."""


async def family(log: EventLog, run: str, *, children: bool = True) -> Family:
    """Read a run and what belongs to it.

    Args:
        log: Where to.
        run: Its id.
        children: Whether the runs below it are taken along.
    """
    found: dict[str, Messages] = {}
    shared: dict[str, Messages] = {}
    waiting = [run]
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        messages = await log.stored(name)
        if not messages.commits and name != run:
            continue  # a child that never began
        found[name] = messages
        whole = await joined(log, name, messages)
        for origin, part in (await prefixes(log, whole)).items():
            shared[origin] = merged([shared[origin], part]) if origin in shared else part
        if children:
            waiting += children_of(whole)
    parts = frozenset(shared.keys() - found.keys())
    return Family(run, found | {origin: shared[origin] for origin in sorted(parts)}, parts)


async def joined(log: EventLog, run: str, messages: Messages) -> RunLog:
    """A run of these messages, with the origin that it was forked from, if any."""

    async def own(name: str, least: int) -> RunLog:
        return assemble(name, *await log.stored(name, least))

    whole = assemble(run, *messages)
    await attach(own, whole)
    return whole


async def prefixes(log: EventLog, whole: RunLog) -> dict[str, Messages]:
    """The messages that a fork shares with those it was forked from, by run."""
    found: dict[str, Messages] = {}
    for each in whole.lineage():
        if each.origin is not None and each.forked is not None:
            origin = each.forked.origin
            found[origin.run] = prefix(await log.stored(origin.run, origin.commit), origin.commit)
    return found


def prefix(messages: Messages, commit: int) -> Messages:
    """A run's commits up to one of them, and what of the inbox these were decided on."""
    commits: list[Stored] = []
    causes: set[str] = set()
    for stored in messages.commits:
        try:
            found = decode_commit(stored.data)
        except InvalidData:
            continue
        if found.n <= commit:
            commits.append(stored)
            causes.update(cause.removeprefix("inbox:") for cause in found.causes)
    return Messages(commits, [each for each in messages.inbox if digest(each.data) in causes])


def children_of(log: RunLog) -> list[str]:
    """The ids that runs below this one have, or would have if they began, in their order.

    Those of a fork: the ones whose answers it shares, and its own.
    """
    state = log.state()
    found: dict[str, None] = {}
    for entry in entries(log):
        if isinstance(entry.event, AttemptStarted):
            call, attempt = entry.event.call, entry.event.attempt
            known = state.calls.get(call)
            worker = state.workers.get(known.call.worker) if known is not None else None
            if worker is not None and worker.kind == "conductor":
                found[child_id(entry.run, call, attempt)] = None
                found[child_id(log.run, call, attempt)] = None  # begun again by the fork
    return list(found)
