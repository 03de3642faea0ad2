"""Two runs side by side: nothing but time between a run and itself; what is planted is named."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import BlobRef, Report, Spend
from protocol.budgets import Budget
from protocol.commands import Activate
from protocol.decisions import PolicySpec
from protocol.events import Edit
from protocol.run import RULES
from protocol.subjects import child_id, run_id
from replay.chain import RunLog
from replay.diff import ABSENT, Diff, Difference, diff
from replay.history import entries
from tests.logs import log_of
from tests.runs import TOOL, Driver, answer, begin, failure, inbox, plan, planned, started
from tests.unit.test_forks import forked, joined
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough

OTHER = run_id(b"another run.....")


def swapped(found: Difference) -> Difference:
    """The difference, seen from the other run."""
    return msgspec.structs.replace(
        found,
        a=found.b,
        b=found.a,
        call_a=found.call_b,
        call_b=found.call_a,
        worker=" / ".join(reversed(found.worker.split(" / "))),
        event_a=found.event_b,
        event_b=found.event_a,
    )


def whats(found: Diff) -> list[tuple[str, str]]:
    """Call and kind of every difference that counts."""
    return [(each.call_a or each.call_b, each.what) for each in found.all() if each.counts]


@thorough
@given(STARTS, HISTORIES)
def test_a_run_is_like_itself(start: Any, history: History) -> None:
    log = log_of(lived(start, history))
    found = diff(log, log)
    assert found.all() == []
    assert found.first is None
    assert found.shared == len(entries(log))


@thorough
@given(STARTS, HISTORIES, STARTS, HISTORIES)
def test_any_two_runs_can_be_compared_and_either_way(
    start: Any, history: History, other: Any, another: History
) -> None:
    a, b = log_of(lived(start, history)), log_of(lived(other, another))
    there, back = diff(a, b), diff(b, a)
    assert sorted(map(repr, map(swapped, there.all()))) == sorted(map(repr, back.all()))
    assert (there.first is None) == (back.first is None)
    if there.first is not None and back.first is not None:
        assert there.first.key == back.first.key
    numbers = [len(entries(a)), len(entries(b))]
    for each in there.all():
        assert 0 <= each.event_a <= numbers[0]
        assert 0 <= each.event_b <= numbers[1]


@thorough
@given(STARTS, HISTORIES, st.integers(0, 10**6))
def test_a_fork_differs_from_its_event_on(start: Any, history: History, pick: int) -> None:
    world = lived(start, history)
    log = log_of(world)
    at = pick % len(world.events) + 1
    if log.state(at).phase == "ended":
        return
    text = Edit("task.text", "Something else?")
    fork = joined(forked(log, at, edits=(text,)), log)
    found = diff(log, fork)
    assert found.shared == at
    task = next(each for each in found.all() if each.what == "task")
    assert (task.event_b, task.b) == (at + 1, {"text": "Something else?"})
    for each in found.all():
        assert each.event_b > at or each.event_b == 0 or each.event_a > at or each.event_a == 0


def two(*, value: Any = 2, status: Any = "OK", **report: Any) -> Driver:
    """A run of two rounds of which one call's report is as given."""
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0", value=1)
    driver.report("1-1", value=value, status=status, **report)
    driver.reply(plan(planned("agent", n=3)))
    driver.report("2-0", value=3)
    driver.reply(answer("6"))
    return driver


@pytest.mark.parametrize(
    ("change", "what", "a", "b"),
    [
        ({"value": 5}, "value", 2, 5),
        ({"value": True}, "value", 2, True),
        ({"status": "TIMEOUT", "fault": "worker"}, "status", "OK", "TIMEOUT"),
        ({"spend": Spend(tokens=7)}, "tokens", 0, 7),
        ({"spend": Spend(cost=9)}, "cost", 0, 9),
    ],
)
def test_a_planted_change_of_a_result_is_named(
    change: dict[str, Any], what: str, a: Any, b: Any
) -> None:
    found = diff(log_of(two()), log_of(two(**change))).first
    assert found is not None
    assert (found.round, found.call_a, found.worker, found.what) == (1, "1-1", "tool", what)
    assert (found.a, found.b) == (a, b)
    assert found.event_a == found.event_b


