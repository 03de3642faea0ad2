"""Follows the log of all runs and hands on the spans that end, each at least once.

The log is the buffer: a message is done with only when the spans that ended with it have been
taken, and until then nothing further is read. So memory is bounded however long a backend is away,
and whoever dies in between goes on where the last offset says. A run that is met in its midst is
read from its beginning, silently.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from protocol import subjects
from protocol.actions import Report
from protocol.codec import Commit, decode_commit, decode_message, digest
from protocol.errors import InvalidData
from protocol.events import Archived, RunForked
from replay.chain import EMPTY, Head, InboxEntry, RunLog, stranger
from replay.spans import Span
from replay.trace import Projector

logger = logging.getLogger("podium.tracing")

MAX_FOLLOWED: Final = 4_096
"""Runs that go on and are kept in memory, about 10 KB each. The one that has been quiet longest
goes first; when it moves again, it is read again."""

RETRY_S: Final = 1.0
"""Seconds before spans that were not taken are offered again; doubles up to `MAX_RETRY_S`."""

MAX_RETRY_S: Final = 30.0


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


Take = Callable[[Sequence[Span]], Awaitable[bool]]
"""Takes spans; False if it could not, and wants them again."""


class _Run:
    """A run that goes on."""

    def __init__(self, projector: Projector) -> None:
        self.projector = projector
        self.head: Head = EMPTY


class Follower:
    """Reads on from the offsets, as far as there is something.

    Args:
        feed: Where messages come from.
        take: Where spans go.
        offsets: Of each shard, the sequence of the last message that is done with; kept up to date.
        done: Called whenever they have changed, to be stored.
        content: See `Projector`.
        messages: See `Projector`.
    """

    def __init__(
        self,
        feed: Feed,
        take: Take,
        offsets: dict[int, int],
        done: Callable[[], None] = lambda: None,
        *,
        content: bool = False,
        messages: bool = False,
    ) -> None:
        self.feed, self.take, self.offsets, self.done = feed, take, offsets, done
        self.behind = 0
        """Messages of the log that were not read yet, when it was last asked."""
        self._content, self._messages = content, messages
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    async def catch_up(self) -> int:
        """Read until there is nothing more; gives how many messages that were."""
        count = 0
        for shard in sorted(self.offsets):
            while True:
                told, self.behind = await self.feed.page(shard, self.offsets[shard])
                if not told:
                    break
                await self._page(told)
                self.offsets[shard] = told[-1].seq
                self.done()
                count += len(told)
                if not self.behind:
                    break
        return count

    async def _page(self, page: Sequence[Told]) -> None:
        spans: list[Span] = []
        for number, told in enumerate(page):
            spans += await self._told(told)
            if number % 50 == 49:  # decoding is work: whoever wants us to stop must get a word in
                await asyncio.sleep(0)
        spans = [span for span in spans if span.sampled]
        pause = RETRY_S
        while spans and not await self.take(spans):
            logger.warning("%d spans were not taken: again in %g s", len(spans), pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_S)

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
            if known is not None and isinstance(message, Report) and message.run == run:
                known.projector.report(digest(told.data), message)
        except InvalidData:  # a stranger's: whoever reads the run sets it aside and says so
            pass
        return []

    async def _commit(self, run: str, commit: Commit, told: Told) -> list[Span]:
        if all(isinstance(event, Archived) for event in commit.events):
            return []
        known = self._runs.get(run)
        if known is None:
            fresh = _Run(Projector(run, content=self._content, messages=self._messages))
            shares = any(isinstance(event, RunForked) for event in commit.events)
            begins = commit.n == 1 and not shares
            known = fresh if begins else await self._again(fresh, run, told.seq)
        if stranger(run, commit, known.head):
            return []
        spans = known.projector.commit(commit)
        known.head = Head(commit.n, digest(told.data), told.seq, commit.epoch, commit.at)
        self._runs[run] = known
        self._runs.move_to_end(run)
        if known.projector.ended:
            del self._runs[run]
        elif len(self._runs) > MAX_FOLLOWED:
            self._runs.popitem(last=False)
        return spans

    async def _again(self, found: _Run, run: str, before: int) -> _Run:
        """A run that is met in its midst: what stands before that place has been handed on."""
        log = await self.feed.read(run)
        found.projector.share(log)
        told: list[tuple[int, Commit | InboxEntry]] = [*zip(log.seqs, log.commits, strict=True)]
        told += ((entry.seq, entry) for entry in log.inbox)
        count = 0
        for _, each in sorted((pair for pair in told if pair[0] < before), key=itemgetter(0)):
            if isinstance(each, Commit):
                count += 1
                found.projector.commit(each)
            elif isinstance(each.message, Report):
                found.projector.report(each.hash, each.message)
        if count:
            last = log.commits[count - 1]
            known = log.commits[count].prev if count < len(log.commits) else log.head.hash
            found.head = Head(last.n, known, log.seqs[count - 1], last.epoch, last.at)
        return found
