"""What a benchmark was asked, under which conditions it ran, and what came out.

A report is one JSON object: ``{"benchmark", "conditions", "figures": [{"name", "value", "unit",
"target", "holds", "range"}]}``. ``value`` is the median of the repeats and ``range`` their lowest
and highest; ``target`` is a text such as ``>= 0.5``; ``target`` and ``holds`` are null where
nothing was promised.
"""

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
import psutil

from benchmarks import broker
from benchmarks.contender import ALONE, DURABILITIES, Durability, Key, Series
from benchmarks.errors import BenchmarkError

RESULTS: Final = pathlib.Path(__file__).resolve().parent / "results"
"""Where committed results are."""

FSYNC_SAMPLES: Final = 50
"""Fsyncs timed on the data disk: their median is stable from about twenty on."""

FSYNC_BYTES: Final = 4_096
"""Bytes appended before each of them: one page."""

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
"""File systems on which an fsync does nothing."""

VERSIONS: Final = ("nats-py", "msgspec", "uvloop", "ray")
"""Distributions whose versions are part of the conditions, where they are installed."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the person asked for."""

    command: str
    """The command line that does it again."""
    durability: tuple[Durability, ...] = DURABILITIES
    repeats: int = 3
    seconds: float = 4.0
    """Seconds of one measurement, roughly."""
    runs: int | None = None
    """Runs of one measurement, instead of as many as fill its seconds."""
    load_1m: float = 0.0
    """The machine's load before the benchmark began: above zero, somebody else was busy."""
    only: tuple[str, ...] = ()
    """Contenders to measure; none named: all."""

    def wants(self, name: str) -> bool:
        """Whether a contender of that name is to be measured."""
        return not self.only or name in self.only


class Target(NamedTuple):
    """What was promised of a figure."""

    relation: Literal[">=", "<=", ">"]
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a value keeps the promise."""
        match self.relation:
            case ">=":
                return value >= self.bound
            case "<=":
                return value <= self.bound
            case _:
                return value > self.bound

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


def at_least(bound: float) -> Target:
    """A promise that a figure does not fall below ``bound``."""
    return Target(">=", bound)


def at_most(bound: float) -> Target:
    """A promise that a figure does not go above ``bound``."""
    return Target("<=", bound)


def above(bound: float) -> Target:
    """A promise that a figure is more than ``bound``, and not just as much."""
    return Target(">", bound)


class Line(NamedTuple):
    """One figure of a report: its value in every repeat, and what was promised of the median."""

    name: str
    values: Sequence[float]
    unit: str
    target: Target | None = None

    def shown(self) -> dict[str, Any]:
        """As it stands in the report."""
        value = _rounded(statistics.median(self.values))
        return {
            "name": self.name,
            "value": value,
            "unit": self.unit,
            "target": str(self.target) if self.target else None,
            "holds": self.target.holds(value) if self.target else None,
            "range": [_rounded(min(self.values)), _rounded(max(self.values))],
        }


class Report(NamedTuple):
    """The outcome of one benchmark."""

    benchmark: str
    conditions: dict[str, Any]
    lines: Sequence[Line]

    def shown(self) -> dict[str, Any]:
        """The object that is printed and saved."""
        return {
            "benchmark": self.benchmark,
            "conditions": self.conditions,
            "figures": [line.shown() for line in self.lines],
        }

    def holds(self) -> bool:
        """Whether every promise made is kept."""
        return all(figure["holds"] is not False for figure in self.shown()["figures"])

    def save(self, folder: pathlib.Path = RESULTS) -> pathlib.Path:
        """Write it where results are committed, and give the path."""
        path = folder / f"{self.benchmark}.json"
        text = msgspec.json.format(msgspec.json.encode(self.shown()), indent=2)
        path.write_bytes(text + b"\n")
        return path

    def table(self) -> str:
        """The figures for a person."""
        header = ("figure", "median", "unit", "range", "target", "")
        rows = [header]
        for figure in self.shown()["figures"]:
            low, high = figure["range"]
            verdict = {None: "", True: "holds", False: "MISSED"}[figure["holds"]]
            spread = f"{low:g} to {high:g}" if low != high else ""
            target = figure["target"] or ""
            rows.append(
                (figure["name"], f"{figure['value']:g}", figure["unit"], spread, target, verdict)
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = []
        for row in rows:
            cells = [
                cell.rjust(width) if column == 1 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        shown = self.conditions
        where = f"{shown['cores']} cores, {shown['cpu']}, fsync p50 {shown['fsync_p50_ms']:g} ms"
        return "\n".join([f"{self.benchmark}: {where}", *lines])


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def plain(series: Series, label: str) -> list[Line]:
    """A contender's own figures: its latency alone, and its throughput under load."""
    lines = []
    for key in sorted(key for key in series.figures if key[0] == label):
        if key[1] == ALONE:
            lines.append(Line(f"{label}, latency at 1", series.values(key, "p50_ms"), "ms"))
        else:
            rate = series.values(key, "runs_per_s")
            lines.append(Line(f"{label}, throughput at {key[1]}", rate, "runs/s"))
    return lines


