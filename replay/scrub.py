"""The scrubber: reads the runs again and again, and finds what the hash chain alone can't show.

A flip, a gap or a swap breaks the chain. A tail that was cut leaves a shorter log that is sound in
itself; it is found because the head of each run, as far as it was ever seen, is kept elsewhere (the
HEADS stream) and never moves back.

`compare` is pure. A `Ledger` is what the edge needs beside the log: how many messages each run has,
and the kept heads.
"""

import asyncio
import contextlib
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

from protocol import subjects
from protocol.errors import InvalidData, NotFound
from protocol.limits import MAX_DETAIL_CHARS
from replay.broker import Refused, persist
from replay.chain import RunLog, Stored, archived_before, hash_at
from replay.forks import detach
from replay.jetstream_log import WRONG_SEQUENCE, JetStreamLog, full
from replay.log import EventLog
from replay.memory_log import MemoryStore

READS_AT_ONCE: Final = 16
"""Runs read at a time: enough to keep a server busy, few enough to leave it to the conductors."""

SETTLE_S: Final = 30.0
"""Seconds to wait for a leader before a request is given up; elections took up to 8.4 s."""

MAX_KEEPS: Final = 5
"""Tries to keep a head while other scrubbers keep it, too."""

Kind: TypeAlias = Literal["cut", "broken", "foreign"]
"""``cut``: the log ends before a head that it once had. ``broken``: commits that were there don't
chain any more, or the run that a fork begins with isn't what it was. ``foreign``: messages of
strangers, set aside; the run itself is sound."""


class Finding(msgspec.Struct, frozen=True):
    """Something about a run that a person should look at."""

    run: str
    kind: Kind
    detail: str


