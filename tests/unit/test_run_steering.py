"""Conductors that come and go, people who steer, and runs below runs."""

from typing import Any

import msgspec
import pytest

from protocol.actions import Pool, Spend
from protocol.budgets import Budget
from protocol.decisions import PlannedCall, Reply
from protocol.events import (
    DecisionRejected,
    PolicyAsked,
    RunPaused,
)
from protocol.limits import (
    IDLE_WINDOW_MS,
    MAX_IDLE_ACTIVATIONS,
)
from protocol.run import Make, Tell, Withdraw, due
from protocol.views import child_report, child_start
from tests.runs import (
    CHILD,
    POLICY,
    TOOL,
    Driver,
    answer,
    begin,
    failure,
    inbox,
    last,
    names,
    plan,
    planned,
    play,
    settled,
    started,
)

# -------------------------------------------------------------------------------- steering


def test_a_new_conductor_asks_anew_and_the_lost_question_is_paid() -> None:
    driver = Driver(begin())
    assert names(driver.activate()) == ["RunActivated", "PolicyAsked"]
    assert driver.state.turn == 2
    assert driver.state.spent == POLICY.reserve
    assert driver.state.reserved == POLICY.reserve


def test_a_new_conductor_keeps_open_attempts() -> None:
    driver = started()
    assert names(driver.activate()) == ["RunActivated"]
    assert Make("1-0", 1) in due(driver.state)


def test_a_run_that_kills_its_host_is_paused() -> None:
    driver = Driver(begin())
    for _ in range(MAX_IDLE_ACTIVATIONS):
        assert driver.state.phase == "deciding"
        driver.activate(after_ms=1)
    assert last(driver, RunPaused).reason == "kills_host"
    driver.signal("resume")
    assert driver.state.phase == "deciding"


def test_a_run_that_waits_quietly_survives_any_number_of_restarts() -> None:
    driver = started()
    for _ in range(4 * MAX_IDLE_ACTIVATIONS):
        driver.activate(after_ms=IDLE_WINDOW_MS)
    assert driver.state.phase == "working"


def test_progress_forgives_earlier_activations() -> None:
    driver = Driver(begin())
    for number in range(1, 6):
        driver.activate(after_ms=1)
        driver.activate(after_ms=1)
        driver.reply(plan(planned()))
        driver.report(f"{number}-0")
    assert driver.state.phase == "deciding"


@pytest.mark.parametrize("phase", ["deciding", "working", "paused"])
def test_a_run_can_be_cancelled_in_every_phase(phase: str) -> None:
    driver = started() if phase == "working" else Driver(begin())
    if phase == "paused":
        driver.signal("pause")
    assert driver.state.phase == phase
    assert names(driver.signal("cancel")) == ["SignalReceived", "RunCancelled"]
    assert driver.state.outcome == "cancelled"
    assert due(driver.state) == ([Withdraw("1-0", 1)] if phase == "working" else [])


def test_a_paused_run_records_reports_and_moves_only_when_resumed() -> None:
    driver = started(planned(), planned())
    driver.signal("pause")
    assert due(driver.state) == []
    assert driver.deadline(after_ms=10_000_000) == []
    assert names(driver.report("1-0")) == ["CallSettled"]
    assert names(driver.lost("1-1")) == ["ReportNoted"]
    assert driver.state.phase == "paused"
    driver.signal("resume")
    assert driver.state.open == {"1-1": 2}


def test_a_paused_run_records_the_reply_and_acts_on_it_when_resumed() -> None:
    driver = Driver(begin())
    driver.signal("pause")
    assert names(driver.reply(plan(planned()))) == ["PolicyReplied"]
    assert names(driver.signal("resume"))[-2:] == ["RoundPlanned", "AttemptStarted"]


def test_a_paused_run_keeps_a_rejection_and_a_failure() -> None:
    driver = Driver(begin())
    driver.signal("pause")
    assert names(driver.reply(Reply(text="hm"))) == ["PolicyReplied", "DecisionRejected"]
    driver.signal("resume")
    driver.signal("pause")
    assert names(driver.reply(failure(retry=False))) == ["PolicyReplied"]
    driver.signal("resume")
    assert driver.state.asked is not None


def test_a_pause_does_not_count_against_the_wall() -> None:
    driver = started(budget=Budget(wall_ms=10_000))
    driver.at += 4_000
    driver.signal("pause")
    driver.at += 1_000_000
    driver.signal("resume")
    assert driver.state.wall_deadline == driver.at + 6_000


