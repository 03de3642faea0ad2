"""Forks: any event of any run can be gone on from, the origin never changes, edits are made."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import edits
from protocol.actions import Json, Spend
from protocol.budgets import Budget
from protocol.codec import encode
from protocol.commands import Activate, Fork
from protocol.decisions import PolicySpec
from protocol.errors import InvalidData, NotFound, Usage
from protocol.events import (
    AttemptStarted,
    DecisionRejected,
    Edit,
    PolicyAsked,
    RoundClosed,
    RoundPlanned,
    RunForked,
)
from protocol.run import RULES, Make, due
from protocol.state import RunState
from protocol.subjects import run_id
from protocol.views import child_start
from replay.chain import RunLog
from replay.forks import (
    MAX_GENERATIONS,
    again_from,
    attach,
    check_origin,
    detach,
    failure,
    moment,
    origin_at,
)
from replay.history import entries, reports
from replay.redecide import redecide
from replay.scrub import compare
from tests.logs import log_of
from tests.runs import AT, RUN, TOOL, Driver, answer, begin, plan, planned, started
from tests.runs import failure as refused
from tests.strategies import MOVES
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough

FORK = run_id(b"a fork of it....")
LATER = 10_000_000
"""Milliseconds between the origin's end and the fork."""


def forked(log: RunLog, at: int, **more: Any) -> Driver:
    """A fork at an event, taken over by a conductor."""
    origin = origin_at(log, at)
    driver = Driver(at=AT + LATER)
    driver.state = log.state(at)
    driver.give(Fork(run=FORK, origin=origin, **more), Activate("conductor", RULES))
    return driver


def joined(driver: Driver, log: RunLog) -> RunLog:
    """The fork's log, with its origin."""
    found = log_of(driver)
    found.origin = log
    return found


@thorough
@given(STARTS, HISTORIES, st.integers(1, 10**6), st.lists(MOVES, max_size=12))
def test_any_event_can_be_gone_on_from(
    start: Any, history: History, pick: int, more: list[Any]
) -> None:
    world = lived(start, history)
    log = log_of(world)
    before = [encode(commit) for commit in log.commits]
    at = pick % len(world.events) + 1
    if log.state(at).phase == "ended":
        with pytest.raises(Usage, match="has ended by event"):
            origin_at(log, at)
        return
    world.state = log.state(at)
    world.at += LATER
    world.steps.clear()
    world.events.clear()
    world.give(Fork(run=FORK, origin=origin_at(log, at)), Activate("conductor", RULES))
    for move in more:
        world.happen(move)
    fork = joined(world, log)
    assert [encode(commit) for commit in log.commits] == before
    assert fork.state() == world.state
    assert fork.state(at) == log.state(at)
    assert fork.state().run == FORK
    assert [entry.number for entry in entries(fork)] == list(range(1, at + len(world.events) + 1))
    for decided in redecide(fork):
        assert decided.events == decided.commit.events


@thorough
@given(STARTS, HISTORIES)
def test_every_run_is_decided_again_as_it_was(start: Any, history: History) -> None:
    world = lived(start, history)
    log = log_of(world)
    first = 1
    for decided in redecide(log):
        assert [step.problem for step in decided.steps] == [""] * len(decided.steps)
        assert decided.events == decided.commit.events
        assert decided.first == first
        first += len(decided.commit.events)
    assert first == len(world.events) + 1


def test_a_fork_has_ids_and_time_of_its_own() -> None:
    driver = started(planned(n=1), planned(n=2))
    log = log_of(driver)
    fork = forked(log, len(driver.events))
    state = fork.state
    assert (state.run, state.epoch, state.parent) == (FORK, 1, None)
    assert [e for e in due(state) if isinstance(e, Make)] == [Make("1-0", 1), Make("1-1", 1)]
    assert state.calls["1-0"].deadline == driver.state.calls["1-0"].deadline + LATER
    assert state.wall_deadline == driver.state.wall_deadline + LATER
    fork.report("1-0", value=7)
    fork.report("1-1", value=8)
    fork.reply(answer("15"))
    assert (fork.state.outcome, fork.state.answer) == ("finished", "15")
    assert driver.state.calls["1-0"].status is None


def test_a_report_to_the_origin_is_none_to_the_fork() -> None:
    driver = started()
    fork = forked(log_of(driver), len(driver.events))
    assert fork.report("1-0", run=RUN) == []
    assert fork.state.calls["1-0"].status is None


