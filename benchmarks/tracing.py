"""What traces cost: the same Podium with and without them, in turns.

With traces, the worker has OpenTelemetry set up and runs each call under its span's context, each
call says its span in a header, and a process beside the deployment follows the log and sends spans
and metrics to a receiver that throws them away. That process has the lowest priority and rests
where the machine is full: what it can't do then it does later. So what is measured is what runs
lose; how much it exports meanwhile, and how fast it is when it may, are figures of their own.

A few percent are less than what a shared machine varies by within a minute. So both are up at the
same time and take turns in rounds of about a second, and each round is compared with its neighbour.
While it is not its turn, the exporter is stopped: it is behind whenever it has one, which is the
most that it can take. What conductor, worker and server work for one run varies less than the
throughput, and is compared, too.
"""

import contextlib
import os
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

import msgspec
import psutil

from actors.programs import Connection
from benchmarks import contender, report
from benchmarks.child import Child
from benchmarks.contender import ALONE, LOADED, Durability, Entry, Figures, Series, up
from benchmarks.errors import BenchmarkError
from benchmarks.podium_contender import PodiumContender
from benchmarks.serving import RESULTS, ROUNDS
from podium.tracing.live import Asked

TARGET: Final = report.at_least(0.95)
"""Of the throughput without traces."""

WORK: Final = report.at_most(1.05)
"""Of what the processes work for one run without traces."""

TURNS: Final[dict[int, int]] = {ALONE: 2, LOADED: 8}
"""Rounds into which a measurement is split, by the runs in flight."""

SECONDS: Final[dict[int, float]] = {ALONE: 0.5, LOADED: 3.0}
"""Of the seconds that were asked for, how much each gets: a ratio near one needs many runs."""

SPANS: Final = 1 + (ROUNDS + 1) + RESULTS
"""Of one run: its own, one for each question, one for each call."""

RECEIVER: Final = "benchmarks.tracing_receiver"

CAUGHT_UP_S: Final = 120.0
"""Seconds that the exporter may take for what it is behind."""

LOOK_S: Final = 0.05

PROCESSES: Final = ("server", "worker", "conductor")


class Worked(Figures, frozen=True):
    """What one measurement gave, and what was worked for it: milliseconds of CPU of one run."""

    server_ms: float
    worker_ms: float
    conductor_ms: float
    exporter_ms: float = 0.0
    spans_per_s: float = 0.0
    """Exported meanwhile."""

    @property
    def cpu_ms(self) -> float:
        """Of all that a run needs."""
        return self.server_ms + self.worker_ms + self.conductor_ms


class Plain(PodiumContender):
    """Podium without traces; says what its processes worked."""

    def measure(self, concurrency: int, runs: int) -> Worked:
        """As ever."""
        assert self._broker is not None
        pids = (self._broker.pid, *(child.pid for child in self._children))
        before = [_cpu_ms(pid) for pid in pids]
        figures = super().measure(concurrency, runs)
        worked = [(_cpu_ms(pid) - cpu) / runs for pid, cpu in zip(pids, before, strict=True)]
        return Worked(figures.runs_per_s, figures.p50_ms, *worked)


