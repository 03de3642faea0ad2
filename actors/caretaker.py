"""The caretaker: finds runs that nobody is at work on, and has them taken up again.

The queue says who owns a run, and there are two ways to lose what it says: an acknowledgement that
was sent by an owner and arrives when the run is somebody else's, and a signal or a person's answer
whose sender dies before it has queued the paused run again. Both are rare, and both would leave the
run for ever. So a run that has begun, has not ended and is quiet is queued again from time to time.
Where its task is there already the queue refuses the second, so this is safe to do for any run at
any time.

A run that is paused for a person is woken by nobody when the person does not answer: it is queued
again shortly before its time is up, and its conductor has it at hand then (`waking.at_hand`).
"""

import asyncio
import logging
from typing import Final

from actors.ports import Clock
from actors.queues import Queue
from actors.waking import at_hand, wakes
from protocol import subjects
from protocol.codec import encode
from protocol.commands import Continue
from protocol.errors import PodiumError
from protocol.run import Wait, due
from replay.log import EventLog
from replay.scrub import Finding, Ledger, Scrubber

logger = logging.getLogger("podium.caretaker")

ROUND_S: Final = 30.0
"""Seconds between two rounds: a few leases, after which a run that moves has moved."""

MAX_SKIPPED: Final = 32
"""Rounds after which a quiet run is read again, at most; about a quarter of an hour."""

READS_AT_ONCE: Final = 16
"""Runs that are read at a time."""


class Caretaker:
    """Plain Python over ports; the supervisor's process runs it.

    Args:
        log: The event log.
        ledger: What is known of the runs without reading them.
        tasks: The task queue.
        clock: Milliseconds since the epoch.
        readers: The log with all shelves, where a fork's origin may be; ``log`` by default.
    """

    def __init__(
        self,
        log: EventLog,
        ledger: Ledger,
        tasks: Queue,
        *,
        clock: Clock,
        readers: EventLog | None = None,
    ) -> None:
        self.log, self.ledger, self.tasks, self.clock = log, ledger, tasks, clock
        self.readers = readers or log
        self.scrubber = Scrubber(log, ledger, readers=self.readers)
        self.findings: list[Finding] = []
        """What the last round found wrong."""
        self.queued = 0
        """Runs that were queued again, because nobody was at work on them."""
        self._round = 0
        self._ended: set[str] = set()
        self._before: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._skipped: dict[str, int] = {}
        self._until: dict[str, int] = {}
        """When the time of a person is up, by the run that is paused for it."""

    async def run(self) -> None:
        """Make rounds until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                self.findings = await self.scrubber.scrub()
                for finding in self.findings:
                    if finding.kind != "foreign":
                        logger.error("run %s is %s: %s", finding.run, finding.kind, finding.detail)
                for run in await self.sweep():
                    logger.warning("run %s: nobody was at work on it; queued again", run)
            except PodiumError as error:
                logger.warning("a round was not finished: %s", error)

    async def sweep(self) -> list[str]:
        """Queue every quiet run that waits for somebody; the ids of those that had no task.

        Raises:
            Unreachable, Busy: The next round goes on.
        """
        counts = await self.ledger.counts()
        self._round += 1
        quiet = [run for run, count in counts.items() if self._is_due(run, count)]
        self._before = dict(counts)
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def one(run: str) -> str:
            async with gate:
                return run if await self._look(run) else ""

        queued = [run for run in await asyncio.gather(*map(one, quiet)) if run]
        self.queued += len(queued)
        return queued

    def _is_due(self, run: str, count: int) -> bool:
        if run in self._ended:
            return False
        if self._before.get(run) != count:  # it moves
            for known in (self._skipped, self._due, self._until):
                known.pop(run, None)
            return False
        if at_hand(self._until.get(run, 0), self.clock()):
            return True
        return self._due.get(run, 0) <= self._round

    async def _look(self, run: str) -> bool:
        """Whether the run had to be queued."""
        log = await self.readers.read(run)
        if log.set_aside["origin"]:  # nothing can be said of it
            return False
        state = log.state()
        if state.phase == "ended":
            self._ended.add(run)
        if state.phase in ("new", "ended"):
            return False
        skipped = min(2 * self._skipped.get(run, 0) + 1, MAX_SKIPPED)
        self._skipped[run], self._due[run] = skipped, self._round + skipped
        if state.phase == "paused":
            until = next((each.until for each in due(state) if isinstance(each, Wait)), 0)
            self._until[run] = until
            if not (wakes(log, state) or at_hand(until, self.clock())):
                return False
        place = subjects.task(state.priority, run)
        return await self.tasks.put(place, encode(Continue(run=run)))