def test_an_open_question_is_asked_again_under_its_number() -> None:
    driver = started()
    driver.report("1-0")
    asked = [entry for entry in entries(log_of(driver)) if isinstance(entry.event, PolicyAsked)]
    fork = forked(log_of(driver), asked[-1].number)
    again = [event for event in fork.events if isinstance(event, PolicyAsked)]
    assert [event.turn for event in again] == [2]
    assert fork.state.spent.tokens == driver.state.spent.tokens
    assert fork.state.reserved == driver.state.reserved


def test_a_decision_that_was_to_be_rejected_is_not_followed() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(after=(5,))))
    rejected = next(e for e in entries(log_of(driver)) if isinstance(e.event, DecisionRejected))
    fork = forked(log_of(driver), rejected.number - 1)
    assert [type(event) for event in fork.events[:2]] == [RunForked, DecisionRejected]
    assert not any(isinstance(event, RoundPlanned) for event in fork.events)


def test_a_paused_run_goes_on_as_a_fork() -> None:
    driver = started()
    driver.signal("pause")
    driver.at += 5_000
    fork = forked(log_of(driver), len(driver.events))
    assert fork.state.phase == "working"
    assert fork.state.wall_deadline == driver.state.wall_deadline + LATER


def test_another_policy_and_another_worker() -> None:
    driver = started()
    driver.report("1-0")
    other = type(TOOL)(name="tool", description="mended")
    extra = type(TOOL)(name="extra")
    fork = forked(
        log_of(driver),
        len(driver.events),
        policy=PolicySpec(name="other"),
        workers=(other, extra),
    )
    assert fork.state.policy.name == "other"
    assert [w.name for w in fork.state.pool.workers] == ["tool", "agent", "child", "extra"]
    assert fork.state.workers["tool"].description == "mended"


def edited(state: RunState, path: str, value: Json) -> RunState:
    """The state with one edit made."""
    new = state.copy()
    edits.apply(new, Edit(path, value))
    return new


def test_what_can_be_edited() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0", value={"a": 1})
    state = driver.state
    assert edited(state, "task.text", "Another?").task.text == "Another?"
    assert edited(state, "task.inputs.year", 2026).task.inputs == {"year": 2026}
    call = edited(state, "calls.1-0.value", {"b": [1]}).calls["1-0"]
    assert (call.value, call.report, call.status) == ({"b": [1]}, "", "OK")
    call = edited(state, "calls.1-0.status", "EXEC_ERR").calls["1-0"]
    assert (call.status, call.fault) == ("EXEC_ERR", "worker")
    assert edited(state, "calls.1-1.arguments.n", 5).calls["1-1"].call.arguments == {"n": 5}
    changed = edited(state, "workers.agent.options.role", "Be kind.")
    assert changed.workers["agent"].options == {"role": "Be kind."}
    assert changed.pool.get("agent") == changed.workers["agent"]
    wider = edited(state, "budget.wall_ms", state.budget.wall_ms + 7)
    assert wider.wall_deadline == state.wall_deadline + 7
    assert edited(state, "budget.rounds", 99).budget.rounds == 99


def test_another_time_out_does_not_change_when_a_call_was_begun() -> None:
    state = started(planned("child")).state
    patient = edited(state, "workers.child.timeout_ms", 10 * state.budget.wall_ms)
    left = state.wall_deadline - state.calls["1-0"].begun_at
    assert left == state.budget.wall_ms
    assert child_start(patient, "1-0", {}).budget.wall_ms == left


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("", 1, "nothing can be set there"),
        ("run", "x", "nothing can be set there"),
        ("task.check", 1, "nothing can be set there"),
        ("task.text", 5, "Expected `str`"),
        ("calls.9-9.value", 1, "there is no '9-9'; there are: 1-0, 1-1"),
        ("calls.1-1.value", 1, "has not settled at this event"),
        ("calls.1-0.status", "FINE", "is no status"),
        ("calls.1-0.arguments.n", 1, "what it was asked is history"),
        ("calls.1-1.arguments.n", "x", "n"),
        ("calls.1-1.worker", "agent", "there is no 'worker'; there are: value, status, arguments"),
        ("calls.1-0.value", "x" * 70_000, "65536 bytes"),
        ("workers.nobody.options.role", "x", "there is no 'nobody'"),
        ("workers.agent.colour", "x", "there is no 'colour'"),
        ("workers.agent.timeout_ms.x", 1, "Expected `int`"),
        ("budget.rounds", -1, "Expected `int` >= 0"),
        ("budget.colour", 1, "there is no 'colour'"),
        ("task.inputs.list.2", 1, "there is nothing at '2'"),
        ("task.inputs.list." + "9" * 5_000, 1, "there is nothing at '999"),
        ("task.inputs.list." + "9" * 5_000 + ".x", 1, "there is nothing below '999"),
        ("task.inputs" + ".x" * 101, 1, "more than 100 levels"),
        ("task.inputs" + ".x" * 100_000, 1, "recursion"),
    ],
)
def test_what_can_not_be_edited_is_said_and_changes_nothing(
    path: str, value: Json, says: str
) -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0")
    edits.apply(driver.state, Edit("task.inputs.list", [1, 2]))
    assert says in edits.problem(driver.state, Edit(path, value))
    assert edited(driver.state, path, value) == driver.state


