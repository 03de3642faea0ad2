"""A process that sleeps past its lease and wakes: others have taken over, and it touches nothing.

Conductors and workers are plain processes here, without Ray, so that two of a kind can be told
apart and one of them be frozen (SIGSTOP) and woken (SIGCONT).
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from nats.aio.msg import Msg

from actors.embedded import NatsServer
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Declared
from podium.config import Config
from podium.daemon import connection
from podium.host import Host
from protocol import subjects
from protocol.codec import decode_commit
from protocol.events import RunActivated
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams
from tests.broker import settled
from tests.integration import chaos_pool
from tests.integration.chaos import ROOT, actors, eventually
from tests.integration.chaos_check import Found, check
from tests.integration.chaos_load import Load, Witness

LEASE_S: Final = 2.0
"""Seconds: the shortest that a busy machine keeps."""

PROGRAM: Final = """
import asyncio, logging, sys
import msgspec
from actors.programs import Declared, start

async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    program = await start(msgspec.json.decode(sys.stdin.buffer.readline(), type=Declared))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await program.stop()

asyncio.run(main())
"""
"""A conductor or a worker until the end of its input."""


class Stage:
    """A broker, and programs in processes of their own."""

    def __init__(self, folder: Path, server: NatsServer, broker: Broker) -> None:
        self.folder, self.server, self.broker = folder, server, broker
        self.config = Config(folder=str(folder), lease_s=LEASE_S)
        self.pool = chaos_pool.pool(slots=16)
        self._stack = contextlib.AsyncExitStack()

    async def prepare(self, shards: int) -> None:
        """What a daemon does before anything can run."""
        await ensure_streams(self.broker, shards=shards)
        tasks = JetStreamQueue(self.broker, subjects.TASKS, lease_s=LEASE_S)
        await tasks.ensure(consumers_of("tasks"))
        calls = JetStreamQueue(self.broker, subjects.CALLS, lease_s=LEASE_S)
        for worker in self.pool.workers:
            await calls.ensure(consumers_of(worker.name))

    async def start(self, name: str, worker: str = "") -> "asyncio.subprocess.Process":
        """A conductor, or a replica of a worker; returns when it works."""
        role: Any = "worker" if worker else "conductor"
        declared = Declared(
            name=name,
            kind=role,
            policies=(chaos_pool.POLICY.name,),
            connection=connection(self.config, self.server, role),
            lease_s=LEASE_S,
            specs=tuple(filter(None, (self.pool.get(worker),))),
        )
        with (self.folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        self._stack.push_async_callback(_end, process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(declared) + b"\n")
        assert await process.stdout.readline() == b"ready\n", self.said(name)
        return process

    def said(self, name: str) -> str:
        """What a program has logged."""
        return (self.folder / f"{name}.log").read_text()

    async def close(self) -> None:
        """End every program."""
        await self._stack.aclose()


async def _end(process: "asyncio.subprocess.Process") -> None:
    """End a program, awake or frozen."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
    try:
        await asyncio.wait_for(process.wait(), 30)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


@contextlib.asynccontextmanager
async def stage(folder: Path, shards: int = 1) -> AsyncIterator[tuple[Stage, Host, Witness]]:
    """A broker without anybody, a client, and a witness."""
    server = await asyncio.to_thread(NatsServer.start, folder / "nats")
    try:
        config = Config(folder=str(folder), lease_s=LEASE_S)
        broker = await connection(config, server, "conductor").open("test")
        there = Stage(folder, server, broker)
        try:
            await there.prepare(shards)
            async with Host.connect(config) as host:
                witness = Witness()
                await witness.listen(host)
                yield there, host, witness
        finally:
            await there.close()
            await broker.close()
    finally:
        await asyncio.to_thread(server.close)


