"""The rules of a run one by one, each in the smallest story that shows it."""

from typing import Any

import msgspec
import pytest

from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import Commit, encode
from protocol.commands import Activate, Command, Deadline, Inbox, PolicyReply, cause
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, ToolCall
from protocol.errors import Internal
from protocol.events import (
    CallSettled,
    DecisionRejected,
    PolicyAsked,
    ReportNoted,
    RunFailed,
    RunFinished,
    RunPaused,
)
from protocol.inbox import Label, Reward
from protocol.limits import (
    FINAL_GRACE_MS,
    IDLE_WINDOW_MS,
    MAX_IDLE_ACTIVATIONS,
    MAX_NESTING,
    MAX_POLICY_FAILURES,
    MAX_REJECTIONS,
    POLICY_BACKOFF_MS,
)
from protocol.rules import MAX_NOTED_REPORTS, Draft
from protocol.run import RULES, Ask, Make, Tell, Wait, Withdraw, due, step
from protocol.state import RunState
from protocol.views import child_report, child_start
from tests.runs import (
    AGENT,
    AT,
    CHILD,
    POLICY,
    RUN,
    TOOL,
    Driver,
    answer,
    begin,
    failure,
    inbox,
    names,
    plan,
    planned,
    play,
)


def started(*calls: PlannedCall, **more: Any) -> Driver:
    """A run whose first round is at work."""
    driver = Driver(begin(**more))
    driver.reply(plan(*(calls or (planned(),))))
    return driver


def settled(driver: Driver, call: str) -> tuple[str | None, str]:
    """How a call ended and who is at fault."""
    state = driver.state.calls[call]
    return state.status, state.fault


def last(driver: Driver, kind: type) -> Any:
    """The last event of a type."""
    return [event for event in driver.events if isinstance(event, kind)][-1]


# -------------------------------------------------------------------------------- the plain way


def test_a_run_from_its_task_to_its_answer() -> None:
    driver = Driver(begin())
    assert names(driver.events) == ["RunStarted", "RunActivated", "PolicyAsked"]
    assert due(driver.state)[0] == Ask(1, "policy", "")
    driver.reply(plan(planned(n=1), planned("agent", n=2)))
    assert due(driver.state)[:2] == [Make("1-0", 1), Make("1-1", 1)]
    driver.report("1-1", spend=Spend(tokens=40, cost=2))
    driver.report("1-0")
    assert names(driver.events[-3:]) == ["CallSettled", "RoundClosed", "PolicyAsked"]
    driver.reply(answer("three"))
    assert names(driver.events[-3:]) == ["PolicyReplied", "AnswerGiven", "RunFinished"]
    assert driver.state.answer == "three"
    assert driver.state.limited_by == ""
    assert driver.state.spent == Spend(tokens=40, cost=2, calls=2)
    assert driver.state.reserved == Spend()
    assert due(driver.state) == []


def test_a_run_asks_nobody_before_it_is_activated() -> None:
    driver = Driver()
    assert names(driver.give(begin())) == ["RunStarted"]
    assert due(driver.state) == []
    assert names(driver.activate()) == ["RunActivated", "PolicyAsked"]
    assert driver.state.spent == Spend()


def test_only_a_start_begins_a_run() -> None:
    driver = Driver()
    driver.give(Activate("c", RULES), Deadline(), PolicyReply(1, answer()))
    assert driver.events == []
    driver.give(begin())
    assert driver.give(begin(task="Another?")) == []
    assert driver.state.task.text == "What is asked?"


def test_a_commands_cause_is_recorded_only_if_something_came_of_it() -> None:
    driver = started()
    good, foreign = driver.report_of("1-0"), driver.report_of("1-0", run="another")
    reward = Reward(run=RUN, channel="c", value=1.0, by="ada")
    label = Label(run=RUN, key="k", value=1, by="ada")
    commands: list[Command] = [
        inbox(foreign),
        Inbox("r", reward),
        Inbox("l", label),
        inbox(good),
        begin(),
    ]
    draft = step(driver.state, commands, AT)
    assert draft.causes == [cause(inbox(good))]


def test_an_illegal_event_is_a_bug_and_says_so() -> None:
    with pytest.raises(Internal, match="RunFinished was decided in phase 'new'"):
        Draft(RunState(), AT).emit(RunFinished())


# -------------------------------------------------------------------------------- calls


def test_dependencies_start_when_what_they_wait_for_has_settled() -> None:
    driver = started(planned(), planned(after=(0,)), planned(sees=(1,)), planned("nobody"))
    assert list(driver.state.open) == ["1-0"]
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    assert list(driver.state.open) == ["1-1"]
    driver.report("1-1")
    assert list(driver.state.open) == ["1-2"]
    assert driver.state.calls["1-2"].call.sees == ("1-1",)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (PlannedCall("nobody", {}), "There is no worker 'nobody'. There are: tool, agent, child."),
        (planned(n="1"), "['n']: must be of type integer"),
        (PlannedCall("tool", {}), "the arguments: 'n' is required"),
        (PlannedCall("child", {"__unreadable__": "{n:"}), "no JSON object: '{n:'"),
        (PlannedCall("tool", {"n": "x" * 40_000}), "at most 32768 are possible"),
    ],
)
def test_what_can_not_be_dispatched_says_how_to_mend_it(call: PlannedCall, text: str) -> None:
    driver = started(call, planned())
    assert settled(driver, "1-0") == ("PARSE_ERR", "policy")
    assert text in driver.state.calls["1-0"].value
    assert driver.state.spent.calls == 1  # the other one


