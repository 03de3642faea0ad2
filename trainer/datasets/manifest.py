"""What a data set is made of, what was left out and why, and the hash of every file.

No clock and no path of a machine is in it, so the same log gives the same manifest. A data set is
what its manifest names: a file that it doesn't name is no part of it, and the manifest is replaced
in one step when all that it names is on the disk.
"""

from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import InvalidData, NotFound
from replay.disk import raise_fault
from trainer.datasets.spec import Spec

NAME: Final = "manifest.json"

FORMAT: Final = 2
"""Of the folder: what is where, and what decides its bytes. Another one is built anew."""

MAX_BYTES: Final = 2**28
"""Bytes of a manifest that are read: some hundred for each file."""

_NAME_ONE: Final = "name a folder of one"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    name: str
    """Within the folder."""
    sha256: str
    size: int
    rows: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Units that follow one another: their rows, and the ledger of their runs."""

    data: File
    ledger: File
    full: bool
    """Whether nothing is added to it any more."""
    units: int
    tokens: int
    """Of all rows; 0 where they are not known."""
    trained: int
    """Tokens that count in the loss."""
    versions: dict[str, int]
    """Of the policy: kept runs of each."""
    tokenizers: dict[str, int]
    """``TOKENIZER/TEMPLATE``, by hash: rows of each."""
    verdicts: dict[str, int]
    """Runs by what became of them."""
    notes: dict[str, int] = {}
    """Rows that could not be made, by why."""


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The runs that were looked at."""

    runs: int
    first: int
    last: int
    """When the first of them began and the last ended, milliseconds since the epoch."""
    heads: str
    """SHA-256 (hex) of all their heads, and of what was said of them: which log it was, exactly."""
    events: int
    """How many of theirs were looked at: of each run from its first to its head."""
    open: int
    """How many of them go on."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A data set."""

    format: int
    complete: bool
    """False while it is built: what is there is right, and not all."""
    spec: Spec
    log: Log
    versions: dict[str, int]
    """As `Part.versions`, of all."""
    tokenizers: dict[str, int]
    redaction: dict[str, int]
    """What the logs record of what is taken for a secret, by its hash: runs of each. ``none`` for
    runs that record nothing of it."""
    verdicts: dict[str, int]
    notes: dict[str, int]
    rows: int
    tokens: int
    trained: int
    parts: tuple[Part, ...]
    made_with: dict[str, str]
    """Versions of what wrote it."""

    @property
    def files(self) -> list[File]:
        """All of its files."""
        return [file for part in self.parts for file in (part.data, part.ledger)]

    @property
    def digest(self) -> str:
        """One hash for all of it."""
        return sha256(encode(self)).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """As it is on the disk."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        InvalidData: What is there is none, or of another format.
        Denied, DiskFault: It can't be read.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise_fault(path, error)
        raise InvalidData(f"{path} is no manifest of a data set: {error}", hint=_NAME_ONE) from None
    try:
        found: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        if found.get("format") != FORMAT:
            raise InvalidData(
                f"{path} is of format {found.get('format')!r}, and this version knows {FORMAT}",
                hint="build it anew: --fresh, or with --out in another folder",
            )
        return msgspec.convert(found, Manifest)
    except msgspec.MsgspecError as error:
        raise InvalidData(f"{path} is no manifest of a data set: {error}", hint=_NAME_ONE) from None


def must_read(folder: Path) -> Manifest:
    """As `read`. Raises `NotFound` where there is none."""
    found = read(folder)
    if found is None:
        raise NotFound(
            f"there is no data set in {folder}: it has no {NAME}",
            hint=f"build one: podium dataset build sft --out {folder}",
        )
    return found


def check(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files of a data set, a line each.

    Raises:
        Denied, DiskFault: One can't be read, so nobody knows.
    """
    wrong: list[str] = []
    for file in manifest.files:
        try:
            with (folder / file.name).open("rb") as opened:
                known = file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise_fault(folder / file.name, error)
            wrong.append(f"{file.name} can't be read: {error.strerror}")
            continue
        if known != file.sha256:
            wrong.append(f"{file.name} has changed: {known[:12]} instead of {file.sha256[:12]}")
    return wrong