def test_a_signal_is_taken_once() -> None:
    driver = started()
    events = driver.signal("pause")
    again = [command for _, commands, _ in driver.steps for command in commands][-1]
    driver.signal("resume")
    assert len(events) == 2
    assert driver.give(again) == []


def test_asking_for_the_answer_settles_the_round_and_asks() -> None:
    driver = started(planned(), planned(after=(0,)))
    driver.signal("answer")
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert last(driver, PolicyAsked).limited_by == "signal"
    assert Withdraw("1-0", 1) in due(driver.state)


def test_asking_for_the_answer_refuses_the_calls_of_an_open_question() -> None:
    driver = Driver(begin())
    driver.signal("answer")
    driver.reply(plan(planned()))
    assert last(driver, DecisionRejected).reason == "answer_only"
    driver.reply(answer())
    assert driver.state.limited_by == "signal"


def test_the_first_limit_stays_the_reason() -> None:
    driver = started(budget=Budget(rounds=1))
    driver.report("1-0")
    driver.signal("answer")
    driver.reply(answer())
    assert driver.state.limited_by == "rounds"


# -------------------------------------------------------------------------------- child runs


def parent(**more: Any) -> Driver:
    """A run that waits for a child."""
    return started(PlannedCall("child", {"task": "Below?"}), **more)


def test_a_child_is_carved_out_of_its_parent() -> None:
    driver = parent(budget=Budget(tokens=1_000, cost=100, calls=11, depth=2, wall_ms=50_000))
    child = child_start(driver.state, "1-0", driver.values)
    assert driver.state.reserves["1-0", 1] == Spend(tokens=495, cost=48, calls=5)
    assert child.budget.tokens == 495
    assert child.budget.calls == 5
    assert child.budget.depth == 1
    assert child.budget.wall_ms == 50_000
    assert child.budget.on_limit == "answer"
    assert child.depth == 1
    assert child.task.text == "Below?"


def test_a_childs_time_is_what_is_left_of_its_parents() -> None:
    driver = Driver(begin(budget=Budget(wall_ms=50_000)))
    driver.reply(plan(PlannedCall("child", {})), after_ms=20_000)
    assert child_start(driver.state, "1-0", driver.values).budget.wall_ms == 30_000


def test_a_share_for_a_child_can_always_be_started_while_something_is_left() -> None:
    budget = Budget(tokens=31, calls=2)
    driver = parent(budget=budget)
    assert list(driver.state.open) == ["1-0"]


@pytest.mark.parametrize(("budget_depth", "depth"), [(0, 0), (5, 8)])
def test_no_run_begins_below_the_depth(budget_depth: int, depth: int) -> None:
    driver = parent(budget=Budget(depth=budget_depth), depth=depth)
    assert settled(driver, "1-0") == ("PARSE_ERR", "policy")


def test_a_child_tells_its_parent_and_its_bill() -> None:
    driver = parent()
    child = Driver(child_start(driver.state, "1-0", driver.values))
    child.reply(plan(planned(), spend=Spend(tokens=8)))
    child.report("1-0")
    child.reply(answer("below"))
    assert due(child.state) == [Tell()]
    report = child_report(child.state)
    assert report.spend == Spend(tokens=8, calls=1)
    driver.give(inbox(report))
    assert settled(driver, "1-0") == ("OK", "none")
    assert driver.state.spent == Spend(tokens=8, calls=2)


def test_a_child_can_not_be_extended() -> None:
    child = Driver(child_start(parent().state, "1-0", {}))
    assert names(child.signal("extend", calls=100)) == ["SignalReceived"]


def test_a_conductor_may_call_itself_until_the_depth_is_reached() -> None:
    calls = {"child"}

    def policy(shown: Any) -> Reply:
        if shown.final or shown.turns:
            return answer()
        return plan(*[PlannedCall(name, {}) for name in calls])

    family = play(begin(budget=Budget(depth=3)), policy, lambda driver, call: None)
    assert sorted(run.state.depth for run in family) == [0, 1, 2, 3]
    assert all(run.state.outcome == "finished" for run in family)


def test_the_first_worker_of_a_name_counts_everywhere() -> None:
    second = msgspec.structs.replace(TOOL, description="second")
    driver = Driver(begin(pool=Pool((TOOL, second, CHILD))))
    assert driver.state.workers["tool"] is TOOL
    assert driver.state.pool.get("tool") is TOOL
