"""Follows the log of all runs and hands on the spans that end, each at least once.

The log is the buffer: a message is done with only when the spans that ended with it have been
taken, and until then nothing further is read. So memory is bounded however long a backend is away,
and whoever dies in between goes on where the last offset says. A run that is met in its midst is
read from its beginning, silently. One that can't be projected is named once, and passed over: it
keeps no other from being exported.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

import msgspec

from protocol import subjects
from protocol.actions import BlobRef, Json, Report
from protocol.codec import Commit, decode_commit, decode_message, decode_value, digest
from protocol.errors import Busy, InvalidData, PodiumError, TimedOut, Unreachable
from protocol.events import Archived, RunCancelled, RunFailed, RunFinished, RunForked
from replay.chain import EMPTY, Head, InboxEntry, RunLog, stranger
from replay.spans import Span
from replay.trace import Projector

logger = logging.getLogger("podium.tracing")

MAX_FOLLOWED: Final = 4_096
"""Runs that go on and are kept in memory, about 10 KB each without contents. The one that has been
quiet longest goes first; when it moves again, it is read again."""

MAX_HELD_BYTES: Final = 64_000_000
"""Bytes of contents of all these runs, where contents are exported: 16 KB for each. Beyond it, runs
go in the same order, but for the last one."""

RETRY_S: Final = 1.0
"""Seconds before spans that were not taken are offered again; doubles up to `MAX_RETRY_S`."""

MAX_RETRY_S: Final = 30.0

_ENDS: Final = (RunFinished, RunFailed, RunCancelled)

_PASSING: Final = (Unreachable, TimedOut, Busy)
"""Errors of a read that may be over at the next try."""


class Told(NamedTuple):
    """A message of the log."""

    seq: int
    subject: str
    data: bytes


class Feed(Protocol):
    """The log of all runs, shard by shard, in stream order."""

    async def page(self, shard: int, after: int) -> tuple[list[Told], int]:
        """The next messages after a sequence, and how many there are beyond these."""
        ...

    async def read(self, run: str) -> RunLog:
        """All of one run."""
        ...

    async def blob(self, ref: BlobRef) -> bytes:
        """The bytes of a blob. Raises `NotFound`."""
        ...


Take = Callable[[Sequence[Span]], Awaitable[bool]]
"""Takes spans; False if it could not, and wants them again."""

Project = Callable[[str], Projector]
"""Begins the projection of the run of that id."""


async def _at_once() -> None:
    """Rest not at all."""


class _Run:
    """A run that goes on, as far as it was read."""

    def __init__(self, run: str, projector: Projector) -> None:
        self.run, self.projector = run, projector
        self.head: Head = EMPTY
        self.held = 0
        """Bytes of contents, as they were last counted."""
        self.over = self.passed_over = False
        """Whether it has ended; whether nothing more is exported of it."""

    def share(self, log: RunLog) -> None:
        """See `Projector`."""
        try:
            self.projector.share(log)
        except Exception as error:
            self._failed(error)

    def commit(self, commit: Commit) -> list[Span]:
        """See `Projector`."""
        self.over = self.over or any(isinstance(event, _ENDS) for event in commit.events)
        try:
            return [] if self.passed_over else self.projector.commit(commit)
        except Exception as error:
            self._failed(error)
            return []

    def wants(self, report: Report) -> BlobRef | None:
        """See `Projector`."""
        try:
            return None if self.passed_over else self.projector.wants(report)
        except Exception as error:
            self._failed(error)
            return None

    def report(self, known: str, report: Report) -> None:
        """See `Projector`."""
        try:
            if not self.passed_over:
                self.projector.report(known, report)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        event = f"{self.run}@{self.projector.number}"
        hint = f"this is a bug: please report it with `podium export {self.run}`"
        self.pass_over(f"event {event} can't be traced: {type(error).__name__}: {error}", hint)

    def pass_over(self, why: str, hint: str) -> None:
        """Export nothing more of it: whatever is wrong, it is with this run alone."""
        logger.error("%s; no more of run %s is exported, all others are; %s", why, self.run, hint)
        self.passed_over, self.projector = True, Projector(self.run)


class Follower:
    """Reads on from the offsets, as far as there is something.

    Args:
        feed: Where messages come from.
        take: Where spans go.
        offsets: Of each shard, the sequence of the last message that is done with; kept up to date.
        done: Called whenever they have changed, to be stored.
        rest: Waited for after each page.
        project: Begins to project a run.
    """

    def __init__(
        self,
        feed: Feed,
        take: Take,
        offsets: dict[int, int],
        done: Callable[[], None] = lambda: None,
        *,
        rest: Callable[[], Awaitable[None]] = _at_once,
        project: Project = Projector,
    ) -> None:
        self.feed, self.take, self.offsets, self.done = feed, take, offsets, done
        self.rest, self.project = rest, project
        self.held = 0
        """Bytes of contents that are kept of runs that go on."""
        self._left: dict[int, int] = {}
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    @property
    def followed(self) -> int:
        """Runs that go on and are kept."""
        return len(self._runs)

    @property
    def behind(self) -> int:
        """Messages of the log that were not read yet, when they were last counted."""
        return sum(self._left.values())

    async def catch_up(self) -> int:
        """Read until there is nothing more; gives how many messages that were."""
        count, shards = 0, sorted(self.offsets)
        while shards:  # in turns: one that is written all the time keeps no other waiting
            going: list[int] = []
            for shard in shards:
                told, self._left[shard] = await self.feed.page(shard, self.offsets[shard])
                if not told:
                    continue
                await self._page(told)
                self.offsets[shard] = told[-1].seq
                self.done()
                count += len(told)
                if self._left[shard]:
                    going.append(shard)
                await self.rest()
            shards = going
        return count

    async def _page(self, page: Sequence[Told]) -> None:
        try:
            spans = [span for span in await self._spans(page) if span.sampled]
        except PodiumError:  # this page will be read again, by runs that must not know it yet
            self._runs.clear()
            self.held = 0
            raise
        pause = RETRY_S
        while spans and not await self.take(spans):
            logger.warning("%d spans were not taken: again in %g s", len(spans), pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_S)

    async def _spans(self, page: Sequence[Told]) -> list[Span]:
        spans: list[Span] = []
        for number, told in enumerate(page):
            spans += await self._told(told)
            if number % 50 == 49:  # decoding is work: whoever wants us to stop must get a word in
                await asyncio.sleep(0)
        return spans

    async def _told(self, told: Told) -> list[Span]:
        tokens = told.subject.split(".")
        if len(tokens) != 4 or not subjects.is_run(tokens[2]):
            return []
        run = tokens[2]
        try:
            if tokens[3] == "c":
                return await self._commit(run, decode_commit(told.data), told)
            known = self._runs.get(run)
            message = decode_message(told.data) if known is not None else None
        except InvalidData:  # a stranger's: whoever reads the run sets it aside and says so
            return []
        if known is not None and isinstance(message, Report) and message.run == run:
            await self._reported(known, digest(told.data), message)
            self._weigh(known)
        return []

    async def _reported(self, known: _Run, name: str, report: Report) -> None:
        if (ref := known.wants(report)) is not None:
            report = msgspec.structs.replace(report, record=await self._record(ref))
        known.report(name, report)

    async def _record(self, ref: BlobRef) -> Json:
        """What an agent exchanged with its model; None if that is nowhere any more."""
        try:
            return decode_value(await self.feed.blob(ref))
        except _PASSING:
            raise
        except PodiumError:
            return None

    async def _commit(self, run: str, commit: Commit, told: Told) -> list[Span]:
        if all(isinstance(event, Archived) for event in commit.events):
            return []
        known = self._runs.get(run)
        if known is None:
            known = _Run(run, self.project(run))
            shares = any(isinstance(event, RunForked) for event in commit.events)
            if commit.n != 1 or shares:
                await self._again(known, told.seq)
        if not known.passed_over and stranger(run, commit, known.head):
            return []
        spans = known.commit(commit)
        known.head = Head(commit.n, digest(told.data), told.seq, commit.epoch, commit.at)
        self._runs[run] = known
        self._runs.move_to_end(run)
        self._weigh(known)
        if known.over:
            self._forget(run)
        return spans

    def _weigh(self, known: _Run) -> None:
        """Count what it keeps, and let go of what is too much."""
        before, known.held = known.held, known.projector.held
        self.held += known.held - before
        while len(self._runs) > MAX_FOLLOWED or (
            self.held > MAX_HELD_BYTES and len(self._runs) > 1
        ):
            self._forget(next(iter(self._runs)))

    def _forget(self, run: str) -> None:
        self.held -= self._runs.pop(run).held

    async def _again(self, found: _Run, before: int) -> None:
        """A run that is met in its midst: what stands before that place has been handed on."""
        try:
            log = await self.feed.read(found.run)
        except _PASSING:
            raise
        except PodiumError as error:
            found.pass_over(f"run {found.run} can't be read: {error.message}", error.hint)
            return
        found.share(log)
        told: list[tuple[int, Commit | InboxEntry]] = [*zip(log.seqs, log.commits, strict=True)]
        told += ((entry.seq, entry) for entry in log.inbox)
        count = 0
        for _, each in sorted((pair for pair in told if pair[0] < before), key=itemgetter(0)):
            if isinstance(each, Commit):
                count += 1
                found.commit(each)
            elif isinstance(each.message, Report):
                await self._reported(found, each.hash, each.message)
        if count:
            last = log.commits[count - 1]
            known = log.commits[count].prev if count < len(log.commits) else log.head.hash
            found.head = Head(last.n, known, log.seqs[count - 1], last.epoch, last.at)
