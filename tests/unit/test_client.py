"""The client, over a deployment in memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.ports import Attempt, Outcome
from podium.client import Client
from podium.rows import result_of
from protocol import subjects
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget, Extension
from protocol.codec import Commit, decode_task, encode
from protocol.commands import Continue, Start
from protocol.decisions import Decision, PolicySpec, Task, View
from protocol.errors import Ambiguous, Conflict, InvalidData, NotFound, PodiumError, TooLarge, Usage
from protocol.inbox import Signal
from protocol.limits import MAX_TASK_BYTES
from replay.log import HintHandler
from replay.memory_log import MemoryLog
from tests.stories import empty
from tests.world import World, calls

WITHIN_S = 20

TOOL = WorkerSpec(name="tool")
POOL = Pool((TOOL,))
POLICY = PolicySpec(name="script")


class Deaf:
    """A subscription that hears nothing: every hint is lost."""

    async def close(self) -> None:
        """Nothing to close."""


class DeafLog(MemoryLog):
    """A log that never hints."""

    async def watch(self, run: str, handler: HintHandler) -> Any:
        """Hear nothing."""
        return Deaf()

    hints = watch


def once(view: View) -> Decision:
    """One call, then an answer."""
    if view.turns:
        return Decision(answer="done")
    return calls(("tool", {}))


async def work(attempt: Attempt) -> Outcome:
    return Outcome(value=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.policy(once)
    yield world
    await world.close()


def client_of(world: World, **options: Any) -> Client:
    return Client(world.log, world.tasks, by="anna", look_s=0.2, **options)


async def started(world: World) -> Client:
    await world.worker(TOOL, work)
    await world.conductor()
    return client_of(world)


async def test_a_run_from_task_to_result(world: World) -> None:
    client = await started(world)
    run = await client.submit("a question", POOL, POLICY)
    async with asyncio.timeout(WITHIN_S):
        result = await client.result(run)
    assert (result.outcome, result.answer, result.rounds, result.calls) == (
        "finished",
        "done",
        1,
        1,
    )
    assert result.ok
    assert str(result) == "done"
    (row,) = await client.runs()
    assert (row.run, row.outcome, row.task, row.calls) == (run, "finished", "a question", 1)
    assert row.waits_for == ""
    assert result == result_of(await client.state(run))
    assert (await client.log(run)).commits[0].causes[0] == "start"


async def test_submitting_queues_a_start(world: World) -> None:
    client = client_of(world, randomness=lambda n: bytes(range(n)))
    budget = Budget(rounds=2)
    run = await client.submit(Task(text="x", inputs={"a": 1}), POOL, POLICY, budget, "high")
    assert run == subjects.run_id(bytes(range(8)))
    (item,) = world.tasks.items.values()
    assert item.subject == f"tasks.high.{run}"
    start = decode_task(item.data)
    assert isinstance(start, Start)
    assert (start.task.inputs, start.budget, start.by) == ({"a": 1}, budget, "anna")


async def test_submitting_the_same_run_twice_begins_it_once(world: World) -> None:
    client = await started(world)
    run = client.new_run()
    assert await client.submit("x", POOL, POLICY, run=run) == run
    assert await client.submit("x", POOL, POLICY, run=run) == run
    async with asyncio.timeout(WITHIN_S):
        await client.result(run)
    assert [row.run for row in await client.runs()] == [run]


async def test_runs_are_spread_over_the_shards(world: World) -> None:
    client = client_of(world, shards=4)
    assert {subjects.shard(client.new_run()) for _ in range(200)} == {0, 1, 2, 3}


def bad_worker(**fields: Any) -> Pool:
    return Pool((WorkerSpec(**{"name": "tool", **fields}),))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"task": "  "}, Usage, "has no text"),
        ({"task": "x" * MAX_TASK_BYTES}, TooLarge, "at most 65,536"),
        ({"pool": Pool(())}, Usage, "no workers"),
        ({"pool": Pool((TOOL, TOOL))}, Usage, "'tool' is used twice"),
        ({"pool": bad_worker(name="my tool")}, InvalidData, "'my tool' is no name"),
        ({"pool": bad_worker(parameters={"type": "list"})}, InvalidData, "JSON Schema"),
        ({"pool": bad_worker(concurrency=0)}, InvalidData, "concurrency = 0"),
        ({"pool": bad_worker(kind="robot")}, InvalidData, "robot"),
        ({"pool": bad_worker(description="x" * 300_000)}, TooLarge, "the pool has"),
        ({"pool": Pool((TOOL,) * 257)}, Usage, "257 workers"),
        ({"policy": PolicySpec(name="")}, InvalidData, "no name"),
        (
            {"policy": PolicySpec(name="openai:m", options={"extra": {"messages": []}})},
            InvalidData,
            "extra has messages",
        ),
        ({"budget": Budget(rounds=-1)}, InvalidData, "the budget"),
        ({"run": "short"}, InvalidData, "'short' is no run's id"),
        ({"priority": "urgent"}, Usage, "no priority 'urgent'"),
        (
            {
                "policy": PolicySpec(name="p", reserve=Spend(tokens=60)),
                "budget": Budget(tokens=100),
            },
            Usage,
            "can't pay for one reply",
        ),
    ],
)
async def test_what_is_wrong_is_refused_before_it_is_queued(
    world: World, change: dict[str, Any], error: type[PodiumError], text: str
) -> None:
    asked: dict[str, Any] = {"task": "x", "pool": POOL, "policy": POLICY, **change}
    with pytest.raises(error) as caught:
        await client_of(world).submit(**asked)
    assert text in caught.value.message
    assert caught.value.hint or "257" in text
    assert not world.tasks.items


async def test_a_signal_to_a_queued_run_waits_in_its_inbox(world: World) -> None:
    client = client_of(world)
    run = await client.submit("x", POOL, POLICY)
    signal = await client.signal(run, "cancel", reason="no need")
    (entry,) = (await client.log(run)).inbox
    assert entry.message == Signal(id=signal, run=run, kind="cancel", by="anna", reason="no need")
    assert len(world.tasks.items) == 1
    await world.worker(TOOL, work)
    await world.conductor()
    async with asyncio.timeout(WITHIN_S):
        assert (await client.result(run)).outcome == "cancelled"


async def test_a_paused_run_is_queued_again_by_a_signal(world: World) -> None:
    client = await started(world)
    run = await client.submit("x", POOL, POLICY, Budget(rounds=0, on_limit="pause"))
    await world.until(run, lambda log: log.state().phase == "paused")
    (row,) = await client.runs()
    assert (row.phase, row.paused, row.waits_for) == ("paused", "budget", "a signal (budget)")
    async with asyncio.timeout(WITHIN_S):
        await client.signal(run, "extend", extension=Extension(rounds=3))
        assert (await client.result(run)).answer == "done"


async def test_a_second_signal_to_a_paused_run_returns_though_nobody_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.waking.WAKE_S", 10 * WITHIN_S)
    client = await started(world)
    run = await client.submit("x", POOL, POLICY, Budget(rounds=0, on_limit="pause"))
    await world.until(run, lambda log: log.state().phase == "paused")
    await empty(world)
    await world.conductors.pop().stop()
    async with asyncio.timeout(WITHIN_S):
        await client.signal(run, "resume")
        await client.signal(run, "extend", extension=Extension(rounds=3))
        assert len(world.tasks.items) == 1
        await world.conductor("c2")
        assert (await client.result(run)).answer == "done"


class GivingBack(MemoryQueue):
    """What was taken of it is acknowledged, which takes effect after it has refused two others."""

    refused = 0

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue.put`."""
        if await super().put(subject, data, headers):
            return True
        self.refused += 1
        if self.refused == 2:
            self.remove(self.items[subject])
        return False


