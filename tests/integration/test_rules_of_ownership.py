"""Architecture's rules of the log, those of ownership: a test for each, that carries its name.

Conductors and workers are the real ones, at the ends of lines that can be cut (`tests.faults`);
queues and log are those in memory, which pass the same suites as the real ones.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import pytest

from actors.ports import Attempt, Outcome
from actors.waking import queue_again
from actors.worker import MAX_DELIVERIES
from protocol import subjects
from protocol.actions import WorkerSpec
from protocol.budgets import Budget
from protocol.codec import digest, encode
from protocol.decisions import Decision, Task, View
from protocol.events import (
    AttemptStarted,
    CallSettled,
    RunActivated,
    RunPaused,
    RunStarted,
    SignalReceived,
)
from protocol.inbox import Signal, SignalKind
from protocol.limits import MAX_IDLE_ACTIVATIONS
from replay.chain import RunLog
from tests.faults import WITHIN_S, Line, conductor_on, store_of, worker_on
from tests.world import World, calls

TOOL: Final = WorkerSpec(name="tool", concurrency=64)

SELF: Final = WorkerSpec(name="self", kind="conductor", attempts=1)

LEASE_S: Final = 0.3
"""Seconds. Long enough for a busy machine to keep it, short enough to wait for."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Memory for everything, and an end to everything."""
    world = World(lease_s=LEASE_S, look_s=0.1)
    world.policy(rounds_of(1))
    yield world
    await world.close()


def rounds_of(count: int) -> Callable[[View], Decision]:
    """A policy of so many rounds of one call, and the answer."""

    def decide(view: View) -> Decision:
        if view.final or len(view.turns) >= count:
            good = sum(o.status == "OK" for turn in view.turns for o in turn.observations)
            return Decision(answer=f"{good} of {len(view.turns)}")
        return calls(("tool", {"round": len(view.turns)}))

    return decide