class Takeovers:
    """Which runs a conductor has taken, and who acknowledges which task."""

    def __init__(self) -> None:
        self.by: dict[str, set[str]] = {}
        """Runs by the name of the conductor."""
        self.verbs: list[tuple[int, int, bytes]] = []
        """What holders say of their tasks: which delivery of it, the task's place, the word."""

    async def listen(self, broker: Broker) -> None:
        """Hear every commit and every word to the task queue."""
        await broker.client.subscribe("hint.*.c", cb=self._commit)
        await broker.client.subscribe(f"$JS.ACK.{subjects.TASKS}.>", cb=self._verb)
        await settled(broker.client)

    async def _commit(self, message: Msg) -> None:
        commit = decode_commit(message.data)
        for event in commit.events:
            if isinstance(event, RunActivated):
                self.by.setdefault(event.conductor, set()).add(commit.run)

    async def _verb(self, message: Msg) -> None:
        delivered, place = message.subject.split(".")[4:6]
        self.verbs.append((int(delivered), int(place), message.data))


async def test_a_conductor_that_sleeps_past_its_lease_is_fenced_and_touches_nothing(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as (there, host, witness):
        takeovers = Takeovers()
        await takeovers.listen(there.broker)
        for worker in ("grow", "shift"):
            await there.start(f"worker-{worker}-1", worker)
        sleeper = await there.start("conductor-a")
        load = Load(host, witness, there.pool, rounds=(10,))
        await load.begin(20)
        await eventually(_reached(takeovers, "conductor-a", set(load.asked)), "a has every run")
        await witness.moments(50, 30)
        await there.start("conductor-b")
        sleeper.send_signal(signal.SIGSTOP)

        await eventually(_reached(takeovers, "conductor-b", set(load.asked)), "b has every run")
        said_before = len(takeovers.verbs)
        sleeper.send_signal(signal.SIGCONT)
        await eventually(lambda: _lost(host, len(load.asked)), "a knows that it has lost its runs")

        await load.all_ended(60)
        await eventually(lambda: _idle(host), "a has let go of every run")
        assert "away for half a lease" in there.said("conductor-a")
        assert {
            place: verb
            for delivered, place, verb in takeovers.verbs[said_before:]
            if delivered == 1
        } == {}
        found = Found()
        for asked in load.asked.values():
            await check(JetStreamLog(there.broker), asked.run, asked.answer, found)


def _reached(takeovers: Takeovers, conductor: str, runs: set[str]) -> Any:
    async def ask() -> bool:
        return takeovers.by.get(conductor, set()) >= runs

    return ask


async def _lost(host: Host, runs: int) -> bool:
    """Fenced by the other, or by itself: what is delivered again may wait in its own buffers."""
    counts = (await actors(host)).get("conductor-a", {}).get("counts", {})
    return bool(counts.get("fenced", 0) + counts.get("replaced", 0) >= runs)


async def _idle(host: Host) -> bool:
    return bool((await actors(host))["conductor-a"]["runs"] == 0)


@pytest.mark.slow
async def test_a_worker_that_sleeps_past_its_lease_reports_too_late_to_count(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as (there, host, witness):
        await there.start("worker-shift-1", "shift")
        sleeper = await there.start("worker-grow-1", "grow")
        await there.start("conductor-1")
        load = Load(host, witness, there.pool, rounds=(10,))
        await load.begin(30)
        await witness.moments(100, 30)
        sleeper.send_signal(signal.SIGSTOP)
        asleep = time.monotonic()
        reported = witness.reports["worker-grow-1"]

        await there.start("worker-grow-2", "grow")

        async def all_went_on() -> bool:
            return all(witness.heard[run] > asleep + LEASE_S for run in load.asked)

        await eventually(all_went_on, "every run goes on without the sleeper")
        sleeper.send_signal(signal.SIGCONT)
        await witness.until(
            lambda: witness.reports["worker-grow-1"] > reported, "the sleeper reports", 30
        )
        await load.all_ended(60)
        found = Found()
        for asked in load.asked.values():
            await check(JetStreamLog(there.broker), asked.run, asked.answer, found)
        assert found.noted + found.unread > 0, "what the sleeper had in hand was reported twice"
