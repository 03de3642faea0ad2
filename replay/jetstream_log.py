"""The event log on NATS JetStream: architecture's rules of the append, the read and the blob.

One exact subject, one writer, one append in flight. A refused or unanswered append ends with a read
of the tail from the leader. Reads are two exact subjects by batched direct get; when something that
a commit names is missing, the leader is asked before anybody calls it lost.
"""

import asyncio
import re
from operator import attrgetter
from typing import Any, Final

from protocol import subjects
from protocol.actions import BlobRef
from protocol.codec import Commit, blob_ref, digest, encode
from protocol.errors import Busy, Fenced, InvalidData, NotFound, TooLarge, Unreachable
from protocol.limits import BLOB_CHUNK_BYTES, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES
from replay.broker import Broker, Refused, Unanswered, persist, stored_at
from replay.chain import (
    Head,
    Messages,
    RunLog,
    Stored,
    assemble,
    extend,
    lacks_inbox,
    purged_meanwhile,
    verdict,
)
from replay.connection import RECONNECT_S, Heard, Listening, listen
from replay.forks import attach
from replay.log import HintHandler

SETTLE_S: Final = 30.0
"""Seconds to wait for a leader before an append or a read is given up. Elections took up to 8.4 s
when measured."""

MAX_BACKOFF_S: Final = 1.0
"""Seconds between two tries of one append, at most: leaders change within seconds."""

_DIGEST: Final = re.compile("[0-9a-f]{64}")
"""The name of a blob. Anything else could be a wildcard, and a size from a stranger is as large as
they like."""

_NO_STREAM: Final = 10059

WRONG_SEQUENCE: Final = frozenset({10071, 10164})
"""Error codes of a condition that doesn't hold."""

_FULL: Final = frozenset({10077, 10047, 10023})
"""Error codes of a stream at one of its limits, and of an account without storage."""


