"""What the archiver may do to a live log that nobody else may: remove what is safe elsewhere.

On a broker it takes a conductor's rights, and it is the only thing in Podium that removes messages
of a run, or blobs.
"""

from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias

from protocol import subjects
from replay.broker import persist
from replay.jetstream_log import SETTLE_S, JetStreamLog
from replay.memory_log import MemoryStore

Where: TypeAlias = Literal["c", "i"]
"""A run's commits, or its inbox."""


class Keeper(Protocol):
    """The live log's other side."""

    async def queued(self, run: str) -> bool:
        """Whether a task of the run is queued or with a conductor: then it isn't over."""
        ...

    async def trim(self, run: str, where: Where, before: int) -> None:
        """Remove the run's messages that stand before a sequence. Doing it again is safe."""
        ...

    async def spoken_to(self) -> set[str]:
        """The runs that have messages in their inbox."""
        ...

    async def blobs(self) -> set[str]:
        """Hashes of the blobs of which something is in the live store."""
        ...

    async def mark(self, before: int) -> int:
        """The sequence in the blob store before which all was stored before a time.

        Args:
            before: Milliseconds since the epoch.
        """
        ...

    async def remove(self, blob: str, mark: int) -> bool:
        """Remove what of a blob stands before a mark; whether anything did. Safe to do again."""
        ...


class BrokerKeeper:
    """A `Keeper` on JetStream.

    Args:
        log: On a connection with a conductor's rights.
    """

    def __init__(self, log: JetStreamLog) -> None:
        self._log, self._broker = log, log.broker

    async def queued(self, run: str) -> bool:
        """See `Keeper.queued`: the queue keeps a task until it is acknowledged."""
        for priority in subjects.PRIORITIES:
            subject = subjects.task(priority, run)
            found = await persist(
                lambda subject=subject: self._broker.last(  # type: ignore[misc]
                    subjects.TASKS, subject
                ),
                SETTLE_S,
                f"run {run}: its task",
            )
            if found is not None:
                return True
        return False

    async def trim(self, run: str, where: Where, before: int) -> None:
        """See `Keeper.trim`."""
        subject = subjects.commits(run) if where == "c" else subjects.inbox(run)
        stream = subjects.log_stream(subjects.shard(run))
        body = {"filter": subject, "seq": before}
        await persist(
            lambda: self._broker.request(f"$JS.API.STREAM.PURGE.{stream}", body),
            SETTLE_S,
            f"run {run}: removing what is archived",
        )

    async def spoken_to(self) -> set[str]:
        """See `Keeper.spoken_to`."""
        found: set[str] = set()
        for k in await self._log.shards():
            names = await self._subjects(subjects.log_stream(k), f"log.{k}.*.i")
            found.update(name.split(".")[2] for name in names)
        return found

    async def blobs(self) -> set[str]:
        """See `Keeper.blobs`."""
        return {name.split(".")[1] for name in await self._subjects(subjects.BLOBS, "blobs.*.*")}

    async def mark(self, before: int) -> int:
        """See `Keeper.mark`: as the stream's leader knows it."""
        end: int = (await self._info(subjects.BLOBS, {}))["state"]["last_seq"] + 1
        time = datetime.fromtimestamp(before / 1_000, UTC).isoformat()
        first = await persist(
            lambda: self._broker.since(subjects.BLOBS, "blobs.*.*", time),
            SETTLE_S,
            "the age of blobs",
        )
        return end if first is None else min(end, first.seq)

    async def remove(self, blob: str, mark: int) -> bool:
        """See `Keeper.remove`."""
        body = {"filter": subjects.blob(blob, "*"), "seq": mark}
        said: Any = await persist(
            lambda: self._broker.request(f"$JS.API.STREAM.PURGE.{subjects.BLOBS}", body),
            SETTLE_S,
            f"blob {blob}: removing what is archived",
        )
        return bool(said.get("purged"))

    async def _subjects(self, stream: str, wanted: str) -> list[str]:
        """The subjects of a stream that have messages."""
        found: list[str] = []
        while True:
            info = await self._info(stream, {"subjects_filter": wanted, "offset": len(found)})
            names = info["state"].get("subjects") or {}
            found += names
            if not names or len(found) >= info.get("total", 0):
                return found

    async def _info(self, stream: str, body: dict[str, Any]) -> Any:
        return await persist(
            lambda: self._broker.request(f"$JS.API.STREAM.INFO.{stream}", body),
            SETTLE_S,
            f"what is in {stream}",
        )


class MemoryKeeper:
    """A `Keeper` of a log in memory.

    Args:
        store: What the log's clients share.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.at_work: set[str] = set()
        """Runs with a task."""
        self.fresh: set[str] = set()
        """Blobs that were stored just now."""

    async def queued(self, run: str) -> bool:
        """See `Keeper.queued`."""
        return run in self.at_work

    async def trim(self, run: str, where: Where, before: int) -> None:
        """See `Keeper.trim`."""
        messages = self._store.messages
        left = [each for each in messages.get((run, where), ()) if each.seq >= before]
        if left:
            messages[run, where] = left
        else:
            messages.pop((run, where), None)

    async def spoken_to(self) -> set[str]:
        """See `Keeper.spoken_to`."""
        messages = self._store.messages.items()
        return {run for (run, where), stored in messages if where == "i" and stored}

    async def blobs(self) -> set[str]:
        """See `Keeper.blobs`."""
        return set(self._store.blobs)

    async def mark(self, before: int) -> int:
        """See `Keeper.mark`: blobs have no sequence here, see `fresh`."""
        return 0

    async def remove(self, blob: str, mark: int) -> bool:
        """See `Keeper.remove`."""
        return blob not in self.fresh and self._store.blobs.pop(blob, None) is not None
