"""The last output as the answer: who gives it, when, and what if there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import Json, Report, Status
from protocol.budgets import Budget
from protocol.decisions import Decision, PlannedCall, Reply
from protocol.events import AnswerGiven, DecisionRejected, PolicyAsked, RunFinished
from protocol.run import Ask, due
from protocol.views import COMPOSER, compose, view
from tests.runs import Driver, answer, begin, planned

ACCEPT = Reply(decision=Decision(last_answers=True))


def plan(*calls: PlannedCall) -> Reply:
    return Reply(decision=Decision(calls=calls, last_answers=True))


def composed(driver: Driver) -> str:
    """The answer, once the composer has replied as the shell has it do."""
    asked = driver.state.asked
    assert asked is not None
    assert asked.asker == "composer"
    driver.reply(compose(view(driver.state, driver.values, asked.limited_by)))
    assert driver.state.outcome == "finished"
    return driver.state.answer


def test_the_last_call_answers_and_nobody_is_asked() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1), PlannedCall("tool", {"n": 2}, sees=(0,))))
    driver.report("1-0", value="ignored")
    events = driver.report("1-1", value="It is 8.")
    (asked,) = (event for event in events if isinstance(event, PolicyAsked))
    assert (asked.asker, asked.limited_by) == ("composer", "")
    assert composed(driver) == "It is 8."
    assert driver.state.limited_by == ""
    assert driver.state.policy_version == COMPOSER


def test_the_last_in_order_answers_not_the_last_to_report() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1), planned(n=2)))
    driver.report("1-1", value="second")
    driver.report("1-0", value="first")
    assert composed(driver) == "second"


def test_if_the_last_call_fails_the_policy_is_asked_again() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1), planned(n=2)))
    driver.report("1-0", value="kept")
    driver.report("1-1", status="EXEC_ERR", fault="worker", value="broken")
    assert driver.state.asked is not None
    assert driver.state.asked.asker == "policy"
    driver.reply(plan(planned(n=3)))
    driver.report("2-0", value="mended")
    assert composed(driver) == "mended"


def test_accepting_takes_the_last_output_that_there_is() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1), planned(n=2)))
    driver.report("1-0", value="kept")
    driver.report("1-1", status="EXEC_ERR", fault="worker", value="broken")
    driver.reply(ACCEPT)
    assert composed(driver) == "kept"


def test_accepting_nothing_is_rejected_with_the_cure() -> None:
    driver = Driver(begin())
    events = driver.reply(ACCEPT)
    (rejected,) = (event for event in events if isinstance(event, DecisionRejected))
    assert rejected.reason == "nothing_to_accept"
    assert "Call workers" in rejected.detail
    assert len(driver.state.turns) == 1


def test_an_answer_and_an_accepted_output_are_one_too_many() -> None:
    driver = Driver(begin())
    driver.reply(Reply(decision=Decision(answer="8", last_answers=True)))
    assert driver.state.turns[-1].rejection is not None


def test_the_answer_is_whole_whatever_limit_is_reached_with_it() -> None:
    driver = Driver(begin(budget=Budget(rounds=1, on_limit="pause")))
    driver.reply(plan(planned(n=1)))
    driver.report("1-0", value="8")
    assert composed(driver) == "8"
    assert driver.state.limited_by == ""


def test_at_a_limit_the_policy_may_accept() -> None:
    driver = Driver(begin(budget=Budget(rounds=1)))
    driver.reply(plan(planned(n=1), planned(n=2)))
    driver.report("1-0", value="kept")
    driver.report("1-1", status="EXEC_ERR", fault="worker", value="broken")
    assert Ask(2, "policy", "rounds") in due(driver.state)
    driver.reply(ACCEPT)
    assert composed(driver) == "kept"
    assert driver.state.limited_by == "rounds"


def test_an_ordinary_round_after_it_is_ordinary() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1)))
    driver.report("1-0", status="EXEC_ERR", fault="worker", value="broken")
    driver.reply(Reply(decision=Decision(calls=(planned(n=2),))))
    driver.report("2-0", value="8")
    assert driver.state.asked is not None
    assert driver.state.asked.asker == "policy"
    events = driver.reply(answer("eight"))
    assert [type(event) for event in events][-2:] == [AnswerGiven, RunFinished]
    assert driver.state.answer == "eight"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("8", "8"),
        ({"n": 8}, '{"n":8}'),
        ({"answer": "eight", "run": "r9"}, "eight"),
        (None, "null"),
        (" ", "(the output of call 1-0 is empty)"),
    ],
)
def test_an_output_as_an_answer(value: Json, text: str) -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1)))
    driver.report("1-0", value=value)
    assert composed(driver) == text


@pytest.mark.parametrize("value", ["x" * 200_000, "\0" * 60_000, ["é" * 150_000]])
def test_an_output_too_large_for_an_answer_is_cut(value: Json) -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1)))
    driver.report("1-0", value=value)
    assert composed(driver).endswith("…")


@given(
    statuses=st.lists(st.sampled_from(["OK", "EXEC_ERR", "TIMEOUT"]), min_size=1, max_size=5),
    parallel=st.integers(1, 3),
)
def test_what_answers_is_the_last_output_or_the_policy(
    statuses: list[Status], parallel: int
) -> None:
    driver = Driver(begin(budget=Budget(parallel=parallel)))
    driver.reply(plan(*(planned(n=number) for number in range(len(statuses)))))
    while driver.state.open:
        name = next(iter(driver.state.open))
        status = statuses[int(name.partition("-")[2])]
        report: Report = driver.report_of(
            name, status=status, fault="none" if status == "OK" else "worker", value=name
        )
        driver.report(name, status=report.status, fault=report.fault, value=report.value)
    asked = driver.state.asked
    assert asked is not None
    assert (asked.asker == "composer") == (statuses[-1] == "OK")
    if asked.asker == "policy":
        driver.reply(ACCEPT)
        if "OK" not in statuses:
            assert driver.state.turns[-1].rejection is not None
            return
    found = max(place for place, status in enumerate(statuses) if status == "OK")
    assert composed(driver) == f"1-{found}"
