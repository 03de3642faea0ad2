"""The event log in memory: for tests, and for rollouts that need no durability.

One `MemoryStore` stands for the broker; every `MemoryLog` on it is a client. The semantics are
those of JetStream on a single server: a condition on the exact subject's last sequence, a hint
after each append.
"""

import asyncio
from collections import defaultdict
from typing import Literal

from protocol.actions import BlobRef
from protocol.codec import Commit, blob_ref, digest, encode
from protocol.errors import Fenced, InvalidData, NotFound, TooLarge
from protocol.limits import MAX_MESSAGE_BYTES, MAX_VALUE_BYTES
from replay.chain import Head, Messages, RunLog, Stored, assemble, extend
from replay.forks import attach
from replay.log import HintHandler, Hints

_Subject = tuple[str, Literal["c", "i"]]


class MemoryStore:
    """What all clients share."""

    def __init__(self) -> None:
        self.messages: dict[_Subject, list[Stored]] = defaultdict(list)
        self.blobs: dict[str, bytes] = {}
        self.handlers: dict[_Subject, list[HintHandler]] = defaultdict(list)
        self._seq = 0

    def last(self, subject: _Subject) -> int:
        """Sequence of the subject's last message, 0 for none."""
        stored = self.messages.get(subject)
        return stored[-1].seq if stored else 0

    def put(self, subject: _Subject, data: bytes) -> int:
        """Append without a condition, and hint."""
        before = self.last(subject)
        self._seq += 1
        self.messages[subject].append(Stored(self._seq, data))
        loop = asyncio.get_running_loop()
        for handler in self.handlers.get(subject, ()):
            loop.call_soon(handler, data, self._seq, before)
        return self._seq

    def skip_to(self, seq: int) -> None:
        """Number what comes next beyond a sequence: for a store that is filled by hand."""
        self._seq = max(self._seq, seq)

    def after(self, subject: _Subject, seq: int) -> list[Stored]:
        """The subject's messages after a sequence."""
        return [stored for stored in self.messages.get(subject, ()) if stored.seq > seq]


class _Subscription:
    def __init__(self, handlers: list[HintHandler], handler: HintHandler) -> None:
        self._handlers, self._handler = handlers, handler

    async def close(self) -> None:
        if self._handler in self._handlers:
            self._handlers.remove(self._handler)


class MemoryLog:
    """An `EventLog` over a `MemoryStore`."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()

    async def append(self, commit: Commit, after: Head) -> Head:
        """See `EventLog.append`."""
        data = encode(commit)
        subject: _Subject = (commit.run, "c")
        stored = self.store.messages.get(subject)
        if self.store.last(subject) != after.seq:
            if stored and stored[-1].data == data:
                return _head(commit, data, stored[-1].seq)
            raise Fenced(
                f"run {commit.run}: commit {commit.n} was refused, another conductor has written",
                hint="read the run again; this conductor doesn't own it any more",
            )
        return _head(commit, data, self.store.put(subject, data))

    async def read(self, run: str, least: int = 0, until: int | None = None) -> RunLog:
        """See `EventLog.read`."""
        found = await self._own(run, least)
        await attach(self._own, found)
        return found

    async def _own(self, run: str, least: int) -> RunLog:
        return assemble(run, *await self.stored(run, least))

    async def stored(self, run: str, least: int = 0) -> Messages:
        """See `EventLog.stored`."""
        return Messages(self.store.after((run, "c"), 0), self.store.after((run, "i"), 0))

    async def read_on(self, log: RunLog) -> None:
        """See `EventLog.read_on`."""
        commits = self.store.after((log.run, "c"), log.head.seq)
        extend(log, commits, self.store.after((log.run, "i"), log.inbox_seq))
        await attach(self._own, log)

    async def tail(self, run: str) -> Stored | None:
        """See `EventLog.tail`."""
        stored = self.store.messages.get((run, "c"))
        return stored[-1] if stored else None

    async def post(self, run: str, data: bytes) -> int:
        """See `EventLog.post`."""
        if len(data) > MAX_MESSAGE_BYTES // 2:
            raise TooLarge(f"run {run}: an inbox message of {len(data)} bytes; use a blob")
        return self.store.put((run, "i"), data)

    async def inbox(self, run: str, after: int = 0, *, fresh: bool = False) -> list[Stored]:
        """See `EventLog.inbox`."""
        return self.store.after((run, "i"), after)

    async def runs(self, prefix: str = "") -> list[str]:
        """See `EventLog.runs`."""
        return sorted({run for run, _ in self.store.messages if run.startswith(prefix)})

    async def hints(self, run: str, handler: HintHandler) -> Hints:
        """See `EventLog.hints`."""
        return self._subscribe((run, "i"), handler)

    async def watch(self, run: str, handler: HintHandler) -> Hints:
        """See `EventLog.watch`."""
        return self._subscribe((run, "c"), handler)

    def _subscribe(self, subject: _Subject, handler: HintHandler) -> _Subscription:
        handlers = self.store.handlers[subject]
        handlers.append(handler)
        return _Subscription(handlers, handler)

    async def put_blob(self, data: bytes) -> BlobRef:
        """See `EventLog.put_blob`."""
        if len(data) > MAX_VALUE_BYTES:
            raise TooLarge(f"a blob of {len(data)} bytes; at most {MAX_VALUE_BYTES} are possible")
        ref = blob_ref(data)
        self.store.blobs.setdefault(ref.sha256, data)
        return ref

    async def get_blob(self, ref: BlobRef) -> bytes:
        """See `EventLog.get_blob`."""
        data = self.store.blobs.get(ref.sha256)
        if data is None:
            raise NotFound(f"there is no blob {ref.sha256}")
        if blob_ref(data) != ref:
            raise InvalidData(f"blob {ref.sha256} doesn't hold what its name says")
        return data


def _head(commit: Commit, data: bytes, seq: int) -> Head:
    return Head(commit.n, digest(data), seq, commit.epoch, commit.at)