@given(st.text(max_size=30) | st.sampled_from(["calls.1-0.value", "budget.rounds"]), st.integers())
def test_edits_are_total(path: str, value: int) -> None:
    driver = started()
    problem = edits.problem(driver.state, Edit(path, value))
    assert (edited(driver.state, path, value) == driver.state) >= bool(problem)


def test_a_rerun_makes_only_the_failed_call_again() -> None:
    driver = started(planned(n=1), planned(n=2), planned("agent", n=3))
    driver.report("1-1", value=2)
    driver.report("1-0", status="EXEC_ERR", fault="worker", value="broken")
    driver.report("1-2", value=3)
    driver.reply(answer("no idea"))
    log = log_of(driver)
    found = failure(log)
    assert found is not None
    assert found.reopened == ("1-0",)
    fork = forked(log, found.at, reopened=found.reopened)
    assert [e for e in due(fork.state) if isinstance(e, Make)] == [Make("1-0", 2)]
    assert fork.state.calls["1-1"].status == "OK"
    fork.report("1-0", value=1)
    assert fork.state.asked is not None
    fork.reply(answer("6"))
    assert fork.state.answer == "6"
    assert set(reports(joined(fork, log))) >= {call.report for call in fork.state.calls.values()}


def test_a_failure_in_a_round_that_is_still_open() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    log = log_of(driver)
    assert failure(log) == (len(driver.events), ("1-0",), len(driver.events))
    fork = forked(log, len(driver.events), reopened=("1-0",))
    assert [e for e in due(fork.state) if isinstance(e, Make)] == [Make("1-1", 1), Make("1-0", 2)]


def test_what_saw_a_failure_is_made_again_with_it() -> None:
    driver = started(planned(n=1), planned(n=2), planned(n=3, sees=(0,)), planned(n=4, sees=(2,)))
    driver.report("1-1")
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    driver.report("1-2")
    driver.report("1-3")
    found = failure(log_of(driver))
    assert found is not None
    assert found.reopened == ("1-0", "1-2", "1-3")
    fork = forked(log_of(driver), found.at, reopened=found.reopened)
    assert [e for e in due(fork.state) if isinstance(e, Make)] == [Make("1-0", 2)]


def test_a_call_that_nobody_answered_has_failed_unless_it_was_given_up() -> None:
    driver = started()
    driver.wait()
    assert driver.state.calls["1-0"].status == "TIMEOUT"
    found = failure(log_of(driver))
    assert found is not None
    assert found.reopened == ("1-0",)
    early = started()
    early.signal("answer")
    assert early.state.calls["1-0"].status == "TIMEOUT"
    assert failure(log_of(early)) is None


def test_calls_that_can_not_be_sent_are_settled_in_a_fork_too() -> None:
    driver = started(planned("nobody"), planned(n=2), planned(n="x"))
    log = log_of(driver)
    at = next(e.number for e in entries(log) if isinstance(e.event, RoundPlanned))
    fork = forked(log, at)
    assert {name: call.status for name, call in fork.state.calls.items()} == {
        "1-0": "PARSE_ERR",
        "1-1": None,
        "1-2": "PARSE_ERR",
    }
    again = forked(log, len(driver.events), reopened=("1-0",))
    assert again.state.calls["1-0"].status == "PARSE_ERR"
    other = type(TOOL)(name="tool", parameters={"type": "object", "required": ["m"]})
    fork = forked(log, at, workers=(other,))
    assert fork.state.calls["1-1"].status == "PARSE_ERR"


def test_a_call_is_made_again_from_where_it_settled() -> None:
    driver = started(planned(n=1), planned(n=2, sees=(0,)))
    driver.report("1-0", value=1)
    driver.report("1-1", value=2)
    driver.reply(plan(planned(n=3)))
    log = log_of(driver)
    closed = next(e.number for e in entries(log) if isinstance(e.event, RoundClosed))
    found = again_from(log, "1-0")
    assert (found.at, found.reopened) == (closed - 1, ("1-0", "1-1"))
    assert again_from(log, "1-1").reopened == ("1-1",)
    for name in ("2-0", "9-9"):
        with pytest.raises(Usage, match=f"no call {name} that has settled"):
            again_from(log, name)


