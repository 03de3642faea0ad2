"""Bugs that are planted on purpose are found, each within so many seeds, and made small."""

import sys

import pytest

from podium.sim import run
from podium.sim.run import many, shrink, simulate
from tests.sim.planted import PLANTED

SEEDS = {
    "ack before append": 100,
    "ack before report": 200,
    "missing fencing": 300,
    "lost hint, no look-up": 600,
}
"""Within how many seeds each has to be found: several times what it took when this was written."""


@pytest.mark.parametrize("name", SEEDS)
def test_a_planted_bug_is_found(name: str) -> None:
    parts = PLANTED[name]
    summary = many(0, SEEDS[name], parts=parts, told=lambda sum_: not sum_.failed)
    assert summary.failed, f"not found in {SEEDS[name]} seeds"
    verdict = summary.failed[0]
    sys.stdout.write(f"{name}: found by seed {verdict.seed}: {verdict.wrong[0]}\n")
    assert not simulate(verdict.seed).wrong, "the real code has nothing wrong there"


def test_a_failing_history_is_made_small() -> None:
    parts = PLANTED["ack before append"]
    first = next(seed for seed in range(100) if simulate(seed, parts=parts).wrong)
    small = shrink(first, parts)
    assert small.wrong
    assert small.faults is not None
    assert 1 <= len(small.faults) <= 3, "one crash at the right moment is enough"
    assert small.line == (
        f"podium sim --seed {first} --runs {small.runs[0] if small.runs else ''}"
        f" --faults {','.join(map(str, small.faults))}"
    )
    again = simulate(first, kept=small.faults, runs=small.runs, parts=parts)
    assert again.wrong == small.wrong, "the line reproduces it"
    for fault in small.faults:
        rest = tuple(each for each in small.faults if each != fault)
        sound = simulate(first, kept=rest, runs=small.runs, parts=parts)
        assert not sound.wrong, "no fault of it is there for nothing"


@pytest.mark.parametrize("needed", [(), (3,), (2, 9), (0, 5, 11)])
def test_the_smallest_subset_is_what_is_needed(needed: tuple[int, ...]) -> None:
    found = run.smallest(tuple(range(12)), lambda some: set(needed) <= set(some))
    assert found == needed
