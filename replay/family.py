"""What belongs to a run: its child runs, and as much of another run as it shares with that.

Whoever takes a run somewhere else, into a file or into the archive, takes these along.
"""

from typing import NamedTuple

from protocol.events import AttemptStarted
from protocol.state import RunState
from protocol.subjects import child_id
from replay.chain import Messages, RunLog, assemble
from replay.log import EventLog


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
    waiting = [run]
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        messages = await log.stored(name)
        if not messages.commits and name != run:
            continue  # a child that never began
        found[name] = messages
        if children:
            waiting += children_of(assemble(name, *messages))
    return Family(run, found)


def children_of(log: RunLog) -> list[str]:
    """The ids of the runs that a run's own calls began, in their order."""
    state: RunState = log.state()
    began = (
        event
        for commit in log.commits
        for event in commit.events
        if isinstance(event, AttemptStarted)
    )
    return [
        child_id(log.run, event.call, event.attempt)
        for event in began
        if _is_conductor(state, event.call)
    ]


def _is_conductor(state: RunState, call: str) -> bool:
    known = state.calls.get(call)
    worker = state.workers.get(known.call.worker) if known is not None else None
    return worker is not None and worker.kind == "conductor"
