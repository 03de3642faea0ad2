"""A whole deployment in one event loop, over memory, for tests of behaviour."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from actors.bus import MemoryBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.ports import Attempt, Clock, Outcome, Policy
from actors.worker import Worker, WorkerOptions
from protocol import subjects
from protocol.actions import Json, Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import encode
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from replay.chain import RunLog
from replay.log import EventLog
from replay.memory_log import MemoryLog

Work = Callable[[Attempt], Awaitable[Outcome]]


def now_ms() -> int:
    """The real clock."""
    return time.time_ns() // 1_000_000


class Scripted:
    """A policy that follows a function from the view to a decision, at once."""

    def __init__(self, decide: Callable[[View], Decision], name: str = "script") -> None:
        self.spec = PolicySpec(name=name)
        self._decide = decide

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        return Reply(decision=self._decide(view), version="test")


class Adapted:
    """An adapter around an async function."""

    def __init__(self, spec: WorkerSpec, work: Work) -> None:
        self.spec, self._work = spec, work

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        return await self._work(attempt)

    async def close(self) -> None:
        """See `Adapter`."""


def calls(*planned: tuple[str, dict[str, Json]]) -> Decision:
    """A round of calls: worker and arguments of each."""
    return Decision(calls=tuple(PlannedCall(worker, arguments) for worker, arguments in planned))


class World:
    """Queues and a log in memory, and whatever runs on them."""

    def __init__(self, *, lease_s: float = 0.3, look_s: float = 0.2, clock: Clock = now_ms) -> None:
        self.lease_s, self.look_s, self.clock = lease_s, look_s, clock
        self.log: EventLog = MemoryLog()
        self.bus = MemoryBus()
        self.tasks = MemoryQueue(consumers_of("tasks"), lease_s)
        self.calls = MemoryQueue({}, lease_s)
        self.policies: dict[str, Policy] = {}
        self.conductors: list[Conductor] = []
        self.workers: list[Worker] = []
        self.pool = Pool(())
        self._ids = 0

    def policy(self, decide: Callable[[View], Decision], name: str = "script") -> None:
        """Add a scripted policy."""
        self.policies[name] = Scripted(decide, name)

    async def conductor(
        self, name: str = "c1", log: EventLog | None = None, *, traced: bool = False
    ) -> Conductor:
        """Start a conductor."""
        conductor = Conductor(
            log=log or self.log,
            tasks=self.tasks,
            calls=self.calls,
            bus=self.bus,
            policies=lambda spec: self.policies[spec.name],
            clock=self.clock,
            options=ConductorOptions(
                name=name, lease_s=self.lease_s, look_s=self.look_s, traced=traced
            ),
        )
        self.conductors.append(conductor)
        await conductor.start()
        return conductor

    async def worker(self, spec: WorkerSpec, work: Work, replica: str = "w1") -> Worker:
        """Start a worker and add it to the pool."""
        self.calls.filters.update(consumers_of(spec.name))
        if self.pool.get(spec.name) is None:
            self.pool = Pool((*self.pool.workers, spec))
        worker = Worker(
            adapter=Adapted(spec, work),
            log=self.log,
            calls=self.calls,
            bus=self.bus,
            clock=self.clock,
            options=WorkerOptions(replica=replica, lease_s=self.lease_s),
        )
        self.workers.append(worker)
        await worker.start()
        return worker

    def start(self, *, budget: Budget | None = None, policy: str = "script") -> Start:
        """A task for this world."""
        self._ids += 1
        return Start(
            run=subjects.run_id(self._ids.to_bytes(8, "big")),
            task=Task(text="a test"),
            pool=self.pool,
            policy=self.policies[policy].spec,
            budget=budget or Budget(),
        )

    async def submit(self, start: Start) -> str:
        """Queue a task."""
        await self.tasks.put(subjects.task("normal", start.run), encode(start))
        return start.run

    async def until(
        self, run: str, done: Callable[[RunLog], bool], within_s: float = 10.0
    ) -> RunLog:
        """Wait for a run's log to satisfy a condition, woken by each of its commits."""
        changed = asyncio.Event()
        hints = await self.log.watch(run, lambda *_: changed.set())
        try:
            async with asyncio.timeout(within_s):
                while not done(log := await self.log.read(run)):
                    await changed.wait()
                    changed.clear()
                return log
        finally:
            await hints.close()

    async def ended(self, run: str, within_s: float = 10.0) -> RunLog:
        """Wait for a run's end."""
        return await self.until(run, lambda log: log.state().phase == "ended", within_s)

    async def close(self) -> None:
        """Stop everything."""
        for conductor in self.conductors:
            await conductor.stop()
        for worker in self.workers:
            await worker.stop()
