"""Where the runs of a data set are read: any `EventLog`, live, archived, imported or in memory."""

from typing import Any, NamedTuple, Protocol

import msgspec

from protocol.actions import Json
from protocol.errors import NotFound
from protocol.events import RunStarted
from replay.chain import RunLog, archived_before
from replay.formats.atif import trajectory
from replay.formats.common import read_tree
from replay.log import EventLog
from trainer.datasets.facts import ended_at
from trainer.fold import read_fold
from trainer.records import Rollout


class Read(NamedTuple):
    """A run that was read."""

    rollout: Rollout
    ended: int
    """When, milliseconds since the epoch; 0 while it goes on."""
    redact: Json
    """What its log records of what is taken for a secret; None for nothing."""


class Source(Protocol):
    """Where runs are."""

    async def runs(self) -> list[str]:
        """Their ids, sorted."""
        ...

    async def read(self, run: str) -> Read | None:
        """One of them; None for one that has not begun."""
        ...

    async def trajectory(self, run: str) -> Any:
        """It as ATIF."""
        ...


class LogSource:
    """The runs of a log.

    Args:
        log: The log.
        podium: The version of Podium, which ATIF names.
    """

    def __init__(self, log: EventLog, podium: str = "0") -> None:
        self.log, self._podium = log, podium

    async def runs(self) -> list[str]:
        """See `Source.runs`."""
        return await self.log.runs()

    async def read(self, run: str) -> Read | None:
        """See `Source.read`.

        Raises:
            NotFound: It is archived where it can't be read here, or a blob of it is gone.
            InvalidData: Its tokens can't be read.
        """
        found = await self.log.read(run)
        if not found.commits:
            return None
        if archived_before(found):
            raise NotFound(
                f"run {run} is archived in {found.state().archived}, which is not read here",
                hint="name that archive's folder or bucket: [archive] url in podium.toml",
            )
        rollout = await read_fold(self.log, found)
        return Read(rollout, ended_at(found), _redaction(found))

    async def trajectory(self, run: str) -> Any:
        """See `Source.trajectory`: with content, without the runs below it."""
        tree = await read_tree(self.log, run, children=False, blobs=True)
        return trajectory(tree, version=self._podium, content=True)


def _redaction(log: RunLog) -> Json:
    for event in log.events():
        if isinstance(event, RunStarted):
            return msgspec.to_builtins(event.redact) if event.redact is not None else None
    return None
