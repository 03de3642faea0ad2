"""Runs of other machines: files written by `podium export`, kept in a folder.

A file that was imported stays as it is, under a name that is its hash, so importing it again
changes nothing.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import IO, BinaryIO, Final, NamedTuple, cast

from protocol.actions import BlobRef
from protocol.errors import Conflict, InvalidData, NotFound
from replay.bundle import (
    FILES,
    MAX_TOTAL_BYTES,
    SUFFIX,
    BundleShelf,
    Manifest,
    Packed,
    RunEntry,
    named_blobs,
    pack,
    too_large,
    write,
)
from replay.chain import Messages, RunLog, hash_at
from replay.family import family
from replay.log import EventLog
from replay.shelf import NONE, merged, no_blob

logger = logging.getLogger("podium.imported")

FOLDER: Final = "imported"
"""Of the imported files, within the folder of the embedded servers."""


class FolderShelf:
    """All files of a folder as one `Shelf`. A folder that isn't there holds nothing.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)
        self._files: dict[str, BundleShelf | None] = {}
        """By file name; None for one that can't be used."""
        self.refresh()

    def refresh(self) -> None:
        """See `Shelf.refresh`. A file that can't be used is passed over, and said once."""
        try:
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(SUFFIX))
        except (FileNotFoundError, NotADirectoryError):
            names = []
        for gone in self._files.keys() - set(names):
            self._files.pop(gone, None)
        for name in names:
            if name not in self._files:
                self._files[name] = self._opened(name)

    def _opened(self, name: str) -> BundleShelf | None:
        try:
            return BundleShelf(self.folder / name)
        except (InvalidData, NotFound) as error:
            logger.warning("%s; %s", error.message, error.hint)
            return None

    def shelves(self) -> list[BundleShelf]:
        """The files that can be used."""
        return [shelf for _, shelf in sorted(self._files.items()) if shelf is not None]

    def has(self, run: str) -> bool:
        """See `Shelf.has`."""
        return any(shelf.has(run) for shelf in self.shelves())

    def runs(self, prefix: str = "") -> list[str]:
        """See `Shelf.runs`."""
        return sorted({run for shelf in self.shelves() for run in shelf.runs(prefix)})

    def get(self, run: str) -> Messages:
        """See `Shelf.get`: out of all files that have the run, the longest first."""
        holding = [shelf for shelf in self.shelves() if shelf.has(run)]
        holding.sort(key=lambda shelf: -shelf.manifest.runs[run].n)
        return merged(shelf.get(run) for shelf in holding) if holding else NONE

    def blob(self, ref: BlobRef) -> bytes:
        """See `Shelf.blob`."""
        problem: NotFound | InvalidData = no_blob(ref, self.name)
        for shelf in self.shelves():
            try:
                return shelf.blob(ref)
            except NotFound:
                continue
            except InvalidData as error:
                problem = error
        raise problem


# ------------------------------------------------------------------------------------------ export


async def export(
    log: EventLog, run: str, out: Path, *, podium: str, children: bool = True
) -> Manifest:
    """Write a run, what belongs to it and their blobs into a file; whole or not at all.

    Memory holds one run and one blob at a time.

    Raises:
        NotFound: There is no such run.
        TooLarge: It doesn't fit into one file.
    """
    entries: dict[str, RunEntry] = {}
    named: dict[str, BlobRef] = {}
    missing: list[str] = []
    with replacing(out) as file, tempfile.TemporaryFile(dir=out.parent) as beside:
        spool = _Spool(beside, run)
        async for member in family(log, run, children=children):
            if member.run == run and not _begins(member.log):
                raise NotFound(
                    f"run {run} has no commits here that could be exported",
                    hint="is it archived elsewhere? name that place: [archive] url in podium.toml",
                )
            if member.log.head.n:
                packed = pack(member.run, member.messages, member.log, part=member.part)
                entries[member.run] = packed.entry
                for name, data in zip(FILES, packed.files, strict=True):
                    spool.put(f"{member.run}/{name}", data)
                named |= named_blobs(member.log)
                del packed
            del member
        for sha in sorted(named):
            try:
                spool.put(sha, await log.get_blob(named[sha]))
            except (NotFound, InvalidData):
                missing.append(sha)

        def runs() -> Iterator[Packed]:
            for name in sorted(entries):
                files = (spool.take(f"{name}/{each}") for each in FILES)
                yield Packed(name, entries[name], tuple(files))

        blobs = ((sha, spool.take(sha)) for sha in sorted(named.keys() - set(missing)))
        return write(file, run, runs(), blobs, podium=podium, missing=missing)


