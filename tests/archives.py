"""An archive beside a live log in memory, for tests of what moves between them."""

import os
from pathlib import Path
from typing import Any, Final

from replay.archive.archiver import Archiver
from replay.archive.folder import Folder
from replay.archive.keeper import MemoryKeeper
from replay.archive.shelf import ArchiveShelf
from replay.chain import Messages
from replay.layered import LayeredLog
from replay.memory_log import MemoryLog, MemoryStore
from replay.scrub import MemoryLedger
from tests.runs import AT

NOW: Final = AT + 10**9
"""Long after every run of these tests."""


class Deployment:
    """A live log in memory beside an archive in a folder."""

    def __init__(self, path: Path) -> None:
        self.store = MemoryStore()
        self.path = path
        self.ledger = MemoryLedger(self.store)
        self.keeper = MemoryKeeper(self.store)
        self.live = MemoryLog(self.store)

    def archiver(self, **ports: Any) -> Archiver:
        """Of a process that has just started."""
        given: dict[str, Any] = {
            "log": self.live,
            "ledger": self.ledger,
            "keeper": self.keeper,
            "shelf": ArchiveShelf(Folder(os.fspath(self.path))),
            **ports,
        }
        return Archiver(**given, clock=lambda: NOW)

    def readers(self) -> LayeredLog:
        """What everybody reads."""
        return LayeredLog(self.live, [ArchiveShelf(Folder(os.fspath(self.path)))])

    def archive_only(self) -> LayeredLog:
        """What is left when the server's data are gone."""
        return LayeredLog(None, [ArchiveShelf(Folder(os.fspath(self.path)))])

    async def archive(self, runs: list[str], **more: bool) -> list[str]:
        """What became of each."""
        return [each.done for each in await self.archiver().archive(runs, **more)]


async def everything(log: MemoryLog | LayeredLog, runs: list[str]) -> dict[str, Messages]:
    return {run: await log.stored(run) for run in runs}
