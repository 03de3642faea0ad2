"""An attempt that is withdrawn is billed: nobody waits for it any more, and it was paid for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import podium
from actors.ports import Attempt, Outcome
from actors.worker import WITHDRAWN
from actors.workers import draft, host
from protocol.actions import Report, Spend, Usage, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import encode
from protocol.decisions import Decision
from protocol.events import ReportNoted
from protocol.exchanges import exchanges
from protocol.inbox import Signal
from replay.bill import bill, total
from replay.chain import RunLog
from tests.endpoint import Endpoint
from tests.unit.test_agent_worker import _keys, endpoint
from tests.world import World, calls

__all__ = ["_keys", "endpoint"]

RESERVE = Spend(tokens=500, cost=90)

AT_WORK: list[asyncio.Event] = []
"""Set when the tool is used that never comes back."""


@podium.tool(cost_usd=0.000_5)
async def endless() -> None:
    """Never comes back by itself."""
    AT_WORK[0].set()
    await asyncio.get_running_loop().create_future()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


def once(view: Any) -> Decision:
    """One call, and its value is the answer."""
    if view.turns:
        return Decision(answer=str(view.turns[0].observations[0].value))
    return calls(("clerk", {"subtask": "How much?"}))


async def begun(world: World) -> str:
    world.policy(once)
    await world.conductor()
    return await world.submit(world.start(budget=Budget(cost=10**9)))


async def wish(world: World, run: str, kind: Any, call: str = "") -> None:
    await world.log.post(run, encode(Signal(id=kind, run=run, kind=kind, by="ada", call=call)))


async def reported(world: World, run: str, count: int) -> RunLog:
    """The run's log, once so many reports stand in its inbox."""
    changed = asyncio.Event()
    hints = await world.log.hints(run, lambda *_: changed.set())
    try:
        async with asyncio.timeout(10):
            while True:
                log = await world.log.read(run)
                if sum(isinstance(each.message, Report) for each in log.inbox) == count:
                    return log
                await changed.wait()
                changed.clear()
    finally:
        await hints.close()


async def test_the_loser_of_a_hedge_is_billed_for_what_it_has_asked(
    world: World, endpoint: Endpoint
) -> None:
    AT_WORK[:] = [asyncio.Event()]
    endpoint.say("Look.", calls=[("a", "endless", "{}")], usage=(100, 10))
    endpoint.say("12.50 euros", usage=(150, 5))
    tools = [f"function:{__name__}:endless"]
    fields: dict[str, Any] = {"model": "m", "base_url": endpoint.url, "api_key_env": "TEAM_KEY"}
    spec = draft("openai", {**fields, "tools": tools}, name="clerk")
    spec = msgspec.structs.replace(spec, hedge=True)
    adapter = host(spec)
    await world.worker(spec, adapter.run)
    run = await begun(world)
    await AT_WORK[0].wait()
    await wish(world, run, "hedge", "1-0")
    log = await world.ended(run)
    assert log.state().answer == "12.50 euros"
    log = await reported(world, run, 2)
    (lost,) = [
        each.message
        for each in log.inbox
        if isinstance(each.message, Report) and each.message.attempt == 1
    ]
    assert (lost.status, lost.fault, lost.value) == ("EXEC_ERR", "infrastructure", WITHDRAWN)
    assert lost.spend == Spend(tokens=110, cost=500), "the tool was under way: all it may cost"
    assert lost.usage == Usage(100, 10)
    assert [each.reply.text for each in exchanges(lost.record)] == ["Look."]
    assert total(bill([log])).spend.tokens == 110 + 155
    await adapter.close()


async def slow(world: World, spec: WorkerSpec) -> tuple[str, asyncio.Event]:
    """A run whose worker is at work and never comes back by itself; and when it was stopped."""
    working, stopped = asyncio.Event(), asyncio.Event()

    async def work(_: Attempt) -> Outcome:
        working.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()
        raise AssertionError

    await world.worker(spec, work)
    run = await begun(world)
    await working.wait()
    return run, stopped


CLERK = WorkerSpec(name="clerk", kind="agent", reserve=RESERVE, concurrency=1)


async def test_one_that_does_not_say_what_it_spends_may_have_spent_its_reserve(
    world: World,
) -> None:
    run, _ = await slow(world, CLERK)
    await wish(world, run, "answer")
    log = await reported(world, run, 1)
    assert total(bill([log])).spend == RESERVE


async def test_of_one_that_costs_nothing_nothing_is_said(world: World) -> None:
    run, stopped = await slow(world, msgspec.structs.replace(CLERK, reserve=Spend()))
    await wish(world, run, "cancel")
    await stopped.wait()
    await world.workers.pop().stop()
    log = await world.log.read(run)
    assert not [each for each in log.inbox if isinstance(each.message, Report)]


async def test_a_late_report_of_it_releases_what_was_reserved(world: World) -> None:
    spec = msgspec.structs.replace(CLERK, hedge=True, concurrency=2)
    gone = asyncio.Event()

    async def work(attempt: Attempt) -> Outcome:
        if attempt.attempt == 1:
            gone.set()
            await asyncio.get_running_loop().create_future()
        return Outcome(value="12.50 euros", spend=Spend(tokens=1))

    def twice(view: Any) -> Decision:
        if len(view.turns) == 2:
            return Decision(answer="done")
        return calls(("clerk", {"subtask": "How much?"}))

    world.policy(twice)
    await world.worker(spec, work)
    await world.conductor()
    run = await world.submit(world.start())
    await gone.wait()
    await wish(world, run, "hedge", "1-0")
    noted = await world.until(
        run, lambda log: any(isinstance(event, ReportNoted) for event in log.events())
    )
    (event,) = [event for event in noted.events() if isinstance(event, ReportNoted)]
    assert (event.call, event.attempt, event.why, event.spend) == ("1-0", 1, "late", RESERVE)
    assert not noted.state().strays
