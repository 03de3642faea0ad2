"""Reading a run: the fold from memory, a run made ready from its bytes, the state at an event.

Every figure is of this process alone, with the collector of garbage as the commands have it
(`replay.collector`).
"""

import time
import tracemalloc
from collections.abc import Callable
from typing import Final

from benchmarks.synthetic import Messages
from protocol.actions import Report
from protocol.run import fold
from protocol.state import RunState
from replay.causality import Graph, Node, walk
from replay.chain import assemble
from replay.collector import held_off
from replay.differences import changes
from replay.film import Film
from replay.history import entries, reports
from replay.timeline import timeline

READY_EVENTS: Final = 10_000
"""Events of the run that is made ready."""

LONG_EVENTS: Final = 100_000
"""Events of the run in whose middle one stands."""


STEPS: Final = 200
"""Steps of which the slowest counts: some of them pass a snapshot."""


def _seconds(work: Callable[[], object]) -> float:
    with held_off(for_good=True):
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun


def fold_rate(made: Messages) -> float:
    """Events a second, folded from memory into the state at the end."""
    events = [entry.event for entry in entries(made.log())]
    return len(events) / _seconds(lambda: fold(RunState(), events))


def ready_ms(made: Messages) -> float:
    """Milliseconds from a run's bytes to its state."""
    stored = made.stored()
    return 1e3 * _seconds(lambda: assemble(made.run, *stored).state())


def state_at_s(made: Messages) -> float:
    """Seconds from a run's bytes to its state in the middle."""
    stored = made.stored()
    return _seconds(lambda: assemble(made.run, *stored).state(made.events // 2))


def step_ms(made: Messages, *, back: bool) -> float:
    """Milliseconds of the slowest of many steps in a run's middle: the state, and what changed."""
    log = made.log()
    film, known = Film(log), reports(log)
    film.state(len(film))
    middle = len(film) // 2
    numbers = range(middle, middle + STEPS)
    slowest = 0.0
    with held_off(for_good=True):
        for number in reversed(numbers) if back else numbers:
            begun = time.perf_counter()
            _look(film, number, known)
            slowest = max(slowest, time.perf_counter() - begun)
    return 1e3 * slowest


def _look(film: Film, number: int, known: dict[str, Report]) -> None:
    changes(film.state(number - 1), film.state(number), known, content=True)


def film_mb(made: Messages) -> float:
    """Megabytes (1,000,000 bytes) that all snapshots of a run take beside its log."""
    log = made.log()
    film = Film(log)
    tracemalloc.start()
    film.state(len(film))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 1e6


def timeline_s(made: Messages) -> float:
    """Seconds from a run's log to its timeline."""
    log = made.log()
    return _seconds(lambda: timeline(log))


def causes_s(made: Messages) -> float:
    """Seconds from a run's log to the nearest hundred causes of its end."""
    log = made.log()

    def work() -> None:
        graph = Graph(log)
        walk(Node(made.run, len(graph.causes)), "causes", {made.run: graph}, 100)

    return _seconds(work)