def test_a_schema_that_is_none_settles_the_call_and_raises_nothing() -> None:
    broken = WorkerSpec(name="broken", parameters={"type": "nonsense"})
    driver = started(PlannedCall("broken", {}), pool=Pool((broken,)))
    assert settled(driver, "1-0") == ("PARSE_ERR", "policy")


def test_texts_of_many_bad_calls_fit_into_one_commit() -> None:
    workers = [WorkerSpec(name=f"w{number:03}" + "x" * 60) for number in range(256)]
    driver = Driver(begin(pool=Pool(tuple(workers))))
    events = driver.reply(plan(*[PlannedCall("y" * 1_500, {})] * 64))
    commit = Commit(run=RUN, n=2, epoch=1, at=AT, causes=(), events=tuple(events), prev="")
    assert len(encode(commit)) < 400_000


def test_a_lost_attempt_is_made_again_also_in_the_last_round() -> None:
    driver = started(budget=Budget(rounds=1))
    driver.lost("1-0")
    assert driver.state.open == {"1-0": 2}
    driver.lost("1-0")
    assert settled(driver, "1-0") == ("EXEC_ERR", "infrastructure")


def test_a_fault_of_the_worker_is_not_tried_again() -> None:
    driver = started()
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    assert settled(driver, "1-0") == ("EXEC_ERR", "worker")


def test_an_attempt_that_can_not_be_paid_again_settles_with_its_report() -> None:
    driver = started(budget=Budget(calls=1))
    driver.lost("1-0")
    assert settled(driver, "1-0") == ("EXEC_ERR", "infrastructure")
    assert driver.state.calls["1-0"].report


def test_an_earlier_attempt_that_succeeds_counts_and_the_later_is_withdrawn() -> None:
    driver = started()
    slow = driver.report_of("1-0", value="slow")
    driver.lost("1-0")
    driver.give(inbox(slow))
    assert settled(driver, "1-0") == ("OK", "none")
    assert last(driver, CallSettled).attempt == 1
    assert Withdraw("1-0", 2) in due(driver.state)
    late = driver.report_of("1-0", attempt=2, value="late")
    assert names(driver.give(inbox(late))) == ["ReportNoted"]
    assert Withdraw("1-0", 2) not in due(driver.state)


def test_an_earlier_attempt_that_fails_late_is_only_noted() -> None:
    driver = started()
    driver.lost("1-0")
    driver.report("1-0", attempt=1, status="EXEC_ERR", fault="worker", value="again")
    assert last(driver, ReportNoted).why == "late"
    assert driver.state.open == {"1-0": 2}


def test_a_report_is_billed_once() -> None:
    driver = started(planned("agent"), planned("agent"))
    report = inbox(driver.report_of("1-0", spend=Spend(tokens=7)))
    driver.give(report, report)
    driver.give(report)
    assert driver.state.spent.tokens == 7


def test_a_second_report_of_an_attempt_is_billed_too() -> None:
    driver = started(planned("agent"), planned("agent"))
    driver.report("1-0", spend=Spend(tokens=7), value=1)
    driver.report("1-0", spend=Spend(tokens=7), value=2)
    assert driver.state.spent.tokens == 14


def test_noise_does_not_drown_the_report_that_counts() -> None:
    driver = started()
    driver.lost("1-0")
    for number in range(2 * MAX_NOTED_REPORTS):
        driver.report("1-0", attempt=1, status="EXEC_ERR", value=number)
    assert len(driver.state.calls["1-0"].noted) == MAX_NOTED_REPORTS
    driver.report("1-0")
    assert settled(driver, "1-0") == ("OK", "none")


@pytest.mark.parametrize("attempt", [0, 2, 99])
def test_a_report_of_an_attempt_never_made_changes_nothing(attempt: int) -> None:
    driver = started()
    assert driver.report("1-0", attempt=attempt) == []
    assert driver.report("7-0", attempt=1) == []
    assert driver.report("1-0", run="another") == []


def test_an_attempt_without_a_report_keeps_its_reservation() -> None:
    driver = started(planned("agent"), planned("tool"))
    driver.report("1-1")
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert driver.state.reserves["1-0", 1] == AGENT.reserve
    assert Withdraw("1-0", 1) in due(driver.state)
    driver.report("1-0", attempt=1, spend=Spend(tokens=3))
    assert ("1-0", 1) not in driver.state.reserves
    assert driver.state.spent.tokens == 3


def test_only_a_deadline_settles_by_time() -> None:
    driver = started()
    driver.at += 10_000_000
    driver.signal("extend", wall_ms=1)
    assert driver.state.open == {"1-0": 1}
    driver.report("1-0")
    assert settled(driver, "1-0") == ("OK", "none")


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
    child = child_start(driver.state, "1-0")
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
    assert child_start(driver.state, "1-0").budget.wall_ms == 30_000


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
    child = Driver(child_start(driver.state, "1-0"))
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
    child = Driver(child_start(parent().state, "1-0"))
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