class JetStreamLog:
    """An `EventLog` over a `Broker`.

    Args:
        broker: The connection; it stays its owner's to close.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._there: set[int] = set()
        """Shards that were seen to be there."""

    # --------------------------------------------------------------------------------------- append

    async def append(self, commit: Commit, after: Head) -> Head:
        """See `EventLog.append`."""
        data = encode(commit)
        subject = subjects.commits(commit.run)
        backoff = RECONNECT_S / 10
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        seq = 0
        while not seq:
            try:
                seq = await self.broker.append(subject, data, after.seq)
                break
            except Refused as error:
                if error.code in _FULL:
                    raise full(commit.run, error) from None
            except Unanswered:
                pass
            tail = await self.tail(commit.run)
            match verdict(data, after, tail):
                case "done" if tail is not None:
                    seq = tail.seq
                case "retry" if asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(backoff * (1 + self.broker.jitter()))
                    backoff = min(2 * backoff, MAX_BACKOFF_S)
                case "retry" | "done":
                    raise Unreachable(
                        f"run {commit.run}: commit {commit.n} was not taken within {SETTLE_S:g} s",
                        hint="`podium doctor` shows what the server says of itself",
                    )
                case "fenced":
                    raise Fenced(
                        f"run {commit.run}: commit {commit.n} was refused, somebody else has "
                        "written to the run's log",
                        hint="another conductor owns the run now, and goes on with it",
                    )
        return Head(commit.n, digest(data), seq, commit.epoch, commit.at)

    async def tail(self, run: str) -> Stored | None:
        """See `EventLog.tail`."""
        stream, subject = await self._stream(run), subjects.commits(run)
        found: Stored | None = await persist(
            lambda: self.broker.last(stream, subject), SETTLE_S, f"run {run}: the end of its log"
        )
        return found

    async def post(self, run: str, data: bytes) -> int:
        """See `EventLog.post`."""
        if len(data) > MAX_MESSAGE_BYTES // 2:
            raise TooLarge(f"run {run}: an inbox message of {len(data)} bytes; use a blob")
        await self._stream(run)
        subject = subjects.inbox(run)
        try:
            seq: int = await persist(
                lambda: self.broker.append(subject, data), SETTLE_S, f"run {run}: its inbox"
            )
        except Refused as error:
            raise full(run, error) from None
        return seq

    # ----------------------------------------------------------------------------------------- read

    async def read(self, run: str, least: int = 0, until: int | None = None) -> RunLog:
        """See `EventLog.read`."""
        if until is not None and (begun := await self._begun(run, until)) is not None:
            return begun
        found = await self._own(run, least)
        await attach(self._own, found)
        return found

    async def _begun(self, run: str, until: int) -> RunLog | None:
        """The run's first events, page by page; None if that isn't enough to know them by."""
        stream, subject = await self._stream(run), subjects.commits(run)
        log = RunLog(run)
        events, more = 0, 1
        while events < until and more:
            page, more = await persist(
                lambda: self.broker.page(stream, subject, log.head.seq, stored_at),
                SETTLE_S,
                f"run {run}: its log",
            )
            if not page:
                break
            known = len(log.commits)
            extend(log, page, ())
            events += sum(len(commit.events) for commit in log.commits[known:])
            if log.set_aside or log.forked is not None:
                return None
        return log if events >= until else None

    async def _own(self, run: str, least: int) -> RunLog:
        return (await self._read_all(run, least))[1]

    async def stored(self, run: str, least: int = 0) -> Messages:
        """See `EventLog.stored`."""
        return (await self._read_all(run, least))[0]

    async def _read_all(self, run: str, least: int) -> tuple[Messages, RunLog]:
        """The run's own messages; from the leader, if fewer commits than that were found."""
        messages, log = await self._both(run)
        if purged_meanwhile(messages.commits):
            messages, log = await self._both(run)
        if log.head.n < least:
            commits = await self._leader(run, subjects.commits(run), 0)
            messages = messages._replace(commits=commits)
            log = assemble(run, *messages)
        if lacks_inbox(log):
            inbox = await self._leader(run, subjects.inbox(run), 0)
            messages = messages._replace(inbox=inbox)
            log = assemble(run, *messages)
        return messages, log

    async def _both(self, run: str) -> tuple[Messages, RunLog]:
        """What the replicas have: a page is taken in while the server looks for another one."""
        stream, messages, log = await self._stream(run), Messages([], []), RunLog(run)

        async def commits() -> None:
            async for page in self.broker.pages(stream, subjects.commits(run), log.head.seq):
                messages.commits.extend(page)
                extend(log, page, ())

        async def inbox() -> None:
            async for page in self.broker.pages(stream, subjects.inbox(run), log.inbox_seq):
                messages.inbox.extend(page)
                extend(log, (), page)

        parts = (commits, inbox)  # asked again, each goes on where it was
        await asyncio.gather(*(persist(part, SETTLE_S, f"run {run}: its log") for part in parts))
        log.aside.sort(key=attrgetter("where"))  # not in the order in which the pages came
        return messages, log

    async def read_on(self, log: RunLog) -> None:
        """See `EventLog.read_on`."""
        run = log.run
        commits, inbox = await asyncio.gather(
            self._read(run, subjects.commits(run), log.head.seq), self.inbox(run, log.inbox_seq)
        )
        extend(log, commits, inbox)
        await attach(self._own, log)

    async def inbox(self, run: str, after: int = 0, *, fresh: bool = False) -> list[Stored]:
        """See `EventLog.inbox`."""
        subject = subjects.inbox(run)
        found = await self._read(run, subject, after)
        if fresh:
            stream, seen = await self._stream(run), found[-1].seq if found else after
            last = await persist(
                lambda: self.broker.last(stream, subject), SETTLE_S, f"run {run}: its inbox"
            )
            if last is not None and last.seq > seen:
                found += await self._leader(run, subject, seen)
        return found

    async def _read(self, run: str, subject: str, after: int) -> list[Stored]:
        stream = await self._stream(run)
        found: list[Stored] = await persist(
            lambda: self.broker.read(stream, subject, after), SETTLE_S, f"run {run}: its log"
        )
        return found

    async def _leader(self, run: str, subject: str, after: int) -> list[Stored]:
        """Message by message from the leader: slow, and never stale."""
        found: list[Stored] = []
        stream = await self._stream(run)
        while True:
            seq = (found[-1].seq if found else after) + 1
            stored = await persist(
                lambda seq=seq: self.broker.next(stream, subject, seq),  # type: ignore[misc]
                SETTLE_S,
                f"run {run}: its log",
            )
            if stored is None:
                return found
            found.append(stored)

    async def _stream(self, run: str) -> str:
        """The stream of the run's shard. Raises `NotFound` if this deployment has none."""
        k = subjects.shard(run)
        name = subjects.log_stream(k)
        if k not in self._there:
            try:
                await persist(
                    lambda: self.broker.request(f"$JS.API.STREAM.INFO.{name}"),
                    SETTLE_S,
                    f"run {run}: its log",
                )
            except Refused as error:
                if error.code != _NO_STREAM:
                    raise full(run, error) from None
                raise NotFound(
                    f"run {run} would be in shard {k}, and there is no stream {name}",
                    hint="is the id mistyped? else raise `shards` to what it was before",
                ) from None
            self._there.add(k)
        return name

    async def runs(self, prefix: str = "") -> list[str]:
        """See `EventLog.runs`."""
        found: set[str] = set()
        for k in await self.shards():
            found |= await self._runs_of(k, prefix)
        return sorted(found)

    async def shards(self) -> list[int]:
        """Which shards of the log there are."""
        names: list[str] = await persist(self._stream_names, SETTLE_S, "the list of streams")
        marks = (name.partition("-") for name in names)
        return sorted(int(k) for head, _, k in marks if head == "LOG" and k.isdecimal())

    async def _stream_names(self) -> list[str]:
        answer = await self.broker.request("$JS.API.STREAM.NAMES", {"subject": "log.>"})
        return list(answer.get("streams") or ())

    async def _runs_of(self, k: int, prefix: str) -> set[str]:
        found: set[str] = set()
        offset = 0
        while True:
            body = {"subjects_filter": f"log.{k}.>", "offset": offset}
            info: Any = await persist(
                lambda body=body: self.broker.request(  # type: ignore[misc]
                    f"$JS.API.STREAM.INFO.{subjects.log_stream(k)}", body
                ),
                SETTLE_S,
                "the list of runs",
            )
            names = info["state"].get("subjects") or {}
            runs = (subject.split(".")[2] for subject in names)
            found |= {
                run
                for run in runs
                if run.startswith(prefix) and subjects.is_run(run) and subjects.shard(run) == k
            }
            offset += len(names)
            if not names or offset >= info.get("total", 0):
                return found

    # ---------------------------------------------------------------------------------------- hints

    async def hints(self, run: str, handler: HintHandler) -> Listening:
        """See `EventLog.hints`."""
        return await self._listen(subjects.hint(run, "i"), handler)

    async def watch(self, run: str, handler: HintHandler) -> Listening:
        """See `EventLog.watch`."""
        return await self._listen(subjects.hint(run, "c"), handler)

    async def _listen(self, subject: str, handler: HintHandler) -> Listening:
        def heard(message: Heard) -> None:
            seq, before = message.seq, message.header("Nats-Last-Sequence")
            if seq and before.isdecimal():  # else it is nobody's republication
                handler(message.data, seq, int(before))

        return await listen(self.broker.client, subject, heard)

    # ---------------------------------------------------------------------------------------- blobs

    async def put_blob(self, data: bytes) -> BlobRef:
        """See `EventLog.put_blob`."""
        ref = blob_ref(data)
        if len(data) > MAX_VALUE_BYTES:
            raise TooLarge(f"a blob of {len(data)} bytes; at most {MAX_VALUE_BYTES} are possible")
        chunks = range(0, max(1, len(data)), BLOB_CHUNK_BYTES)
        for number, start in enumerate(chunks):
            await self._put_chunk(ref, number, data[start : start + BLOB_CHUNK_BYTES])
        return ref

    async def _put_chunk(self, ref: BlobRef, number: int, chunk: bytes) -> None:
        subject = subjects.blob(ref.sha256, number)
        try:
            await persist(
                lambda: self.broker.append(subject, chunk, 0), SETTLE_S, f"blob {ref.sha256}"
            )
        except Refused as error:
            if error.code not in WRONG_SEQUENCE:  # else it is there already
                raise full(f"blob {ref.sha256}", error) from None

    async def get_blob(self, ref: BlobRef) -> bytes:
        """See `EventLog.get_blob`."""
        if not _DIGEST.fullmatch(ref.sha256) or not 0 <= ref.size <= MAX_VALUE_BYTES:
            raise InvalidData(f"{ref.sha256[:64]!r} of {ref.size} bytes names no blob")
        count = max(1, -(-ref.size // BLOB_CHUNK_BYTES))
        chunks = await asyncio.gather(*(self._get_chunk(ref, number) for number in range(count)))
        data = b"".join(chunks)
        if blob_ref(data) != ref:
            raise InvalidData(
                f"blob {ref.sha256} doesn't hold what its name says",
                hint="the store is damaged: restore it from a replica or the archive",
            )
        return data

    async def _get_chunk(self, ref: BlobRef, number: int) -> bytes:
        subject = subjects.blob(ref.sha256, number)
        stored = await persist(
            lambda: self.broker.last(subjects.BLOBS, subject), SETTLE_S, f"blob {ref.sha256}"
        )
        if stored is None:
            raise NotFound(f"chunk {number} of blob {ref.sha256} is not in the store")
        data: bytes = stored.data
        return data


def full(what: str, error: Refused) -> Busy:
    """The error of a stream that takes no more."""
    return Busy(
        f"{what}: the log takes no more: {error.text} ({error.code})",
        hint="free disk space or raise the stream's limits; nothing was lost",
    )
