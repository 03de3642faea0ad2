"""Having a run that holds no task delivered again, because something waits in its inbox.

A paused run gives its task back, but not at once: its acknowledgement is on the way while the queue
still refuses another message of that run, and on a replicated queue it takes effect only after it
was answered. Whoever says something to a run therefore asks until the queue takes the message, has
one that nobody was given yet, or the run has seen what was said.
"""

import asyncio
from typing import Final

from actors.queues import Queue
from protocol import subjects
from protocol.actions import Report
from protocol.codec import encode
from protocol.commands import Continue
from protocol.inbox import Signal
from protocol.state import RunState
from replay.chain import RunLog
from replay.log import EventLog

AT_HAND_MS: Final = 120_000
"""Milliseconds before a person's time is up from which on a conductor has the paused run at hand.
The caretaker, who has it taken up, knows of a quiet run after two of its rounds. Before that, the
run takes no place."""

WAKE_S: Final = 10.0
"""Seconds to go on asking. A queue that refuses for so long has a message whose owner is at work or
is lost, and then somebody else is given it: an acknowledgement on its way takes milliseconds."""

FIRST_PAUSE_S: Final = 0.01
"""Seconds before the second try; doubles with each further one."""

MAX_PAUSE_S: Final = 1.0
"""Seconds between two tries, at most."""


async def queue_again(log: EventLog, tasks: Queue, run: str) -> bool:
    """Queue a run that may be paused, after something was posted to its inbox.

    Returns:
        Whether it was queued. False if it need not be: it is at work, or has seen all signals, or
        its task is in the queue and will be delivered.

    Raises:
        Unreachable, Busy: It may or may not be queued; doing this again is safe.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAKE_S
    pause = FIRST_PAUSE_S
    while True:
        seen = await _fresh(log, run)
        if seen is not None:
            state = seen.state()
            if not wakes(seen, state):
                return False
            place = subjects.task(state.priority, run)
            if await tasks.put(place, encode(Continue(run=run))):
                return True
            if await tasks.waits(place):  # whoever is given it reads the inbox then
                return False
        if loop.time() + pause > deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_S)


def at_hand(deadline: int, now: int) -> bool:
    """Whether a run that is paused until a deadline has to be at hand for it.

    Args:
        deadline: Milliseconds since the epoch; 0 for none.
        now: Likewise.
    """
    return bool(deadline) and deadline - now <= AT_HAND_MS


async def _fresh(log: EventLog, run: str) -> RunLog | None:
    """The run as the leader has it; None if what was read is older than that."""
    seen = await log.read(run)
    tail = await log.tail(run)
    return seen if (tail.seq if tail else 0) <= seen.head.seq else None


def wakes(log: RunLog, state: RunState) -> bool:
    """Whether a run is paused and has a signal, or a person's answer, that it has not read."""
    if state.phase != "paused":
        return False
    for entry in log.inbox:
        match entry.message:
            case Signal() if entry.hash not in state.signals:
                return True
            case Report(call=call, attempt=attempt) if state.pause_reason == "person":
                if state.waits_for(call, attempt):
                    return True
            case _:
                pass
    return False