async def taken(queue: MemoryQueue, run: str) -> None:
    """Have a task of a run be with somebody."""
    got = asyncio.Event()
    puller = await queue.pull(consumers_of("tasks"), lambda _: 1, lambda _: got.set())
    assert await queue.put(subjects.task("normal", run), b"taken")
    await got.wait()
    await puller.close()


async def test_a_task_that_is_being_given_back_is_no_reason_not_to_queue(world: World) -> None:
    client = await started(world)
    run = await client.submit("x", POOL, POLICY, Budget(rounds=0, on_limit="pause"))
    await world.until(run, lambda log: log.state().phase == "paused")
    queue = GivingBack(consumers_of("tasks"))
    async with asyncio.timeout(WITHIN_S):
        await taken(queue, run)
        await Client(world.log, queue).signal(run, "resume")
    assert queue.refused == 2
    (item,) = queue.items.values()
    assert decode_task(item.data) == Continue(run=run)


async def test_a_queue_that_refuses_for_long_is_not_asked_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.waking.WAKE_S", 0.1)
    client = await started(world)
    run = await client.submit("x", POOL, POLICY, Budget(rounds=0, on_limit="pause"))
    await world.until(run, lambda log: log.state().phase == "paused")
    queue = MemoryQueue(consumers_of("tasks"))
    async with asyncio.timeout(WITHIN_S):
        await taken(queue, run)
        await Client(world.log, queue).signal(run, "resume")
    assert [item.data for item in queue.items.values()] == [b"taken"]