class Gate:
    """Work that says that it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Attempt] = asyncio.Queue()
        self.open = asyncio.Event()
        self.cancelled: list[str] = []
        self.count = 0

    async def work(self, attempt: Attempt) -> Outcome:
        self.count += 1
        self.begun.put_nowait(attempt)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(attempt.call)
            raise
        return Outcome(value=attempt.call)

    async def next(self) -> Attempt:
        async with asyncio.timeout(WITHIN_S):
            return await self.begun.get()


async def at_once(attempt: Attempt) -> Outcome:
    return Outcome(value=attempt.call)


def events(log: RunLog, kind: type) -> list[object]:
    return [event for commit in log.commits for event in commit.events if isinstance(event, kind)]


def one_report_counts(log: RunLog) -> bool:
    """Whether each call has settled once, and no report counts twice."""
    settled = [e for e in events(log, CallSettled) if isinstance(e, CallSettled)]
    reports = [e.report for e in settled if e.report]
    once = len({e.call for e in settled}) == len(settled)
    return once and len(set(reports)) == len(reports)


def epoch(number: int) -> Callable[[RunLog], bool]:
    return lambda log: log.head.epoch >= number


def wish(run: str, kind: SignalKind) -> bytes:
    """A signal, each a new one."""
    return encode(Signal(id=f"{kind}{time.monotonic_ns()}", run=run, kind=kind, by="ada"))


async def signalled(world: World, run: str, kind: SignalKind, *, queue: bool = False) -> None:
    """Say something to a run; and have it queued again where it holds no task."""
    await world.log.post(run, wish(run, kind))
    if queue:
        assert await queue_again(world.log, world.tasks, run)


async def empty(world: World) -> None:
    """Wait until no task is queued or in flight."""
    async with asyncio.timeout(WITHIN_S):
        while world.tasks.items:
            await a_moment()


async def a_moment() -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


# ------------------------------------------------------------------------------------------ fencing


async def test_a_fenced_conductor_touches_nothing_more(world: World) -> None:
    world.policy(rounds_of(2))
    gate = Gate()
    await world.worker(TOOL, gate.work)
    line, heir = Line(), Line()
    first = await conductor_on(world, line, "first")
    over = asyncio.Event()
    first.on_over = lambda _: over.set()
    run = await world.submit(world.start())
    await gate.next()
    line.lost = {"tasks.progress", "tasks.pull"}  # it lives, and nobody hears of it
    await conductor_on(world, heir, "heir")
    await world.until(run, epoch(2))
    gate.open.set()  # the report wakes both
    async with asyncio.timeout(WITHIN_S):
        await over.wait()
    refused = len(line.said) - line.said[::-1].index("log.append")
    gate.open.clear()
    log = await world.until(run, lambda log: len(events(log, AttemptStarted)) == 2)
    assert first.counts["fenced"] == 1
    await heir.until("tasks.progress", 4)  # time enough for the other's heartbeat, too
    assert line.effects(refused) == []
    gate.open.set()
    log = await world.ended(run)
    assert log.state().answer == "2 of 2"
    assert one_report_counts(log)
    assert log.aside == []
    assert line.effects(refused) == []
    assert [c.epoch for c in log.commits] == sorted(c.epoch for c in log.commits)


async def test_a_refusal_before_the_activation_is_in_fences_nobody(world: World) -> None:
    """Two conductors take a run over at once: the one that comes second reads again, and has it."""
    await world.worker(TOOL, at_once)
    store = store_of(world)
    start = world.start()
    line = Line()
    conductor = await conductor_on(world, line, "c")
    store.put((start.run, "c"), b"written by somebody else in between")
    run = await world.submit(start)
    log = await world.ended(run)
    assert log.state().answer == "1 of 1"
    assert [each.where for each in log.aside] == ["commits"]
    assert conductor.counts["fenced"] == 0


async def test_foreign_messages_are_set_aside_and_the_run_goes_on(world: World) -> None:
    gate = Gate()
    await world.worker(TOOL, gate.work)
    line = Line()
    conductor = await conductor_on(world, line, "c")
    run = await world.submit(world.start())
    await gate.next()
    for where in ("c", "i"):
        store_of(world).put((run, where), b"noise")
    gate.open.set()
    log = await world.ended(run)  # fenced by the noise; after its lease it takes the run again
    assert conductor.counts["fenced"] == 1
    assert log.state().answer == "1 of 1"
    assert sorted(each.where for each in log.aside) == ["commits", "inbox"]
    assert one_report_counts(log)


# -------------------------------------------------------------------------------- late heartbeats


def frozen(seconds: float) -> None:
    """Hold up the whole process, as a long collection or a SIGSTOP does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_a_late_heartbeat_has_every_tail_read_before_any_effect(world: World) -> None:
    async def hog(attempt: Attempt) -> Outcome:
        frozen(LEASE_S * 0.7)
        return Outcome(value=attempt.call)

    world.policy(rounds_of(2))
    await world.worker(TOOL, hog)
    line = Line()
    conductor = await conductor_on(world, line, "c")
    run = await world.submit(world.start())
    log = await world.ended(run)
    assert conductor.counts["late_heartbeats"] >= 1
    assert log.state().answer == "2 of 2"
    sends = [at for at, what in enumerate(line.said) if what == "calls.send"]
    assert "log.tail" in line.said[sends[0] : sends[1]]


@pytest.mark.parametrize("look_s", [0.05, 30.0], ids=["by-a-look", "by-its-heartbeat"])
async def test_whoever_wakes_after_its_lease_starts_no_effect(world: World, look_s: float) -> None:
    gate = Gate()
    await world.worker(TOOL, gate.work)
    line = Line()
    conductor = await conductor_on(world, line, "c", look_s=look_s)
    over = asyncio.Event()
    conductor.on_over = lambda _: over.set()
    run = await world.submit(world.start())
    await gate.next()
    await line.until("tasks.progress")
    line.lost = {"tasks.pull"}
    log = await world.log.read(run)
    # While this process is away, another conductor takes the run over.
    taken = log.commits[-1]
    activated = RunActivated(epoch=2, conductor="another", rules="1")
    commit = type(taken)(
        run=run,
        n=taken.n + 1,
        epoch=2,
        at=taken.at,
        causes=("activation",),
        events=(activated,),
        prev=digest(encode(taken)),
    )
    since = len(line.said)
    store_of(world).put((run, "c"), encode(commit))
    frozen(LEASE_S * 1.2)
    async with asyncio.timeout(WITHIN_S):
        await over.wait()
    assert conductor.counts["fenced"] == 1
    assert line.effects(since) == []
    gate.open.set()


# ------------------------------------------------------------------------------------------- hints


