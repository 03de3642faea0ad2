"""A trainer of a real deployment's runs is killed, and goes on with the same runs."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

import msgspec

from actors.bus import NatsBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.ports import Attempt, Outcome
from actors.worker import Worker, WorkerOptions
from protocol import subjects
from protocol.events import RunActivated, RunStarted
from replay.jetstream_log import JetStreamLog
from tests.broker import One, r1
from tests.live_trainer import ASKS, Said
from tests.places import BrokerPlace, with_streams
from tests.rollouts import DOUBLE, SCRIPT, double
from tests.world import Adapted, now_ms

ROOT: Final = Path(__file__).resolve().parents[2]

WITHIN_S: Final = 60.0
"""Seconds for a process to start and be given a group, on a busy machine."""

LEASE_S: Final = 10.0


async def test_a_killed_trainer_finds_its_runs_and_begins_none_again() -> None:
    gate = asyncio.Event()

    async def gated(attempt: Attempt) -> Outcome:
        if attempt.arguments["n"] == 99:
            await gate.wait()
        return await double(attempt)

    with r1() as server:
        with_streams(server)
        async with contextlib.AsyncExitStack() as stack:
            place = BrokerPlace(server, stack)
            await _deployed(place, Adapted(DOUBLE, gated), stack)
            first = await _trainer(server)
            said = [await _line(first)]
            assert said[0].key == "quick"
            first.kill()
            await first.wait()
            gate.set()
            second = await _trainer(server)
            said = sorted([await _line(second), await _line(second)], key=lambda each: each.key)
            assert await asyncio.wait_for(second.wait(), WITHIN_S) == 0
            assert [each.key for each in said] == ["quick", "slow"]
            assert [each.answers for each in said] == [["12"] * 3, ["396"] * 2]
            log = await place.log()
            assert await log.runs() == sorted(run for each in said for run in each.runs)
            assert sum(ask.members for ask in ASKS) == len(await log.runs())
            for run in await log.runs():
                events = [type(event) for event in (await log.read(run)).events()]
                assert events.count(RunStarted) == events.count(RunActivated) == 1


async def _deployed(place: BrokerPlace, adapter: Adapted, stack: contextlib.AsyncExitStack) -> None:
    """A conductor and a worker, each on a connection of its own."""
    broker, other = await place.broker(), await place.broker()
    tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=LEASE_S)
    calls = JetStreamQueue(broker, subjects.CALLS, lease_s=LEASE_S)
    await tasks.ensure(consumers_of("tasks"))
    await calls.ensure(consumers_of(DOUBLE.name))
    conductor = Conductor(
        log=JetStreamLog(broker),
        tasks=tasks,
        calls=calls,
        bus=NatsBus(broker),
        policies=lambda _spec: SCRIPT,
        clock=now_ms,
        options=ConductorOptions(name="c1", lease_s=LEASE_S),
    )
    worker = Worker(
        adapter=adapter,
        log=JetStreamLog(other),
        calls=JetStreamQueue(other, subjects.CALLS, lease_s=LEASE_S),
        bus=NatsBus(other),
        clock=now_ms,
        options=WorkerOptions(replica="w1", lease_s=LEASE_S),
    )
    for part in (conductor, worker):
        await part.start()
        stack.push_async_callback(part.stop)


async def _trainer(server: One) -> Process:
    user, password = server.credentials("client")
    command = [sys.executable, "-m", "tests.live_trainer", server.url, user, password]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)


async def _line(process: Process) -> Said:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), WITHIN_S)
    return msgspec.json.decode(line, type=Said)