class KeptHead(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run's log was seen to reach; stored under ``heads.<run>``."""

    run: str
    n: int
    hash: str


class Kept(msgspec.Struct, frozen=True):
    """A kept head, and where it stands."""

    head: KeptHead
    seq: int


class Ledger(Protocol):
    """What is known of the runs without reading them."""

    async def counts(self) -> dict[str, int]:
        """Messages on each run's commits. Cheap if nothing has changed since the last question."""
        ...

    async def kept(self, run: str = "") -> dict[str, Kept]:
        """The kept head of each run; only that of one run, if it is named."""
        ...

    async def keep(self, head: KeptHead, after: int) -> int | None:
        """Keep a head in place of the one at ``after`` (0 for none).

        Returns:
            Where it stands now; None if another one has been kept meanwhile.
        """
        ...


# ----------------------------------------------------------------------------------------- compare


def compare(log: RunLog, kept: KeptHead | None) -> list[Finding]:
    """What is wrong with a run, given the head that it once had. Pure."""
    findings: list[Finding] = []
    after = [aside for aside in log.aside if aside.where == "commits" and _beyond(log, aside.seq)]
    if kept is not None and kept.n > log.head.n and not after:
        text = f"the log ends with commit {log.head.n}; it once had {kept.n} ({kept.hash})"
        if log.aside:
            text += f"; {len(log.aside)} messages are set aside"
        findings.append(Finding(log.run, "cut", text))
    elif kept is not None and (
        kept.n > log.head.n
        or (kept.n >= archived_before(log) and hash_at(log, kept.n) != kept.hash)
    ):
        findings.append(Finding(log.run, "broken", _break(log, kept)))
    findings += [
        Finding(log.run, "broken", aside.why) for aside in log.aside if aside.where == "origin"
    ]
    strange = [aside for aside in log.aside if aside.where in ("commits", "inbox")]
    if strange and not findings:
        first = strange[0]
        text = (
            f"{len(strange)} messages are set aside; the first, at {first.seq} of the"
            f" {first.where}: {first.why}"
        )
        findings.append(Finding(log.run, "foreign", text[:MAX_DETAIL_CHARS]))
    return findings


def _beyond(log: RunLog, seq: int) -> bool:
    """Whether a message stands after the last commit that counts."""
    return not log.seqs or seq > log.seqs[-1]


def _break(log: RunLog, kept: KeptHead) -> str:
    if kept.n <= log.head.n:
        found = hash_at(log, kept.n)
        return f"commit {kept.n} has the hash {found}; it once had {kept.hash}"
    first = next(each for each in log.aside if each.where == "commits" and _beyond(log, each.seq))
    text = (
        f"the chain ends with commit {log.head.n} of {kept.n}: the message at {first.seq} is"
        f" set aside: {first.why}"
    )
    return text[:MAX_DETAIL_CHARS]


# ---------------------------------------------------------------------------------------- scrubber


class Scrubber:
    """Looks through all runs, pass by pass; remembers what it has seen.

    Args:
        log: The event log.
        ledger: Where heads are kept.
        keep: Whether to keep heads; False for whoever only looks.
        readers: The log with all shelves, where a fork's origin may be; ``log`` by default.
    """

    def __init__(
        self,
        log: EventLog,
        ledger: Ledger,
        *,
        keep: bool = True,
        readers: EventLog | None = None,
    ) -> None:
        self.log, self.ledger, self.readers = log, ledger, readers or log
        self._keep = keep
        self._seen: dict[str, int] = {}
        """Messages of each run in the last pass."""
        self._done: dict[str, int] = {}
        """The same, of the runs that need not be read again; 0 for those that are gone."""
        self._settled = False
        """Whether the last pass left nothing to read again."""
        self._findings: dict[str, list[Finding]] = {}
        self._kept: dict[str, Kept] = {}
        self.read = 0
        """Runs read so far."""

    async def scrub(self, *, thorough: bool = False) -> list[Finding]:
        """One pass.

        The first reads every run, later ones those whose number of messages has changed.

        Args:
            thorough: Read every run again: also finds what was changed in its place.

        Returns:
            All that is known to be wrong now, by run.

        Raises:
            Unreachable: No answer in time; the next pass goes on.
        """
        counts = await self.ledger.counts()
        if thorough or not self._settled or counts != self._seen:
            self._kept = await self.ledger.kept()
            await self._read_changed(counts, thorough)
        return [each for run in sorted(self._findings) for each in self._findings[run]]

    async def _read_changed(self, counts: dict[str, int], thorough: bool) -> None:
        gate = asyncio.Semaphore(READS_AT_ONCE)
        done: dict[str, int] = {}

        async def one(run: str, count: int) -> None:
            if not thorough and self._done.get(run) == count:
                done[run] = count
                return
            async with gate:
                if await self._look(run, count):
                    done[run] = count

        runs = sorted(counts.keys() | self._done.keys() | self._kept.keys())
        await asyncio.gather(*(one(run, counts.get(run, 0)) for run in runs))
        self._seen, self._done = counts, done
        self._settled = len(done) == len(runs)

    async def _look(self, run: str, count: int) -> bool:
        """Read a run of so many messages and compare. False if it has to be read again."""
        kept = self._kept.get(run)
        try:
            log = await self._log_of(run)
        except NotFound:  # its whole shard is gone, or never was and the head is a stranger's
            self._findings[run] = compare(RunLog(run), kept.head if kept else None)
            return True
        self.read += 1
        findings = compare(log, kept.head if kept else None)
        if any(each.kind != "foreign" for each in findings):
            tail = await self.log.tail(run)
            if tail is not None and tail.seq > log.head.seq:
                return False  # what was read came from a replica that lags behind
        if findings:
            self._findings[run] = findings
        else:
            self._findings.pop(run, None)
        sound = all(each.kind == "foreign" for each in findings)
        if self._keep and sound and not await self._advance(log, kept):
            return False
        # Another number than was counted: the run goes on, or a replica lags behind a cut.
        return len(log.commits) + log.set_aside["commits"] == count

    async def _log_of(self, run: str) -> RunLog:
        """The run as the live log has it. What it shares with another may be on a shelf."""
        log = await self.log.read(run)
        if log.set_aside["origin"] and self.readers is not self.log:
            with contextlib.suppress(InvalidData):  # of a shelf: then it can't be had there, either
                if not (await self.readers.read(run)).set_aside["origin"]:
                    detach(log)
        return log

    async def _advance(self, log: RunLog, kept: Kept | None) -> bool:
        """Keep the run's head, unless it is the one that is kept, or one further on is."""
        if log.head.n == 0 or (kept is not None and kept.head.n >= log.head.n):
            return True
        head = KeptHead(run=log.run, n=log.head.n, hash=log.head.hash)
        seq = await self.ledger.keep(head, kept.seq if kept else 0)
        if seq is None:
            return False
        self._kept[log.run] = Kept(head, seq)
        return True


# ----------------------------------------------------------------------------------------- ledgers


class BrokerLedger:
    """A `Ledger` on JetStream: the stream HEADS. Only a conductor's rights allow to keep heads.

    Args:
        log: The log that is scrubbed.
    """

    def __init__(self, log: JetStreamLog) -> None:
        self._log, self._broker = log, log.broker
        self._marks: list[tuple[int, dict[str, Any]]] = []
        self._counts: dict[str, int] = {}
        self._heads: dict[str, Kept] = {}
        self._after = 0

    async def counts(self) -> dict[str, int]:
        """See `Ledger.counts`: one small question per shard, unless something has changed."""
        shards = await self._log.shards()
        infos = [(k, await self._info(k, {})) for k in shards]
        marks = [(k, {name: info["state"].get(name) for name in _MARKS}) for k, info in infos]
        if marks != self._marks:
            counts: dict[str, int] = {}
            for k in shards:
                counts.update(await self._counts_of(k))
            self._counts, self._marks = counts, marks
        return self._counts

    async def _counts_of(self, k: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        offset = 0
        while True:
            info = await self._info(k, {"subjects_filter": f"log.{k}.*.c", "offset": offset})
            page = info["state"].get("subjects") or {}
            runs = {subject.split(".")[2]: count for subject, count in page.items()}
            counts.update(
                {
                    run: count
                    for run, count in runs.items()
                    if subjects.is_run(run) and subjects.shard(run) == k
                }
            )
            offset += len(page)
            if not page or offset >= info.get("total", 0):
                return counts

    async def _info(self, k: int, body: dict[str, Any]) -> dict[str, Any]:
        name = subjects.log_stream(k)
        info: dict[str, Any] = await persist(
            lambda: self._broker.request(f"$JS.API.STREAM.INFO.{name}", body),
            SETTLE_S,
            f"stream {name}",
        )
        return info

    async def kept(self, run: str = "") -> dict[str, Kept]:
        """See `Ledger.kept`: of all runs, reads what has been kept since the last question."""
        if run:
            found = await self._read(subjects.head(run), 0)
            return {head.run: Kept(head, seq) for seq, head in found if head.run == run}
        for seq, head in await self._read(subjects.head("*"), self._after):
            self._after = seq
            self._heads[head.run] = Kept(head, seq)
        return self._heads

    async def _read(self, subject: str, after: int) -> list[tuple[int, KeptHead]]:
        found: list[Stored] = await persist(
            lambda: self._broker.read(subjects.HEADS, subject, after), SETTLE_S, "the kept heads"
        )
        heads = ((stored.seq, _head(stored)) for stored in found)
        return [(seq, head) for seq, head in heads if head is not None]

    async def keep(self, head: KeptHead, after: int) -> int | None:
        """See `Ledger.keep`."""
        subject, data = subjects.head(head.run), msgspec.json.encode(head)
        for _ in range(MAX_KEEPS):
            try:
                seq: int = await persist(
                    lambda: self._broker.append(subject, data, after),  # noqa: B023
                    SETTLE_S,
                    f"run {head.run}: its head",
                )
            except Refused as error:
                if error.code not in WRONG_SEQUENCE:
                    raise full(f"run {head.run}: its head", error) from None
            else:
                return seq
            last = await persist(
                lambda: self._broker.last(subjects.HEADS, subject),
                SETTLE_S,
                f"run {head.run}: its head",
            )
            if last is not None and last.data == data:
                return int(last.seq)
            there = _head(last) if last is not None else None
            if there is not None and there.run == head.run:
                return None  # compared with that one first
            after = last.seq if last is not None else 0  # what stands there is no head
        return None


_MARKS: Final = ("messages", "first_seq", "last_seq", "num_deleted")
"""What of a stream's state can't stay the same when messages come or go."""


def _head(stored: Stored) -> KeptHead | None:
    try:
        head = msgspec.json.decode(stored.data, type=KeptHead)
    except (ValueError, RecursionError):
        return None
    return head if subjects.is_run(head.run) and head.n > 0 else None


class MemoryLedger:
    """A `Ledger` beside a log in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._heads: dict[str, Kept] = {}
        self._seq = 0

    async def counts(self) -> dict[str, int]:
        """See `Ledger.counts`."""
        messages = self._store.messages.items()
        return {run: len(stored) for (run, where), stored in messages if where == "c" and stored}

    async def kept(self, run: str = "") -> dict[str, Kept]:
        """See `Ledger.kept`."""
        return {name: kept for name, kept in self._heads.items() if run in ("", name)}

    async def keep(self, head: KeptHead, after: int) -> int | None:
        """See `Ledger.keep`."""
        before = self._heads.get(head.run)
        if (before.seq if before else 0) != after:
            return None
        self._seq += 1
        self._heads[head.run] = Kept(head, self._seq)
        return self._seq