async def test_a_paused_run_is_not_queued_by_a_second_pause(world: World) -> None:
    client = client_of(world)
    run = await client.submit("x", POOL, POLICY)
    await client.signal(run, "pause")
    (item,) = world.tasks.items.values()
    assert decode_task(item.data) != Continue(run=run)


async def test_signals_that_can_change_nothing_are_refused(world: World) -> None:
    client = await started(world)
    run = await client.submit("x", POOL, POLICY)
    async with asyncio.timeout(WITHIN_S):
        await client.result(run)
    with pytest.raises(Conflict, match=f"run {run} has ended already"):
        await client.signal(run, "cancel")
    with pytest.raises(Usage, match="extend needs something to add"):
        await client.signal(run, "extend")
    with pytest.raises(InvalidData, match="is no run's id"):
        await client.signal("x", "cancel")
    with pytest.raises(InvalidData, match="the extension"):
        await client.signal(run, "extend", extension=Extension(rounds=10**16))
    assert (await client.log(run)).commands()[1:] == []


async def test_find(world: World) -> None:
    client = client_of(world)
    runs = [subjects.run_id(bytes([i] * 8)) for i in range(3)]
    for run in runs:
        await world.log.post(run, encode(Signal(id="s", run=run, kind="pause", by="a")))
    assert await client.find(runs[1]) == runs[1]
    unique = next(
        p
        for n in range(14)
        if not runs[0].startswith(p := runs[1][:n]) and not runs[2].startswith(p)
    )
    assert await client.find(unique) == runs[1]
    with pytest.raises(NotFound, match="no run 'zzz'"):
        await client.find("zzz")
    with pytest.raises(NotFound):
        await client.find("")
    twins = [runs[0][:-2] + "00", runs[0][:-2] + "10"]
    for run in twins:
        await world.log.post(run, encode(Signal(id="s", run=run, kind="pause", by="a")))
    with pytest.raises(Ambiguous) as caught:
        await client.find(runs[0][:-2])
    assert all(twin in caught.value.hint for twin in twins)


async def test_watching_gives_every_commit_once_and_in_order(world: World) -> None:
    client = await started(world)
    run = client.new_run()
    seen: list[Commit] = []

    async def watch() -> None:
        async for commit in client.watch(run):
            seen.append(commit)

    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(watch())
        await client.submit("x", POOL, POLICY, run=run)
    assert seen == (await client.log(run)).commits
    assert [commit.n for commit in seen] == list(range(1, len(seen) + 1))


async def test_watching_survives_the_loss_of_every_hint(world: World) -> None:
    assert isinstance(world.log, MemoryLog)
    await started(world)
    client = Client(DeafLog(world.log.store), world.tasks, look_s=0.01)
    run = await client.submit("x", POOL, POLICY)
    async with asyncio.timeout(WITHIN_S):
        commits = [commit async for commit in client.watch(run)]
    assert commits == (await client.log(run)).commits
    assert commits


async def test_a_watcher_that_leaves_hears_nothing_more(world: World) -> None:
    assert isinstance(world.log, MemoryLog)
    store = world.log.store
    client = await started(world)
    run = await client.submit("x", POOL, POLICY)
    watching = client.watch(run)
    async with asyncio.timeout(WITHIN_S), aclosing(watching):
        await anext(watching)
        assert len(store.handlers[run, "c"]) >= 1
    async with asyncio.timeout(WITHIN_S):
        await client.result(run)
    assert store.handlers[run, "c"] == []
    assert store.handlers[run, "i"] == []


async def test_rows_say_whom_a_run_waits_for(world: World) -> None:
    gate = asyncio.Event()

    async def slow(attempt: Attempt) -> Outcome:
        await gate.wait()
        return Outcome(value=1)

    world.policy(lambda view: Decision(answer="x") if view.turns else calls(*[("tool", {})] * 2))
    await world.worker(TOOL, slow)
    await world.conductor()
    client = client_of(world)
    run = await client.submit("x", POOL, POLICY)
    await world.until(run, lambda log: bool(log.state().open))
    (row,) = await client.runs()
    assert (row.phase, row.waits_for) == ("working", "tool ×2")
    gate.set()
    async with asyncio.timeout(WITHIN_S):
        await client.result(run)
