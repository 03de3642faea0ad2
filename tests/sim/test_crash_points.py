"""Nothing is lost and nothing counts twice, at any of very many points at which a process dies."""

import os
from typing import Final

import pytest

from podium.sim import every
from podium.sim.run import Summary, many, undisturbed
from podium.sim.world import REAL, World
from protocol.inbox import HANDED_BACK

PYTESTS: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
"""Processes that share the tests."""

PROCESSES: Final = max(1, min(4, os.cpu_count() or 1) // PYTESTS)
"""Processes that a test may take."""

PARTS: Final = 8
"""Tests that share the crash points of a suite: each ends within half a minute."""

CI_POINTS: Final = 100_000
"""Crash points of the default suite."""

SLOW_POINTS: Final = 1_000_000
"""Crash points of the slow suite."""

APART: Final = 1_000_000
"""Seeds between two parts: none is played twice."""

MOST_SEEDS: Final = 100_000
"""Seeds after which a suite has to have met its crash points: several times what it takes."""


KINDS: Final = {
    *("crash", "freeze", "disconnect", "skew", "election", "restart", "lapse", "hush"),
    *(f"message {what}" for what in ("lost", "late", "twice", "unanswered", "refused", "stale")),
}


def sound(summary: Summary) -> None:
    """Fail with the lines that play the failing histories again."""
    if summary.failed:
        said = [f"{each.line}\n    {each.wrong[0]}" for each in summary.failed[:5]]
        pytest.fail("\n".join([f"{len(summary.failed)} histories are wrong", *said]), pytrace=False)


def met(first: int, points: int) -> Summary:
    """Histories until so many crashes have met a process, or one of them is wrong."""
    return many(
        first,
        MOST_SEEDS,
        processes=PROCESSES,
        told=lambda sum_: sum_.crashes < points and not sum_.failed,
    )


def all_met(first: int, points: int) -> None:
    """So many crash points, every kind of fault among them, and nothing is wrong."""
    summary = met(first, points)
    sound(summary)
    assert summary.crashes >= points
    assert summary.at_work >= points // 2, "most of them met a process with work in hand"
    assert set(summary.met) == KINDS, "every kind of fault came to something"


@pytest.mark.parametrize("part", range(PARTS))
def test_a_hundred_thousand_crash_points(part: int) -> None:
    all_met((part + 1) * APART, CI_POINTS // PARTS)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", range(PARTS, 2 * PARTS))
def test_a_million_crash_points(part: int) -> None:
    all_met((part + 1) * APART, SLOW_POINTS // PARTS)


def test_every_step_of_every_process() -> None:
    summary = every.singles()
    sound(summary)
    assert summary.crashes == summary.histories, "each of them met its process"
    assert summary.histories > 150


def handed_back(seed: int) -> int:
    """How many deliveries of a second attempt were handed back, undisturbed."""
    world = World(seed, [every.SHARED], [], REAL)
    with undisturbed():
        world.play()
    streams = world.server.streams.values()
    kept = [each.data for stream in streams for each in stream.by_seq.values()]
    return sum(HANDED_BACK.encode() in data for data in kept)


def test_every_step_of_calls_that_are_hedged_and_a_person_who_is_asked() -> None:
    seed = 6
    assert handed_back(seed)
    summary = every.singles(seed, job=every.SHARED)
    sound(summary)
    assert summary.crashes == summary.histories, "each of them met its process"
    assert summary.histories > 150


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("who", ["c0", "c1", "w0", "w1"])
def test_every_step_and_every_step_of_the_recovery(who: str) -> None:
    summary = every.pairs(who)
    sound(summary)
    assert summary.crashes >= summary.histories
