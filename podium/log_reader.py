"""What there is to read of runs: their logs, rows for a list, and what happens while it does.

A reader needs nothing but a log, and holds nothing of its own: any number of them see the same.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from typing import Final

from podium.checks import check_begun, check_run
from podium.people import Asked, asked_in, waited_for
from podium.reading import Found, of_each
from podium.rows import Result, RunRow, result_of, row
from protocol.actions import BlobRef
from protocol.codec import Commit
from protocol.errors import Ambiguous, NotFound
from protocol.state import RunState
from replay.chain import RunLog
from replay.damage import Known
from replay.log import EventLog
from replay.verify import Verified, verify_run

LOOK_S: Final = 2.0
"""Seconds after which a watcher looks into the log itself: as late as a lost hint is noticed."""

MAX_AMBIGUOUS: Final = 8
"""Run ids that are named when a prefix fits several."""


class LogReader:
    """Everything that is read of runs.

    Args:
        log: The event log.
        look_s: Seconds between two looks of a watcher that hears nothing.
    """

    def __init__(self, log: EventLog, look_s: float = LOOK_S) -> None:
        self._log, self._look_s = log, look_s

    async def find(self, prefix: str) -> str:
        """The id of the one run that begins with ``prefix``.

        Raises:
            NotFound: None does. One that is only queued has no log yet: give its whole id.
            Ambiguous: Several do; the hint names them.
        """
        found = await self._log.runs(prefix) if prefix else []
        if prefix in found:
            return prefix
        if not found:
            raise NotFound(
                f"there is no run {prefix!r}" if prefix else "no run is named",
                hint="list them: podium runs",
            )
        if len(found) > 1:
            some = ", ".join(found[:MAX_AMBIGUOUS])
            more = f" and {len(found) - MAX_AMBIGUOUS} more" if len(found) > MAX_AMBIGUOUS else ""
            raise Ambiguous(
                f"{prefix!r} begins the ids of {len(found)} runs",
                hint=f"give one more letter of: {some}{more}",
            )
        return found[0]

    async def log(self, run: str, until: int | None = None) -> RunLog:
        """A run's log; empty for a run that nobody has begun or signalled.

        All of it, or as far as that event and without the inbox, see `EventLog.read`.
        """
        check_run(run)
        return await self._log.read(run, until=until)

    @property
    def reader(self) -> EventLog:
        """The log, for whoever reads more than one run of it."""
        return self._log

    async def blob(self, ref: BlobRef) -> bytes:
        """The bytes of a value that is too large for a message. Raises `NotFound`."""
        return await self._log.get_blob(ref)

    async def verify(self, run: str, head: Known | None = None) -> Verified:
        """Check a run, whose log is known to have reached ``head``; raises as `log`."""
        check_run(run)
        return await verify_run(self._log, run, head)

    async def ids(self) -> list[str]:
        """The ids of all runs that have a log."""
        return await self._log.runs()

    async def state(self, run: str) -> RunState:
        """The run, folded from its log; of phase ``new`` if no conductor has taken it yet."""
        return (await self.log(run)).state()

    async def runs(self, prefix: str = "") -> list[RunRow]:
        """A row for each run that has begun, the newest first.

        Raises:
            InvalidData, NotFound: One of them can't be read; see `listed`.
        """
        return (await self.listed(prefix)).all()

    async def listed(self, prefix: str = "") -> Found[RunRow]:
        """As `runs`, beside those that can't be read."""

        async def one(run: str) -> RunRow | None:
            log = await self._log.read(run)
            return row(log) if log.commits else None

        found = await of_each(await self._log.runs(prefix), one)
        found.there.sort(key=lambda row: (-row.started, row.run))
        return found

    async def asked(self, run: str = "") -> list[Asked]:
        """What people are asked, by all runs or one, and have not answered; the oldest first.

        Runs that can't be read, see `listed`, are left out of all.
        """
        runs = [run] if run else [it.run for it in (await self.listed()).there if not it.outcome]
        found = [one for each in runs for one in asked_in(await self._log.read(each))]
        return sorted(found, key=lambda asked: asked.since)

    async def asked_below(self, log: RunLog) -> list[Asked]:
        """What people are asked by the runs that a run waits for, and by those below them."""
        found: list[Asked] = []
        waiting = waited_for(log)
        while waiting:
            child = await self._log.read(waiting.pop())
            found += asked_in(child)
            waiting += waited_for(child)
        return sorted(found, key=lambda asked: asked.since)

    async def follow(self, run: str) -> AsyncGenerator[RunLog, None]:
        """The run's log, now and after each change, until the run has ended.

        It is the same object each time, longer. A hint that is lost costs `LOOK_S`, no more.
        """
        check_run(run)
        changed = asyncio.Event()

        def heard(_data: bytes, _seq: int, _before: int) -> None:
            changed.set()

        commits = await self._log.watch(run, heard)
        inbox = await self._log.hints(run, heard)
        try:
            log = await self._log.read(run)
            while True:
                check_begun(log)
                yield log
                if log.state().phase == "ended":
                    return
                seen = (log.head.seq, log.inbox_seq)
                while (log.head.seq, log.inbox_seq) == seen:
                    await within(changed.wait(), self._look_s)
                    changed.clear()
                    await self._log.read_on(log)
        finally:
            await commits.close()
            await inbox.close()

    async def watch(self, run: str) -> AsyncGenerator[Commit, None]:
        """The run's commits, from the first on, as they come, until the run has ended."""
        shown = 0
        async with aclosing(self.follow(run)) as logs:
            async for log in logs:
                for commit in log.commits[shown:]:
                    yield commit
                shown = len(log.commits)

    async def result(self, run: str) -> Result:
        """What came of the run; waits for its end, however long it is paused."""
        last: RunLog | None = None
        async for log in self.follow(run):
            last = log
        if last is None:
            raise NotFound(f"there is no run {run!r}", hint="list them: podium runs")
        return result_of(last.state())


async def within(waiting: Awaitable[object], seconds: float) -> None:
    """Wait, but not longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting
