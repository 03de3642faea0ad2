"""What a run does at its limits, and what becomes of its policy's replies."""

from typing import Any

import pytest

from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import Commit, encode
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, ToolCall
from protocol.events import (
    DecisionRejected,
    PolicyAsked,
    RunFailed,
)
from protocol.limits import (
    FINAL_GRACE_MS,
    IDLE_WINDOW_MS,
    MAX_IDLE_ACTIVATIONS,
    MAX_NESTING,
    MAX_POLICY_FAILURES,
    MAX_REJECTIONS,
    POLICY_BACKOFF_MS,
)
from protocol.run import Ask, Wait, due
from tests.runs import (
    AT,
    POLICY,
    RUN,
    TOOL,
    Driver,
    answer,
    begin,
    failure,
    last,
    names,
    plan,
    planned,
    settled,
    started,
)

# -------------------------------------------------------------------------------- budgets


def test_calls_in_parallel_are_bounded() -> None:
    driver = started(*[planned()] * 5, budget=Budget(parallel=2))
    assert list(driver.state.open) == ["1-0", "1-1"]
    driver.report("1-1")
    assert list(driver.state.open) == ["1-0", "1-2"]


def test_a_call_that_can_not_be_paid_waits_for_what_is_reserved() -> None:
    # 10 are kept for the final question; each agent reserves 50.
    driver = started(planned("agent"), planned("agent"), budget=Budget(tokens=109))
    assert list(driver.state.open) == ["1-0"]
    driver.report("1-0", spend=Spend(tokens=20))
    assert list(driver.state.open) == ["1-1"]


def test_a_call_that_can_never_be_paid_settles_and_lets_others_start() -> None:
    costly = WorkerSpec(name="costly", reserve=Spend(tokens=10**9))
    driver = started(planned(after=(1,)), PlannedCall("costly", {}), pool=Pool((TOOL, costly)))
    assert settled(driver, "1-1") == ("EXEC_ERR", "policy")
    assert list(driver.state.open) == ["1-0"]


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (Budget(rounds=1), "rounds"),
        (Budget(calls=1), "calls"),
        (Budget(tokens=25), "tokens"),
        (Budget(cost=8), "cost"),
    ],
)
def test_a_budget_that_is_used_up_asks_for_the_answer(budget: Budget, limit: str) -> None:
    driver = Driver(begin(budget=budget))
    driver.reply(plan(planned(), spend=POLICY.reserve))
    driver.report("1-0")
    assert driver.state.asked is not None
    assert driver.state.asked.limited_by == limit
    driver.reply(plan(planned()))
    assert last(driver, DecisionRejected).reason == "answer_only"
    driver.reply(answer("as far as I got"))
    assert driver.state.outcome == "finished"
    assert driver.state.limited_by == limit


def test_a_run_that_may_start_nothing_at_a_time_asks_for_the_answer() -> None:
    driver = Driver(begin(budget=Budget(parallel=0)))
    assert last(driver, PolicyAsked).limited_by == "calls"


def test_a_policy_that_gives_no_answer_twice_has_one_composed() -> None:
    driver = started(budget=Budget(rounds=1))
    driver.report("1-0", value="found")
    driver.reply(plan(planned()))
    driver.reply(failure(retry=False))
    assert due(driver.state) == [Ask(4, "composer", "rounds")]
    driver.composed()
    assert driver.state.outcome == "finished"
    assert "found" in driver.state.answer


def test_a_question_that_was_lost_does_not_count_as_a_bad_answer() -> None:
    driver = started(budget=Budget(rounds=1))
    driver.report("1-0")
    for _ in range(MAX_IDLE_ACTIVATIONS + 3):
        driver.activate(after_ms=IDLE_WINDOW_MS)
    assert driver.state.asked is not None
    assert driver.state.asked.asker == "policy"


def test_a_composer_that_gives_no_answer_fails_the_run() -> None:
    driver = started(budget=Budget(rounds=1))
    driver.report("1-0")
    driver.reply(failure(retry=False))
    driver.reply(failure(retry=False))
    driver.reply(plan(planned()))
    assert driver.state.outcome == "failed"
    assert last(driver, RunFailed).reason == "no_answer"


def test_a_run_that_found_nothing_and_can_not_ask_fails() -> None:
    driver = Driver(begin(budget=Budget(tokens=5)))
    assert driver.state.outcome == "failed"
    assert "nothing was found" in driver.state.detail


@pytest.mark.parametrize("limit", ["rounds", "calls", "wall"])
def test_a_limit_may_pause_the_run_until_it_is_extended(limit: str) -> None:
    budget = Budget(rounds=1, calls=1, wall_ms=100_000, on_limit="pause")
    driver = started(budget=budget)
    if limit == "wall":
        driver.deadline(after_ms=100_000)
        assert driver.state.open == {"1-0": 1}  # what is paid for is not thrown away
    driver.report("1-0")
    assert names(driver.events)[-1] == ("RunPaused" if limit != "wall" else "CallSettled")
    assert settled(driver, "1-0") == ("OK", "none")
    driver.at += 1_000_000
    driver.signal("extend", rounds=1, calls=1, wall_ms=1_000)
    assert driver.state.phase == "deciding"
    assert last(driver, PolicyAsked).limited_by == ""


def test_a_resumed_run_that_is_still_at_its_limit_pauses_again() -> None:
    driver = started(budget=Budget(rounds=1, on_limit="pause"))
    driver.report("1-0")
    assert names(driver.signal("resume")) == ["SignalReceived", "RunResumed", "RunPaused"]
    driver.signal("answer")
    assert last(driver, PolicyAsked).limited_by == "signal"


def test_the_wall_settles_what_is_open_and_asks() -> None:
    driver = started(planned(), planned(after=(0,)), budget=Budget(wall_ms=1_000))
    assert due(driver.state)[-1] == Wait(AT + 1_000)
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert settled(driver, "1-1") == ("TIMEOUT", "none")
    assert last(driver, PolicyAsked).limited_by == "wall"


def test_no_attempt_starts_and_none_is_made_again_after_the_wall() -> None:
    driver = started(planned(), planned(after=(0,)), budget=Budget(wall_ms=1_000))
    driver.at += 1_000
    driver.report("1-0", status="EXEC_ERR", fault="infrastructure")
    assert settled(driver, "1-0") == ("EXEC_ERR", "infrastructure")
    assert driver.state.open == {}
    driver.wait()
    assert settled(driver, "1-1") == ("TIMEOUT", "none")


def test_a_policy_that_never_replies_is_waited_for_until_the_grace_is_over() -> None:
    driver = started(planned(), budget=Budget(rounds=2, wall_ms=1_000))
    driver.report("1-0", value="found")
    assert due(driver.state)[-1] == Wait(AT + 1_000 + FINAL_GRACE_MS)
    driver.at += 1_000 + FINAL_GRACE_MS
    driver.signal("extend")
    assert driver.state.asked is not None
    assert driver.state.asked.asker == "policy"
    driver.deadline()
    assert due(driver.state) == [Ask(3, "composer", "wall")]
    assert driver.state.spent.tokens == POLICY.reserve.tokens  # the lost question's


# -------------------------------------------------------------------------------- policies


def test_a_failed_policy_is_asked_again_later_and_later() -> None:
    driver = Driver(begin())
    for number in range(MAX_POLICY_FAILURES - 1):
        driver.reply(failure())
        assert driver.state.retry_at == driver.at + (POLICY_BACKOFF_MS << number)
        assert driver.deadline(after_ms=1) == []
        driver.wait()
        assert driver.state.asked is not None
    driver.reply(failure(error="no route"))
    assert driver.state.pause_reason == "policy_unavailable"
    assert driver.state.pause_detail == "no route"
    driver.signal("resume")
    assert driver.state.asked is not None
    assert driver.state.failures == 0


