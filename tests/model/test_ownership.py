"""The ownership protocol has no hole in any mix, and each rule taken out opens the hole it closes.

Each test prints what was visited, or the shortest trace to the hole; ``-rP`` shows it.
"""

import sys
from typing import Final

import pytest

from tests.model.explore import explore
from tests.model.mixes import BY_NAME, MIXES, REDUNDANT, REMOVALS, SLOW, Removal
from tests.model.report import table, without
from tests.model.rules import ALL, Faults, Mix, Rules

FEWEST_STATES: Final = 1_000
"""A mix with fewer has lost its moves, and its test would say nothing."""


def _names(removal: Removal) -> str:
    return "-and-".join(removal.without)


@pytest.mark.parametrize("mix", MIXES, ids=[mix.name for mix in MIXES])
def test_no_hole(mix: Mix) -> None:
    _holds(mix)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mix", SLOW, ids=[mix.name for mix in SLOW])
def test_no_hole_in_a_large_mix(mix: Mix) -> None:
    _holds(mix)


def _holds(mix: Mix) -> None:
    found = explore(mix)
    sys.stdout.write(table([found]) + "\n")
    assert found.hole == "", found.text()
    assert found.states >= FEWEST_STATES


@pytest.mark.parametrize("removal", REMOVALS, ids=_names)
def test_without_the_rule_there_is_a_hole(removal: Removal) -> None:
    found = without(removal)
    sys.stdout.write(found.text() + "\n")
    assert found.hole == removal.hole, found.text()
    assert found.trace


@pytest.mark.parametrize(("rules", "mixes"), REDUNDANT, ids=[pair[0][0] for pair in REDUNDANT])
def test_without_the_rule_there_is_no_hole(rules: tuple[str, ...], mixes: tuple[Mix, ...]) -> None:
    """Said plainly: here the rule only saves time, or another one stands behind it."""
    off = ALL._replace(**dict.fromkeys(rules, False))
    for mix in mixes:
        found = explore(mix, off)
        assert found.hole == "", found.text()


def test_every_rule_is_taken_out() -> None:
    taken = {rule for removal in REMOVALS for rule in removal.without}
    taken |= {rule for rules, _ in REDUNDANT for rule in rules}
    assert taken == set(Rules._fields)


def test_without_faults_and_conductors_a_run_is_stuck() -> None:
    """The search for stuck runs finds one where nobody works."""
    found = explore(Mix("nobody", Faults(), workers=0))
    assert found.hole
    assert found.trace == ()


def test_a_visit_is_the_same_each_time() -> None:
    once, again = explore(BY_NAME["lapse"]), explore(BY_NAME["lapse"])
    assert (once.states, once.transitions) == (again.states, again.transitions)
