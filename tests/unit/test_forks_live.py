"""Forks under a real conductor, over memory: they go on live, and their origin never changes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from actors.ports import Attempt, Outcome
from podium.client import Client
from protocol import subjects
from protocol.actions import WorkerSpec
from protocol.codec import encode
from protocol.commands import Fork
from protocol.decisions import Decision, PolicySpec, View
from protocol.errors import Conflict, Usage
from protocol.events import CallSettled, Edit, RunForked
from protocol.limits import MAX_INLINE_BYTES
from replay.chain import RunLog
from replay.forks import failure, origin_at
from replay.history import entries
from replay.redecide import redecide
from tests.world import Scripted, World, calls

STOCK = WorkerSpec(name="stock", attempts=1)


class Shop:
    """A worker that fails on one article until it is mended, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.mended = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def work(self, attempt: Attempt) -> Outcome:
        await self.gate.wait()
        article = str(attempt.arguments["article"])
        self.asked.append((attempt.run, article))
        if article == "lamp" and not self.mended:
            raise KeyError(article)
        return Outcome(value=len(article))


def decide(view: View) -> Decision:
    """Two articles at once, then their sum; or what is missing."""
    if not view.turns:
        return calls(("stock", {"article": "chair"}), ("stock", {"article": "lamp"}))
    seen = view.turns[-1].observations
    if all(each.status == "OK" for each in seen):
        return Decision(answer=str(sum(each.value for each in seen)))
    return Decision(answer="I don't know.")


@pytest.fixture
async def shop() -> Shop:
    return Shop()


@pytest.fixture
async def world(shop: Shop) -> AsyncIterator[World]:
    made = World()
    made.policy(decide)
    made.policy(lambda _: Decision(answer="whatever"), "lazy")
    await made.worker(STOCK, shop.work)
    await made.conductor()
    yield made
    await made.close()


async def ran(world: World) -> RunLog:
    """A run that could not answer."""
    return await world.ended(await world.submit(world.start()))


def client(world: World) -> Client:
    return Client(world.log, world.tasks, by="ada")


async def test_a_rerun_reuses_what_succeeded(world: World, shop: Shop) -> None:
    log = await ran(world)
    assert log.state().answer == "I don't know."
    found = failure(log)
    assert found is not None
    shop.mended = True
    (fork,) = await client(world).fork(log.run, found.at, reopened=found.reopened)
    again = await world.ended(fork)
    assert again.state().answer == "9"
    assert [article for run, article in shop.asked if run == fork] == ["lamp"]
    assert (await world.log.read(log.run)).commits == log.commits
    assert isinstance(again.commits[0].events[0], RunForked)
    assert [e.number for e in entries(again)][found.at] == found.at + 1
    for decided in redecide(again):
        assert decided.events == decided.commit.events


async def test_forks_of_a_run_that_is_still_at_work(world: World, shop: Shop) -> None:
    shop.gate.clear()
    run = await world.submit(world.start())
    log = await world.until(run, lambda log: bool(log.commits))
    forks = await client(world).fork(run, len(entries(log)), times=3)
    for fork in forks:
        await world.until(fork, lambda log: bool(log.commits))
    shop.gate.set()
    ends = await asyncio.gather(*(world.ended(each) for each in (run, *forks)))
    assert {each.state().answer for each in ends} == {"I don't know."}
    assert len({each.run for each in ends}) == 4
    assert sorted(article for _, article in shop.asked) == ["chair"] * 4 + ["lamp"] * 4


async def test_another_policy_and_another_observation(world: World) -> None:
    log = await ran(world)
    settled = [e.number for e in entries(log) if isinstance(e.event, CallSettled)]
    hand = client(world)
    (lazy,) = await hand.fork(log.run, settled[-1], policy=PolicySpec(name="lazy"))
    assert (await world.ended(lazy)).state().answer == "whatever"
    failed = next(c for c, s in log.state().calls.items() if s.status != "OK")
    (told,) = await hand.fork(
        log.run,
        settled[-1],
        edits=(Edit(f"calls.{failed}.value", 4), Edit(f"calls.{failed}.status", "OK")),
    )
    assert (await world.ended(told)).state().answer == "9"


