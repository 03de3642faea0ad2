"""The rules about calls, one by one, each in the smallest story that shows it."""

import pytest

from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import Commit, encode
from protocol.commands import Activate, Command, Deadline, Inbox, PolicyReply, cause
from protocol.decisions import PlannedCall
from protocol.errors import Internal
from protocol.events import (
    AnyEvent,
    AttemptStarted,
    CallSettled,
    ReportNoted,
    RunFinished,
)
from protocol.inbox import Label, Reward
from protocol.rules import MAX_NOTED_REPORTS, Draft
from protocol.run import RULES, Ask, Make, Withdraw, due, evolve, step
from protocol.state import RunState
from tests.runs import (
    AGENT,
    AT,
    RUN,
    Driver,
    answer,
    begin,
    inbox,
    last,
    names,
    plan,
    planned,
    settled,
    started,
)

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


@pytest.mark.parametrize(
    "event",
    [
        CallSettled(call="1-0", status="TIMEOUT"),
        AttemptStarted(call="1-0", attempt=2, deadline=AT, reserve=Spend(tokens=1)),
        AttemptStarted(call="7-0", attempt=1, deadline=AT),
        CallSettled(call="7-0", report="x", spend=Spend(tokens=1)),
        ReportNoted(call="7-0", attempt=1, report="x", why="late", spend=Spend(tokens=1)),
    ],
)
def test_an_event_that_can_not_be_changes_nothing(event: AnyEvent) -> None:
    driver = started(planned(), planned())
    driver.report("1-0")
    assert evolve(driver.state, event) == driver.state