def test_a_policy_that_can_not_be_helped_pauses_the_run_at_once() -> None:
    driver = Driver(begin())
    driver.reply(failure(retry=False))
    assert driver.state.pause_reason == "policy_unavailable"


def test_rejections_in_a_row_end_in_a_final_question() -> None:
    driver = Driver(begin())
    for _ in range(MAX_REJECTIONS):
        assert driver.state.final == ""
        driver.reply(Reply(text="hm"))
    assert driver.state.final == "rejections"


def test_a_round_forgives_earlier_rejections() -> None:
    driver = Driver(begin())
    for number in range(1, 4):
        for _ in range(MAX_REJECTIONS - 1):
            driver.reply(Reply(text="hm"))
        driver.reply(plan(planned()))
        driver.report(f"{number}-0")
    assert driver.state.final == ""


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(decision=Decision()), "not_a_decision"),
        (Reply(decision=Decision((planned(),), "both")), "not_a_decision"),
        (answer("  "), "empty"),
        (plan(*[planned()] * 65), "too_many_calls"),
        (plan(planned(after=(1,)), planned(sees=(0,))), "bad_graph"),
        (plan(planned(after=(0,))), "bad_graph"),
        (plan(planned(after=(5,))), "bad_graph"),
        (plan(planned(after=(-1,))), "bad_graph"),
        (Reply(text="x" * 140_000), "too_large"),
        (plan(planned(n=object())), "unreadable"),
        (plan(planned(n=deep(MAX_NESTING))), "unreadable"),
        (answer("\ud800"), "unreadable"),
        (answer(spend=Spend(tokens=-5)), "unreadable"),
    ],
)
def test_a_reply_that_is_no_decision_is_rejected(reply: Reply, reason: str) -> None:
    driver = Driver(begin())
    driver.reply(reply)
    assert last(driver, DecisionRejected).reason == reason
    assert driver.state.asked is not None
    assert driver.state.spent.tokens >= 0
    commit = Commit(run=RUN, n=1, epoch=1, at=AT, causes=(), events=tuple(driver.events), prev="")
    assert len(encode(commit)) < 200_000


def test_a_decision_is_used_as_the_log_will_have_it() -> None:
    driver = started(planned(n=float("nan")))
    assert driver.state.calls["1-0"].call.arguments == {"n": None}
    assert settled(driver, "1-0") == ("PARSE_ERR", "policy")


def test_native_tool_calls_are_parsed() -> None:
    calls = (ToolCall("a", "tool", '{"n": 1}'), ToolCall("b", "tool", "{n: 1"))
    driver = Driver(begin(policy=PolicySpec(name="p", dialect="openai")))
    driver.reply(Reply(tool_calls=calls))
    assert list(driver.state.open) == ["1-0"]
    assert settled(driver, "1-1") == ("PARSE_ERR", "policy")
    assert "no JSON object" in driver.state.calls["1-1"].value
    driver.report("1-0")
    driver.reply(Reply(text="one"))
    assert driver.state.answer == "one"


def test_a_reply_to_another_question_changes_nothing() -> None:
    driver = Driver(begin())
    driver.activate()
    assert driver.reply(answer(), turn=1) == []
    assert driver.reply(answer(), turn=3) == []
    driver.reply(answer(), turn=2)
    assert driver.state.outcome == "finished"


def test_a_call_begins_before_later_ones_when_what_it_waits_for_cannot_be_paid() -> None:
    """The order that every log of the first rules has."""
    driver = started(planned("agent"), planned(after=(0,)), planned(), budget=Budget(tokens=40))
    assert settled(driver, "1-0") == ("EXEC_ERR", "policy")
    assert list(driver.state.open) == ["1-1", "1-2"]