def test_moments_have_names() -> None:
    driver = started(planned(n=1))
    log = log_of(driver)
    begun = next(e.number for e in entries(log) if isinstance(e.event, AttemptStarted))
    assert moment(log, "1-0") == begun - 1
    assert moment(log, "3") == 3
    assert moment(log, "end") == len(driver.events)
    with pytest.raises(Usage, match="no event '2-0'"):
        moment(log, "2-0")
    driver.report("1-0")
    driver.reply(answer())
    log = log_of(driver)
    asked = [e.number for e in entries(log) if isinstance(e.event, PolicyAsked)]
    assert moment(log, "end") == asked[-1] - 1
    cancelled = started()
    count = len(cancelled.events)
    cancelled.signal("cancel")
    assert moment(log_of(cancelled), "end") == count
    broke = Driver(begin(budget=Budget(tokens=20)))
    broke.reply(plan(planned(), spend=Spend(tokens=15)))
    assert broke.state.outcome == "failed"
    origin_at(log_of(broke), moment(log_of(broke), "end"))


def test_a_failure_that_was_made_good_is_none() -> None:
    driver = started(planned(n=1))
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    driver.reply(plan(planned(n=1)))
    driver.report("2-0", value=1)
    driver.reply(answer())
    assert failure(log_of(driver)) is None


def test_a_policy_that_failed_is_asked_again() -> None:
    driver = started()
    driver.report("1-0")
    driver.reply(refused(retry=False))
    log = log_of(driver)
    found = failure(log)
    assert found is not None
    assert (driver.state.phase, found.reopened) == ("paused", ())
    fork = forked(log, found.at)
    assert fork.state.asked is not None
    fork.reply(answer("yes"))
    assert fork.state.answer == "yes"


def test_a_fork_of_a_fork_at_a_shared_event_is_a_fork_of_the_origin() -> None:
    driver = started()
    log = log_of(driver)
    fork = joined(forked(log, len(driver.events)), log)
    assert origin_at(fork, 3) == origin_at(log, 3)
    assert origin_at(fork, fork.shared + 2).run == FORK


def reader(*logs: RunLog) -> Callable[[str, int], Awaitable[RunLog]]:
    """Reads of these logs."""

    async def read(run: str, _least: int) -> RunLog:
        return next((log for log in logs if log.run == run), RunLog(run))

    return read


def test_an_origin_that_is_not_as_it_was_is_set_aside() -> None:
    driver = started()
    log = log_of(driver)
    fork = log_of(forked(log, len(driver.events)))
    asyncio.run(attach(reader(), fork))
    assert fork.origin is None
    assert "ends with commit 0" in fork.aside[0].why
    assert [each.kind for each in compare(fork, None)] == ["broken"]
    with pytest.raises(NotFound, match="ends with commit 0"):
        check_origin(FORK, origin_at(log, 3), RunLog(RUN))
    other = log_of(started(planned(n=2)))
    with pytest.raises(InvalidData, match="has the hash"):
        check_origin(FORK, origin_at(log, len(driver.events)), other)
    sound = log_of(forked(log, len(driver.events)))
    asyncio.run(attach(reader(log), sound))
    assert sound.origin is log
    assert sound.aside == []


def test_too_many_forks_of_forks() -> None:
    log = log_of(started())
    logs = [log]
    for number in range(MAX_GENERATIONS):
        driver = Driver(at=AT + LATER)
        driver.state = logs[-1].state()
        origin = origin_at(logs[-1], len(entries(logs[-1])))
        driver.give(Fork(run=run_id(bytes([number] * 8)), origin=origin), Activate("c", RULES))
        logs.append(joined(driver, logs[-1]))
    with pytest.raises(Usage, match="32 times over"):
        origin_at(logs[-1], len(entries(logs[-1])))
    own = [msgspec.structs.replace(each, origin=None) for each in logs]
    last = own.pop()
    asyncio.run(attach(reader(*own[1:]), last))
    assert last.set_aside["origin"] == 1
    assert last.origin is None, "half of what it shares would be another run"
    assert last.shared == 0
    detach(last)
    for each in own:
        each.origin = None
    asyncio.run(attach(reader(*own), last))
    assert not last.aside  # just as many as can be
    assert last.state() == logs[-1].state()
