"""The monitor: which calls are stragglers, which runs get nowhere, and what it wishes for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.monitor import (
    BARREN,
    CIRCLES,
    LEAST,
    LEAST_MS,
    PAST,
    TIMES_MEDIAN,
    Past,
    circling,
    straggling,
    watched,
)
from actors.ports import Attempt, Outcome
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, PolicySpec
from protocol.events import AttemptStarted, CallSettled, RunPaused, SignalReceived
from protocol.inbox import Signal
from protocol.state import RunState
from protocol.subjects import child_id
from tests.runs import AGENT, CHILD, TOOL, Driver, plan, planned, started
from tests.world import World, calls

MANY = Budget(rounds=100, calls=100)
HEDGED = Pool(tuple(msgspec.structs.replace(each, hedge=True) for each in (TOOL, AGENT, CHILD)))


def past(*took: int) -> Past:
    made = Past()
    for ms in took:
        made.add(ms)
    return made


def test_little_says_nothing() -> None:
    assert past(*[100] * (LEAST - 1)).limit_ms is None
    assert past(*[100] * LEAST).limit_ms == 100


def test_a_twentieth_that_is_slow_moves_the_limit_a_little_at_most() -> None:
    assert past(*[2_000] * 15, *[200] * 185).limit_ms == 500


def test_what_is_quick_anyway_is_no_straggler() -> None:
    assert past(*[1] * LEAST).limit_ms == LEAST_MS


@given(st.lists(st.integers(0, 100_000), min_size=LEAST, max_size=2 * PAST))
def test_few_are_beyond_the_limit_but_where_many_are_slow(took: list[int]) -> None:
    made = past(*took)
    known = sorted(took[-PAST:])
    assert made.limit_ms is not None
    assert made.limit_ms >= LEAST_MS
    beyond = sum(ms > made.limit_ms for ms in known)
    assert beyond <= len(known) * 0.05 or made.limit_ms == max(
        LEAST_MS, round(TIMES_MEDIAN * known[len(known) // 2])
    )


@pytest.mark.parametrize(
    ("pool", "replan_on", "helps"),
    [
        (HEDGED, "never", "hedge"),
        (HEDGED, "straggler", "hedge"),
        (Pool((msgspec.structs.replace(AGENT, hedge=True, attempts=1),)), "straggler", "replan"),
        (Pool((TOOL, AGENT, CHILD)), "straggler", "replan"),
        (Pool((TOOL, AGENT, CHILD)), "failure", None),
    ],
)
def test_what_helps_is_what_is_allowed(pool: Pool, replan_on: Any, helps: str | None) -> None:
    policy = PolicySpec(name="script", replan_on=replan_on)
    driver = started(planned("agent"), pool=pool, policy=policy)
    assert straggling(driver.state, "1-0") == helps
    driver.report("1-0")
    assert straggling(driver.state, "1-0") is None


def rounds(number: int, *, n: Any = 1, **more: Any) -> Driver:
    """So many rounds of one call, each of which is reported in the same way."""
    driver = started(planned(n=n(1) if callable(n) else n))
    for count in range(1, number + 1):
        driver.report(f"{count}-0", **more)
        if count < number:
            driver.reply(plan(planned(n=n(count + 1) if callable(n) else n)))
    return driver


def test_who_asks_for_the_same_and_gets_the_same_goes_in_circles() -> None:
    driver = rounds(CIRCLES)
    assert circling(driver.state, driver.values) == (
        f"{CIRCLES} rounds have asked tool for the same and got the same"
    )
    driver = rounds(CIRCLES - 1)
    assert circling(driver.state, driver.values) == ""


def test_who_asks_for_something_else_or_gets_something_else_does_not() -> None:
    driver = rounds(CIRCLES, n=lambda count: count)
    assert circling(driver.state, driver.values) == ""
    driver = rounds(CIRCLES - 1)
    driver.reply(plan(planned()))
    driver.report(f"{CIRCLES}-0", value="at last")
    assert circling(driver.state, driver.values) == ""


def test_a_circle_may_have_several_steps() -> None:
    """Asked in turns: what the last four rounds asked, and got, was known before them."""
    assert circling(*seen(rounds(5, n=lambda count: count % 2))) == ""
    assert circling(*seen(rounds(6, n=lambda count: count % 2))) == (
        f"{CIRCLES} rounds have asked tool for the same and got the same"
    )
    assert circling(*seen(rounds(7, n=lambda count: count % 4))) == ""


def seen(driver: Driver) -> tuple[RunState, dict[str, Any]]:
    return driver.state, driver.values


def test_where_nothing_succeeds_nothing_comes_of_it() -> None:
    broken = {"status": "EXEC_ERR", "fault": "worker"}
    driver = rounds(BARREN, n=lambda count: count, **broken)
    assert circling(driver.state, driver.values) == f"nothing has succeeded in {BARREN} rounds"
    driver = rounds(BARREN - 1, n=lambda count: count, **broken)
    assert circling(driver.state, driver.values) == ""


# -------------------------------------------------------------------------- beside a real conductor


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def test_a_run_that_goes_in_circles_is_paused_with_the_reason(world: World) -> None:
    async def same(_: Attempt) -> Outcome:
        return Outcome(value=1)

    world.policy(lambda _: calls(("probe", {})))
    await world.worker(WorkerSpec(name="probe"), same)
    await world.conductor()
    run = await world.submit(world.start(budget=MANY))
    log = await world.until(run, lambda log: log.state().phase == "paused")
    (paused,) = [event for event in log.events() if isinstance(event, RunPaused)]
    assert (paused.reason, paused.detail) == ("signal", "by monitor")
    (signal,) = [event for event in log.events() if isinstance(event, SignalReceived)]
    signals = [entry.message for entry in log.inbox if isinstance(entry.message, Signal)]
    assert len(signals) == 1
    assert signal.reason == f"{CIRCLES} rounds have asked probe for the same and got the same"


async def test_a_run_below_another_answers_instead(world: World) -> None:
    """Nobody looks at it, and its parent waits."""

    async def same(_: Attempt) -> Outcome:
        return Outcome(value=1)

    def decide(view: Any) -> Decision:
        if view.final:
            return Decision(answer="what there is")
        if view.task.text == "below":
            return calls(("probe", {}))
        if view.turns:
            return Decision(answer=str(view.turns[0].observations[0].value["answer"]))
        return calls(("child", {"task": "below"}))

    world.policy(decide)
    world.pool = Pool((WorkerSpec(name="child", kind="conductor", attempts=1),))
    await world.worker(WorkerSpec(name="probe"), same)
    await world.conductor()
    budget = Budget(rounds=100, calls=1_000, depth=2)
    log = await world.ended(await world.submit(world.start(budget=budget)))
    assert log.state().answer == "what there is"
    below = await world.log.read(child_id(log.run, "1-0", 1))
    assert below.state().limited_by == "signal"


def test_what_came_late_is_a_success_too() -> None:
    driver = rounds(BARREN - 1, n=lambda count: count, status="EXEC_ERR", fault="worker")
    driver.reply(plan(planned()))
    driver.wait()
    driver.report(f"{BARREN}-0", attempt=1, value="at last")
    assert circling(driver.state, driver.values) == ""


def test_nobody_remembers_what_nobody_looks_after() -> None:
    state = started(planned("agent")).state
    assert not watched(state, "1-0")
    assert watched(started(planned("agent"), pool=HEDGED).state, "1-0")


async def test_a_straggler_is_tried_a_second_time(world: World) -> None:
    """The first attempt of the last call never ends; what others took is known by then."""
    slow: list[Attempt] = []

    async def probe(attempt: Attempt) -> Outcome:
        if attempt.arguments["n"] == LEAST and attempt.attempt == 1:
            slow.append(attempt)
            await asyncio.get_running_loop().create_future()
        return Outcome(value=attempt.arguments["n"])

    def decide(view: Any) -> Decision:
        done = len(view.turns)
        if done > LEAST:
            return Decision(answer="done")
        return calls(("probe", {"n": done}))

    world.policy(decide)
    await world.worker(WorkerSpec(name="probe", hedge=True), probe)
    await world.conductor()
    log = await world.ended(await world.submit(world.start(budget=MANY)))
    assert log.state().outcome == "finished"
    assert [each.call for each in slow] == [f"{LEAST + 1}-0"]
    last = [event for event in log.events() if isinstance(event, AttemptStarted | CallSettled)][-3:]
    assert [(type(event).__name__, event.attempt) for event in last] == [
        ("AttemptStarted", 1),
        ("AttemptStarted", 2),
        ("CallSettled", 2),
    ]
    signals = [entry.message for entry in log.inbox if isinstance(entry.message, Signal)]
    assert [(each.kind, each.by, each.call) for each in signals] == [
        ("hedge", "monitor", f"{LEAST + 1}-0")
    ]


async def test_what_is_sent_again_is_wished_for_once(world: World) -> None:
    """The policy is asked once because of a straggler, however often the run starts anew."""
    go = asyncio.Event()

    async def probe(attempt: Attempt) -> Outcome:
        if attempt.arguments["n"] == LEAST:
            await go.wait()
        elif attempt.arguments["n"] > LEAST:  # each a straggler: it ends when its round is over
            await world.until(attempt.run, lambda log: attempt.call not in log.state().current)
        return Outcome(value=attempt.arguments["n"])

    def decide(view: Any) -> Decision:
        done = len(view.turns)
        late = [seen.value for turn in view.turns for seen in turn.late]
        if LEAST in late:
            return Decision(answer="done")
        return calls(("probe", {"n": done}), ("probe", {"n": done}))

    world.policy(decide)
    await world.worker(WorkerSpec(name="probe", concurrency=64), probe)
    conductor = await world.conductor()
    start = world.start(budget=Budget(rounds=1_000, calls=1_000, parallel=64))
    eager = msgspec.structs.replace(start.policy, replan_on="straggler")
    run = await world.submit(msgspec.structs.replace(start, policy=eager))
    reached: list[int] = []
    for more in range(4):
        reached.append(LEAST + 3 + more)
        await world.until(run, lambda log: log.state().round >= reached[-1])
        conductor.redo()
    go.set()
    log = await world.ended(run)
    signals = [entry.message for entry in log.inbox if isinstance(entry.message, Signal)]
    about = [each.call for each in signals if each.call.startswith(f"{LEAST + 1}-")]
    assert about
    assert len(set(about)) == len(about)


async def test_the_time_of_a_hedged_call_counts_from_its_first_attempt(world: World) -> None:
    """Else a worker would seem faster with every straggler that it has."""

    async def probe(attempt: Attempt) -> Outcome:
        if attempt.arguments["n"] == LEAST and attempt.attempt == 1:
            await asyncio.get_running_loop().create_future()
        return Outcome(value=attempt.arguments["n"])

    def decide(view: Any) -> Decision:
        done = len(view.turns)
        return Decision(answer="done") if done > LEAST else calls(("probe", {"n": done}))

    world.policy(decide)
    await world.worker(WorkerSpec(name="probe", hedge=True), probe)
    conductor = await world.conductor()
    log = await world.ended(await world.submit(world.start(budget=MANY)))
    begun, *_, counted = [
        commit.at
        for commit in log.commits
        for event in commit.events
        if isinstance(event, AttemptStarted | CallSettled) and event.call == f"{LEAST + 1}-0"
    ]
    assert log.state().calls[f"{LEAST + 1}-0"].attempt == 2
    assert conductor.monitor.past["probe"].took[-1] == counted - begun