async def test_a_look_replaces_a_lost_hint(world: World) -> None:
    world.policy(rounds_of(3))
    await world.worker(TOOL, at_once)
    line = Line()
    line.lost = {"log.hint"}
    await conductor_on(world, line, "c")
    log = await world.ended(await world.submit(world.start()))
    assert log.state().answer == "3 of 3"
    assert line.said.count("log.hint") >= 3
    assert one_report_counts(log)


async def test_a_gap_in_the_hints_is_looked_into_at_once(world: World) -> None:
    gate = Gate()
    world.policy(
        lambda v: calls(("tool", {}), ("tool", {})) if not v.turns else Decision(answer="!")
    )
    await world.worker(TOOL, gate.work)
    line = Line()
    await conductor_on(world, line, "c", look_s=3_600)
    run = await world.submit(world.start())
    await gate.next()
    await gate.next()
    line.lost = {"log.hint"}
    gate.open.set()
    await line.until("log.hint")  # of the first report, or of both
    line.lost.clear()
    await signalled(world, run, "answer")  # its hint shows what was lost
    log = await world.ended(run)
    assert [o.report for o in log.state().calls.values()].count("") == 0


async def test_after_a_reconnection_what_is_due_is_done_again(world: World) -> None:
    await world.worker(TOOL, at_once)
    line = Line()
    conductor = await conductor_on(world, line, "c", look_s=3_600)
    line.lost = {"calls.send"}
    run = await world.submit(world.start())
    await line.until("calls.send")
    line.lost.clear()
    conductor.redo()
    assert (await world.ended(run)).state().answer == "1 of 1"


# ------------------------------------------------------------------------------ unanswered appends


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("number", [0, 1], ids=["first-commit", "second-commit"])
async def test_an_append_that_stays_unanswered_is_settled_by_a_fresh_read(
    world: World, fault: str, number: int
) -> None:
    world.policy(rounds_of(2))
    gate = Gate()
    gate.open.set()
    await world.worker(TOOL, gate.work)
    line = Line()
    line.appends = ["", fault] if number else [fault]  # type: ignore[list-item]
    conductor = await conductor_on(world, line, "c")
    log = await world.ended(await world.submit(world.start()))
    assert conductor.counts["broken"] == 1
    assert log.state().answer == "2 of 2"
    assert len(events(log, RunStarted)) == 1
    assert one_report_counts(log)
    assert log.aside == []
    assert gate.count == 2


async def test_the_task_message_precedes_run_started(world: World) -> None:
    """A conductor that ends before its first commit leaves the task, with all that is in it."""
    await world.worker(TOOL, at_once)
    dying = Line()
    dying.appends = ["before"] * 9
    await conductor_on(world, dying, "dying")
    start = world.start()
    run = await world.submit(start)
    await dying.until("log.append")
    dying.cut = True
    assert (await world.log.read(run)).commits == []
    assert [item.data for item in world.tasks.items.values()] == [encode(start)]
    await world.conductor("heir")
    log = await world.ended(run)
    (started,) = events(log, RunStarted)
    assert isinstance(started, RunStarted)
    assert (started.run, started.task, started.pool) == (run, start.task, start.pool)
    assert log.state().answer == "1 of 1"


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
    conductor = await conductor_on(world, line, "c", max_runs=1)
    starts = [world.start(budget=Budget(depth=2)) for _ in range(3)]
    starts = [msgspec.structs.replace(start, task=Task(text="+")) for start in starts]
    runs = [await world.submit(start) for start in starts]
    for run in runs:
        log = await world.ended(run)
        assert log.state().answer == "2"
    await empty(world)
    assert conductor.counts["finished"] == 3 * (1 + 2 + 4)


def is_paused(log: RunLog) -> bool:
    return log.state().phase == "paused"


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


def slow_acks(world: World, delay_s: float) -> None:
    """Have acknowledgements take effect a little later, as they do on a real server."""
    remove, loop = world.tasks.remove, asyncio.get_running_loop()
    world.tasks.remove = lambda item: loop.call_later(delay_s, remove, item)  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("who", ["conductor", "client"])
async def test_a_signal_that_comes_while_the_task_is_given_back_is_not_lost(
    world: World, who: str
) -> None:
    gate = Gate()
    await world.worker(TOOL, gate.work)
    line = Line()
    await conductor_on(world, line, "c")
    run = await world.submit(world.start())
    await gate.next()
    slow_acks(world, 0.1)
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
