"""What a deployment hosts follows its registry: real broker, workers and servers, and no Ray."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Connection, Declared, Program, now_ms, placed, start
from actors.ray_messages import Looked
from podium import poolfile
from podium.client import Client
from podium.roster import LINGER_S, Roster
from protocol import registry as rules
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from protocol.errors import PodiumError
from protocol.redaction import Redactor
from protocol.registry import Registry
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.registry_log import JetStreamRegistry
from replay.streams import ensure_streams
from tests.broker import One, r1
from tests.integration.chaos import eventually
from tests.places import connected

ROOT: Final = Path(__file__).resolve().parents[2]

LIMIT_S: Final = 60.0

POLICY: Final = PolicySpec(name=f"python:{__name__}:Once")

SERVER: Final = '''
import time
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context

STATE, ASKED, HELD = map(Path(__file__).with_name, ("grown", "asked", "held"))
server = MCPServer("growing")

def add(number: int) -> int:
    """One more."""
    return number + 1

@server.tool()
async def grow(ctx: Context[Any, Any]) -> str:
    """Has another tool from here on."""
    STATE.touch()
    server.add_tool(add)
    await ctx.notify_tools_changed()
    return "grown"

if STATE.exists():
    server.add_tool(add)
    ASKED.touch()
    while HELD.exists():
        time.sleep(0.02)
server.run()
'''


class Once:
    """Calls one worker, which the task names, with the arguments that it has as inputs."""

    spec = POLICY

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        if not view.turns:
            arguments = dict(view.task.inputs or {})
            return Reply(decision=Decision(calls=(PlannedCall(view.task.text, arguments),)))
        (item,) = view.turns[0].observations
        return Reply(decision=Decision(answer=f"{item.status}: {item.value}"))


class Here:
    """A cluster whose actors are programs in this loop."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.looked: Looked | None = None
        self._programs: dict[str, Program] = {}
        self._wanted: list[Declared] = []
        self._working: asyncio.Task[None] | None = None

    def declare(self, declared: Sequence[Declared]) -> None:
        """See `Cluster.declare`."""
        if list(declared) != self._wanted:
            self.looked, self._wanted = None, list(declared)
            before, self._working = self._working, None
            self._working = asyncio.create_task(self._follow(before, self._wanted))

    async def _follow(self, before: "asyncio.Task[None] | None", wanted: list[Declared]) -> None:
        if before is not None:
            await before
        missing: dict[str, str] = {}
        for name in self._programs.keys() - {each.name for each in wanted}:
            await self._programs.pop(name).stop()
        for each in wanted:
            if each.name not in self._programs:
                try:
                    self._programs[each.name] = await start(each)
                except PodiumError as error:
                    missing[each.name] = error.message
        if wanted is self._wanted:
            self.looked = Looked("", missing, {})
            self.news.set()

    async def hear(self) -> None:
        """Have told what the programs say of their servers."""
        if self.looked is not None:
            offers = {n: (await p.health()).offers for n, p in self._programs.items()}
            self.looked = Looked("", self.looked.missing, offers)
            self.news.set()

    @property
    def hosting(self) -> set[str]:
        """The actors that are there."""
        return set(self._programs)

    async def close(self) -> None:
        """End them all."""
        self.declare(())
        if self._working is not None:
            await self._working