def _begins(log: RunLog) -> bool:
    return log.head.n > 0 and log.commits[0].n == 1


class _Spool:
    """What is to be written, in a file beside it: the order is known when all is read."""

    def __init__(self, file: IO[bytes], run: str) -> None:
        self._file, self._run = file, run
        self._places: dict[str, tuple[int, int]] = {}

    def put(self, name: str, data: bytes) -> None:
        """Keep some bytes. Raises `TooLarge`, before a disk is filled for nothing."""
        place = self._file.tell()
        if place + len(data) > MAX_TOTAL_BYTES:
            raise too_large(self._run)
        self._file.write(data)
        self._places[name] = (place, len(data))

    def take(self, name: str) -> bytes:
        """The bytes again, when all were put."""
        place, size = self._places[name]
        self._file.seek(place)
        return self._file.read(size)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place at the end, unless something is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            yield cast(BinaryIO, new)
            new.flush()
            os.fsync(new.fileno())
            os.chmod(new.name, 0o600)
            os.replace(new.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new.name)
            raise


# ------------------------------------------------------------------------------------------ import


class Imported(NamedTuple):
    """What came of an import."""

    shelf: BundleShelf
    runs: list[str]
    """The runs of the file that are whole, the exported one first."""
    fresh: bool
    """Whether it holds anything that was not here."""


async def check_import(log: EventLog, path: Path) -> Imported:
    """Read a whole file, check every hash, and compare it with the runs that are here.

    Memory holds one run of either at a time.

    Raises:
        NotFound: There is no such file.
        InvalidData: The file is damaged, or none of ours.
        Conflict: A run of that id is here and went another way, or is a live one that is behind,
            or one that goes on and would be told something by the file.
    """
    shelf = BundleShelf(path)
    runs: list[str] = []
    fresh = False
    for theirs in shelf.read_all():
        part = shelf.manifest.runs[theirs.run].part
        ours = await _here(log, theirs.run)
        _agree(theirs, ours)
        known = {entry.hash for entry in ours.inbox}
        told = any(entry.hash not in known for entry in theirs.inbox)
        if told and ours.head.seq and ours.state().phase != "ended":
            raise Conflict(
                f"run {theirs.run} is this deployment's own and goes on, and the file has messages "
                "for it that nobody sent it here",
                hint="import it when the run has ended, or into another folder: podium import FILE "
                "--folder ELSEWHERE",
            )
        fresh |= theirs.head.n > ours.head.n
        fresh |= told and not part
        runs += [] if part else [theirs.run]
        del theirs, ours
    return Imported(shelf, runs, fresh)


async def _here(log: EventLog, run: str) -> RunLog:
    try:
        return await log.read(run)
    except NotFound:  # of a shard that isn't here
        return RunLog(run)


def _agree(theirs: RunLog, ours: RunLog) -> None:
    """Raise `Conflict` unless one of two logs is the beginning of the other."""
    n = min(theirs.head.n, ours.head.n)
    if n and hash_at(theirs, n) != hash_at(ours, n):
        raise Conflict(
            f"run {theirs.run} is here already and went another way: its commit {n} is "
            f"{hash_at(ours, n)}, in the file it is {hash_at(theirs, n)}",
            hint="import it into another folder: podium import FILE --folder ELSEWHERE",
        )
    if ours.head.seq and theirs.head.n > ours.head.n:
        raise Conflict(
            f"run {theirs.run} is this deployment's own, as far as commit {ours.head.n}; the file "
            f"has {theirs.head.n}",
            hint="import it into another folder: podium import FILE --folder ELSEWHERE",
        )


def keep(found: Imported, folder: Path) -> Path:
    """Put a checked file among those that were imported; where it is."""
    with found.shelf.path.open("rb") as file:
        known = file_digest(file, "sha256").hexdigest()
    path = folder / f"{found.shelf.manifest.run}-{known[:16]}{SUFFIX}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as new, found.shelf.path.open("rb") as file:
            shutil.copyfileobj(file, new)
    return path


__all__ = [
    "FOLDER",
    "FolderShelf",
    "Imported",
    "check_import",
    "export",
    "keep",
    "replacing",
]
