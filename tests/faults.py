"""Faults between a process and everything else, over the real queues, log and bus in memory.

A `Line` is one process's connection. It remembers whatever the process says, in order, and can lose
some of it, or all: then the process is as good as dead to the others, and doesn't know.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from actors.bus import MemoryBus
from actors.conductor import Conductor, ConductorOptions
from actors.memory_queue import MemoryQueue
from actors.queues import Delivery, Listener, Outgoing, Puller
from actors.worker import Worker, WorkerOptions
from protocol.actions import WorkerSpec
from protocol.codec import Commit
from protocol.errors import Unreachable
from replay.chain import Head, RunLog, Stored
from replay.log import HintHandler, Hints
from replay.memory_log import MemoryLog, MemoryStore
from tests.world import Adapted, Work, World, now_ms

WITHIN_S: Final = 15.0
"""Seconds for anything that must happen, on a busy machine."""

EFFECTS: Final = frozenset(
    f"{where}.{verb}"
    for where in ("tasks", "calls")
    for verb in ("ack", "nak", "progress", "put", "send", "withdraw")
) | {"bus.publish", "log.post", "log.append"}
"""Whatever others could notice."""


class Line:
    """One process's connection to everything else."""

    def __init__(self) -> None:
        self.said: list[str] = []
        """Such as ``tasks.ack`` or ``log.append``, in order, lost or not."""
        self.lost: set[str] = set()
        """What is not carried any more."""
        self.cut = False
        """Whether nothing is."""
        self.appends: list[Literal["", "before", "after"]] = []
        """What becomes of the next appends: unanswered, and lost before or after it was stored."""
        self.before: dict[str, Callable[[], object]] = {}
        """What happens elsewhere, once, just before something is said."""
        self._said = asyncio.Event()

    def carries(self, what: str) -> bool:
        """Say something; whether it arrives."""
        if what in self.before:
            self.before.pop(what)()
        self.said.append(what)
        self._said.set()
        return not self.cut and what not in self.lost

    def demand(self, what: str) -> None:
        """Say something that wants an answer."""
        if not self.carries(what):
            raise Unreachable(f"{what}: nobody answers")

    async def until(self, what: str, times: int = 1, since: int | None = None) -> None:
        """Wait until the process has said it so often, from now or from then on."""
        first = len(self.said) if since is None else since
        async with asyncio.timeout(WITHIN_S):
            while self.said[first:].count(what) < times:
                self._said.clear()
                await self._said.wait()

    def effects(self, since: int = 0) -> list[str]:
        """What others could notice, of what was said since then."""
        return [what for what in self.said[since:] if what in EFFECTS]


class _Delivery:
    def __init__(self, line: Line, name: str, delivery: Delivery) -> None:
        self._line, self._name, self._delivery = line, name, delivery
        self.data, self.subject = delivery.data, delivery.subject
        self.delivered = delivery.delivered

    def header(self, name: str) -> str:
        return self._delivery.header(name)

    async def ack(self) -> None:
        if self._line.carries(f"{self._name}.ack"):
            await self._delivery.ack()

    async def nak(self, delay_s: float = 0.0) -> None:
        if self._line.carries(f"{self._name}.nak"):
            await self._delivery.nak(delay_s)

    async def progress(self) -> None:
        if self._line.carries(f"{self._name}.progress"):
            await self._delivery.progress()


