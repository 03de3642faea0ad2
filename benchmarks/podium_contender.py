"""Podium as a contender: its real conductor and worker, in processes of their own."""

import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Final

import psutil

from benchmarks.broker import Broker
from benchmarks.child import Child
from benchmarks.contender import Durability, Figures
from benchmarks.errors import BenchmarkError
from benchmarks.inflight import SLEEP_S, Held

MODULE: Final = "benchmarks.podium_processes"


class _Podium:
    """A server, a worker, a conductor."""

    name = "podium"
    sleep_s = 0.0
    env: Mapping[str, str] | None = None
    """The processes' environment; None for this one's."""

    def __init__(self, data: pathlib.Path) -> None:
        self._data = data
        self._broker: Broker | None = None
        self._children: list[Child] = []

    def start(self, durability: Durability) -> None:
        """Start the server, then the worker, then the conductor."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"podium-{durability}-", dir=self._data))
        self._broker = Broker(folder, durability)
        for role in ("worker", "conductor"):
            command = [sys.executable, "-m", MODULE, role, self._broker.url, durability]
            command.append(str(self.sleep_s))
            child = Child(f"Podium's {role}", command, folder / f"{role}.log", self.env)
            self._children.append(child)

    def stop(self) -> None:
        """Stop all three processes. The folder goes with ``data``."""
        for child in reversed(self._children):
            child.close()
        self._children.clear()
        if self._broker is not None:
            self._broker.stop()
            self._broker = None

    def cpu_s(self) -> float:
        """Seconds that server, worker and conductor have worked so far."""
        assert self._broker is not None
        times = [
            psutil.Process(pid).cpu_times()
            for pid in (self._broker.pid, *(child.pid for child in self._children))
        ]
        return sum(each.user + each.system for each in times)

    def _conductor(self) -> Child:
        if not self._children:
            raise BenchmarkError("Podium was not started: call start() before measure()")
        return self._children[-1]


class PodiumContender(_Podium):
    """Runs of 3 rounds of 4 calls, with a worker that returns at once."""

    def measure(self, concurrency: int, runs: int) -> Figures:
        """Do ``runs`` runs, ``concurrency`` at a time."""
        answer = self._conductor().ask({"concurrency": concurrency, "runs": runs})
        return Figures(answer["runs_per_s"], answer["p50_ms"])


class InflightContender(_Podium):
    """Runs of one call, with a worker that sleeps."""

    sleep_s = SLEEP_S

    def hold(self, runs: int, sleep_s: float) -> Held:
        """Submit so many runs at once, and wait for all of them."""
        if sleep_s != self.sleep_s:
            raise BenchmarkError(f"the worker sleeps {self.sleep_s} s, not {sleep_s}")
        answer = self._conductor().ask({"hold": runs})
        return Held(answer["makespan_s"], answer["before_bytes"], answer["peak_bytes"])
