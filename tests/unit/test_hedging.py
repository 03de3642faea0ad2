"""A call that takes long is tried a second time meanwhile; whichever reports first counts."""

from typing import Any, Final

import msgspec
import pytest

from protocol.actions import Pool, Spend
from protocol.budgets import Budget
from protocol.commands import Activate, Fork
from protocol.events import AttemptStarted, ReportNoted, RoundClosed
from protocol.inbox import SignalKind
from protocol.run import RULES, Make, Withdraw, due
from protocol.subjects import run_id
from replay.forks import origin_at
from tests.logs import log_of
from tests.runs import (
    AGENT,
    CHILD,
    TOOL,
    Driver,
    begin,
    last,
    names,
    plan,
    planned,
    settled,
    started,
)

POOL = Pool(tuple(msgspec.structs.replace(each, hedge=True) for each in (TOOL, AGENT, CHILD)))


def hedged(**more: Any) -> Driver:
    """A run whose call is worked on twice."""
    driver = started(planned("agent"), **{"pool": POOL, **more})
    driver.signal("hedge", "1-0")
    return driver


def made(driver: Driver) -> list[Make]:
    return [effect for effect in due(driver.state) if isinstance(effect, Make)]


def test_both_attempts_are_made_and_paid_for() -> None:
    driver = hedged()
    assert made(driver) == [Make("1-0", 2), Make("1-0", 1)]
    assert driver.state.committed == Spend(tokens=100, cost=40, calls=2)


@pytest.mark.parametrize(("first", "other"), [(1, 2), (2, 1)])
def test_the_first_report_counts_and_the_other_attempt_is_withdrawn(first: int, other: int) -> None:
    driver = hedged()
    driver.report("1-0", attempt=first, value="first", spend=Spend(tokens=30))
    assert settled(driver, "1-0") == ("OK", "none")
    assert Withdraw("1-0", other) in due(driver.state)
    assert not driver.state.open
    assert not driver.state.hedged
    driver.report("1-0", attempt=other, value="second", spend=Spend(tokens=20))
    assert last(driver, ReportNoted).why == "late"
    assert not last(driver, ReportNoted).usable
    assert driver.state.spent.tokens == 50, "its cost is recorded"


@pytest.mark.parametrize(("lost", "left"), [(1, 2), (2, 1)])
def test_where_one_is_lost_the_other_goes_on(lost: int, left: int) -> None:
    driver = hedged()
    driver.lost("1-0", attempt=lost)
    assert last(driver, ReportNoted).why == "hedged"
    assert made(driver) == [Make("1-0", left)]
    driver.report("1-0", attempt=left, value="first")
    assert settled(driver, "1-0") == ("OK", "none")


def test_where_both_are_lost_it_is_tried_again() -> None:
    driver = hedged()
    driver.lost("1-0", attempt=2)
    driver.lost("1-0", attempt=1)
    assert made(driver) == [Make("1-0", 3)]


def test_a_failure_of_either_counts() -> None:
    driver = hedged()
    driver.report("1-0", attempt=2, status="EXEC_ERR", fault="worker")
    assert settled(driver, "1-0") == ("EXEC_ERR", "worker")
    assert Withdraw("1-0", 1) in due(driver.state)


def test_at_the_deadline_nobody_waits_for_either() -> None:
    driver = hedged()
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert {Withdraw("1-0", 1), Withdraw("1-0", 2)} <= set(due(driver.state))


def test_it_is_hedged_once() -> None:
    driver = hedged()
    driver.signal("hedge", "1-0")
    assert names(driver.events).count("AttemptStarted") == 2


@pytest.mark.parametrize(
    "more",
    [
        {"pool": Pool((TOOL, AGENT, CHILD))},
        {"budget": Budget(parallel=1)},
        {"budget": Budget(calls=1)},
        {"budget": Budget(tokens=70)},
    ],
    ids=["not allowed", "no place", "no call left", "too dear"],
)
def test_it_is_not_hedged_where_that_may_not_be(more: dict[str, Any]) -> None:
    driver = hedged(**more)
    assert names(driver.events).count("AttemptStarted") == 1


ONCE: Final = Pool((msgspec.structs.replace(AGENT, hedge=True, attempts=1),))


def test_a_second_attempt_is_one_of_those_that_the_worker_allows() -> None:
    assert names(hedged(pool=ONCE).events).count("AttemptStarted") == 1
    driver = hedged()
    for attempt in (2, 3):
        driver.lost("1-0", attempt=attempt)
        driver.signal("hedge", "1-0")
    assert names(driver.events).count("AttemptStarted") == AGENT.attempts == 3


def test_by_earlier_rules_it_was_one_more() -> None:
    driver = started(planned("agent"), pool=ONCE)
    driver.give(Activate("conductor", "2"))
    driver.signal("hedge", "1-0")
    assert made(driver) == [Make("1-0", 2), Make("1-0", 1)]


def test_a_child_run_is_never_hedged() -> None:
    driver = started(planned("child"), pool=POOL)
    driver.signal("hedge", "1-0")
    assert names(driver.events).count("AttemptStarted") == 1


@pytest.mark.parametrize(
    ("kind", "call"), [("hedge", ""), ("hedge", "1-7"), ("replan", "1-7"), ("replan", "nonsense")]
)
def test_what_there_is_not_changes_nothing(kind: SignalKind, call: str) -> None:
    driver = started(planned("agent"), pool=POOL)
    assert names(driver.signal(kind, call)) == ["SignalReceived"]


def test_a_hedge_has_its_whole_time() -> None:
    driver = started(planned("agent"), pool=POOL)
    before = driver.state.calls["1-0"].deadline
    driver.at += 10_000
    driver.signal("hedge", "1-0")
    assert last(driver, AttemptStarted).deadline == before + 10_000


def test_somebody_wants_the_policy_asked_while_a_call_goes_on() -> None:
    driver = started(planned("agent"), planned())
    driver.report("1-1")
    driver.signal("replan", "1-0")
    assert last(driver, RoundClosed).left == ("1-0",)
    assert driver.state.asked is not None


def later_segment(driver: Driver) -> None:
    """A long pause, after which the run goes on in another trace."""
    driver.signal("pause")
    driver.at += 86_400_000
    driver.signal("resume")


def test_an_attempt_stays_in_the_trace_that_it_was_begun_in() -> None:
    driver = started(planned("agent"), pool=POOL)
    later_segment(driver)
    driver.signal("hedge", "1-0")
    assert driver.state.hedged["1-0"] == (1, 0)
    assert driver.state.calls["1-0"].segment == 1
    driver.lost("1-0", attempt=2)
    assert driver.state.open["1-0"] == 1
    assert driver.state.calls["1-0"].segment == 0


def test_a_fork_makes_both_attempts_in_the_trace_that_it_begins() -> None:
    driver = Driver(begin(pool=POOL))
    later_segment(driver)
    driver.reply(plan(planned("agent")))
    driver.signal("hedge", "1-0")
    assert driver.state.hedged["1-0"] == (1, 1)
    log = log_of(driver)
    fork = Driver(at=driver.at)
    fork.state = driver.state
    origin = origin_at(log, len(driver.events))
    fork.give(Fork(run=run_id(b"a fork of it...."), origin=origin), Activate("c", RULES))
    assert fork.state.hedged["1-0"] == (1, 0)
    assert fork.state.calls["1-0"].segment == 0
    assert made(fork) == [Make("1-0", 2), Make("1-0", 1)]
