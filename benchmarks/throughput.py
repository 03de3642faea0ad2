"""Podium beside the floor: the same messages with and without what makes Podium of them.

Floor and Podium alternate in one execution, with the same runs in flight. What is promised: half of
the floor's throughput at 200 runs in flight, twice its latency alone, and in ``power`` twice the
throughput of the naive floor, since concurrent appends share an fsync.
"""

import pathlib
from typing import Final

from benchmarks import contender, floor, report
from benchmarks.contender import ALONE, LOADED, Durability, Entry, Series

THROUGHPUT: Final[dict[Durability, report.Target]] = {
    "process": report.at_least(0.5),
    "power": report.at_least(2),
}
"""Of the floor's runs a second at 200 in flight."""

LATENCY: Final = report.at_most(2)
"""Of the floor's median latency alone."""


def compared(series: Series, durability: Durability) -> list[report.Line]:
    """The figures of one durability: both contenders' own, then the two ratios promised."""
    ours, below = f"podium {durability}", f"floor {durability}"
    promise = THROUGHPUT[durability]
    return [
        *report.plain(series, below),
        *report.plain(series, ours),
        report.ratio(series, (ours, LOADED), (below, LOADED), "runs_per_s", promise),
        report.ratio(series, (ours, ALONE), (below, ALONE), "p50_ms", LATENCY),
    ]


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """The floor and Podium in turns, for each durability."""
    entries: list[Entry] = []
    for durability in options.durability:
        ours = contender.from_podium("PodiumContender", data)
        entries.append(floor.entry(data, durability))
        entries.append(Entry(ours, durability, (ALONE, LOADED), f"podium {durability}"))
    series = contender.alternate(
        entries, options.repeats, options.seconds, contender.progress, options.runs
    )
    lines = [line for name in options.durability for line in compared(series, name)]
    return report.Report("throughput", report.conditions(options, data, series), lines)