def _cpu_ms(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return 1e3 * (times.user + times.system)


class Traced(Plain):
    """Podium with traces. The exporter runs only during a measurement, and in `catch_up`."""

    name = "podium, traced"

    def __init__(self, data: pathlib.Path) -> None:
        super().__init__(data)
        self._beside: list[Child] = []
        self._runs = 0

    def start(self, durability: Durability) -> None:
        """Start the receiver, then Podium, then the exporter."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="traces-", dir=self._data))
        receiver = [sys.executable, "-m", RECEIVER]
        self._beside.append(Child("the receiver", receiver, folder / "receiver.log"))
        url = self._beside[0].ready["url"]
        self.env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        super().start(durability)
        assert self._broker is not None
        asked = Asked(connection=Connection(url=self._broker.url), folder=str(folder))
        command = [sys.executable, "-m", "podium.tracing.live"]
        said = msgspec.json.encode(asked) + b"\n"
        self._beside.append(Child("the exporter", command, folder / "exporter.log", self.env, said))
        self._runs = 0
        self._signal(signal.SIGSTOP)

    def measure(self, concurrency: int, runs: int) -> Worked:
        """As without traces, with the exporter beside it."""
        self._runs += runs
        with self._exporting() as exporter:
            before, spans = _cpu_ms(exporter.pid), self._received()
            began = time.monotonic()
            figures = super().measure(concurrency, runs)
            took, spans = time.monotonic() - began, self._received() - spans
            worked = (_cpu_ms(exporter.pid) - before) / runs
        return msgspec.structs.replace(figures, exporter_ms=worked, spans_per_s=spans / took)

    def catch_up(self) -> float:
        """Let the exporter do what it is behind, while nothing else runs: spans a second."""
        with self._exporting():
            first = before = self._received()
            began = end = time.monotonic()
            while (now := self._received()) < self._runs * SPANS:
                if now == first:  # it rests yet, or looks for something to do
                    began = time.monotonic()
                if time.monotonic() - end > CAUGHT_UP_S:
                    raise BenchmarkError(f"{now} of {self._runs * SPANS} spans were exported")
                time.sleep(LOOK_S)
            took = time.monotonic() - began
        return (now - before) / took

    @contextlib.contextmanager
    def _exporting(self) -> Iterator[Child]:
        self._signal(signal.SIGCONT)
        try:
            yield self._beside[1]
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        for child in self._beside:
            os.kill(child.pid, number)

    def _received(self) -> int:
        """Spans that have arrived."""
        return int(self._beside[0].ask({})["spans"])

    def stop(self) -> None:
        """Stop the exporter, Podium, the receiver."""
        self._signal(signal.SIGCONT)
        for child in reversed(self._beside[1:]):
            child.close()
        super().stop()
        for child in self._beside[:1]:
            child.close()
        self._beside.clear()


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Podium with and without traces, for each durability."""
    series = Series({}, {})
    lines: list[report.Line] = []
    for durability in options.durability:
        plain, traced = Plain(data), Traced(data)
        off = Entry(plain, durability, (ALONE, LOADED), f"off {durability}")
        on = Entry(traced, durability, (ALONE, LOADED), f"on {durability}")
        speeds = []
        for _ in range(options.repeats):
            with up(plain, durability), up(traced, durability):
                for number, rounds in TURNS.items():
                    seconds, tell = options.seconds * SECONDS[number], contender.progress
                    contender.in_rounds(
                        (off, on), number, rounds, seconds, tell, series, options.runs
                    )
                speeds.append(traced.catch_up())
        lines += compared(series, off.label, on.label)
        lines.append(report.Line(f"{on.label}, exported when nothing runs", speeds, "spans/s"))
    return report.Report("tracing", report.conditions(options, data, series), lines)


def compared(series: Series, off: str, on: str) -> list[report.Line]:
    """The lines of two series, without and with traces."""
    above, below = (on, LOADED), (off, LOADED)
    return [
        *report.plain(series, off),
        *report.plain(series, on),
        report.ratio(series, above, below, "runs_per_s", TARGET),
        report.ratio(series, (on, ALONE), (off, ALONE), "p50_ms", None),
        report.Line(f"{off}, CPU of a run at {LOADED}", series.values(below, "cpu_ms"), "ms"),
        report.ratio(series, above, below, "cpu_ms", WORK),
        *(report.ratio(series, above, below, f"{name}_ms", None) for name in PROCESSES),
        report.Line(
            f"{on}, CPU of the exporter for a run", series.values(above, "exporter_ms"), "ms"
        ),
        report.Line(f"{on}, exported beside", series.values(above, "spans_per_s"), "spans/s"),
    ]