class Deployment:
    """A roster that is followed, a conductor, and a user's hand on both."""

    def __init__(self, server: One, broker: Broker) -> None:
        self.server, self.here, self.now = server, Here(), 0.0
        self.broker, self.log = broker, JetStreamRegistry(broker)
        self.client = Client(
            JetStreamLog(broker),
            JetStreamQueue(broker, subjects.TASKS, lease_s=10),
            registry=self.log,
        )
        self.roster = Roster(
            self.here,
            declare=self._declare,
            changed=lambda: None,
            redactor=Redactor(),
            monotonic=lambda: self.now,
        )

    def _declare(self) -> None:
        specs = tuple(each.spec for each in self.roster.hosted)
        hosted = placed(Pool(specs))
        self.here.declare([self.declared(name, specs) for name, specs in hosted.items()])

    def declared(self, name: str, specs: tuple[WorkerSpec, ...] = ()) -> Declared:
        """An actor."""
        user, password = self.server.credentials("worker" if specs else "conductor")
        return Declared(
            name=name,
            kind="worker" if specs else "conductor",
            connection=Connection(url=self.server.url, user=user, password=password),
            lease_s=10,
            policies=(POLICY.name,),
            specs=specs,
        )

    async def until(self, holds: Callable[[Registry], bool]) -> Registry:
        """The registry, when that holds."""

        async def look() -> bool:
            await self.here.hear()
            return holds(await self.log.read())

        await eventually(look, "the registry is as it should be", LIMIT_S)
        return await self.log.read()

    async def hosts(self, *actors: str) -> None:
        """Wait until just these are there."""
        await self.until(lambda _: self.here.hosting == set(actors))

    async def change(self, *workers: WorkerSpec, tables: dict[str, str] | None = None) -> Registry:
        """What came of a change."""
        said = rules.change(await self.log.read(), Pool(workers), at=now_ms(), tables=tables)
        assert said is not None
        await self.log.append(said)
        return await self.until(lambda registry: registry.pending is None)

    async def answer(self, pool: Pool, worker: str, **arguments: object) -> str:
        """What a run answers that calls a worker of a pool."""
        task = Task(text=worker, inputs=arguments)
        run = await self.client.submit(task, pool, POLICY)
        async with asyncio.timeout(LIMIT_S):
            return (await self.client.result(run)).answer


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Deployment]:
    with r1(folder=tmp_path / "nats") as server:
        async with contextlib.AsyncExitStack() as stack:
            broker = await connected(server, "conductor")
            stack.push_async_callback(broker.close)
            await ensure_streams(broker)
            tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=10)
            await tasks.ensure(consumers_of("tasks"))
            made = Deployment(server, broker)
            conductor = await start(made.declared("conductor-1"))
            stack.push_async_callback(conductor.stop)
            stack.push_async_callback(made.here.close)
            connect = partial(connected, server, "conductor")
            following = asyncio.create_task(made.roster.keep(connect, 10))
            try:
                yield made
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


def tool(name: str, function: str, host: str = "") -> WorkerSpec:
    return WorkerSpec(name=name, adapter=f"function:{__name__}:{function}", host=host)


def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


def triple(number: int) -> int:
    """Three times as much."""
    return 3 * number


async def test_an_earlier_worker_is_hosted_while_it_is_called(there: Deployment) -> None:
    first = (await there.change(tool("times", "double"), tool("other", "double"))).pool
    await there.hosts("worker-times-1", "worker-other-1")
    second = (await there.change(tool("times", "triple"))).pool
    everything = ("worker-times-1", "worker-times@2-1", "worker-other-1")
    await there.hosts(*everything)
    assert await there.answer(first, "times", number=2) == "OK: 4"
    assert await there.answer(second, "times", number=2) == "OK: 6"

    there.now += LINGER_S + 1
    await there.hosts("worker-times@2-1")
    assert await there.answer(first, "other", number=3) == "OK: 6", "started for the one who calls"
    await there.hosts("worker-times@2-1", "worker-other-1")
    assert await there.answer(second, "times", number=2) == "OK: 6"


async def test_the_workers_of_one_process_are_all_there_when_one_is_called(
    there: Deployment,
) -> None:
    both = tool("two", "double", host="both"), tool("three", "triple", host="both")
    first = (await there.change(*both)).pool
    await there.change(tool("other", "double"))
    there.now += LINGER_S + 1
    await there.hosts("worker-other-1")
    assert await there.answer(first, "two", number=2) == "OK: 4"
    assert await there.answer(first, "three", number=2) == "OK: 6"


