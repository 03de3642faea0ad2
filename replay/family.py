"""What belongs to a run: its child runs, and as much of another run as a fork shares with it.

Whoever takes a run somewhere else, into a file or into the archive, takes these along.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from protocol.codec import decode_commit, digest
from protocol.errors import InvalidData
from protocol.events import AttemptStarted
from protocol.subjects import child_id
from replay.chain import Messages, RunLog, Stored, assemble
from replay.forks import attach
from replay.history import entries
from replay.log import EventLog


class Member(NamedTuple):
    """A run, or one that belongs to it."""

    run: str
    messages: Messages
    log: RunLog
    """What they make."""
    part: bool = False
    """Whether it is only the beginning that a fork shares."""


async def family(log: EventLog, run: str, *, children: bool = True) -> AsyncIterator[Member]:
    """Read a run and what belongs to it: one after the other, the run itself first.

    Args:
        log: Where to.
        run: Its id.
        children: Whether the runs below it are taken along.
    """
    found: set[str] = set()
    shared: dict[str, int] = {}
    waiting = [run]
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        messages = await log.stored(name)
        if not messages.commits and name != run:
            continue  # a child that never began
        found.add(name)
        member = Member(name, messages, await joined(log, name, messages))
        for origin, commit in _shared(member.log).items():
            shared[origin] = max(commit, shared.get(origin, 0))
        if children:
            waiting += children_of(member.log)
        del messages  # whoever asks for the next one may have let go of this
        yield member
        del member
    for origin in sorted(shared.keys() - found):
        part = prefix(await log.stored(origin, shared[origin]), shared[origin])
        yield Member(origin, part, assemble(origin, *part), part=True)


async def joined(log: EventLog, run: str, messages: Messages) -> RunLog:
    """A run of these messages, with the origin that it was forked from, if any."""

    async def own(name: str, least: int) -> RunLog:
        return assemble(name, *await log.stored(name, least))

    whole = assemble(run, *messages)
    await attach(own, whole)
    return whole


async def prefixes(log: EventLog, whole: RunLog) -> dict[str, Messages]:
    """The messages that a fork shares with those it was forked from, by run."""
    return {
        origin: prefix(await log.stored(origin, commit), commit)
        for origin, commit in _shared(whole).items()
    }


def _shared(whole: RunLog) -> dict[str, int]:
    """How many commits a fork shares with each of those that it was forked from."""
    return {
        each.forked.origin.run: each.forked.origin.commit
        for each in whole.lineage()
        if each.origin is not None and each.forked is not None
    }


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
