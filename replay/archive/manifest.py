"""What each batch of the archive says of itself, and the index that is made of all of them.

A manifest is written last: until then nothing of its batch counts. Its name holds a number, for the
order, and the hash of its bytes; it names those that were there before it, so that a missing one is
noticed.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from protocol.actions import Count
from protocol.codec import Number
from protocol.errors import InvalidData
from replay.archive.folder import damaged
from replay.chain import Head

MANIFESTS: Final = "manifests"
"""The subfolder."""

FORMAT: Final = "podium-archive"
VERSION: Final = 1

NAME_CHARS: Final = 32
"""Hex characters of a file's hash in its name: beyond any accident."""

_NAME: Final = re.compile(rf"(\d{{8}})-([0-9a-f]{{{NAME_CHARS}}})\.json")


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A Parquet file of the batch."""

    name: str
    """Below the archive's URL."""
    sha256: str
    size: Count
    """Bytes."""
    rows: Count


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch holds of a run."""

    segment: str
    first: Count
    """The first row group in which it stands, and the last."""
    last: Count
    commits: Count = 0
    """Messages on its commits, strangers' included."""
    inbox: Count = 0
    n: Count = 0
    """Number of the last commit that counts; 0 where the batch holds none."""
    hash: str = ""
    """And its hash."""
    seqs: tuple[Count, Count] = (0, 0)
    """Where the first and the last of all these messages stood."""
    prefix: bool = False
    """Whether these are only the commits that a fork shares with it."""


class Place(msgspec.Struct, frozen=True):
    """Where a blob stands."""

    segment: str
    group: Count
    size: Count


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One batch."""

    format: str = FORMAT
    version: Number = VERSION
    at: Count
    """Milliseconds since the epoch."""
    previous: tuple[str, ...]
    """Names of the manifests on which nothing else followed when this one was written."""
    segments: tuple[Segment, ...]
    runs: dict[str, Part]
    blobs: dict[str, Place]
    lost: tuple[str, ...] = ()
    """Hashes of blobs that were named and were in no store any more."""


class Named(NamedTuple):
    """A manifest, and the name under which it stands."""

    name: str
    manifest: Manifest


def encode(manifest: Manifest, before: Iterable[str]) -> tuple[str, bytes]:
    """Its name and its bytes, given the names of those that are there already."""
    data = msgspec.json.encode(manifest)
    numbers = (number_of(name) for name in before)
    return f"{max(numbers, default=0) + 1:08d}-{_hash(data)}.json", data


def decode(name: str, data: bytes, where: str) -> Named:
    """The manifest of that name. Raises `InvalidData`."""
    found = _NAME.fullmatch(name)
    if found is None or found[2] != _hash(data):
        raise damaged(f"{where}/{MANIFESTS}/{name}", "its bytes don't have the hash in its name")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise damaged(f"{where}/{MANIFESTS}/{name}", str(error)) from None
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        raise InvalidData(
            f"{where}/{MANIFESTS}/{name} has format {manifest.format[:40]!r}, version "
            f"{manifest.version}; this is {FORMAT!r}, version {VERSION}",
            hint="was it written by a later version of Podium? then install that",
        )
    return Named(name, manifest)


def is_name(name: str) -> bool:
    """Whether a file's name could be that of a manifest."""
    return _NAME.fullmatch(name) is not None


def number_of(name: str) -> int:
    """The number in a manifest's name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


def _hash(data: bytes) -> str:
    return sha256(data).hexdigest()[:NAME_CHARS]


class Index:
    """All manifests, by what is looked for.

    One thread at a time may add; others may read meanwhile, for nothing that they hold is changed.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.runs: dict[str, list[tuple[str, Part]]] = {}
        """Name of the manifest and part, in the order of the batches."""
        self.blobs: dict[str, Place] = {}
        self.lost: set[str] = set()
        self.segments: dict[str, Segment] = {}

    def add(self, named: Named) -> None:
        """Take one more in."""
        name, manifest = named
        if name in self.manifests:
            return
        for run, part in manifest.runs.items():
            parts = [*self.runs.get(run, ()), (name, part)]
            self.runs[run] = sorted(parts, key=itemgetter(0))  # a name begins with its number
        self.blobs.update(manifest.blobs)
        self.lost.update(manifest.lost)
        self.segments.update({segment.name: segment for segment in manifest.segments})
        self.manifests[name] = manifest

    def heads(self) -> tuple[str, ...]:
        """The manifests that no other follows."""
        named = {name for each in self.manifests.values() for name in each.previous}
        return tuple(sorted(self.manifests.keys() - named))

    def missing(self) -> list[str]:
        """Manifests that others follow and that aren't there."""
        named = {name for each in self.manifests.values() for name in each.previous}
        return sorted(named - self.manifests.keys())

    def head(self, run: str) -> Head | None:
        """How far a run reaches; None if its first commits are not there, or only shared ones."""
        whole = [part for _, part in self.runs.get(run, ()) if part.n and not part.prefix]
        if not whole:
            return None
        last = max(whole, key=lambda part: part.n)
        return Head(last.n, last.hash)

    def holder(self, run: str) -> str:
        """The manifest with the run's commits; "" if there is none."""
        found = [name for name, part in self.runs.get(run, ()) if part.n and not part.prefix]
        return found[-1] if found else ""
