"""The event log, the one truth of a run: a port (see `memory_log` and `jetstream_log`).

What every implementation holds to is written down once, in ``tests/contract/test_log.py``.
"""

from collections.abc import Callable
from typing import Protocol

from protocol.actions import BlobRef
from protocol.codec import Commit
from replay.chain import Head, Messages, RunLog, Stored

HintHandler = Callable[[bytes, int, int], None]
"""Called with a message of the inbox, its sequence, and the sequence of the inbox message before
it.

Runs on the event loop and must not block. A hint may come twice, late or never: it saves time and
decides nothing.
"""


class Hints(Protocol):
    """A subscription to what the server republishes of one run."""

    async def close(self) -> None:
        """Hear nothing any more."""
        ...


class EventLog(Protocol):
    """Append-only, one writer at a time per run, durable before acknowledged."""

    async def append(self, commit: Commit, after: Head) -> Head:
        """Append a commit, if the run's log still ends where the writer believes.

        A refused or unanswered append is settled by a read of the tail from the leader
        (`chain.verdict`).

        Returns:
            The new head.

        Raises:
            Fenced: Somebody else has written. Whether they did so before this commit or on top of
                it, only a fresh read tells; the run is theirs.
            Unreachable: The log did not answer in time. The commit may or may not have been stored;
                only a fresh read of the run tells.
            TooLarge: The encoded commit would not fit; nothing was sent.
        """
        ...

    async def read(self, run: str, least: int = 0, until: int | None = None) -> RunLog:
        """All of the run: counted commits, inbox, what was set aside. Empty for an unknown run.

        Of a fork, `RunLog.origin` holds the log whose beginning it shares.

        Args:
            run: Its id.
            least: Commits that somebody knows it to have; a replica that lags behind is not
                believed.
            until: Events that are wanted, a fork's shared ones included. The inbox, and what comes
                after them, may then be left out.
        """
        ...

    async def stored(self, run: str, least: int = 0) -> Messages:
        """The run's own messages as they stand: the original bytes, strangers' included.

        See `read` for ``least``.
        """
        ...

    async def read_on(self, log: RunLog) -> None:
        """Add to a log what has been stored since it was read."""
        ...

    async def tail(self, run: str) -> Stored | None:
        """The last message on the run's commits, read from the leader; None if there is none."""
        ...

    async def post(self, run: str, data: bytes) -> int:
        """Append a message to the run's inbox. Returns its sequence once it is durable.

        Raises:
            Unreachable: No answer in time; it may have been stored, and may be posted again.
        """
        ...

    async def inbox(self, run: str, after: int = 0, *, fresh: bool = False) -> list[Stored]:
        """The messages of the run's inbox after a sequence.

        Args:
            run: Its id.
            after: The sequence.
            fresh: All that the leader has by now: a replica that lags behind is not believed.
        """
        ...

    async def runs(self, prefix: str = "") -> list[str]:
        """Ids, sorted, of the runs that have any message; only those that begin with a prefix."""
        ...

    async def hints(self, run: str, handler: HintHandler) -> Hints:
        """Hear of the run's inbox from now on. Subscribe first, then read: no gap between them."""
        ...

    async def watch(self, run: str, handler: HintHandler) -> Hints:
        """As `hints`, for the run's commits."""
        ...

    async def put_blob(self, data: bytes) -> BlobRef:
        """Store bytes by their content, once; storing them again changes nothing."""
        ...

    async def get_blob(self, ref: BlobRef) -> bytes:
        """The bytes of a blob.

        Raises:
            NotFound: There is no such blob.
            InvalidData: What is stored doesn't have that hash.
        """
        ...
