"""A run, with its child runs and blobs, as one file that any other machine can replay.

A zip archive, written the same way each time, so that the same run is the same bytes::

    manifest.json               what is in it: heads, counts, and the hash of every other entry
    runs/<run>/commits.jsonl    the original bytes of each commit, one a line
    runs/<run>/inbox.jsonl      the same of its inbox
    runs/<run>/seqs.json        where each of them stood
    blobs/<sha256>              values too large for a message

A line is the message itself, or, where that is no text on one line, its Base64 as a JSON string.
A file comes from strangers: it is read within limits, nothing of it is ever unpacked to a path,
and every hash is checked.
"""

import base64
import binascii
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from protocol.actions import BlobRef, Count, Report
from protocol.codec import Number
from protocol.errors import InvalidData, NotFound, TooLarge
from protocol.limits import MAX_MESSAGE_BYTES, MAX_VALUE_BYTES
from protocol.subjects import is_run
from replay.chain import Messages, RunLog, Stored, assemble
from replay.disk import raise_fault
from replay.shelf import checked, no_blob
from replay.tokens import sampled

SUFFIX: Final = ".podium"
"""Of the files."""

FORMAT: Final = "podium-run"
VERSION: Final = 1
"""Raised when an older reader could not read what is written."""

MAX_ENTRIES: Final = 60_000
"""Entries of one file: what a plain zip archive can count."""

MAX_DIRECTORY_BYTES: Final = 16 * 2**20
"""Bytes of a file's table of contents, which is read as a whole: 60,000 entries have less."""

MAX_TOTAL_BYTES: Final = 4 * 2**30 - 2**20
"""Bytes of all entries, unpacked: what a plain zip archive can hold."""

MAX_RUN_BYTES: Final = 2**30
"""Bytes of one run's commits, or of its inbox: they are held in memory."""

MAX_SEQS_BYTES: Final = 2**25
"""Bytes of where one run's messages stood: a number for each of some millions."""

MAX_MANIFEST_BYTES: Final = 32 * 2**20
"""Bytes of the manifest: about 300 for each entry."""

FILES: Final = ("commits.jsonl", "inbox.jsonl", "seqs.json")
"""Of each run."""

_MANIFEST: Final = "manifest.json"
_LEVEL: Final = 6
"""Of compression: nine is twice as slow and hardly smaller."""

_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Methods of compression that are read: others may ask for as much memory as they like."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: the same run is the same file."""

_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_MAX_COMMENT_BYTES: Final = 65_535
_ZIP64: Final = b"PK\x06\x07"

_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)
"""What `zipfile` raises on bytes that are no archive, or no longer one."""


class RunEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file holds of a run."""

    n: Number
    """Its last commit."""
    hash: str
    """And that commit's hash."""
    commits: Count
    """Messages on its commits, strangers' included."""
    inbox: Count
    part: bool = False
    """Whether these are only the commits that a fork shares."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds."""

    format: str
    version: Number
    podium: str
    """Of the writer."""
    run: str
    """The run that was exported; the others belong to it."""
    runs: dict[str, RunEntry]
    blobs: dict[str, Count]
    """Bytes by hash."""
    missing: tuple[str, ...] = ()
    """Hashes of blobs that were lost already when the file was written."""
    entries: dict[str, str]
    """SHA-256 of every other entry, by name."""


class Packed(NamedTuple):
    """A run as it is to be written."""

    run: str
    entry: RunEntry
    files: tuple[bytes, ...]
    """The contents of `FILES`."""


# ------------------------------------------------------------------------------------------- write


def pack(run: str, messages: Messages, log: RunLog, *, part: bool = False) -> Packed:
    """A run as it is to be written.

    Args:
        run: Its id.
        messages: All that there is of it.
        log: What they make.
        part: Whether it is only a beginning.
    """
    entry = RunEntry(
        n=log.head.n,
        hash=log.head.hash,
        commits=len(messages.commits),
        inbox=len(messages.inbox),
        part=part,
    )
    seqs = {name: [each.seq for each in getattr(messages, name)] for name in Messages._fields}
    lines = (_lines(messages.commits), _lines(messages.inbox))
    return Packed(run, entry, (*lines, msgspec.json.encode(seqs)))


def too_large(run: str) -> TooLarge:
    """The error of what doesn't fit into one file."""
    return TooLarge(
        f"run {run} doesn't fit into one file: more than {MAX_TOTAL_BYTES:,} bytes or "
        f"{MAX_ENTRIES:,} entries",
        hint="leave its child runs out: --no-children",
    )


