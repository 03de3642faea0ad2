"""Histories by seed: play them, judge them, make a failing one small.

A history is its seed and, if it was made smaller, which of its faults and runs are kept: nothing
else decides what happens in it.
"""

import contextlib
import gc
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import msgspec

from podium.sim import check, faults
from podium.sim.faults import AnyFault
from podium.sim.scenario import Job, draw_jobs
from podium.sim.world import REAL, History, Parts, World

CHUNK: Final = 20
"""Histories that a process plays before it says how it went."""

MAX_SHOWN: Final = 12
"""Things that are wrong with one history, as far as they are told."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one history."""

    seed: int
    wrong: list[str]
    """What must not be, in words; empty for a sound history."""
    history: History
    faults: tuple[int, ...] | None = None
    """Which of the seed's faults were kept; None for all."""
    runs: tuple[int, ...] | None = None

    @property
    def line(self) -> str:
        """The command that plays it again."""
        parts = [f"podium sim --seed {self.seed}"]
        if self.runs is not None:
            parts.append(f"--runs {_list(self.runs)}")
        if self.faults is not None:
            parts.append(f"--faults {_list(self.faults)}")
        return " ".join(parts)


class Summary(msgspec.Struct, kw_only=True):
    """What became of many histories."""

    histories: int = 0
    crashes: int = 0
    at_work: int = 0
    steps: int = 0
    seconds: float = 0.0
    runs: int = 0
    commits: int = 0
    met: dict[str, int] = {}
    failed: list[Verdict] = []

    def add(self, other: "Summary") -> None:
        """Add what became of others."""
        self.histories += other.histories
        self.crashes += other.crashes
        self.at_work += other.at_work
        self.steps += other.steps
        self.seconds += other.seconds
        self.runs += other.runs
        self.commits += other.commits
        self.met = dict(Counter(self.met) + Counter(other.met))
        self.failed += other.failed

    def count(self, verdict: Verdict) -> None:
        """Add one."""
        history = verdict.history
        failed = [verdict] if verdict.wrong else []
        self.add(
            Summary(
                histories=1,
                crashes=history.crashes,
                at_work=history.at_work,
                steps=history.steps,
                seconds=history.seconds,
                runs=history.runs,
                commits=history.commits,
                met=history.met,
                failed=failed,
            )
        )


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def drawn(seed: int) -> tuple[list[Job], list[AnyFault]]:
    """The runs and the faults of a seed."""
    chance = random.Random(seed)
    return draw_jobs(chance), faults.draw(chance)


def simulate(
    seed: int,
    *,
    kept: Sequence[int] | None = None,
    runs: Sequence[int] | None = None,
    parts: Parts = REAL,
) -> Verdict:
    """Play one history and judge it.

    Args:
        seed: Of everything.
        kept: Which of its faults happen, by number; None for all.
        runs: Which of its runs are begun, by number; None for all.
        parts: What the deployment is made of.
    """
    jobs, plan = drawn(seed)
    chosen = jobs if runs is None else [jobs[number] for number in runs if number < len(jobs)]
    happens = plan if kept is None else [plan[number] for number in kept if number < len(plan)]
    history, wrong = judged(seed, chosen, happens, parts)
    return Verdict(
        seed=seed,
        wrong=wrong,
        history=history,
        faults=None if kept is None else tuple(kept),
        runs=None if runs is None else tuple(runs),
    )


def judged(
    seed: int, jobs: Sequence[Job], plan: Sequence[AnyFault], parts: Parts = REAL
) -> tuple[History, list[str]]:
    """A history of chosen runs and faults, and what is wrong with it."""
    with undisturbed():
        return _judged(World(seed, jobs, plan, parts))


def _judged(world: World) -> tuple[History, list[str]]:
    """Play it, and leave nobody who knows the world: it is garbage when the collector is back."""
    history = world.play()
    return history, check.wrong(world)[:MAX_SHOWN]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Without the collector, whose moments nobody controls, and without the processes' logs.

    Libraries log, too: OpenTelemetry, where a program has it loaded, each time that a process is
    killed at work. Whoever collects such records keeps the world that their tracebacks lead to.
    """
    level, collects = logging.root.manager.disable, gc.isenabled()
    logging.disable()
    gc.disable()
    try:
        yield
    finally:
        logging.disable(level)
        if collects:
            gc.enable()


def many(
    first: int,
    count: int,
    *,
    processes: int = 1,
    parts: Parts = REAL,
    told: Callable[[Summary], bool] = lambda _: True,
) -> Summary:
    """Play the histories of so many seeds.

    Args:
        first: The first seed.
        count: How many.
        processes: Processes that share the work.
        parts: What the deployment is made of.
        told: Called now and then with the sum so far; False ends it early.
    """
    total = Summary()
    starts = range(first, first + count, CHUNK)
    jobs = [(start, min(CHUNK, first + count - start), parts) for start in starts]
    if processes <= 1:
        for job in jobs:
            total.add(_chunk(job))
            if not told(total):
                break
        return total
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(_chunk, jobs):
            total.add(part)
            if not told(total):
                pool.shutdown(cancel_futures=True)
                break
    return total


def _chunk(job: tuple[int, int, Parts]) -> Summary:
    first, count, parts = job
    summary = Summary()
    for seed in range(first, first + count):
        summary.count(simulate(seed, parts=parts))
    return summary


# ---------------------------------------------------------------------------------------- shrinking


def shrink(seed: int, parts: Parts = REAL) -> Verdict:
    """The smallest history of a failing seed that is still wrong: fewer runs, then fewer faults."""
    jobs, plan = drawn(seed)
    runs, kept = tuple(range(len(jobs))), tuple(range(len(plan)))

    def fails(runs: tuple[int, ...], kept: tuple[int, ...]) -> bool:
        return bool(simulate(seed, kept=kept, runs=runs, parts=parts).wrong)

    for number in range(len(jobs)):
        fewer = tuple(each for each in runs if each != number)
        if fewer and fails(fewer, kept):
            runs = fewer
    kept = smallest(kept, lambda some: fails(runs, some))
    return simulate(seed, kept=kept, runs=runs, parts=parts)


def smallest(items: tuple[int, ...], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """A subset that still fails, and would not without any one of its members (Zeller's ddmin)."""
    if fails(()):
        return ()
    size = max(1, len(items) // 2)
    while items:
        chunks = [items[start : start + size] for start in range(0, len(items), size)]
        for chunk in chunks:
            rest = tuple(item for item in items if item not in chunk)
            if rest and fails(rest):
                items = rest
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
            continue
        size = min(size, max(1, len(items) // 2))
    return items