async def test_a_fork_of_a_fork(world: World, shop: Shop) -> None:
    log = await ran(world)
    found = failure(log)
    assert found is not None
    hand = client(world)
    (first,) = await hand.fork(log.run, found.at, reopened=found.reopened)
    again = await world.ended(first)
    assert again.state().answer == "I don't know."
    shop.mended = True
    deeper = failure(again)
    assert deeper is not None
    assert deeper.at > found.at
    (second,) = await hand.fork(first, deeper.at, reopened=deeper.reopened)
    end = await world.ended(second)
    assert end.state().answer == "9"
    assert [each.run for each in end.lineage()] == [second, first, log.run]


async def test_what_can_not_be_forked_is_said_and_nothing_is_queued(world: World) -> None:
    log = await ran(world)
    hand, count = client(world), len(entries(log))
    with pytest.raises(Usage, match=f"has no event {count + 1}"):
        await hand.fork(log.run, count + 1)
    with pytest.raises(Usage, match="has ended by event"):
        await hand.fork(log.run, count)
    with pytest.raises(Usage, match="there is no '7-7'"):
        await hand.fork(log.run, 3, edits=(Edit("calls.7-7.value", 1),))
    with pytest.raises(Usage, match="The task has no text"):
        await hand.fork(log.run, 3, edits=(Edit("task.text", " "),))
    with pytest.raises(Usage, match="no conductor can take its place"):
        await hand.fork(log.run, 3, workers=(WorkerSpec(name="stock", kind="conductor"),))
    with pytest.raises(Usage, match="no conductor can take its place"):
        await hand.fork(log.run, 3, edits=(Edit("workers.stock.kind", "conductor"),))
    with pytest.raises(Usage, match="call 1-0 can't be made again"):
        await hand.fork(log.run, 3, reopened=("1-0",))
    assert await world.log.runs() == [log.run]


async def test_a_fork_that_is_cancelled_before_it_begins(world: World, shop: Shop) -> None:
    log = await ran(world)
    found = failure(log)
    assert found is not None
    for conductor in world.conductors:
        await conductor.stop()
    world.conductors.clear()
    hand = client(world)
    (fork,) = await hand.fork(log.run, found.at, reopened=found.reopened)
    await hand.signal(fork, "cancel", reason="not that one")
    await world.conductor("c2")
    assert (await world.ended(fork)).state().outcome == "cancelled"


async def test_a_fork_goes_on_under_another_conductor(world: World, shop: Shop) -> None:
    log = await ran(world)
    found = failure(log)
    assert found is not None
    shop.mended = True
    shop.gate.clear()
    (fork,) = await client(world).fork(log.run, found.at, reopened=found.reopened)
    await world.until(fork, lambda log: bool(log.commits))
    await world.conductors.pop().stop()
    await world.conductor("c2")
    await world.until(fork, lambda log: log.state().epoch == 2)
    shop.gate.set()
    end = await world.ended(fork)
    assert (end.state().answer, end.state().epoch) == ("9", 2)


async def test_a_value_in_a_blob_is_shared_too(world: World, shop: Shop) -> None:
    async def work(attempt: Attempt) -> Outcome:
        if attempt.arguments["article"] == "lamp":
            return await shop.work(attempt)
        return Outcome(value="x" * (2 * MAX_INLINE_BYTES))

    for worker in world.workers:
        await worker.stop()
    world.workers.clear()
    await world.worker(STOCK, work)
    seen: list[dict[str, Any]] = []

    def look(view: View) -> Decision:
        if not view.turns:
            return decide(view)
        seen.append(
            {each.call.arguments["article"]: each.value for each in view.turns[-1].observations}
        )
        return Decision(answer="seen")

    world.policies["script"] = Scripted(look, "script")
    log = await ran(world)
    found = failure(log)
    assert found is not None
    shop.mended = True
    (fork,) = await client(world).fork(log.run, found.at, reopened=found.reopened)
    await world.ended(fork)
    assert seen[-1] == {"chair": "x" * (2 * MAX_INLINE_BYTES), "lamp": 4}


async def test_a_fork_that_can_not_be_begun_tells_who_waits_for_it(world: World) -> None:
    log = await ran(world)
    origin = msgspec.structs.replace(origin_at(log, 3), hash="0" * 32)
    fork = Fork(run=subjects.run_id(b"no such thing..."), origin=origin)
    waiting = asyncio.create_task(client(world).result(fork.run))
    await world.tasks.put(subjects.task("normal", fork.run), encode(fork))
    async with asyncio.timeout(10):
        with pytest.raises(Conflict, match="could not be begun"):
            await waiting
    assert not world.tasks.items, "its task is out of the queue"
