"""What the archiver may do to a live log that nobody else may: remove what is safe elsewhere.

On a broker it takes a conductor's rights, and it is the only thing in Podium that removes messages
of a run.
"""

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
            offset = 0
            while True:
                body = {"subjects_filter": f"log.{k}.*.i", "offset": offset}
                info: Any = await persist(
                    lambda k=k, body=body: self._broker.request(  # type: ignore[misc]
                        f"$JS.API.STREAM.INFO.{subjects.log_stream(k)}", body
                    ),
                    SETTLE_S,
                    "the list of inboxes",
                )
                names = info["state"].get("subjects") or {}
                found.update(name.split(".")[2] for name in names)
                offset += len(names)
                if not names or offset >= info.get("total", 0):
                    break
        return found


class MemoryKeeper:
    """A `Keeper` of a log in memory.

    Args:
        store: What the log's clients share.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.at_work: set[str] = set()
        """Runs with a task."""

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
