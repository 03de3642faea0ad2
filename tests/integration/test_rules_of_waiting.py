"""Architecture's rules of calls, of waiting, and of runs and attempts that kill their hosts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest

from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.ports import Attempt, Outcome
from actors.waking import queue_again
from actors.worker import MAX_DELIVERIES
from protocol import subjects
from protocol.actions import WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, Task, View
from protocol.events import (
    CallSettled,
    RunPaused,
    SignalReceived,
)
from protocol.limits import MAX_IDLE_ACTIVATIONS
from tests.faults import WITHIN_S, Line, conductor_on, store_of, worker_on
from tests.stories import (
    LEASE_S,
    TOOL,
    Gate,
    a_moment,
    at_once,
    empty,
    events,
    is_paused,
    rounds_of,
    signalled,
    wish,
)
from tests.world import World, calls

SELF: Final = WorkerSpec(name="self", kind="conductor", attempts=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Memory for everything, and an end to everything."""
    world = World(lease_s=LEASE_S, look_s=0.1)
    world.policy(rounds_of(1))
    yield world
    await world.close()


# ------------------------------------------------------------------------------------------- calls


async def test_a_withdrawn_call_leaves_the_queue_and_its_worker(world: World) -> None:
    slow = WorkerSpec(name="tool", concurrency=1)
    gate = Gate()
    world.policy(lambda _: calls(("tool", {"n": 1}), ("tool", {"n": 2})))
    await world.worker(slow, gate.work)
    await world.conductor()
    run = await world.submit(world.start())
    await gate.next()
    assert len(world.calls.items) == 2  # one at work, one queued
    await signalled(world, run, "cancel")
    log = await world.ended(run)
    await empty(world)
    assert log.state().outcome == "cancelled"
    assert not world.calls.items
    async with asyncio.timeout(WITHIN_S):
        while not gate.cancelled:
            await a_moment()
    assert gate.count == 1


async def test_a_worker_that_gets_a_call_again_looks_for_its_own_report(world: World) -> None:
    gate = Gate()
    gate.open.set()
    line = Line()
    line.lost = {"calls.ack", "calls.progress"}
    world.calls.filters.update(
        {f"calls-tool-{p}": f"calls.tool.{p}.>" for p in subjects.PRIORITIES}
    )
    world.pool = type(world.pool)((TOOL,))
    world.policy(rounds_of(1))
    first = await worker_on(world, line, TOOL, gate.work, "w1")
    await world.conductor()
    run = await world.submit(world.start())
    await world.ended(run)
    line.lost.add("calls.pull")
    second = await worker_on(world, Line(), TOOL, gate.work, "w2")
    async with asyncio.timeout(WITHIN_S):
        while world.calls.items:
            await a_moment()
    assert gate.count == 1
    assert first.counts["OK"] == 1
    assert first.counts["again"] + second.counts["again"] >= 1
    assert len((await world.log.read(run)).inbox) == 1


async def test_an_attempt_that_kills_its_worker_is_an_infrastructure_fault(world: World) -> None:
    once = WorkerSpec(name="tool", concurrency=1, attempts=1)
    world.calls.filters.update(
        {f"calls-tool-{p}": f"calls.tool.{p}.>" for p in subjects.PRIORITIES}
    )
    world.pool = type(world.pool)((once,))
    deaths: list[str] = []
    world.policy(rounds_of(1))
    await world.conductor()
    run = await world.submit(world.start())
    for number in range(MAX_DELIVERIES):
        line, died = Line(), asyncio.Event()

        async def die(attempt: Attempt, line: Line = line, died: asyncio.Event = died) -> Outcome:
            deaths.append(attempt.call)
            line.cut = True
            died.set()
            await asyncio.Event().wait()
            return Outcome()

        await worker_on(world, line, once, die, f"w{number}")
        async with asyncio.timeout(WITHIN_S):
            await died.wait()
    await worker_on(world, Line(), once, at_once, "last")
    log = await world.ended(run)
    (settled,) = events(log, CallSettled)
    assert isinstance(settled, CallSettled)
    assert (settled.status, settled.fault) == ("EXEC_ERR", "infrastructure")
    assert len(deaths) == MAX_DELIVERIES
    assert not world.calls.items


# ----------------------------------------------------------------------------------------- waiting


def recursive(view: View) -> Decision:
    """Calls itself twice until it can't, and then a tool."""
    if view.turns:
        good = [o for turn in view.turns for o in turn.observations if o.status == "OK"]
        return Decision(answer=str(len(good)))
    if len(view.task.text) < 3:
        deeper = {"task": view.task.text + "+"}
        return calls(("self", deeper), ("self", deeper))
    return calls(("tool", {}))


