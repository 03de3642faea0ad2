"""Which shelves a process reads beside its live log: said once, in a struct that travels.

Conductors need them as much as people do: a child run, or the run that a fork was forked from, may
be archived by the time that somebody asks for it again.
"""

from pathlib import Path

import msgspec

from protocol.actions import BlobRef
from replay.archive.folder import Folder
from replay.archive.shelf import ArchiveShelf
from replay.chain import Messages
from replay.imported import FolderShelf
from replay.layered import LayeredLog
from replay.log import EventLog
from replay.shelf import NONE, Shelf, no_blob


class Shelves(msgspec.Struct, frozen=True, kw_only=True):
    """Where runs are that are only read. Empty for none."""

    archive: str = ""
    """URL of the archive."""
    perhaps: str = ""
    """Path of an archive that may come to be there: read as soon as it is."""
    imported: str = ""
    """Path of the folder with imported files."""

    def open(self) -> list[Shelf]:
        """The shelves. Raises `Usage` if the archive's URL can't be reached from here."""
        found: list[Shelf] = []
        if self.imported:
            found.append(FolderShelf(Path(self.imported)))
        if self.archive:
            found.append(ArchiveShelf(Folder(self.archive)))
        elif self.perhaps:
            found.append(_Perhaps(Path(self.perhaps)))
        return found

    def other_than(self, url: str) -> list[Shelf]:
        """The shelves but the archive at a URL: for whoever writes that one."""
        return [shelf for shelf in self.open() if shelf.name != url]

    def over(self, live: EventLog) -> EventLog:
        """A live log with these shelves behind it."""
        shelves = self.open()
        return LayeredLog(live, shelves) if shelves else live


class _Perhaps:
    """An archive in a folder of this machine, from the moment on that it is there.

    So that nobody who never archives anything needs the libraries of an archive.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.expanduser().absolute().as_uri()
        self._shelf: ArchiveShelf | None = None

    def refresh(self) -> None:
        """See `Shelf.refresh`."""
        if self._shelf is None and self.path.is_dir():
            self._shelf = ArchiveShelf(Folder(self.name))
        if self._shelf is not None:
            self._shelf.refresh()

    def has(self, run: str) -> bool:
        """See `Shelf.has`."""
        return self._shelf is not None and self._shelf.has(run)

    def runs(self, prefix: str = "") -> list[str]:
        """See `Shelf.runs`."""
        return self._shelf.runs(prefix) if self._shelf is not None else []

    def get(self, run: str) -> Messages:
        """See `Shelf.get`."""
        return self._shelf.get(run) if self._shelf is not None else NONE

    def blob(self, ref: BlobRef) -> bytes:
        """See `Shelf.blob`."""
        if self._shelf is None:
            raise no_blob(ref, self.name)
        return self._shelf.blob(ref)
