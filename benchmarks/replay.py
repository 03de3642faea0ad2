"""How fast runs are read and folded: from memory, from JetStream, from the archive.

The runs are synthetic, of 100,000 events and of 10,000, made by the real rules (`synthetic`).
JetStream's figures stand beside the raw ordered read of the same messages, in turns.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Final

import uvloop

from benchmarks import contender, replay_archive, replay_fold, replay_jetstream, report, synthetic
from benchmarks.broker import Broker as Server
from benchmarks.errors import BenchmarkError

LONG: Final = replay_fold.LONG_EVENTS
SHORT: Final = replay_fold.READY_EVENTS

FOLD: Final = report.at_least(200_000)
JETSTREAM: Final = report.at_least(40_000)
BESIDE_RAW: Final = report.at_least(0.7)
ARCHIVE: Final = report.at_least(300_000)
READY_MS: Final = report.at_most(300)
STATE_S: Final = report.at_most(1.0)

COMMAND_LIMIT_S: Final = 60.0
"""Seconds for one command: far beyond what any has taken."""


def _repeated(what: str, measure: Callable[[], float], repeats: int) -> list[float]:
    values = [measure() for _ in range(repeats)]
    contender.progress(f"{what}: {statistics.median(values):.4g}")
    return values


def memory(repeats: int) -> list[report.Line]:
    """What needs no store."""
    long, short = synthetic.run(LONG), synthetic.run(SHORT)

    def line(
        name: str, measure: Callable[[], float], unit: str, target: report.Target | None = None
    ) -> report.Line:
        return report.Line(name, _repeated(name, measure, repeats), unit, target)

    return [
        line("fold from memory", lambda: replay_fold.fold_rate(long), "events/s", FOLD),
        line("10,000 events from bytes to state", lambda: replay_fold.ready_ms(short), "ms"),
        line(
            "from bytes to the state at the middle of 100,000",
            lambda: replay_fold.state_at_s(long),
            "s",
            STATE_S,
        ),
        line("slowest step forward", lambda: replay_fold.step_ms(long, back=False), "ms"),
        line("slowest step back", lambda: replay_fold.step_ms(long, back=True), "ms"),
        line("snapshots of 100,000 events", lambda: replay_fold.film_mb(long), "MB"),
        line("timeline of 100,000 events", lambda: replay_fold.timeline_s(long), "s"),
        line("a hundred causes of the end", lambda: replay_fold.causes_s(long), "s"),
    ]


def jetstream(data: pathlib.Path, repeats: int) -> list[report.Line]:
    """Reading from a server, beside the raw read."""
    events, turns = replay_jetstream.measure(data, LONG, repeats)
    few, ready = replay_jetstream.measure(data, SHORT, repeats)
    contender.progress(f"jetstream: {turns}")

    def rates(seconds: Sequence[float]) -> list[float]:
        return [events / each for each in seconds]

    name = "JetStream"
    return [
        report.Line(f"{name}, raw ordered read", rates([t.raw_s for t in turns]), "events/s"),
        report.Line(
            f"{name}, read and decoded", rates([t.read_s for t in turns]), "events/s", JETSTREAM
        ),
        report.Line(
            f"{name}, read and decoded / raw ordered read",
            [t.raw_s / t.read_s for t in turns],
            "x",
            BESIDE_RAW,
        ),
        report.Line(
            f"{name}, read, decoded and folded",
            rates([t.read_s + t.fold_s for t in turns]),
            "events/s",
        ),
        report.Line(
            f"{name}, a run of {few:,} events ready",
            [1e3 * (t.read_s + t.fold_s) for t in ready],
            "ms",
            READY_MS,
        ),
    ]


def archive(data: pathlib.Path, repeats: int) -> list[report.Line]:
    """Reading from Parquet."""
    events, size, turns = replay_archive.measure(data, LONG, repeats)
    contender.progress(f"archive: {turns}")
    read = [events / (t.open_s + t.get_s + t.read_s) for t in turns]
    folded = [events / (t.open_s + t.get_s + t.read_s + t.fold_s) for t in turns]
    return [
        report.Line("archive, read and decoded, chain checked", read, "events/s", ARCHIVE),
        report.Line("archive, read, decoded and folded", folded, "events/s"),
        report.Line("archive, bytes of an event", [size / events] * repeats, "bytes"),
    ]


def command(data: pathlib.Path, repeats: int) -> list[report.Line]:
    """`podium state` as a process of its own, over a server."""
    run = synthetic.run(LONG)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="command-", dir=data))
    server = Server(folder, "process")
    environment = {**os.environ, "PODIUM_NATS__URL": server.url}
    podium = pathlib.Path(sys.executable).with_name("podium")
    asked: list[str | pathlib.Path] = [podium, "state", run.run, "--at"]
    asked += [str(run.events // 2), "--path", "round"]

    def once() -> float:
        began = time.perf_counter()
        done = subprocess.run(
            asked,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        took = time.perf_counter() - began
        if done.returncode or not done.stdout.strip().partition(" ")[2].isdecimal():
            raise BenchmarkError(f"podium state said {done.stdout[-500:]} {done.stderr[-500:]}")
        return took

    try:
        uvloop.run(replay_jetstream.fill(server.url, run))
        values = _repeated("podium state", once, repeats)
    finally:
        server.stop()
    name = "`podium state --at` the middle of 100,000 in JetStream, the whole command"
    return [report.Line(name, values, "s", STATE_S)]


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Every figure, as often as asked."""
    parts: dict[str, Callable[[], list[report.Line]]] = {
        "memory": lambda: memory(options.repeats),
        "jetstream": lambda: jetstream(data, options.repeats),
        "archive": lambda: archive(data, options.repeats),
        "command": lambda: command(data, options.repeats),
    }
    lines = [line for name, part in parts.items() if options.wants(name) for line in part()]
    conditions = report.conditions(options, data)
    conditions["durability"] = ["process"]
    conditions["runs"] = {"events of the long run": LONG, "of the short one": SHORT}
    return report.Report("replay", conditions, lines)
