"""What is compared, and how the contenders take turns.

Speed on a shared machine drifts by the minute, so contenders alternate: each repeat measures all of
them, one right after the other, and a ratio is taken within a repeat before the median is taken
over the repeats. A contender is up only while it is measured, and starts afresh each time.
"""

import contextlib
import importlib
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from benchmarks.errors import BenchmarkError

Durability: TypeAlias = Literal["process", "power"]
"""What an acknowledged append survives: the death of any process, or of the machine's power."""

DURABILITIES: Final[tuple[Durability, ...]] = ("process", "power")

ALONE: Final = 1
"""Runs in flight where latency is measured."""

LOADED: Final = 200
"""Runs in flight where throughput is measured."""

WARM_UP_RUNS: Final = 50
"""Runs done before anything is timed: caches, lazy imports, prepared statements, first pages."""

LEAST_RUNS: Final = 30
"""Runs of the shortest measurement: below that a median says little."""

WAVES: Final = 2
"""Times that the places in flight are filled at least, so that the last runs do not dominate."""


class Figures(msgspec.Struct, frozen=True):
    """What one measurement gave."""

    runs_per_s: float
    p50_ms: float
    """Milliseconds of the median run, start to end; waiting for a place is not counted."""


class Contender(Protocol):
    """Something that can do the work: the floor, Podium, a peer."""

    name: str

    def start(self, durability: Durability) -> None:
        """Bring everything up, ready to measure. One with a single durability ignores it."""
        ...

    def measure(self, concurrency: int, runs: int) -> Figures:
        """Do ``runs`` runs, ``concurrency`` at a time. Called several times after a start."""
        ...

    def stop(self) -> None:
        """Take everything down; safe after a start that failed."""
        ...


class Entry(NamedTuple):
    """One contender under one durability, and how many runs in flight it is measured at."""

    contender: Contender
    durability: Durability
    concurrencies: tuple[int, ...]
    label: str
    """How the report names it."""


Key: TypeAlias = tuple[str, int]
"""A label and a number of runs in flight."""


class Series(NamedTuple):
    """All measurements: for each key, one a repeat, in the order of the repeats."""

    figures: dict[Key, list[Figures]]
    runs: dict[Key, int]

    def values(self, key: Key, field: str) -> list[float]:
        """One field of every repeat."""
        return [getattr(figures, field) for figures in self.figures[key]]

    def ratios(self, above: Key, below: Key, field: str) -> list[float]:
        """One field of a contender over that of another, repeat by repeat."""
        pairs = zip(self.values(above, field), self.values(below, field), strict=True)
        return [one / other for one, other in pairs]

    def best(self, label: str) -> Key:
        """The key of that label at which the median throughput is highest."""
        keys = [key for key in self.figures if key[0] == label]
        return max(keys, key=lambda key: statistics.median(self.values(key, "runs_per_s")))


@contextlib.contextmanager
def up(contender: Contender, durability: Durability) -> Iterator[None]:
    """Start a contender, and stop it at the end, also when the start fails."""
    try:
        contender.start(durability)
        yield
    finally:
        contender.stop()


def warm_up(contender: Contender, concurrency: int) -> Figures:
    """Do a few runs that do not count; what they gave tells how many fill a measurement."""
    return contender.measure(concurrency, max(WARM_UP_RUNS, concurrency))


def alternate(
    entries: Sequence[Entry],
    repeats: int,
    seconds: float,
    tell: Callable[[str], None],
    runs: int | None = None,
) -> Series:
    """Measure every entry ``repeats`` times, in turns; every second repeat goes backwards.

    Only the one whose turn it is runs at all: what the others do when idle would slow it. A
    measurement lasts about ``seconds``, judged once by the first warm-up, or does exactly ``runs``
    runs where that is given.
    """
    sizes: dict[Key, int] = {}
    figures: dict[Key, list[Figures]] = {
        (entry.label, number): [] for entry in entries for number in entry.concurrencies
    }
    for repeat in range(repeats):
        for entry in entries if repeat % 2 == 0 else reversed(entries):
            with up(entry.contender, entry.durability):
                for number in entry.concurrencies:
                    key = (entry.label, number)
                    warm = warm_up(entry.contender, number)
                    fitting = max(LEAST_RUNS, number * WAVES, round(warm.runs_per_s * seconds))
                    sizes.setdefault(key, runs or fitting)
                    taken = entry.contender.measure(number, sizes[key])
                    figures[key].append(taken)
                    tell(
                        f"{repeat + 1}/{repeats} {entry.label} at {number}: "
                        f"{taken.runs_per_s:.1f} runs/s, p50 {taken.p50_ms:.2f} ms"
                    )
    return Series(figures, sizes)


def in_rounds(
    entries: Sequence[Entry],
    number: int,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
    series: Series,
    runs: int | None = None,
) -> None:
    """Measure entries that are all up, in short rounds and in turns; every second goes backwards.

    For what differs by a few percent: two rounds that are compared are a second apart, not ten, and
    there are many of them.

    Args:
        entries: What is measured. All but the one whose turn it is have nothing to do.
        number: Runs in flight.
        rounds: How many of each entry.
        seconds: Of all rounds of one entry.
        tell: Hears of each pair of rounds.
        series: What comes out is added to it.
        runs: Of one round, instead of as many as fill its seconds.
    """
    keyed = [((entry.label, number), entry.contender) for entry in entries]
    for key, measured in keyed:
        fitting = round(warm_up(measured, number).runs_per_s * seconds / rounds)
        series.runs.setdefault(key, runs or max(LEAST_RUNS, number * WAVES, fitting))
        series.figures.setdefault(key, [])
    for turn in range(rounds):
        for key, measured in keyed if turn % 2 == 0 else reversed(keyed):
            series.figures[key].append(measured.measure(number, series.runs[key]))
        rates = (f"{key[0]} {series.figures[key][-1].runs_per_s:.1f}" for key, _ in keyed)
        tell(f"{turn + 1}/{rounds} at {number}, runs/s: {', '.join(rates)}")


def progress(line: str) -> None:
    """Say how far it is, where it does not disturb what a program reads."""
    print(line, file=sys.stderr, flush=True)


def from_podium(factory: str, data: pathlib.Path) -> Any:
    """Podium's own side, made by ``benchmarks.podium_contender.<factory>(data)``.

    Imported only here, so that the floor and the peers can be measured without it.
    """
    name = "benchmarks.podium_contender"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        raise BenchmarkError(
            f"there is no module {name}, so Podium cannot be measured here. Without it there are "
            "`python -m benchmarks floor` and `python -m benchmarks peers --only NAME ...`."
        ) from None
    return getattr(module, factory)(data)
