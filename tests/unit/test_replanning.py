"""A policy is asked while calls go on, and is shown what came late: nothing paid for is lost."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from protocol.budgets import Budget
from protocol.commands import Activate
from protocol.decisions import Dialect, Observation, PlannedCall, PolicySpec, Turn
from protocol.dialects import request
from protocol.dialects.openai import LATE, messages
from protocol.dialects.shared import STILL_OPEN
from protocol.events import DecisionRejected, PolicyAsked, ReportNoted, RoundClosed
from protocol.run import RULES, Ask, Make, Wait, Withdraw, due
from protocol.views import compose, view
from tests.runs import Driver, answer, begin, last, names, plan, planned, settled, started
from tests.strategies import World
from tests.unit.test_run_properties import HISTORIES, STARTS, History, thorough

EAGER = PolicySpec(name="script", replan_on="failure")


def eager(*calls: PlannedCall, **more: Any) -> Driver:
    return started(*calls, policy=EAGER, **more)


def failed(driver: Driver, call: str) -> None:
    driver.report(call, status="EXEC_ERR", fault="worker", value="broken")


def turns(driver: Driver) -> tuple[Turn, ...]:
    return view(driver.state, driver.values).turns


def found(seen: Observation) -> tuple[str, str, object]:
    return seen.call.id, seen.status, seen.value


def test_a_failure_has_the_policy_asked_while_the_others_go_on() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    assert last(driver, RoundClosed).left == ("1-1",)
    assert driver.state.phase == "deciding"
    effects = due(driver.state)
    assert Make("1-1", 1) in effects
    assert any(isinstance(effect, Ask) for effect in effects)
    assert [effect for effect in effects if isinstance(effect, Wait)] == [
        Wait(driver.state.calls["1-1"].deadline)
    ]
    (turn,) = turns(driver)
    assert [found(seen) for seen in turn.observations] == [("1-0", "EXEC_ERR", "broken")]
    assert [call.id for call in turn.open] == ["1-1"]


def test_who_does_not_ask_for_it_waits_for_the_whole_round() -> None:
    driver = started(planned(), planned("agent"))
    failed(driver, "1-0")
    assert driver.state.phase == "working"
    driver.report("1-1")
    assert last(driver, RoundClosed).left == ()


def test_the_next_round_waits_for_what_was_left_and_shows_it() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.reply(plan(planned()))
    assert "PolicyAsked" not in names(driver.report("2-0", value="two"))
    assert "PolicyAsked" in names(driver.report("1-1", value="late"))
    first, second = turns(driver)
    assert [call.id for call in first.open] == ["1-1"]
    assert [found(seen) for seen in second.observations] == [("2-0", "OK", "two")]
    assert [found(seen) for seen in second.late] == [("1-1", "OK", "late")]


def test_what_comes_while_the_policy_thinks_is_shown_with_the_next_question() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    before = turns(driver)
    driver.report("1-1", value="late")
    assert turns(driver) == before, "the question that is open was asked without it"
    driver.reply(plan(planned()))
    driver.report("2-0")
    first, second = turns(driver)
    assert (first, [found(seen) for seen in second.late]) == (before[0], [("1-1", "OK", "late")])


def test_one_that_was_left_and_fails_has_the_policy_asked_again() -> None:
    driver = eager(planned(), planned("agent"), planned("agent"))
    failed(driver, "1-0")
    driver.reply(plan(planned()))
    failed(driver, "1-1")
    assert last(driver, RoundClosed).left == ("1-2", "2-0")
    assert [call.id for call in turns(driver)[1].open] == ["2-0"]


def test_a_call_waits_for_calls_of_earlier_rounds_and_sees_them() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.reply(plan(planned("agent", earlier=("1-1",)), planned()))
    assert set(driver.state.open) == {"1-1", "2-1"}
    driver.report("1-1", value="seen")
    assert set(driver.state.open) == {"2-0", "2-1"}
    assert driver.state.calls["2-0"].call.sees == ("1-1",)


def test_a_call_that_there_never_was_can_not_be_waited_for() -> None:
    driver = started()
    driver.report("1-0")
    driver.reply(plan(planned(earlier=("1-7",))))
    rejected = last(driver, DecisionRejected)
    assert rejected.reason == "bad_graph"
    assert "'1-7'" in rejected.detail


def test_what_waits_in_a_round_goes_on_when_that_is_over() -> None:
    driver = eager(planned(), planned("agent"), planned(after=(1,)))
    failed(driver, "1-0")
    assert last(driver, RoundClosed).left == ("1-1", "1-2")
    driver.report("1-1")
    assert set(driver.state.open) == {"1-2"}, "begun while the policy is asked"


def test_an_answer_ends_what_was_left() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.reply(answer())
    assert driver.state.outcome == "finished"
    assert Withdraw("1-1", 1) in due(driver.state)


def test_the_last_question_waits_for_all_that_was_begun() -> None:
    driver = eager(planned(), planned("agent"), budget=Budget(rounds=1))
    failed(driver, "1-0")
    assert driver.state.phase == "working"
    driver.report("1-1")
    assert last(driver, PolicyAsked).limited_by == "rounds"


def test_who_wants_the_answer_early_does_not_wait_for_what_was_left() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.signal("answer")
    assert settled(driver, "1-1") == ("TIMEOUT", "infrastructure")
    assert not driver.state.carried


def test_what_was_left_has_its_deadline_while_the_policy_thinks() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.wait()
    assert settled(driver, "1-1") == ("TIMEOUT", "infrastructure")
    assert driver.state.asked is not None
    driver.reply(plan(planned()))
    driver.report("2-0")
    assert [seen.status for seen in turns(driver)[1].late] == ["TIMEOUT"]


def test_a_pause_while_calls_go_on_ends_where_it_began() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.signal("pause")
    driver.report("1-1")
    driver.signal("resume")
    assert driver.state.phase == "deciding"
    driver.reply(answer())
    assert names(driver.events).count("RoundClosed") == 1


def test_a_report_that_comes_too_late_is_shown_and_can_be_seen() -> None:
    driver = started(planned())
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    driver.report("1-0", attempt=1, value="at last")
    assert last(driver, ReportNoted).usable
    driver.reply(plan(planned("agent", earlier=("1-0",))))
    driver.report("2-0")
    first, second = turns(driver)
    assert [found(seen) for seen in first.observations] == [
        ("1-0", "TIMEOUT", "No report of attempt 1 came before its deadline.")
    ]
    assert [found(seen) for seen in second.late] == [("1-0", "OK", "at last")]


def test_one_late_result_of_a_call_is_enough() -> None:
    driver = started(planned())
    driver.wait()
    for value in ("at last", "again"):
        driver.report("1-0", attempt=1, value=value)
    assert [event.usable for event in driver.events if isinstance(event, ReportNoted)] == [
        True,
        False,
    ]


def test_a_late_failure_says_nothing() -> None:
    driver = started(planned())
    driver.wait()
    failed(driver, "1-0")
    assert not last(driver, ReportNoted).usable


def test_a_run_of_older_rules_is_decided_as_it_was() -> None:
    driver = Driver()
    driver.give(begin(), Activate("conductor", "1"))
    driver.reply(plan(planned()))
    driver.wait()
    driver.report("1-0", attempt=1)
    assert not last(driver, ReportNoted).usable


def test_a_late_result_is_an_answer_when_nothing_else_was_found() -> None:
    driver = started(planned(), budget=Budget(rounds=1))
    driver.wait()
    driver.report("1-0", attempt=1, value="at last")
    for _ in range(2):
        driver.reply(plan(planned()))
    assert last(driver, PolicyAsked).asker == "composer"
    composed = compose(view(driver.state, driver.values, "rounds"))
    assert composed.decision is not None
    assert "at last" in (composed.decision.answer or "")


def test_the_conversation_says_what_goes_on_and_what_came() -> None:
    driver = eager(planned(), planned("agent"))
    failed(driver, "1-0")
    driver.reply(plan(planned()))
    driver.report("2-0")
    driver.report("1-1", value="late")
    said = [message["content"] for message in messages(view(driver.state, driver.values))]
    assert STILL_OPEN in said
    assert said[-1] == f'{LATE}\nagent({{"n":1}}): {{"status":"OK","value":"late"}}'


SPEAKING: tuple[Dialect, ...] = ("openai", "hermes", "lists")


def asked_of(driver: Driver, dialect: Dialect) -> list[Any]:
    """The messages of a question, as a policy of that dialect is sent them."""
    policy = PolicySpec(name="script", dialect=dialect)
    shown: list[Any] = request(policy, view(driver.state, driver.values))["messages"]
    return shown


@pytest.mark.parametrize("dialect", SPEAKING)
def test_a_question_that_was_lost_is_asked_again_with_what_has_come(dialect: Dialect) -> None:
    driver = started(planned(), planned())
    driver.wait()
    said = [asked_of(driver, dialect)]
    for call in ("1-0", "1-1"):
        driver.report(call, attempt=1, value="at last")
        driver.activate()
        said.append(asked_of(driver, dialect))
    for before, after in pairwise(said):
        assert after[: len(before)] == before
        assert len(after) == len(before) + 1


@pytest.mark.parametrize("dialect", SPEAKING)
@thorough
@given(STARTS, HISTORIES)
def test_what_a_policy_was_shown_stays_as_it_was(
    dialect: Dialect, start: Any, history: History
) -> None:
    """Each question is the one before with something added: what a policy has read is cached."""
    world = World(start)
    world.give(Activate("conductor", RULES))
    before: list[Any] = []
    turn = 0
    for moves in history:
        world.happen(*moves)
        asked = world.state.asked
        if asked is None or asked.turn == turn:
            continue
        shown = asked_of(world, dialect)
        if asked.turn > turn + 1 or world.state.last_error:
            before = []  # questions in between were not looked at, or one is asked again
        assert shown[: len(before)] == before
        before, turn = shown, asked.turn