def write(
    file: BinaryIO,
    run: str,
    runs: Iterable[Packed],
    blobs: Iterable[tuple[str, bytes]],
    *,
    podium: str,
    missing: Iterable[str] = (),
) -> Manifest:
    """Write a file.

    Args:
        file: Where to; must be seekable.
        run: The one that is exported.
        runs: It and what belongs to it, sorted by id; taken one by one.
        blobs: Hash and bytes of each blob, sorted by hash; taken one by one.
        podium: The writer's version.
        missing: Blobs that are named and not to be had.

    Raises:
        TooLarge: It would not fit.
    """
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    total = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:

        def put(name: str, data: bytes) -> None:
            nonlocal total
            total += len(data)
            if total > MAX_TOTAL_BYTES or len(hashes) >= MAX_ENTRIES:
                raise too_large(run)
            if len(data) > _limit(name):
                raise TooLarge(
                    f"run {run} doesn't fit into one file: {name} has {len(data):,} bytes, and at "
                    f"most {_limit(name):,} are read",
                    hint="archive it: podium archive; what is there is read as it was",
                )
            hashes[name] = sha256(data).hexdigest()
            _put(archive, name, data)

        entries: dict[str, RunEntry] = {}
        for packed in runs:
            for name, data in zip(FILES, packed.files, strict=True):
                put(f"runs/{packed.run}/{name}", data)
            entries[packed.run] = packed.entry
        for sha, data in blobs:
            put(f"blobs/{sha}", data)
            sizes[sha] = len(data)
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            podium=podium,
            run=run,
            runs=entries,
            blobs=sizes,
            missing=tuple(sorted(missing)),
            entries=hashes,
        )
        _put(archive, _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    return manifest


def _limit(name: str) -> int:
    """Bytes that an entry may have."""
    if name.startswith("blobs/"):
        return MAX_VALUE_BYTES
    return MAX_SEQS_BYTES if name.endswith("/seqs.json") else MAX_RUN_BYTES


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system, info.external_attr = 3, 0o644 << 16
    archive.writestr(info, data, compresslevel=_LEVEL)


def _lines(stored: Iterable[Stored]) -> bytes:
    return b"".join(_line(each.data) + b"\n" for each in stored)


def _line(data: bytes) -> bytes:
    if data[:1] == b"{" and b"\n" not in data:
        return data
    return b'"' + base64.b64encode(data) + b'"'


def named_blobs(log: RunLog) -> dict[str, BlobRef]:
    """The blobs that a run's inbox and its policy's replies name, by hash."""
    reports = (entry.message for entry in log.inbox if isinstance(entry.message, Report))
    found = {ref.sha256: ref for report in reports for ref in report.blobs}
    replies = sampled(event for commit in log.commits for event in commit.events)
    return found | {each.blob.sha256: each.blob for _, each in replies if each.blob is not None}


# -------------------------------------------------------------------------------------------- read


class BundleShelf:
    """One exported file, as a `Shelf`.

    Args:
        path: The file.

    Raises:
        NotFound: There is no such file.
        InvalidData: It is none of ours, or damaged; the message says where.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self.manifest = self._opened()

    def refresh(self) -> None:
        """See `Shelf.refresh`: a file doesn't change."""

    def has(self, run: str) -> bool:
        """See `Shelf.has`."""
        return run in self.manifest.runs

    def runs(self, prefix: str = "") -> list[str]:
        """See `Shelf.runs`."""
        entries = self.manifest.runs.items()
        return sorted(run for run, each in entries if run.startswith(prefix) and not each.part)

    def get(self, run: str) -> Messages:
        """See `Shelf.get`."""
        entry = self.manifest.runs.get(run)
        if entry is None:
            return Messages([], [])
        with self._archive() as archive:
            seqs = self._seqs(archive, run)
            found = Messages(
                self._messages(archive, f"runs/{run}/commits.jsonl", seqs["commits"]),
                self._messages(archive, f"runs/{run}/inbox.jsonl", seqs["inbox"]),
            )
        head = assemble(run, *found).head
        if (head.n, head.hash) != (entry.n, entry.hash):
            raise self._bad(f"run {run} ends with commit {head.n}, and should with {entry.n}")
        return found

    def blob(self, ref: BlobRef) -> bytes:
        """See `Shelf.blob`."""
        if ref.sha256 not in self.manifest.blobs:
            raise no_blob(ref, self.name)
        with self._archive() as archive:
            data = self._entry(archive, f"blobs/{ref.sha256}")
        return checked(data, ref, self.name)

    def read_all(self) -> Iterator[RunLog]:
        """Read everything and compare every hash: run by run, the exported one first, then blobs.

        Raises:
            InvalidData: Something isn't as the manifest has it; the message says what.
        """
        for run in sorted(self.manifest.runs, key=lambda run: (run != self.manifest.run, run)):
            log = assemble(run, *self.get(run))
            for sha, ref in named_blobs(log).items():
                if sha not in self.manifest.blobs and sha not in self.manifest.missing:
                    if self.manifest.runs[run].part:
                        continue
                    raise self._bad(f"run {run} names blob {sha}, which is not in the file")
                if sha in self.manifest.blobs and self.manifest.blobs[sha] != ref.size:
                    raise self._bad(f"blob {sha} has another size than run {run} says")
            yield log
        with self._archive() as archive:
            for sha, size in self.manifest.blobs.items():
                data = self._entry(archive, f"blobs/{sha}")
                checked(data, BlobRef(sha, size), self.name)

    # ------------------------------------------------------------------------------------- entries

    def _opened(self) -> Manifest:
        try:
            there = self.path.is_file()
        except OSError:  # no file can have that name
            there = False
        if not there:
            raise NotFound(f"there is no file {self.name}", hint="`podium export RUN` writes one")
        self._measure()
        with self._archive() as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) != len(names) or len(names) > MAX_ENTRIES + 1:
                raise self._bad("its table of contents names an entry twice, or too many")
            if not {info.compress_type for info in infos} <= _METHODS:
                raise self._bad("its entries are packed by a method that Podium doesn't use")
            if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES + MAX_MANIFEST_BYTES:
                raise self._bad(f"it would unpack to more than {MAX_TOTAL_BYTES:,} bytes")
            data = self._raw(archive, _MANIFEST, MAX_MANIFEST_BYTES)
        try:
            header = msgspec.json.decode(data, type=_Header)
            if (header.format, header.version) != (FORMAT, VERSION):
                raise InvalidData(
                    f"{self.name} has format {header.format[:40]!r}, version {header.version}; "
                    f"this is {FORMAT!r}, version {VERSION}",
                    hint="was it written by a later version of Podium? then install that",
                )
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._bad(f"its manifest can't be read: {error}") from None
        expected = {*_names(manifest), _MANIFEST}
        if set(names) != expected or set(manifest.entries) != expected - {_MANIFEST}:
            raise self._bad("its entries are not those that its manifest names")
        if manifest.run not in manifest.runs:
            raise self._bad(f"it doesn't hold the run that it is of, {manifest.run[:40]!r}")
        for run in manifest.runs:
            if not is_run(run):
                raise self._bad(f"{run[:40]!r} is no run's id")
        return manifest

    def _measure(self) -> None:
        """Look at the table of contents before anything reads it."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _END_BYTES - _MAX_COMMENT_BYTES - len(_ZIP64) - 16))
                tail = file.read()
        except OSError as error:
            raise_fault(self.name, error)
            raise self._bad(str(error)) from None
        end = tail.rfind(_END)
        if end < 0 or len(tail) < end + _END_BYTES:
            raise self._bad("it is no zip archive, or its end is missing")
        directory = int.from_bytes(tail[end + 12 : end + 16], "little")
        if directory > MAX_DIRECTORY_BYTES or _ZIP64 in tail[max(0, end - 20) : end]:
            raise self._bad("its table of contents is too large")

    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise NotFound(
                f"there is no file {self.name} any more", hint="`podium export RUN` writes one"
            ) from None
        except _BROKEN as error:
            raise_fault(self.name, error)
            raise self._bad(str(error)) from None

    def _raw(self, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
        try:
            info = archive.getinfo(name)
            if info.file_size > limit:
                raise self._bad(f"its entry {name} has {info.file_size:,} bytes; at most {limit:,}")
            with archive.open(info) as entry:
                return entry.read(limit + 1)
        except KeyError:
            raise self._bad(f"it has no entry {name}") from None
        except _BROKEN as error:
            raise_fault(self.name, error)
            raise self._bad(f"its entry {name}: {error}") from None

    def _entry(self, archive: zipfile.ZipFile, name: str) -> bytes:
        data = self._raw(archive, name, _limit(name))
        if sha256(data).hexdigest() != self.manifest.entries.get(name):
            raise self._bad(f"its entry {name} doesn't have the hash that the manifest says")
        return data

    def _seqs(self, archive: zipfile.ZipFile, run: str) -> dict[str, list[int]]:
        data = self._entry(archive, f"runs/{run}/seqs.json")
        try:
            seqs = msgspec.json.decode(data, type=dict[str, list[Count]])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._bad(f"the sequences of run {run}: {error}") from None
        return {name: seqs.get(name, []) for name in Messages._fields}

    def _messages(self, archive: zipfile.ZipFile, name: str, seqs: list[int]) -> list[Stored]:
        data = self._entry(archive, name)
        if data[-1:] not in (b"", b"\n") or data.count(b"\n") != len(seqs):
            raise self._bad(f"its entry {name} doesn't have a line for each of its messages")
        lines = data.split(b"\n")[:-1]
        return [
            Stored(seq, self._message(line, name)) for seq, line in zip(seqs, lines, strict=True)
        ]

    def _message(self, line: bytes, name: str) -> bytes:
        if len(line) > 2 * MAX_MESSAGE_BYTES:
            raise self._bad(f"its entry {name} has a line of {len(line):,} bytes")
        if line[:1] != b'"':
            return line
        try:
            return base64.b64decode(line[1:-1], validate=True)
        except binascii.Error as error:
            raise self._bad(f"its entry {name}: {error}") from None

    def _bad(self, why: str) -> InvalidData:
        return InvalidData(
            f"{self.name} can't be used: {why}",
            hint="take another copy, or export the run again: podium export RUN",
        )


class _Header(msgspec.Struct):
    """What is read of a manifest before the rest of it is believed."""

    format: str
    version: int


def _names(manifest: Manifest) -> Iterable[str]:
    for run in manifest.runs:
        yield from (f"runs/{run}/{name}" for name in FILES)
    yield from (f"blobs/{sha}" for sha in manifest.blobs)
