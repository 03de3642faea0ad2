"""Rollouts that a log has: with what they refer to, and the child runs below them."""

from typing import Protocol

from protocol import subjects
from protocol.actions import BlobRef
from protocol.errors import NotFound
from protocol.state import RunState
from replay.bundle import named_blobs
from replay.chain import RunLog
from trainer.rollouts.source import Ended, ended


class Reader(Protocol):
    """What reads a log; `podium.Client` is one, over a deployment, an archive, imported files."""

    async def ids(self) -> list[str]:
        """The ids of all runs that have a log."""
        ...

    async def log(self, run: str, until: int | None = None) -> RunLog:
        """A run's log; as far as that event and without the inbox, if one is said."""
        ...

    async def blob(self, ref: BlobRef) -> bytes:
        """The bytes of a blob. Raises `NotFound`."""
        ...


async def with_all(reader: Reader, log: RunLog) -> Ended:
    """A run, with its blobs and child runs, as far as they are there.

    Raises:
        NotFound, InvalidData: See `source.ended`.
    """
    blobs: dict[str, bytes] = {}
    for part in log.lineage():
        for known, ref in named_blobs(part).items():
            try:
                blobs[known] = await reader.blob(ref)
            except NotFound:  # which matters only where it was used, as the fold knows
                continue
    logs = [await reader.log(child) for child in children(log.state())]
    below = [await with_all(reader, each) for each in logs if each.commits]
    return ended(log, blobs, below)


def children(state: RunState) -> list[str]:
    """The ids that runs below it have, or would have, in the order of its calls."""
    return [
        subjects.child_id(state.run, name, attempt)
        for name, known in state.calls.items()
        if known.call.worker in state.workers
        and state.workers[known.call.worker].kind == "conductor"
        for attempt in range(1, known.attempt + 1)
    ]
