"""The archive as a shelf: its runs are read with their original bytes, a row group at a time."""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import file_digest
from io import BufferedReader
from typing import Final

from protocol.actions import BlobRef
from protocol.codec import digest
from protocol.errors import InvalidData, PodiumError
from replay.archive.folder import Folder, damaged
from replay.archive.manifest import MANIFESTS, Index, Named, Part, decode, is_name
from replay.archive.segments import Group, read_blob, read_group
from replay.bundle import named_blobs
from replay.chain import Head, Messages, assemble, hash_at
from replay.collector import held_off
from replay.shelf import NONE, checked, merged, no_blob

logger = logging.getLogger("podium.archive")

KEPT_BYTES: Final = 64 * 2**20
"""Bytes of messages that are kept in memory, row group by row group: whoever lists runs reads many
of the same group, large ones side by side or hundreds of small ones in turn."""


class ArchiveShelf:
    """An archive, as a `Shelf`.

    Args:
        folder: Where it is. One that has no manifests holds nothing.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder, self.name = folder, folder.url
        self.index = Index()
        self._bad: dict[str, PodiumError] = {}
        self._groups: OrderedDict[tuple[str, int], Group] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()
        self._reading: dict[tuple[str, int], threading.Lock] = {}

    def refresh(self) -> None:
        """See `Shelf.refresh`. A damaged manifest hides its batch, and is said once."""
        known = self.index.manifests.keys() | self._bad.keys()
        new = [each for each in self.folder.names(MANIFESTS) if is_name(each) and each not in known]
        files = self.folder.read_many(f"{MANIFESTS}/{name}" for name in new)
        with held_off():
            for name, data in zip(new, files, strict=True):
                try:
                    self.add(decode(name, data, self.name))
                except InvalidData as error:
                    self._bad[name] = error
                    logger.error("%s; %s", error.message, error.hint)

    def add(self, named: Named) -> None:
        """Take a manifest in that is known to be there."""
        with self._lock:
            self.index.add(named)

    def has(self, run: str) -> bool:
        """See `Shelf.has`."""
        return run in self.index.runs

    def runs(self, prefix: str = "") -> list[str]:
        """See `Shelf.runs`."""
        index = self.index
        there = [run for run in list(index.runs) if run.startswith(prefix)]
        return sorted(run for run in there if index.head(run) is not None)

    def get(self, run: str) -> Messages:
        """See `Shelf.get`."""
        found = [self._part(run, part) for _, part in self.index.runs.get(run, ())]
        return found[0] if len(found) == 1 else merged(found)

    def _part(self, run: str, part: Part) -> Messages:
        """What one batch has of a run."""
        found = Messages([], [])
        for number in range(part.first, part.last + 1):
            group = self._group(part.segment, number).get(run, NONE)
            found.commits.extend(group.commits)
            found.inbox.extend(group.inbox)
        if (len(found.commits), len(found.inbox)) != (part.commits, part.inbox):
            raise damaged(
                self.folder.url_of(part.segment),
                f"it holds {len(found.commits)} commits and {len(found.inbox)} inbox messages of "
                f"run {run}, and should hold {part.commits} and {part.inbox}",
            )
        return found

    def head(self, run: str) -> Head | None:
        """How far the archive says that a run reaches; None for one that isn't there."""
        return self.index.head(run)

    def blob(self, ref: BlobRef) -> bytes:
        """See `Shelf.blob`."""
        place = self.index.blobs.get(ref.sha256)
        if place is None:
            raise no_blob(ref, self.name)
        with self._opened(place.segment) as file:
            data = read_blob(file, place.group)
        return checked(data, ref, self.folder.url_of(place.segment))

    def _group(self, segment: str, number: int) -> dict[str, Messages]:
        """A row group: of many threads that want it, one reads it."""
        with self._lock:
            reading = self._reading.setdefault((segment, number), threading.Lock())
        with reading:
            found = self._known(segment, number)
            if found is None:
                found = self._read(segment, number)
        with self._lock:
            self._reading.pop((segment, number), None)
        return found

    def _known(self, segment: str, number: int) -> dict[str, Messages] | None:
        with self._lock:
            known = self._groups.get((segment, number))
            if known is None:
                return None
            self._groups.move_to_end((segment, number))
            return known.runs

    def _read(self, segment: str, number: int) -> dict[str, Messages]:
        with self._opened(segment) as file:
            found = read_group(file, number)
        with self._lock:
            self._groups[segment, number] = found
            self._kept += found.size
            while self._kept > KEPT_BYTES and len(self._groups) > 1:
                _, gone = self._groups.popitem(last=False)
                self._kept -= gone.size
        return found.runs

    @contextlib.contextmanager
    def _opened(self, segment: str) -> Iterator[BufferedReader]:
        """A file, whose damage and whose faults are told with its name."""
        try:
            with self.folder.open(segment) as file:
                yield file
        except InvalidData as error:
            raise damaged(self.folder.url_of(segment), error.message) from None
        except OSError as error:
            raise self.folder.failed(segment, error) from None

    def forget(self) -> None:
        """Read everything from the store again."""
        with self._lock:
            self._groups.clear()
            self._kept = 0

    # --------------------------------------------------------------------------------------- check

    def check(self) -> list[str]:
        """Read the whole archive and compare every hash; what is wrong, a line each.

        Raises:
            Unreachable, Denied: It can't be read at all.
        """
        self.refresh()
        self.forget()
        wrong = [error.message for error in self._bad.values()]
        wrong += [f"manifest {name} is missing" for name in self.index.missing()]
        for segment in self.index.segments.values():
            try:
                with self._opened(segment.name) as file:
                    if file_digest(file, "sha256").hexdigest() != segment.sha256:
                        wrong.append(f"{segment.name} doesn't have the hash that its manifest says")
            except PodiumError as error:
                wrong.append(error.message)
        for run in sorted(self.index.runs):
            try:
                wrong += self.check_run(run)
            except PodiumError as error:
                wrong.append(f"run {run}: {error.message}")
        for sha, place in self.index.blobs.items():
            try:
                self.blob(BlobRef(sha, place.size))
            except PodiumError as error:
                wrong.append(error.message)
        return wrong

    def check_run(self, run: str) -> list[str]:
        """Read a run and compare it with what its manifests say; what is wrong, a line each."""
        messages = self.get(run)
        log = assemble(run, *messages)
        wrong: list[str] = []
        said = self.head(run)
        if said is not None and (log.head.n, log.head.hash) != (said.n, said.hash):
            wrong.append(
                f"run {run} ends with commit {log.head.n} ({log.head.hash}); its manifest says "
                f"{said.n} ({said.hash})"
            )
        parts = [part for _, part in self.index.runs.get(run, ())]
        wrong += [
            f"run {run}: commit {part.n} is {hash_at(log, part.n)}; a manifest says {part.hash}"
            for part in parts
            if part.n and hash_at(log, part.n) != part.hash
        ]
        commits = len({digest(each.data) for each in messages.commits})
        if commits < max((part.commits for part in parts), default=0):
            wrong.append(f"run {run} has {commits} commits; its manifest says more")
        if len(messages.inbox) < max((part.inbox for part in parts), default=0):
            wrong.append(f"run {run} has {len(messages.inbox)} inbox messages; too few")
        if said is not None:
            lost = named_blobs(log).keys() - self.index.blobs.keys() - self.index.lost
            wrong += [f"run {run} names blob {sha}, which is not here" for sha in sorted(lost)]
        return wrong
