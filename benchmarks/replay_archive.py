"""Reading long runs from the archive: Parquet on a disk to a `RunLog`, and on to its state.

The runs are archived as in earnest, by the archiver out of a log, and read by a shelf that was just
opened: manifest, row groups, decompression, every message decoded, the chain checked.
"""

import asyncio
import gc
import os
import pathlib
import tempfile
import time
from typing import Final, NamedTuple

from benchmarks import synthetic
from benchmarks.errors import BenchmarkError
from replay.archive.archiver import Archiver
from replay.archive.folder import Folder
from replay.archive.keeper import MemoryKeeper
from replay.archive.shelf import ArchiveShelf
from replay.chain import assemble
from replay.memory_log import MemoryLog, MemoryStore
from replay.scrub import MemoryLedger

LATER: Final = synthetic.AT + 10**12
"""Milliseconds since the epoch: after the end of every run."""


class Reading(NamedTuple):
    """Seconds of one turn."""

    open_s: float
    """Opening the archive: its manifests."""
    get_s: float
    """Parquet to messages."""
    read_s: float
    """Messages to a `RunLog`: decoded, the chain checked."""
    fold_s: float
    """Folding what was read."""


def _archived(folder: pathlib.Path, run: synthetic.Messages) -> int:
    """Archive a run; the bytes of the archive's files."""
    store = MemoryStore()
    store.messages[run.run, "c"], store.messages[run.run, "i"] = run.stored()
    log = MemoryLog(store)
    shelf = ArchiveShelf(Folder(os.fspath(folder)))
    archiver = Archiver(log, MemoryLedger(store), MemoryKeeper(store), shelf, lambda: LATER)
    (outcome,) = asyncio.run(archiver.archive([run.run]))
    if outcome.done != "archived":
        raise BenchmarkError(f"the run was not archived: {outcome.why}")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _turn(folder: pathlib.Path, run: synthetic.Messages) -> Reading:
    gc.collect()
    began = time.perf_counter()
    shelf = ArchiveShelf(Folder(os.fspath(folder)))
    shelf.refresh()
    opened = time.perf_counter()
    messages = shelf.get(run.run)
    got = time.perf_counter()
    log = assemble(run.run, *messages)
    read = time.perf_counter()
    state = log.state()
    ended = time.perf_counter()
    if state.phase != "ended" or len(log.commits) != len(run.commits) or log.aside:
        raise BenchmarkError("what was read is not what was archived")
    return Reading(opened - began, got - opened, read - got, ended - read)


def measure(data: pathlib.Path, events: int, repeats: int) -> tuple[int, int, list[Reading]]:
    """The number of events of the run, the bytes of its archive, and the seconds of each turn."""
    run = synthetic.run(events)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="archive-", dir=data))
    size = _archived(folder, run)
    return run.events, size, [_turn(folder, run) for _ in range(repeats)]
