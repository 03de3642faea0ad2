"""A run that calls itself has to come nearer to an end with each call."""

import pytest

from protocol.actions import Json, Pool, WorkerSpec
from protocol.commands import Activate
from protocol.decisions import PlannedCall
from protocol.run import RULES
from tests.runs import Driver, begin, plan, settled

POOL = Pool((WorkerSpec(name="self", kind="conductor", attempts=1),))
TASK = "What is asked?"


def called(arguments: dict[str, Json], rules: str = RULES) -> Driver:
    driver = Driver()
    driver.give(begin(pool=POOL, task=TASK), Activate("conductor", rules))
    driver.reply(plan(PlannedCall("self", arguments)))
    return driver


@pytest.mark.parametrize("inputs", [{}, {"inputs": {}}])
def test_a_run_of_the_very_same_task_is_refused_with_the_reason(inputs: dict[str, Json]) -> None:
    driver = called({"task": TASK, **inputs})
    assert settled(driver, "1-0") == ("PARSE_ERR", "policy")
    assert driver.state.calls["1-0"].value == (
        "self would start a run of this very task, which would do so again. Give it a part of the "
        "task, or inputs that say what is known by now."
    )


@pytest.mark.parametrize(
    "arguments",
    [{"task": "A part of it?"}, {"task": TASK, "inputs": {"known": 1}}],
    ids=["a part", "more known"],
)
def test_one_that_comes_nearer_is_begun(arguments: dict[str, Json]) -> None:
    assert set(called(arguments).state.open) == {"1-0"}


def test_runs_of_older_rules_are_decided_as_they_were() -> None:
    assert set(called({"task": TASK}, "1").state.open) == {"1-0"}
