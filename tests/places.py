"""Where a log and its queues may live, for suites that every implementation must pass.

A place is memory, one real server, three that replicate, or the simulated one. Beside honest
clients it can do what a stranger or a bad disk would.
"""

import asyncio
import contextlib
import os
import random
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from nats.aio.client import Client as NatsClient

from actors.embedded import Role
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.memory_queue import MemoryQueue
from actors.queues import Queue
from podium.sim.client import Client
from podium.sim.faults import Network
from podium.sim.loop import Life, VirtualLoop
from podium.sim.server import Server
from protocol import subjects
from protocol.actions import BlobRef
from replay.broker import Broker
from replay.chain import Messages, RunLog, Stored
from replay.imported import FolderShelf
from replay.jetstream_log import JetStreamLog
from replay.layered import LayeredLog
from replay.log import EventLog
from replay.memory_log import MemoryLog, MemoryStore
from replay.streams import definitions, ensure_streams
from tests.broker import One, Three

WITHIN_S: Final = 20.0
"""Seconds for anything that must happen, on a busy machine."""

Subject = Literal["c", "i"]


def new_run() -> str:
    """An id that no other test uses."""
    return subjects.run_id(os.urandom(8))


def new_worker() -> str:
    """A name that no other test uses."""
    return f"w{os.urandom(6).hex()}"


class Place(Protocol):
    """A deployment's log and queues; every call gives another client of the same one."""

    async def log(self) -> EventLog: ...

    async def queue(self, worker: str, lease_s: float) -> Queue: ...

    async def strange(self, run: str, where: Subject, data: bytes) -> None:
        """Write to a run's subject without asking whose it is."""
        ...

    async def spoil(self, ref: BlobRef, data: bytes) -> None:
        """Have other bytes stand under a blob's name."""
        ...


class MemoryPlace:
    """Everything in this event loop."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._queues: dict[str, MemoryQueue] = {}

    async def log(self) -> EventLog:
        """Another client."""
        return MemoryLog(self.store)

    async def queue(self, worker: str, lease_s: float) -> Queue:
        """The worker's call queue; all clients share one."""
        return self._queues.setdefault(worker, MemoryQueue(consumers_of(worker), lease_s))

    async def strange(self, run: str, where: Subject, data: bytes) -> None:
        """See `Place.strange`."""
        self.store.put((run, where), data)

    async def spoil(self, ref: BlobRef, data: bytes) -> None:
        """See `Place.spoil`."""
        self.store.blobs[ref.sha256] = data


class LayeredPlace(MemoryPlace):
    """Everything in this event loop, behind a shelf that holds nothing."""

    async def log(self) -> EventLog:
        """Another client."""
        return LayeredLog(MemoryLog(self.store), [FolderShelf(Path("/nowhere"))])


class _RealTime:
    """The real loop, as the simulated server takes its virtual one."""

    life = None
    posted = 0

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def post(
        self, when: float, _life: object, callback: Callable[..., object], *args: object
    ) -> None:
        self.posted += 1  # the real loop has no order for what is due at the same time
        asyncio.get_running_loop().call_at(when + self.posted * 1e-9, callback, *args)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        asyncio.get_running_loop().call_soon(callback, *args)


class SimPlace:
    """The simulated server, in real time: what it is held to holds in the simulator."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.stack = stack
        self.time = cast(VirtualLoop, _RealTime())
        self.server = Server(self.time, random.Random(0), Network(()))
        for config in definitions(1, 1):
            self.server.create(config)

    async def broker(self, *, grouped: bool = False) -> Broker:
        """A connection of its own, closed with the test."""
        client = Client(self.server, Life("p", 0, 0, lambda _: None), self.time)
        self.server.connect(client)
        broker = Broker(cast(NatsClient, client), grouped=grouped)
        await broker.open()
        self.stack.push_async_callback(broker.close)
        return broker

    async def log(self) -> EventLog:
        """Another client, on a connection of its own."""
        return JetStreamLog(await self.broker())

    async def queue(self, worker: str, lease_s: float) -> JetStreamQueue:
        """Another client of the worker's call queue."""
        queue = JetStreamQueue(await self.broker(), subjects.CALLS, lease_s=lease_s)
        await queue.ensure(consumers_of(worker))
        return queue

    async def strange(self, run: str, where: Subject, data: bytes) -> None:
        """See `Place.strange`."""
        subject = subjects.commits(run) if where == "c" else subjects.inbox(run)
        await (await self.broker()).append(subject, data)

    async def spoil(self, ref: BlobRef, data: bytes) -> None:
        """See `Place.spoil`. Only a blob that is not there yet: chunks are written once."""
        await (await self.broker()).append(subjects.blob(ref.sha256, 0), data, 0)


class _Current(JetStreamLog):
    """Reads once all three servers have everything: any of them may answer, one that lags, too."""

    def __init__(self, broker: Broker, server: Three) -> None:
        super().__init__(broker)
        self._server = server

    async def _both(self, run: str) -> tuple[Messages, RunLog]:
        await self._settled(run)
        return await super()._both(run)

    async def _read(self, run: str, subject: str, after: int) -> list[Stored]:
        await self._settled(run)
        return await super()._read(run, subject, after)

    async def _settled(self, run: str) -> None:
        stream = subjects.log_stream(subjects.shard(run))
        await asyncio.to_thread(self._server.await_current, stream)


class BrokerPlace:
    """A real server, or three."""

    def __init__(self, server: One | Three, stack: contextlib.AsyncExitStack) -> None:
        self.server, self.stack = server, stack

    async def broker(self, role: Role = "conductor", *, grouped: bool = False) -> Broker:
        """A connection of its own, closed with the test."""
        broker = await connected(self.server, role, grouped=grouped)
        self.stack.push_async_callback(broker.close)
        return broker

    async def log(self) -> EventLog:
        """Another client, on a connection of its own."""
        broker = await self.broker()
        if isinstance(self.server, Three):
            return _Current(broker, self.server)
        return JetStreamLog(broker)

    async def queue(self, worker: str, lease_s: float) -> JetStreamQueue:
        """Another client of the worker's call queue."""
        queue = JetStreamQueue(await self.broker(), subjects.CALLS, lease_s=lease_s)
        await queue.ensure(consumers_of(worker))
        return queue

    async def strange(self, run: str, where: Subject, data: bytes) -> None:
        """See `Place.strange`."""
        subject = subjects.commits(run) if where == "c" else subjects.inbox(run)
        await (await self.broker()).append(subject, data)

    async def spoil(self, ref: BlobRef, data: bytes) -> None:
        """See `Place.spoil`. Only a blob that is not there yet: chunks are written once."""
        await (await self.broker()).append(subjects.blob(ref.sha256, 0), data, 0)


async def connected(server: One | Three, role: Role, *, grouped: bool = False) -> Broker:
    """A connection to a server; its owner closes it."""
    user, password = server.credentials(role)
    return await Broker.connect(
        server.url, user=user, password=password, name=f"test-{role}", grouped=grouped
    )


_READY: "weakref.WeakSet[One | Three]" = weakref.WeakSet()


def with_streams(server: One | Three) -> None:
    """Make all streams on a server, once."""
    if server in _READY:
        return

    async def make() -> None:
        broker = await connected(server, "conductor")
        try:
            await ensure_streams(broker, replicas=3 if isinstance(server, Three) else 1)
        finally:
            await broker.close()

    with ThreadPoolExecutor(1) as pool:  # beside whatever loop the tests have
        pool.submit(asyncio.run, make()).result()
    _READY.add(server)
