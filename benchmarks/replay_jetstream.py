"""Reading long runs from JetStream, beside the raw ordered read of the same messages.

The raw read is what the client library offers for reading a stream in order: an ordered consumer
with a callback, which counts the messages and looks at none. Podium's read gives a `RunLog`:
decoded, the chain checked, what doesn't count set aside. Both read the same two subjects of the
same server, in turns.
"""

import asyncio
import gc
import pathlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks import synthetic
from benchmarks.broker import Broker as Server
from benchmarks.errors import BenchmarkError
from protocol import subjects
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams

LIMIT_S: Final = 120.0
"""Seconds for one reading: far beyond what any has taken."""

AT_ONCE: Final = 500
"""Inbox messages that are stored at a time."""


class Reading(NamedTuple):
    """Seconds of one turn."""

    raw_s: float
    """The raw ordered read of both subjects."""
    read_s: float
    """Podium's read, decoding included."""
    fold_s: float
    """Folding what was read."""


async def _store(broker: Broker, run: synthetic.Messages) -> None:
    """As a conductor and its workers do: each commit with its condition, the inbox without."""
    seq = 0
    for data in run.commits:
        seq = await broker.append(subjects.commits(run.run), data, seq)
    for start in range(0, len(run.inbox), AT_ONCE):
        await asyncio.gather(
            *(
                broker.append(subjects.inbox(run.run), data)
                for data in run.inbox[start : start + AT_ONCE]
            )
        )


async def fill(url: str, run: synthetic.Messages) -> None:
    """Store a run on a server."""
    broker = await Broker.connect(url)
    try:
        await ensure_streams(broker)
        await _store(broker, run)
    finally:
        await broker.close()


async def _raw(client: Client, subject: str, count: int) -> None:
    done, seen = asyncio.Event(), 0

    async def heard(_: Msg) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    subscription = await client.jetstream().subscribe(
        subject, ordered_consumer=True, cb=heard, pending_bytes_limit=-1, pending_msgs_limit=-1
    )
    async with asyncio.timeout(LIMIT_S):
        await done.wait()
    await subscription.unsubscribe()


async def _took(work: Callable[[], Awaitable[object]]) -> float:
    gc.collect()
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _turns(url: str, run: synthetic.Messages, repeats: int) -> list[Reading]:
    broker, client = await Broker.connect(url), await nats.connect(url)
    try:
        await ensure_streams(broker)
        await _store(broker, run)
        log = JetStreamLog(broker)
        turns: list[Reading] = []

        async def raw() -> None:
            await _raw(client, subjects.commits(run.run), len(run.commits))
            await _raw(client, subjects.inbox(run.run), len(run.inbox))

        for _ in range(repeats):
            raw_s = await _took(raw)
            gc.collect()
            began = time.perf_counter()
            read = await log.read(run.run)
            between = time.perf_counter()
            state = read.state()
            ended = time.perf_counter()
            if state.round < 1 or len(read.commits) != len(run.commits) or read.aside:
                raise BenchmarkError("what was read is not what was stored")
            turns.append(Reading(raw_s, between - began, ended - between))
            del read, state
        return turns
    finally:
        await client.close()
        await broker.close()


def measure(data: pathlib.Path, events: int, repeats: int) -> tuple[int, list[Reading]]:
    """The number of events of the run, and the seconds of each turn."""
    run = synthetic.run(events)
    server = Server(pathlib.Path(tempfile.mkdtemp(prefix="replay-", dir=data)), "process")
    try:
        return run.events, uvloop.run(_turns(server.url, run, repeats))
    finally:
        server.stop()
