"""Critical steps: how many calls had to wait for each other."""

import pytest

from protocol.budgets import Budget
from protocol.run import Make, due
from replay.critical import critical_steps
from tests.runs import Driver, plan, planned, started


def worked_off(driver: Driver) -> int:
    """All calls of the round report, in the order in which they were begun."""
    while made := [effect for effect in due(driver.state) if isinstance(effect, Make)]:
        for make in made:
            driver.report(make.call)
    return critical_steps(driver.events)


@pytest.mark.parametrize(("parallel", "steps"), [(8, 1), (4, 2), (1, 8)])
def test_calls_that_do_not_wait_are_one_step_where_there_is_place(
    parallel: int, steps: int
) -> None:
    driver = started(*[planned()] * 8, budget=Budget(parallel=parallel))
    assert worked_off(driver) == steps


def test_calls_that_wait_are_as_many_steps() -> None:
    chain = [planned(after=(number - 1,) if number else ()) for number in range(5)]
    assert worked_off(started(*chain)) == 5


def test_a_call_that_is_tried_again_is_the_same_step() -> None:
    driver = started(planned())
    driver.lost("1-0")
    assert worked_off(driver) == 1


def test_rounds_come_one_after_the_other() -> None:
    driver = started(planned(), planned())
    worked_off(driver)
    driver.reply(plan(planned(), planned(after=(0,))))
    assert worked_off(driver) == 3


def test_nothing_is_no_step() -> None:
    assert critical_steps([]) == 0