async def test_a_fresh_deployment_hosts_its_own_workers_alone(there: Deployment) -> None:
    before = await there.change(tool("times", "double"))
    fresh = Roster(there.here, declare=lambda: None, changed=lambda: None, redactor=Redactor())
    log = JetStreamRegistry(there.broker)
    pool = Pool((tool("other", "triple"),))
    await fresh.begin(log, pool, "", {})
    await there.until(lambda registry: registry.pending is None)
    await fresh.begin(log, pool, "", {})
    assert [each.spec.name for each in fresh.hosted] == ["other"]
    assert [each.spec for each in fresh.earlier] == list(before.offered)


async def test_what_a_later_version_wrote_is_said_once_while_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("podium.roster.PAUSE_S", 0.01)
    tries, often = 0, asyncio.Event()
    with r1() as server:

        async def connect() -> Broker:
            nonlocal tries
            tries += 1
            if tries > 3:
                often.set()
                await asyncio.Event().wait()
            return await connected(server, "conductor")

        broker = await connected(server, "conductor")
        await ensure_streams(broker)
        await broker.append(subjects.REGISTRY, b'{"n":1,"at":1,"events":[{"type":"Later"}]}')
        await broker.close()
        roster = Roster(Here(), declare=lambda: None, changed=lambda: None, redactor=Redactor())
        following = asyncio.create_task(roster.keep(connect, 10))
        async with asyncio.timeout(LIMIT_S):
            await often.wait()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert sum("can't be read" in each.message for each in caplog.records) == 1


async def test_one_that_can_not_work_is_ended_and_the_reason_kept(there: Deployment) -> None:
    before = await there.change(tool("times", "double"))
    after = await there.change(tool("times", "nothing"), tool("more", "triple"))
    assert "worker-times@2-1: " in after.refused[before.n + 1]
    assert after.offered == before.offered
    await there.hosts("worker-times-1")
    assert await there.answer(after.pool, "times", number=2) == "OK: 4"


async def test_a_change_is_followed_after_the_broker_was_away(there: Deployment) -> None:
    await there.change(tool("times", "double"))
    await asyncio.to_thread(there.server.kill)
    await asyncio.to_thread(there.server.restart)
    await ensure_streams(there.broker)  # as a daemon does: that of the calls was in memory
    after = await there.change(tool("times", "triple"))
    assert await there.answer(after.pool, "times", number=2) == "OK: 6"


@pytest.mark.parametrize("only", [False, True])
async def test_what_a_server_offers_by_now_is_registered(
    there: Deployment, tmp_path: Path, only: bool
) -> None:
    (tmp_path / "growing.py").write_text(SERVER)
    (tmp_path / "pool.toml").write_text(f"""
[[worker]]
name = "growing"
adapter = "mcp"
{'only = ["grow"]' if only else ""}
[worker.options]
command = "{sys.executable}"
args = ["{tmp_path / "growing.py"}"]
""")
    loaded = await asyncio.to_thread(poolfile.load, tmp_path / "pool.toml")
    first = await there.change(*loaded.pool.workers, tables=loaded.tables)
    assert [spec.name for spec in first.offered] == ["growing_grow"]
    if only:
        assert "grown" in await there.answer(first.pool, "growing_grow")
        await there.until(lambda _: bool(there.roster._heard))
        assert (await there.log.read()).offered == first.offered
        return
    held = tmp_path / "held"
    held.touch()
    assert "grown" in await there.answer(first.pool, "growing_grow")
    await there.until(lambda _: (tmp_path / "asked").exists())
    boss = WorkerSpec(name="boss", kind="person")  # by somebody else, while the server is asked
    await there.change(*first.offered, boss, tables=loaded.tables)
    held.unlink()
    after = await there.until(lambda registry: len(registry.offered) == 3)
    assert [spec.place for spec in after.offered] == ["growing_grow@2", "growing_add", "boss"]
    assert "3" in await there.answer(after.pool, "growing_add", number=2)