def test_one_and_true_are_two_values() -> None:
    assert whats(diff(log_of(two(value=1)), log_of(two(value=True)))) == [("1-1", "value")]


def test_time_never_counts() -> None:
    slow = started(planned(n=1), planned(n=2))
    slow.report("1-0", value=1)
    slow.at += 5_000
    late = msgspec.structs.replace(slow.report_of("1-1", value=2), latency_ms=4_900)
    slow.give(inbox(late))
    slow.reply(plan(planned("agent", n=3)))
    slow.report("2-0", value=3)
    slow.reply(answer("6", latency_ms=30))
    found = diff(log_of(two()), log_of(slow))
    assert found.first is None
    assert {(each.call_a, each.a, each.b) for each in found.all()} == {
        ("1-1", 0, 4_900),
        ("", 0, 30),
        ("", 0, 5_000),
    }


def rounds(*replies: Any, **more: Any) -> Driver:
    """A run whose policy says these, and whose calls all give 1."""
    driver = Driver(begin(**more))
    for reply in replies:
        driver.reply(reply)
        for name in list(driver.state.open):
            driver.report(name)
    return driver


def test_planted_changes_of_a_decision_are_named() -> None:
    base = rounds(plan(planned(n=1)), plan(planned(n=2), planned("agent", n=4)), answer("yes"))
    other = rounds(plan(planned(n=1)), plan(planned(n=3), planned("agent", n=4)), answer("yes"))
    assert whats(diff(log_of(base), log_of(other))) == [("2-0", "arguments")]
    other = rounds(plan(planned(n=1)), plan(planned("agent", n=4), planned(n=2)), answer("yes"))
    found = diff(log_of(base), log_of(other))
    assert whats(found) == [("", "decision")]
    assert [(p.a.call, p.b.call) for p in found.steps[1].pairs if p.a and p.b] == [
        ("2-0", "2-1"),
        ("2-1", "2-0"),
    ]
    other = rounds(plan(planned(n=1)), answer("no"))
    found = diff(log_of(base), log_of(other))
    assert found.first is not None
    assert (found.first.what, found.first.a, found.first.b) == (
        "decision",
        ["tool", "agent"],
        "answer",
    )
    assert (found.first.event_a, found.first.event_b, found.first.round) == (10, 10, 2)
    assert ("decision", ABSENT) in [(e.what, e.b) for e in found.all()]
    other = rounds(plan(planned(n=1)), plan(planned(n=2), planned("agent", n=4)), answer("no"))
    assert whats(diff(log_of(base), log_of(other))) == [("", "answer")]


def test_calls_are_aligned_by_what_they_ask_before_their_place() -> None:
    base = rounds(plan(planned(n=1), planned(n=2), planned("agent", n=3)), answer())
    other = rounds(plan(planned(n=2), planned("child"), planned(n=1)), answer())
    (step, _) = diff(log_of(base), log_of(other)).steps
    pairs = [(pair.a.call, pair.b.call) for pair in step.pairs if pair.a and pair.b]
    assert pairs == [("1-0", "1-2"), ("1-1", "1-0"), ("1-2", "1-1")]
    assert [found.what for found in step.pairs[0].differences] == []
    assert [found.what for found in step.pairs[2].differences] == ["worker", "arguments"]
    shorter = rounds(plan(planned(n=2)), answer())
    (step, _) = diff(log_of(base), log_of(shorter)).steps
    assert [(p.a and p.a.call, p.b and p.b.call) for p in step.pairs] == [
        ("1-1", "1-0"),
        ("1-0", None),
        ("1-2", None),
    ]