class LineQueue:
    """A `Queue` at the other end of a line."""

    def __init__(self, queue: MemoryQueue, line: Line, name: str) -> None:
        self.queue, self.line, self.name = queue, line, name

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue.put`."""
        self.line.demand(f"{self.name}.put")
        return await self.queue.put(subject, data, headers)

    async def waits(self, subject: str) -> bool:
        """See `Queue.waits`."""
        self.line.demand(f"{self.name}.waits")
        return await self.queue.waits(subject)

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """See `Queue.send`."""
        if self.line.carries(f"{self.name}.send"):
            await self.queue.send(messages)

    async def withdraw(self, subject: str) -> None:
        """See `Queue.withdraw`."""
        self.line.demand(f"{self.name}.withdraw")
        await self.queue.withdraw(subject)

    async def pull(
        self,
        consumers: Iterable[str],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> Puller:
        """See `Queue.pull`. Nothing is delivered while ``<name>.pull`` is lost."""
        line, name = self.line, self.name

        def room(consumer: str) -> int:
            return 0 if line.cut or f"{name}.pull" in line.lost else capacity(consumer)

        return await self.queue.pull(
            consumers, room, lambda delivery: handler(_Delivery(line, name, delivery))
        )


class LineLog(MemoryLog):
    """An `EventLog` at the other end of a line."""

    def __init__(self, store: MemoryStore, line: Line) -> None:
        super().__init__(store)
        self.line = line

    async def append(self, commit: Commit, after: Head) -> Head:
        """See `EventLog.append`."""
        self.line.demand("log.append")
        fault = self.line.appends.pop(0) if self.line.appends else ""
        if fault == "before":
            raise Unreachable(f"run {commit.run}: lost")
        head = await super().append(commit, after)
        if fault == "after":
            raise Unreachable(f"run {commit.run}: unanswered")
        return head

    async def post(self, run: str, data: bytes) -> int:
        """See `EventLog.post`."""
        self.line.demand("log.post")
        return await super().post(run, data)

    async def tail(self, run: str) -> Stored | None:
        """See `EventLog.tail`."""
        self.line.demand("log.tail")
        return await super().tail(run)

    async def read(self, run: str, least: int = 0, until: int | None = None) -> RunLog:
        """See `EventLog.read`."""
        self.line.demand("log.read")
        return await super().read(run, least, until)

    async def inbox(self, run: str, after: int = 0, *, fresh: bool = False) -> list[Stored]:
        """See `EventLog.inbox`."""
        self.line.demand("log.inbox")
        return await super().inbox(run, after, fresh=fresh)

    async def hints(self, run: str, handler: HintHandler) -> Hints:
        """See `EventLog.hints`."""

        def heard(data: bytes, seq: int, before: int) -> None:
            if self.line.carries("log.hint"):
                handler(data, seq, before)

        return await super().hints(run, heard)


class LineBus:
    """A `Bus` at the other end of a line."""

    def __init__(self, bus: MemoryBus, line: Line) -> None:
        self.bus, self.line = bus, line

    async def publish(self, subject: str, data: bytes) -> None:
        """See `Bus.publish`."""
        if self.line.carries("bus.publish"):
            await self.bus.publish(subject, data)

    async def listen(self, subject: str, listener: Listener) -> None:
        """See `Bus.listen`."""

        async def heard(data: bytes) -> bytes | None:
            return await listener(data) if self.line.carries("bus.heard") else None

        await self.bus.listen(subject, heard)

    async def ask(self, subject: str, data: bytes, within_s: float) -> list[bytes]:
        """See `Bus.ask`."""
        return await self.bus.ask(subject, data, within_s)


def store_of(world: World) -> MemoryStore:
    """What all logs of a world share."""
    assert isinstance(world.log, MemoryLog)
    return world.log.store


async def conductor_on(
    world: World, line: Line, name: str, *, max_runs: int = 1_000, look_s: float = 0.0
) -> Conductor:
    """Start a conductor at the end of a line."""
    options = ConductorOptions(
        name=name, lease_s=world.lease_s, look_s=look_s or world.look_s, max_runs=max_runs
    )
    conductor = Conductor(
        log=LineLog(store_of(world), line),
        tasks=LineQueue(world.tasks, line, "tasks"),
        calls=LineQueue(world.calls, line, "calls"),
        bus=LineBus(world.bus, line),
        policies=lambda spec: world.policies[spec.name],
        clock=now_ms,
        options=options,
    )
    world.conductors.append(conductor)
    await conductor.start()
    return conductor


async def worker_on(world: World, line: Line, spec: WorkerSpec, work: Work, replica: str) -> Worker:
    """Start a worker of the world's pool at the end of a line."""
    worker = Worker(
        adapter=Adapted(spec, work),
        log=LineLog(store_of(world), line),
        calls=LineQueue(world.calls, line, "calls"),
        bus=LineBus(world.bus, line),
        clock=now_ms,
        options=WorkerOptions(replica=replica, lease_s=world.lease_s),
    )
    world.workers.append(worker)
    await worker.start()
    return worker