async def test_waiting_takes_no_place_so_parents_do_not_starve_their_children(
    world: World,
) -> None:
    world.policy(recursive)
    world.pool = type(world.pool)((SELF,))
    await world.worker(TOOL, at_once)
    line = Line()
    await conductor_on(world, line, "c", max_runs=1)
    starts = [world.start(budget=Budget(depth=2)) for _ in range(3)]
    starts = [msgspec.structs.replace(start, task=Task(text="+")) for start in starts]
    runs = [await world.submit(start) for start in starts]
    for run in runs:
        log = await world.ended(run)
        assert log.state().answer == "2"
    await empty(world)
    logs = [await world.log.read(run) for run in await world.log.runs()]
    assert [log.state().outcome for log in logs] == ["finished"] * 3 * (1 + 2 + 4)


async def test_a_paused_run_gives_its_task_back_and_a_signal_queues_it_again(
    world: World,
) -> None:
    gate = Gate()
    await world.worker(TOOL, gate.work)
    conductor = await world.conductor()
    run = await world.submit(world.start())
    await gate.next()
    for _ in range(3):
        await signalled(world, run, "pause")
        await world.until(run, is_paused)
        await empty(world)
        assert not conductor.runs
        await signalled(world, run, "resume", queue=True)
        await world.until(run, lambda log: not is_paused(log))
    gate.open.set()
    log = await world.ended(run)
    assert log.state().answer == "1 of 1"
    assert gate.count == 1


class SlowQueue(MemoryQueue):
    """Acknowledgements take effect a little later, as they do on a real server."""

    def remove(self, item: Any) -> None:
        """See `MemoryQueue.remove`."""
        asyncio.get_running_loop().call_later(0.1, super().remove, item)


@pytest.mark.parametrize("who", ["conductor", "client"])
async def test_a_signal_that_comes_while_the_task_is_given_back_is_not_lost(
    world: World, who: str
) -> None:
    gate = Gate()
    world.tasks = SlowQueue(consumers_of("tasks"), LEASE_S)
    await world.worker(TOOL, gate.work)
    line = Line()
    await conductor_on(world, line, "c")
    run = await world.submit(world.start())
    await gate.next()
    since = len(line.said)
    if who == "conductor":  # stored before its last look, but not heard of
        line.lost = {"log.hint"}
        line.before["tasks.ack"] = lambda: store_of(world).put((run, "i"), wish(run, "resume"))
        await signalled(world, run, "pause")
    else:  # stored after its last look
        await signalled(world, run, "pause")
        await line.until("tasks.ack", since=since)
        await line.until("log.inbox", since=line.said.index("tasks.ack", since))
        await world.log.post(run, wish(run, "resume"))
        assert await queue_again(world.log, world.tasks, run)
    gate.open.set()
    log = await world.ended(run)
    assert len(events(log, SignalReceived)) == 2


async def test_a_run_at_work_is_not_queued_again(world: World) -> None:
    gate = Gate()
    await world.worker(TOOL, gate.work)
    await world.conductor()
    run = await world.submit(world.start())
    await gate.next()
    await signalled(world, run, "pause")
    await world.until(run, is_paused)
    await empty(world)
    await signalled(world, run, "resume", queue=True)
    await world.until(run, lambda log: not is_paused(log))
    assert not await queue_again(world.log, world.tasks, run)
    assert [item.subject for item in world.tasks.items.values()] == [subjects.task("normal", run)]


async def test_a_run_that_kills_its_host_is_paused(world: World) -> None:
    asked: list[int] = []

    def deadly(view: View) -> Decision:
        asked.append(len(view.turns))
        line.cut = True  # whoever asks this is heard of no more
        return calls(("tool", {}))

    world.policy(deadly)
    await world.worker(TOOL, at_once)
    run = await world.submit(world.start())
    line = Line()
    for number in range(MAX_IDLE_ACTIVATIONS + 2):
        line = Line()
        conductor = await conductor_on(world, line, f"c{number}")
        over = asyncio.Event()
        conductor.on_over = lambda _, over=over: over.set()
        async with asyncio.timeout(WITHIN_S):
            await over.wait()
    log = await world.until(run, is_paused)
    (paused,) = events(log, RunPaused)
    assert isinstance(paused, RunPaused)
    assert paused.reason == "kills_host"
    assert len(asked) == MAX_IDLE_ACTIVATIONS + 1
    await empty(world)  # no max_deliver that would block its place: a signal can queue it again
    world.policy(rounds_of(1))
    await signalled(world, run, "resume", queue=True)
    assert (await world.ended(run)).state().outcome == "finished"
