"""A log and its shelves as one: whoever reads sees a run wherever its messages are.

Reads take what a shelf has of a run first, then what the live log still has; writes go to the live
log. Hashes and chain are checked as ever, for a shelf keeps the original bytes. Sequences are only
locators: those of a shelf may be of another server, so the positions that a reader goes on from are
the live log's.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from protocol.actions import BlobRef
from protocol.codec import Commit, decode_message
from protocol.errors import Conflict, InvalidData, NotFound, PodiumError
from protocol.inbox import Signal
from replay.chain import (
    Head,
    Messages,
    RunLog,
    Stored,
    archived_before,
    assemble,
    lacks_inbox,
    stands_for_archived,
)
from replay.forks import attach, detach
from replay.log import EventLog, HintHandler, Hints
from replay.shelf import NONE, Shelf, merged

FRESH_S: Final = 5.0
"""Seconds for which a look at the shelves holds, as far as nothing is known to be missing: one look
lists a folder, which takes an object store a tenth of a second."""


class _Silence:
    """A subscription where nothing can happen."""

    async def close(self) -> None:
        """Nothing to close."""


class LayeredLog:
    """An `EventLog` over a live log, or none, and shelves.

    Args:
        live: Where runs happen; None where there are only shelves.
        shelves: In the order in which they are asked.
        nowhere: What is said to whoever writes where there is no live log.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        live: EventLog | None,
        shelves: Sequence[Shelf],
        nowhere: NotFound | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.live, self.shelves = live, tuple(shelves)
        self._monotonic = monotonic
        self._looked: float | None = None
        """When the shelves were looked at."""
        self._looking = asyncio.Lock()
        self._nowhere = nowhere or NotFound(
            "there are only exported or archived runs here, and no deployment",
            hint="start one with `podium up`, or begin a run with `podium run`",
        )

    # ---------------------------------------------------------------------------------------- write

    async def append(self, commit: Commit, after: Head) -> Head:
        """See `EventLog.append`. A run that is only on a shelf isn't this deployment's.

        Raises:
            NotFound: There is no live log, or the run's commits are not in it.
        """
        live = self._writable()
        if after.n and not after.seq:
            raise NotFound(
                f"run {commit.run} was imported or archived, and can't go on here",
                hint=f"begin a new run that goes on from it: podium fork {commit.run} --at end",
            )
        return await live.append(commit, after)

    async def post(self, run: str, data: bytes) -> int:
        """See `EventLog.post`. Nobody is at work on a run that is only on a shelf.

        Raises:
            Conflict: A signal to such a run.
        """
        live = self._writable()
        if self._held(run) and await live.tail(run) is None and _is_signal(data):
            raise Conflict(
                f"run {run} was imported or archived, and can't be told anything here",
                hint=f"begin a new run that goes on from it: podium fork {run} --at end",
            )
        return await live.post(run, data)

    async def put_blob(self, data: bytes) -> BlobRef:
        """See `EventLog.put_blob`."""
        return await self._writable().put_blob(data)

    def _writable(self) -> EventLog:
        if self.live is None:
            raise self._nowhere
        return self.live

    # ----------------------------------------------------------------------------------------- read

    async def read(self, run: str, least: int = 0, until: int | None = None) -> RunLog:
        """See `EventLog.read`."""
        if until is not None and not self._held(run):
            begun = await self._live_read(run, least, until)
            if begun is not None and _begun(begun):
                return begun
        log = await self._own(run, least)
        await self._attach(log)
        return log

    async def _attach(self, log: RunLog) -> None:
        """Look for a fork's origin in all places, if it isn't in the live log."""
        if log.set_aside["origin"]:
            detach(log)
        await attach(self._own, log)

    async def _own(self, run: str, least: int) -> RunLog:
        if not self._held(run):
            log = await self._live_read(run, least)
            if log is not None and _whole(log):
                return log
            unknown = log is None or not (log.commits or log.aside)
            problem = await self._refresh(FRESH_S if unknown else 0.0)
            if not self._held(run):
                if problem is not None and log is not None and _elsewhere(log):
                    raise problem
                return log if log is not None else RunLog(run)
        there, _, log = await self._gathered(run, least)
        log.head = log.head._replace(seq=_last(there.commits))
        log.inbox_seq = _last(there.inbox)
        return log

    async def stored(self, run: str, least: int = 0) -> Messages:
        """See `EventLog.stored`."""
        return (await self._gathered(run, least))[1]

    async def _gathered(self, run: str, least: int) -> tuple[Messages, Messages, RunLog]:
        """What the live log has of a run; what all places have; and the log that this makes.

        The live log is read first: what was removed from it by then is on a shelf, though perhaps
        since that was last looked at. What is missing of a run that has ended, such as a late
        reward, nothing tells: for that, the look is never older than `FRESH_S`.
        """
        there = await self._live_stored(run, least)
        await self._refresh(FRESH_S)
        shelved, problem = await self._shelved(run)
        found = merged([*shelved, there])
        log = assemble(run, *found)
        if not _whole(log) and (any(found) or problem is not None):
            unseen = await self._refresh()
            shelved, problem = await self._shelved(run)
            found = merged([*shelved, there])
            log = assemble(run, *found)
            if problem is not None and not _whole(log):
                raise problem
            if unseen is not None and _elsewhere(log):
                raise unseen
        return there, found, log

    async def _live_read(self, run: str, least: int, until: int | None = None) -> RunLog | None:
        """The run as the live log has it; None where there is no such log, or shard of it."""
        if self.live is None:
            return None
        try:
            return await self.live.read(run, least, until)
        except NotFound:
            await self._refresh()
            if not self._held(run):
                raise
            return None

    async def _live_stored(self, run: str, least: int) -> Messages:
        if self.live is None:
            return NONE
        try:
            return await self.live.stored(run, least)
        except NotFound:
            await self._refresh()
            if not self._held(run):
                raise
            return NONE

    async def _shelved(self, run: str) -> tuple[list[Messages], PodiumError | None]:
        """What the shelves have of a run, and why one of them could not be read.

        That hides no run that is whole elsewhere, such as one that goes on.
        """
        found: list[Messages] = []
        problem: PodiumError | None = None
        for shelf in self.shelves:
            if shelf.has(run):
                try:
                    found.append(await asyncio.to_thread(shelf.get, run))
                except PodiumError as error:
                    problem = problem or error
        return found, problem

    def _held(self, run: str) -> bool:
        return any(shelf.has(run) for shelf in self.shelves)

    async def _refresh(self, fresh_s: float = 0.0) -> PodiumError | None:
        """Look at each shelf again; why one of them could not be looked at.

        A new run is on no shelf yet, and begins also while an archive does not answer.

        Args:
            fresh_s: Unless somebody has done so within so many seconds.
        """
        async with self._looking:
            now = self._monotonic()
            if self._looked is not None and now < self._looked + fresh_s:
                return None
            problem: PodiumError | None = None
            for shelf in self.shelves:
                try:
                    await asyncio.to_thread(shelf.refresh)
                except PodiumError as error:
                    problem = problem or error
            self._looked = now
            return problem

    async def read_on(self, log: RunLog) -> None:
        """See `EventLog.read_on`.

        What is on a shelf doesn't grow while somebody watches; but the run may have been archived
        since it was read, before everything was read on.
        """
        if self.live is None:
            return
        commits, aside = len(log.commits), log.set_aside["commits"]
        try:
            await self.live.read_on(log)
        except NotFound:
            if not self._held(log.run):
                raise
        moved = any(map(stands_for_archived, log.commits[commits:]))
        if moved or log.set_aside["commits"] > aside:
            fresh = await self._own(log.run, log.head.n)
            if fresh.head.n >= log.head.n:
                for name in log.__struct_fields__:
                    setattr(log, name, getattr(fresh, name))
        await self._attach(log)

    async def tail(self, run: str) -> Stored | None:
        """See `EventLog.tail`: of the live log only, for it is what a writer has to chain to."""
        return None if self.live is None else await self.live.tail(run)

    async def inbox(self, run: str, after: int = 0, *, fresh: bool = False) -> list[Stored]:
        """See `EventLog.inbox`."""
        if after or not self._held(run):
            return [] if self.live is None else await self.live.inbox(run, after, fresh=fresh)
        return (await self.stored(run)).inbox

    async def runs(self, prefix: str = "") -> list[str]:
        """See `EventLog.runs`."""
        found = set(await self.live.runs(prefix)) if self.live is not None else set[str]()
        for shelf in self.shelves:
            await asyncio.to_thread(shelf.refresh)
            found.update(shelf.runs(prefix))
        return sorted(found)

    async def hints(self, run: str, handler: HintHandler) -> Hints:
        """See `EventLog.hints`."""
        return _Silence() if self.live is None else await self.live.hints(run, handler)

    async def watch(self, run: str, handler: HintHandler) -> Hints:
        """See `EventLog.watch`."""
        return _Silence() if self.live is None else await self.live.watch(run, handler)

    async def get_blob(self, ref: BlobRef) -> bytes:
        """See `EventLog.get_blob`. A damaged copy is passed over while there is another."""
        problem: NotFound | InvalidData | None = None
        if self.live is not None:
            try:
                return await self.live.get_blob(ref)
            except (NotFound, InvalidData) as error:
                problem = error
        unseen: PodiumError | None = None
        for again in (False, True):
            if again:  # it may have been moved to the archive since that was last looked at
                unseen = await self._refresh()
            for shelf in self.shelves:
                try:
                    return await asyncio.to_thread(shelf.blob, ref)
                except NotFound as error:
                    problem = problem or error
                except InvalidData as error:
                    problem = error if not isinstance(problem, InvalidData) else problem
        if unseen is not None and not isinstance(problem, InvalidData):
            raise unseen
        raise problem or NotFound(f"there is no blob {ref.sha256}")


def _whole(log: RunLog) -> bool:
    """Whether this is all of a run, as far as its messages tell.

    Not if it begins with the commit that stands for what is archived, or was read while that
    happened.
    """
    return _begun(log) and not lacks_inbox(log)


def _elsewhere(log: RunLog) -> bool:
    """Whether something of the run is known to be missing, and an archive may have it."""
    return archived_before(log) > 0 or lacks_inbox(log)


def _begun(log: RunLog) -> bool:
    """Whether these are commits from the first on, without a gap."""
    return bool(log.commits) and not archived_before(log) and not log.set_aside["commits"]


def _last(stored: Sequence[Stored]) -> int:
    return max((each.seq for each in stored), default=0)


def _is_signal(data: bytes) -> bool:
    try:
        return isinstance(decode_message(data), Signal)
    except InvalidData:
        return False


__all__ = ["LayeredLog"]
