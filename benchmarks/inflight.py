"""Many runs in flight on one conductor whose workers sleep: memory of each, growth of the makespan.

10,000 runs are held at once, and 1,000 for comparison; every run makes one call to a worker that
sleeps for 10 s and costs no processor. Memory is the resident set of the conductor's process at its
highest, less what it was before the first run, over the runs. The makespan is the time from the
first task submitted to the last run finished.
"""

import pathlib
from typing import Final, NamedTuple, Protocol

import msgspec

from benchmarks import contender, report
from benchmarks.contender import Durability

MANY: Final = 10_000
"""Runs in flight at which memory is measured."""

FEW: Final = 1_000
"""Runs in flight whose makespan is the measure for that of many."""

SLEEP_S: Final = 10.0
"""Seconds that each call sleeps: long enough that all runs are in flight at once."""

MEMORY: Final = report.at_most(50)
"""KB (1,000 bytes) of the conductor's memory for each run in flight."""

MAKESPAN: Final = report.at_most(1.5)
"""Makespan of many runs over that of few."""


class Held(msgspec.Struct, frozen=True):
    """What holding runs in flight took."""

    makespan_s: float
    before_bytes: int
    """Resident set of the conductor's process before the first run."""
    peak_bytes: int
    """The same at its highest, while the runs were in flight."""


class Holder(Protocol):
    """Something that holds runs in flight: ``benchmarks.podium_contender.InflightContender``."""

    name: str

    def start(self, durability: Durability) -> None:
        """Bring everything up, with one conductor."""
        ...

    def hold(self, runs: int, sleep_s: float) -> Held:
        """Submit so many runs at once, each with one call that sleeps, and wait for all of them."""
        ...

    def stop(self) -> None:
        """Take everything down; safe after a start that failed."""
        ...


class Pair(NamedTuple):
    """One repeat: few runs and then many, each on a conductor started afresh."""

    few: Held
    many: Held


def pair(holder: Holder, durability: Durability) -> Pair:
    """One repeat. A process that has held many runs does not give all of its memory back."""
    held = []
    for runs in (FEW, MANY):
        try:
            holder.start(durability)
            held.append(holder.hold(runs, SLEEP_S))
        finally:
            holder.stop()
        contender.progress(f"{runs} runs with {durability}: {held[-1]}")
    return Pair(*held)


def compared(pairs: list[Pair], durability: Durability) -> list[report.Line]:
    """The figures of one durability."""
    grown = [(each.many.peak_bytes - each.many.before_bytes) / MANY / 1e3 for each in pairs]
    ratios = [each.many.makespan_s / each.few.makespan_s for each in pairs]
    few = [each.few.makespan_s for each in pairs]
    many = [each.many.makespan_s for each in pairs]
    return [
        report.Line(f"podium {durability}, makespan of {FEW}", few, "s"),
        report.Line(f"podium {durability}, makespan of {MANY}", many, "s"),
        report.Line(f"podium {durability}, memory a run in flight", grown, "KB", MEMORY),
        report.Line(f"podium {durability}, makespan {MANY} / {FEW}", ratios, "x", MAKESPAN),
    ]


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Both numbers of runs, for each durability, as often as asked."""
    lines: list[report.Line] = []
    for durability in options.durability:
        holder: Holder = contender.from_podium("InflightContender", data)
        pairs = [pair(holder, durability) for _ in range(options.repeats)]
        lines += compared(pairs, durability)
    conditions = report.conditions(options, data)
    conditions["runs"] = {"few": FEW, "many": MANY, "sleep_s": SLEEP_S}
    return report.Report("inflight", conditions, lines)
