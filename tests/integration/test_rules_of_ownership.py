"""Architecture's rules of the log, those of ownership: a test for each, that carries its name.

Conductors and workers are the real ones, at the ends of lines that can be cut (`tests.faults`);
queues and log are those in memory, which pass the same suites as the real ones.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from actors.ports import Attempt, Outcome
from protocol.actions import WorkerSpec
from protocol.codec import digest, encode
from protocol.decisions import Decision
from protocol.events import (
    AttemptStarted,
    CallSettled,
    RunActivated,
    RunStarted,
)
from tests.faults import WITHIN_S, Line, conductor_on, store_of
from tests.stories import (
    LEASE_S,
    TOOL,
    Gate,
    at_once,
    epoch,
    events,
    one_report_counts,
    rounds_of,
    signalled,
)
from tests.world import World, calls


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Memory for everything, and an end to everything."""
    world = World(lease_s=LEASE_S, look_s=0.1)
    world.policy(rounds_of(1))
    yield world
    await world.close()


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
    assert conductor.counts["fenced"] >= 1
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


async def test_a_look_comes_before_a_time_out_counts(world: World) -> None:
    """A report that nobody heard of still counts, however late it is noticed."""
    quick = WorkerSpec(name="tool", timeout_ms=100, wait_ms=100)
    await world.worker(quick, at_once)
    line = Line()
    line.lost = {"log.hint"}
    await conductor_on(world, line, "c", look_s=3_600)
    log = await world.ended(await world.submit(world.start()))
    (settled,) = events(log, CallSettled)
    assert isinstance(settled, CallSettled)
    assert (settled.status, bool(settled.report)) == ("OK", True)
    (started,) = events(log, AttemptStarted)
    assert isinstance(started, AttemptStarted)
    assert log.head.at >= started.deadline  # it was the deadline that woke the run


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
