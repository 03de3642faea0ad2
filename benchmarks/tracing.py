"""What traces cost: the same Podium with and without them, in turns.

With traces, the worker has OpenTelemetry set up and runs each call under its span's context, and a
process beside the deployment follows the log and sends spans and metrics to a receiver that throws
them away. That process has the lowest priority: what it can't do while the machine is full it does
later, so what is measured is what runs lose, not how far behind it is. How fast it is when it may
is a figure of its own.

Throughput varies with whatever else the machine does; what conductor, worker and server work for
one run varies less, and is compared, too.
"""

import os
import pathlib
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any, Final

import msgspec

from actors.programs import Connection
from benchmarks import contender, report
from benchmarks.child import Child
from benchmarks.contender import ALONE, LOADED, Durability, Entry, Figures
from benchmarks.podium_contender import PodiumContender
from podium.tracing.feed import OFFSETS, Offset
from podium.tracing.live import Asked

TARGET: Final = report.at_least(0.95)
"""Of the throughput without traces."""

RECEIVER: Final = "benchmarks.tracing_receiver"

CAUGHT_UP_S: Final = 120.0
"""Seconds that the exporter may take for what it is behind."""

LOOK_S: Final = 0.1

LEAST_S: Final = 0.5
"""Seconds of catching up from which a speed says something."""

WORK: Final = report.at_most(1.05)
"""Of what the processes work for one run without traces."""


class Plain(PodiumContender):
    """Podium without traces; notes what its processes work."""

    def __init__(self, data: pathlib.Path) -> None:
        super().__init__(data)
        self.worked: dict[tuple[Durability, int], list[float]] = defaultdict(list)
        """Milliseconds of CPU of one run, for each measurement, those to warm up included."""
        self._durability: Durability = "process"

    def start(self, durability: Durability) -> None:
        """As ever."""
        self._durability = durability
        super().start(durability)

    def measure(self, concurrency: int, runs: int) -> Figures:
        """As ever; notes what was worked for it."""
        before = self.cpu_s()
        figures = super().measure(concurrency, runs)
        worked = 1e3 * (self.cpu_s() - before) / runs
        self.worked[self._durability, concurrency].append(worked)
        return figures

    def per_run(self, durability: Durability) -> list[float]:
        """Of the measurements under load, without those to warm up."""
        return self.worked[durability, LOADED][1::2]


class Traced(Plain):
    """Podium with traces. The exporter's speed is noted after each measurement under load."""

    name = "podium, traced"

    def __init__(self, data: pathlib.Path) -> None:
        super().__init__(data)
        self.speeds: list[float] = []
        """Spans a second, while nothing else runs."""
        self._beside: list[Child] = []
        self._folder = data

    def start(self, durability: Durability) -> None:
        """Start the receiver, then Podium, then the exporter."""
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="traces-", dir=self._data))
        receiver = [sys.executable, "-m", RECEIVER]
        self._beside.append(Child("the receiver", receiver, self._folder / "receiver.log"))
        url = self._beside[0].ready["url"]
        self.env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        super().start(durability)
        assert self._broker is not None
        asked = Asked(connection=Connection(url=self._broker.url), folder=str(self._folder))
        command = [sys.executable, "-m", "podium.tracing.live"]
        self._beside.append(
            Child(
                "the exporter",
                command,
                self._folder / "exporter.log",
                self.env,
                msgspec.json.encode(asked) + b"\n",
            )
        )

    def measure(self, concurrency: int, runs: int) -> Figures:
        """As without traces; then let the exporter catch up, and see how fast it is."""
        figures = super().measure(concurrency, runs)
        began, before = time.monotonic(), self._received()
        took = self._catch_up() - began
        sent = self._received() - before
        if concurrency == LOADED and took > LEAST_S:
            self.speeds.append(sent / took)
        return figures

    def _received(self) -> int:
        """Spans that have arrived."""
        return int(self._beside[0].ask({})["spans"])

    def _catch_up(self) -> float:
        """Wait until the exporter has been through what there was; gives when it was."""
        end = time.monotonic() + CAUGHT_UP_S
        last: Any = None
        quiet_since = time.monotonic()
        while time.monotonic() < end and time.monotonic() - quiet_since < 1.0:
            data = (self._folder / OFFSETS).read_bytes()
            offsets = msgspec.json.decode(data, type=dict[int, Offset])
            if offsets != last:
                last, quiet_since = offsets, time.monotonic()
            time.sleep(LOOK_S)
        return quiet_since

    def stop(self) -> None:
        """Stop the exporter, Podium, the receiver."""
        for child in reversed(self._beside[1:]):
            child.close()
        super().stop()
        for child in self._beside[:1]:
            child.close()
        self._beside.clear()


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Podium with and without traces, for each durability."""
    entries: list[Entry] = []
    plain, traced = Plain(data), Traced(data)
    for durability in options.durability:
        entries.append(Entry(plain, durability, (ALONE, LOADED), f"off {durability}"))
        entries.append(Entry(traced, durability, (ALONE, LOADED), f"on {durability}"))
    series = contender.alternate(
        entries, options.repeats, options.seconds, contender.progress, options.runs
    )
    lines: list[report.Line] = []
    for durability in options.durability:
        off, on = f"off {durability}", f"on {durability}"
        lines += [*report.plain(series, off), *report.plain(series, on)]
        lines.append(report.ratio(series, (on, LOADED), (off, LOADED), "runs_per_s", TARGET))
        lines.append(report.ratio(series, (on, ALONE), (off, ALONE), "p50_ms", None))
        without, with_them = plain.per_run(durability), traced.per_run(durability)
        lines.append(report.Line(f"{off}, CPU of a run at {LOADED}", without, "ms"))
        ratios = [one / other for one, other in zip(with_them, without, strict=True)]
        lines.append(report.Line(f"{on} / {off}, CPU of a run at {LOADED}", ratios, "x", WORK))
    if traced.speeds:
        lines.append(report.Line("exporter alone", traced.speeds, "spans/s"))
    return report.Report("tracing", report.conditions(options, data, series), lines)
