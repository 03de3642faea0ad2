"""Files that are there whole or not at all, and the ledger of what became of each run.

::

    FOLDER/
        manifest.json                      what the data set is: replaced in one step
        data/part-00000-9f3ab1c27d5e.parquet    rows
        runs/part-00000-51c0e8f7a2b4.parquet    the ledger: a row a run, with its facts and verdict

A file is written as a draft, brought to the disk, and given its name, which holds the beginning of
its hash: one that is made anew never takes the place of one that a reader of the old manifest may
have open. What no manifest names is removed by the next build.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from protocol.errors import Conflict, InvalidData
from replay.disk import only_one, raise_fault
from trainer.datasets import columns, manifest
from trainer.datasets.columns import Columns
from trainer.datasets.facts import Facts
from trainer.datasets.manifest import File, Manifest
from trainer.datasets.plan import Verdict

DATA: Final = "data"
RUNS: Final = "runs"
DRAFT: Final = ".draft-"
LOCK: Final = ".lock"
"""Stays: one who removed it would leave two who have opened it."""

HASH_IN_NAME: Final = 12
"""Hex characters of a file's hash in its name."""

_OURS: Final = re.compile(r"(\.draft-.*|part-[0-9]{5,}-[0-9a-f]{12}\.[a-z]+)")

LEDGER: Final = (
    columns.texts("run"),
    columns.texts("unit"),
    columns.numbers("place", pa.int32()),
    columns.texts("verdict"),
    columns.texts("facts"),
)

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_facts: Final = msgspec.json.Decoder(Facts).decode


class Folder:
    """The folder of a data set, of which one process at a time is the writer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one that builds in it. Raises `Conflict`."""
        self.path.mkdir(parents=True, exist_ok=True)
        refusal = Conflict(f"somebody else builds in {self.path}", hint="wait until that is done")
        with only_one(self.path / LOCK, refusal):
            yield

    def begin(self, place: str, number: int, suffix: str) -> "Draft":
        """Begin a file.

        Args:
            place: `DATA` or `RUNS`.
            number: Of the part.
            suffix: Of its name.
        """
        (self.path / place).mkdir(parents=True, exist_ok=True)
        return Draft(self.path, place, number, suffix)

    def write_ledger(self, number: int, units: list[tuple[str, tuple[Verdict, ...]]]) -> File:
        """Write what became of the runs of some units."""
        with self.begin(RUNS, number, ".parquet") as draft:
            with contextlib.closing(Columns(draft.file, LEDGER)) as found:
                for place, (key, verdicts) in enumerate(units):
                    for each in verdicts:
                        facts = _encode(each.facts).decode()
                        found.add((each.facts.run, key, place, each.why, facts))
            return draft.finish(found.rows)

    def ledger(self, file: File) -> list[tuple[str, tuple[Verdict, ...]]]:
        """What a ledger holds: the key and the verdicts of each unit.

        Raises:
            InvalidData: It is damaged.
            Denied, DiskFault: It can't be read.
        """
        try:
            table = pq.ParquetFile(self.path / file.name).read()
            found: list[tuple[str, list[Verdict]]] = []
            columns_ = (table[name].to_pylist() for name in ("unit", "place", "verdict", "facts"))
            for key, place, why, facts in zip(*columns_, strict=True):
                if place == len(found):
                    found.append((key, []))
                found[-1][1].append(Verdict(_facts(facts), why))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise_fault(self.path / file.name, error)
            raise InvalidData(
                f"{self.path / file.name} is damaged: {error}",
                hint="build the data set anew: --fresh",
            ) from None
        return [(key, tuple(verdicts)) for key, verdicts in found]

    def commit(self, made: Manifest) -> None:
        """Replace the manifest: from here on the data set is this one."""
        draft = self.path / f"{DRAFT}{manifest.NAME}"
        with draft.open("wb") as file:
            file.write(manifest.encode(made))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path / manifest.NAME)
        _sync(self.path)

    def sweep(self, made: Manifest) -> None:
        """Remove what the manifest doesn't name: of a build that was cut short, or of another."""
        named = {file.name for file in made.files}
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path / f"{DRAFT}{manifest.NAME}")
        for place in (DATA, RUNS):
            with contextlib.suppress(FileNotFoundError):
                for name in sorted(os.listdir(self.path / place)):
                    if _OURS.fullmatch(name) and f"{place}/{name}" not in named:
                        os.unlink(self.path / place / name)


class Draft:
    """A file that is written under a name that nobody reads."""

    def __init__(self, root: Path, place: str, number: int, suffix: str) -> None:
        self._root, self._place, self._suffix, self._number = root, place, suffix, number
        self._path = root / place / f"{DRAFT}{number:05}{suffix}"
        self.file = self._path.open("w+b")

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def finish(self, rows: int) -> File:
        """Bring it to the disk, and give it its name."""
        file = self.file
        file.flush()
        os.fsync(file.fileno())
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        known = file_digest(file, "sha256").hexdigest()
        name = f"{self._place}/part-{self._number:05}-{known[:HASH_IN_NAME]}{self._suffix}"
        os.replace(self._path, self._root / name)
        _sync(self._root / self._place)
        return File(name=name, sha256=known, size=size, rows=rows)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
