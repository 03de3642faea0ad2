"""The floor's processes: a conductor and a worker that exchange messages and think nothing.

    python -m benchmarks.floor_processes conductor|worker URL

One round is: one conditional append of the round's commit, a message to the call queue for each
call, a report of each appended to the run's inbox by the worker, which the server republishes to
the conductor. One last commit ends the run. No state is kept, no event folded, nothing checked, no
append retried.
"""

import asyncio
import logging
import sys
from typing import Any, Final

import msgspec
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RePublish, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import FetchTimeoutError

from benchmarks.serving import ARGUMENT, ROUNDS, VALUE, WIDTH, claim_stdout, serve, wait_for_end

PENDING: Final = 8_000
"""Publishes without an acknowledgement: many more than 200 runs of 4 calls have, none stalls."""

PULL: Final = 500
"""Calls taken from the queue at a time: most of what 200 runs have waiting."""

PULL_S: Final = 5.0
"""Seconds that a pull waits for the first call, before it asks again."""

ACKS_PENDING: Final = 20_000
"""Calls handed out and not acknowledged yet: never reached."""

EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"


class Call(msgspec.Struct):
    """A message of the call queue."""

    run: str
    call: str
    worker: str
    arguments: dict[str, str]


class Report(msgspec.Struct, tag=True):
    """A message of a run's inbox."""

    run: str
    call: str
    status: str
    value: str


class Planned(msgspec.Struct, tag=True):
    """A commit."""

    round: int
    calls: list[Call]


encode = msgspec.json.Encoder().encode


async def connect(url: str) -> tuple[Client, JetStreamContext]:
    """A connection that fails instead of coming back: a measurement with a gap is none."""
    client = await nats.connect(url, allow_reconnect=False)
    return client, client.jetstream(publish_async_max_pending=PENDING)


async def make_streams(js: JetStreamContext) -> None:
    """The log, which republishes what comes to an inbox, and the call queue, in memory."""
    log = StreamConfig(name="LOG", subjects=["log.>"], allow_direct=True)
    log.republish = RePublish(src="log.*.i", dest="hint.{{wildcard(1)}}")
    await js.add_stream(log)
    calls = StreamConfig(name="CALLS", subjects=["calls.>"], storage=StorageType.MEMORY)
    calls.retention = RetentionPolicy.WORK_QUEUE
    await js.add_stream(calls)


class Conductor:
    """Does runs: commits, sends calls, waits for the hints of their reports."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._waiting: dict[str, asyncio.Future[Report]] = {}
        self._decode = msgspec.json.Decoder(Report).decode

    async def hinted(self, message: Msg) -> None:
        """Take a report that the server republished."""
        report = self._decode(message.data)
        if (future := self._waiting.pop(report.call, None)) and not future.done():
            future.set_result(report)

    async def run(self, name: str) -> int:
        """One run of the floor."""
        last = results = 0
        loop = asyncio.get_running_loop()
        for number in range(ROUNDS):
            calls = [
                Call(name, f"{name}-{number}-{index}", "w", {"q": ARGUMENT})
                for index in range(WIDTH)
            ]
            futures = [loop.create_future() for _ in calls]
            self._waiting.update(zip((call.call for call in calls), futures, strict=True))
            last = await self._commit(name, Planned(number, calls), last)
            for call in calls:
                await self._js.publish_async("calls.w", encode(call))
            results += len(await asyncio.gather(*futures))
        await self._commit(name, Planned(ROUNDS, []), last)
        return results

    async def _commit(self, name: str, commit: Planned, last: int) -> int:
        headers = {EXPECTED: str(last)}
        stored = await self._js.publish(f"log.{name}.c", encode(commit), headers=headers)
        return stored.seq


async def conductor(url: str) -> None:
    """Measure runs for the parent."""
    pipe = claim_stdout()
    client, js = await connect(url)
    acting = Conductor(js)
    await client.subscribe("hint.>", cb=acting.hinted)
    await client.flush()
    await serve(pipe, lambda: acting.run)
    await client.close()


async def work(js: JetStreamContext, pull: JetStreamContext.PullSubscription) -> None:
    """Answer calls at once, for ever."""
    decode = msgspec.json.Decoder(Call).decode
    while True:
        try:
            batch = await pull.fetch(PULL, timeout=PULL_S)
        except FetchTimeoutError:
            continue
        for message in batch:
            call = decode(message.data)
            report = encode(Report(call.run, call.call, "OK", VALUE))
            await js.publish_async(f"log.{call.run}.i", report)
            await message.ack()


async def worker(url: str) -> None:
    """Make the streams, then answer calls until the parent ends."""
    pipe = claim_stdout()
    client, js = await connect(url)
    await make_streams(js)
    limits = ConsumerConfig(max_ack_pending=ACKS_PENDING)
    pull = await js.pull_subscribe("calls.>", durable="workers", stream="CALLS", config=limits)
    working: asyncio.Task[Any] = asyncio.create_task(work(js, pull))
    ending = asyncio.create_task(wait_for_end(pipe))
    await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()
    await client.close()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    uvloop.run({"conductor": conductor, "worker": worker}[sys.argv[1]](sys.argv[2]))