def test_a_rejected_reply_and_a_policy_that_failed() -> None:
    base = rounds(plan(planned(n=1)), answer())
    other = rounds(plan(), plan(planned(n=1)), answer())
    found = diff(log_of(base), log_of(other))
    assert whats(found) == [("", "rejections")]
    assert (found.all()[0].b, found.all()[0].round) == (("not_a_decision",), 1)
    paused = rounds(plan(planned(n=1)), failure(retry=False))
    found = diff(log_of(base), log_of(paused))
    assert found.first is not None
    assert (found.first.what, found.first.b) == ("rejections", ("EXEC_ERR",))
    assert ("outcome", "finished", "paused") in [(e.what, e.a, e.b) for e in found.all()]


def test_what_a_run_is_asked_and_with_what() -> None:
    base = rounds(plan(planned(n=1)), answer())
    longer = type(TOOL)(**{f: getattr(TOOL, f) for f in TOOL.__struct_fields__} | {"wait_ms": 9})
    pool = type(base.state.pool)((longer,))
    other = rounds(
        plan(planned(n=1)),
        answer(),
        task="And now?",
        pool=pool,
        policy=PolicySpec(name="another"),
        budget=Budget(rounds=3),
    )
    found = {each.what: (each.a, each.b) for each in diff(log_of(base), log_of(other)).head}
    assert found["task"] == ({"text": "What is asked?"}, {"text": "And now?"})
    assert found["pool"][1] == {"tool": {"wait_ms": 9}, "agent": ABSENT, "child": ABSENT}
    assert found["policy"][1]["name"] == "another"
    assert found["budget"] == ({"rounds": base.state.budget.rounds}, {"rounds": 3})


def test_an_edited_observation_differs_where_it_was_edited() -> None:
    driver = two()
    log = log_of(driver)
    at = next(e.number for e in entries(log) if e.kind == "RoundClosed")
    edited = forked(log, at, edits=(Edit("calls.1-1.value", 9),))
    found = diff(log, joined(edited, log))
    assert found.first is not None
    assert (found.first.what, found.first.a, found.first.b) == ("value", 2, 9)
    assert found.first.event_b == at + 1
    assert found.shared == at


def test_a_call_that_is_made_again_differs_where_it_settles_again() -> None:
    driver = two(status="EXEC_ERR", fault="worker")
    log = log_of(driver)
    at = next(e.number for e in entries(log) if e.kind == "RoundClosed") - 1
    again = forked(log, at, reopened=("1-1",))
    waiting = diff(log, joined(again, log)).first
    assert waiting is not None
    assert (waiting.what, waiting.b, waiting.event_b) == ("status", "", 0)
    again.report("1-1", value=2)
    found = diff(log, joined(again, log))
    assert found.first is not None
    assert (found.first.what, found.first.a, found.first.b) == ("status", "EXEC_ERR", "OK")
    assert found.first.event_b == at + 4


def test_blobs_are_compared_by_content_and_child_runs_without_their_ids() -> None:
    def run(sha: str, own: str) -> RunLog:
        driver = Driver(msgspec.structs.replace(begin(), run=own))
        driver.reply(plan(planned(n=1), planned("child")))
        large = driver.report_of("1-0", value=None)
        driver.give(inbox(msgspec.structs.replace(large, blob=BlobRef(sha, 9))))
        child = child_id(own, "1-1", 1)
        said: Report = driver.report_of("1-1", value={"answer": "yes", "run": child})
        driver.give(inbox(msgspec.structs.replace(said, by=f"run:{child}")))
        driver.reply(answer())
        return log_of(driver)

    assert diff(run("a" * 64, OTHER), run("a" * 64, run_id(b"one more......"))).all() == []
    found = diff(run("a" * 64, OTHER), run("b" * 64, OTHER))
    assert whats(found) == [("1-0", "value")]


def test_a_run_that_is_still_at_work() -> None:
    base, other = started(planned(n=1)), started(planned(n=1))
    base.report("1-0")
    found = diff(log_of(base), log_of(other))
    assert found.first is not None
    assert (found.first.what, found.first.a, found.first.b) == ("status", "OK", "")
    assert found.first.event_b == 0
    taken = started(planned(n=1))
    taken.give(Activate("another", RULES))
    assert diff(log_of(other), log_of(taken)).first is None
