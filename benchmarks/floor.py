"""The floor: how fast the broker and its Python client carry Podium's messages when nothing thinks.

A conductor and a worker in processes of their own (`floor_processes`) and a nats-server. What
Podium adds to this is Podium's cost. In ``power`` it is the *naive* floor: one publish, and so one
fsync, for each append.
"""

import pathlib
import sys
import tempfile
from typing import Final

from benchmarks import contender, report
from benchmarks.broker import Broker
from benchmarks.child import Child
from benchmarks.contender import ALONE, LOADED, Durability, Entry, Figures
from benchmarks.errors import BenchmarkError

MODULE: Final = "benchmarks.floor_processes"


class Floor:
    """The floor as a contender. Keeps its data in a new folder under ``data``."""

    name = "floor"

    def __init__(self, data: pathlib.Path) -> None:
        self._data = data
        self._broker: Broker | None = None
        self._worker: Child | None = None
        self._conductor: Child | None = None

    def start(self, durability: Durability) -> None:
        """Start the server, then the worker, then the conductor."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"floor-{durability}-", dir=self._data))
        self._broker = Broker(folder, durability)
        self._worker = self._child("worker", self._broker.url, folder)
        self._conductor = self._child("conductor", self._broker.url, folder)

    def measure(self, concurrency: int, runs: int) -> Figures:
        """Do ``runs`` runs, ``concurrency`` at a time."""
        if self._conductor is None:
            raise BenchmarkError("the floor was not started: call start() before measure()")
        answer = self._conductor.ask({"concurrency": concurrency, "runs": runs})
        return Figures(answer["runs_per_s"], answer["p50_ms"])

    def stop(self) -> None:
        """Stop all three processes. The folder goes with ``data``."""
        for child in (self._conductor, self._worker):
            if child is not None:
                child.close()
        if self._broker is not None:
            self._broker.stop()
        self._conductor = self._worker = self._broker = None

    @staticmethod
    def _child(role: str, url: str, folder: pathlib.Path) -> Child:
        command = [sys.executable, "-m", MODULE, role, url]
        return Child(f"the floor's {role}", command, folder / f"{role}.log")


def measure(durability: Durability, concurrency: int, runs: int) -> Figures:
    """Start a floor, warm it up, measure once, stop it."""
    with report.data_folder(None) as data:
        floor = Floor(data)
        with contender.up(floor, durability):
            contender.warm_up(floor, concurrency)
            return floor.measure(concurrency, runs)


def entry(data: pathlib.Path, durability: Durability) -> Entry:
    """The floor as one entry of a comparison, alone and under load."""
    return Entry(Floor(data), durability, (ALONE, LOADED), f"floor {durability}")


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """The floor alone, at 1 and at 200 runs in flight."""
    entries = [entry(data, durability) for durability in options.durability]
    series = contender.alternate(
        entries, options.repeats, options.seconds, contender.progress, options.runs
    )
    lines = [line for each in entries for line in report.plain(series, each.label)]
    return report.Report("floor", report.conditions(options, data, series), lines)