_WHAT: Final = {
    "runs_per_s": "throughput",
    "p50_ms": "latency",
    "cpu_ms": "CPU of a run",
    "server_ms": "CPU of a run, the server's",
    "worker_ms": "CPU of a run, the worker's",
    "conductor_ms": "CPU of a run, the conductor's",
}
"""How a report names a field of `Figures`, and those that a contender's own figures add."""


def ratio(series: Series, above: Key, below: Key, field: str, target: Target | None) -> Line:
    """One contender's figure over another's, repeat by repeat."""
    what = _WHAT[field]
    at = f"{above[1]}" if above[1] == below[1] else f"{above[1]} and {below[1]}"
    name = f"{above[0]} / {below[0]}, {what} at {at}"
    return Line(name, series.ratios(above, below, field), "x", target)


@contextlib.contextmanager
def data_folder(parent: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """A new folder on a disk, removed at the end.

    Raises BenchmarkError where there is no such disk.

    ``/var/tmp`` is the default, since ``/tmp`` is often kept in memory.
    """
    if parent is None:
        kept = pathlib.Path("/var/tmp")
        parent = kept if os.access(kept, os.W_OK) else pathlib.Path(tempfile.gettempdir())
    if not parent.is_dir():
        raise BenchmarkError(f"{parent} is no folder; make it, or name another with --data.")
    if (kind := file_system(parent)) in IN_MEMORY:
        raise BenchmarkError(
            f"{parent} is on {kind}, in memory, where an fsync costs nothing and proves nothing. "
            "Name a folder on a disk: --data FOLDER."
        )
    with tempfile.TemporaryDirectory(prefix="podium-bench-", dir=parent) as folder:
        # Postgres runs as another user when a benchmark is started by root, and has to pass.
        pathlib.Path(folder).chmod(0o755)
        yield pathlib.Path(folder)


def file_system(folder: pathlib.Path) -> str:
    """The type of the file system of a folder, such as ``ext4``; ``unknown`` where not told."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = folder.resolve()
    for above in (resolved, *resolved.parents):
        if kind := mounts.get(str(above)):
            return kind
    return "unknown"


def fsync_p50_ms(folder: pathlib.Path) -> float:
    """Milliseconds of the median fsync of one appended page, in that folder."""
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(FSYNC_SAMPLES):
            file.write(b"\0" * FSYNC_BYTES)
            started = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - started) * 1e3)
    return round(statistics.median(took), 3)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "nats-server": broker.version()}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def conditions(
    options: Options,
    data: pathlib.Path,
    series: Series | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything that somebody needs who wants to compare, or to do it again."""
    sizes = series.runs.items() if series else ()
    return {
        "command": options.command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_1m": options.load_1m,
        "data_file_system": file_system(data),
        "fsync_p50_ms": fsync_p50_ms(data),
        "versions": _versions() | dict(versions or {}),
        "durability": list(options.durability),
        "repeats": options.repeats,
        "runs": {f"{label} at {number}": count for (label, number), count in sizes},
    }
