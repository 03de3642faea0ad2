"""One history: a whole deployment on virtual time, its faults, and what came of it.

Above the simulated server everything is the real code: `Broker`, `JetStreamLog`, `JetStreamQueue`,
`NatsBus`, `Conductor` with its `RunShell`s, `Worker`, `Caretaker`, `Client`. A *seat* is a process
that is started again whenever it was killed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from typing import Any, Final, cast

import msgspec
from nats.aio.client import Client as NatsClient

from actors.bus import NatsBus
from actors.caretaker import Caretaker
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.ports import Policy
from actors.worker import Worker, WorkerOptions
from podium.client import Client as User
from podium.sim import faults
from podium.sim.client import Client
from podium.sim.faults import AnyFault, AtStep, Network
from podium.sim.loop import Life, VirtualLoop
from podium.sim.scenario import WORKERS, Endpoint, Hands, Job, Rules
from podium.sim.server import Server
from podium.sim.streams import Kept
from podium.sim.user import Progress, Script
from protocol import subjects
from protocol.codec import Commit
from protocol.decisions import PolicySpec
from protocol.errors import PodiumError
from replay.broker import Broker
from replay.chain import Head
from replay.jetstream_log import JetStreamLog
from replay.scrub import BrokerLedger
from replay.streams import definitions

EPOCH_MS: Final = 1_700_000_000_000
"""Milliseconds since the epoch at which every history begins."""

LEASE_S: Final = 3.0
"""Seconds of a lease: longer than a request may go unanswered, short enough for many takeovers."""

LOOK_S: Final = 2.0
"""Seconds without a hint before a conductor looks into an inbox."""

LIMIT_S: Final = 1_500.0
"""Seconds of virtual time in which every run has to have ended. The slowest way to be taken up
again is the caretaker's, after a few of its rounds."""

BOOT_S: Final = 1.0
"""Seconds before a process is started again that could not start."""

_ENDED: Final = (b'"type":"RunFinished"', b'"type":"RunFailed"', b'"type":"RunCancelled"')


class Parts(msgspec.Struct, frozen=True):
    """What a deployment is made of; tests plant bugs by exchanging one."""

    log: type[JetStreamLog] = JetStreamLog
    queue: type[JetStreamQueue] = JetStreamQueue
    conductor: type[Conductor] = Conductor
    worker: type[Worker] = Worker


REAL: Final = Parts()


class Seat:
    """A process that is started again whenever it was killed."""

    def __init__(self, name: str, stops: Sequence[AtStep]) -> None:
        self.name = name
        self.stops = list(reversed(stops))
        """What stops it, the next one last."""
        self.life: Life | None = None
        self.client: Client | None = None
        self.skew_ms = 0
        self.steps = 0
        """Steps of the lives that have ended."""
        self.busy: Callable[[], bool] | None = None
        """Whether it has work in hand; None while it starts."""

    def next_stop(self) -> int:
        """The step of the next fault; 0 for none."""
        return self.stops[-1].step if self.stops else 0


class History(msgspec.Struct, kw_only=True):
    """What happened, counted."""

    crashes: int = 0
    """Kills that met a process between two of its steps."""
    at_work: int = 0
    """Those that met one with a run or a call in hand, or on its way to it."""
    met: Counter[str] = msgspec.field(default_factory=Counter)
    """Faults that came to something, by kind."""
    steps: int = 0
    seconds: float = 0.0
    """Virtual ones."""
    runs: int = 0
    commits: int = 0
    stuck: list[str] = []
    broken: list[str] = []
    """What a process let out that nobody caught."""


class World:
    """A deployment, and what happens to it.

    Args:
        seed: Of all chance but the plan's.
        jobs: What is asked of it.
        plan: What goes wrong.
        parts: What it is made of.
    """

    def __init__(
        self, seed: int, jobs: Sequence[Job], plan: Sequence[AnyFault], parts: Parts = REAL
    ) -> None:
        self.jobs, self.plan, self.parts = jobs, plan, parts
        self.chance = random.Random(f"what happens in {seed}")  # not what its plan was drawn from
        self.loop = VirtualLoop()
        self.network = Network(plan)
        self.server = Server(self.loop, self.chance, self.network)
        self.server.stored = self._stored
        self.history = History()
        self.seats = {who: Seat(who, faults.of_seat(plan, who)) for who in faults.SEATS}
        self.progress = Progress()
        """What the user has been told."""
        self.believed: dict[str, dict[int, str]] = {}
        """By run and number, the hash of each commit that a conductor took for stored."""
        self.doubts: list[str] = []
        """What was seen to be wrong while it ran."""
        self.worked: Counter[tuple[str, str, int]] = Counter()
        """Costly attempts that were worked on."""
        self.begun: set[str] = set()
        self.ended: set[str] = set()
        self._down_until = 0.0
        self._make_streams()

    def _make_streams(self) -> None:
        for config in definitions(1, 1):
            self.server.create(config)
        filters = {subjects.TASKS: consumers_of("tasks"), subjects.CALLS: {}}
        for spec in WORKERS:
            filters[subjects.CALLS].update(consumers_of(spec.name))
        for stream, consumers in filters.items():
            for name, subject in consumers.items():
                config = {"name": name, "filter_subject": subject, "ack_wait": int(LEASE_S * 1e9)}
                self.server.add_consumer(stream, config)

    # -------------------------------------------------------------------------------------- history

    def play(self) -> History:
        """Let it happen, until every run has ended and every queue is empty."""
        for seat in self.seats.values():
            self._start(seat)
        for fault in self.plan:
            if isinstance(fault, faults.AtTime):
                self.loop.post(fault.at_ms / 1_000, None, self._happen, fault)
        done = self.loop.run(self._done, LIMIT_S)
        history = self.history
        if not done:
            history.stuck = self._stuck()
        for seat in self.seats.values():
            if seat.life is not None and seat.life.alive:
                self._take_down(seat)
        for fault in self.network.met:
            history.met[faults.kind(fault)] += 1
        history.steps, history.seconds = self.loop.steps, self.loop.now
        history.runs = len(self.begun)
        self.loop.close()
        return history

    def _stored(self, kept: Kept) -> None:
        if kept.subject.endswith(".c") and kept.subject.startswith("log."):
            run = kept.subject.split(".")[2]
            self.history.commits += 1
            self.begun.add(run)
            if any(mark in kept.data for mark in _ENDED):
                self.ended.add(run)

    def _done(self) -> bool:
        if len(self.ended) < len(self.jobs) or self.ended != self.begun:
            return False
        streams = self.server.streams
        return (
            len(self.progress.done) == len(self.jobs)
            and not streams[subjects.TASKS].by_seq
            and not streams[subjects.CALLS].by_seq
        )

    def _stuck(self) -> list[str]:
        left = [f"run {run} has not ended" for run in sorted(self.begun - self.ended)]
        left += [f"run {job.run} never began" for job in self.jobs if job.run not in self.begun]
        for name in (subjects.TASKS, subjects.CALLS):
            there = self.server.streams[name].by_seq.values()
            left += [f"{kept.subject} was left in its queue" for kept in there]
        return left or [f"the user never heard of run {job.run}'s end" for job in self.jobs]

    # --------------------------------------------------------------------------------------- faults

    def _happen(self, fault: AnyFault) -> None:
        """What happens to the broker, or to a clock, at a time."""
        self.network.met.append(fault)
        server, queues = self.server, [subjects.TASKS, subjects.CALLS]
        match fault:
            case faults.Skew():
                self.seats[fault.who].skew_ms += fault.ms
            case faults.Election():
                log = [name for name in server.streams if name not in queues]
                of = {"log": log, "queues": queues, "all": [*log, *queues]}[fault.of]
                server.election(of, fault.ms / 1_000)
            case faults.Restart():
                until = self.loop.now + fault.ms / 1_000
                self._down_until = max(self._down_until, until)
                for client in server.restart([subjects.CALLS]):
                    self._reconnect(client, until)
            case faults.Hush():
                server.hushed_until = max(server.hushed_until, self.loop.now + fault.ms / 1_000)
            case faults.Lapse():
                server.lapse(fault.of)

    def _reconnect(self, client: Client, at: float) -> None:
        when = max(at, self._down_until) + self.server.delay()
        self.loop.post(when, client.life, self._reconnected, client)

    def _reconnected(self, client: Client) -> None:
        if self.loop.now < self._down_until:
            self._reconnect(client, self._down_until)
            return
        self.server.connect(client)
        client.reconnect()

    def _stop(self, life: Life) -> None:
        """A process has come to a step at which something happens to it."""
        seat = self.seats[life.name]
        while seat.stops and seat.stops[-1].step <= life.steps:
            fault = seat.stops.pop()
            if fault.step < life.steps or not life.alive:
                continue  # two at one step: it was killed by the first
            self.network.met.append(fault)
            match fault:
                case faults.Crash():
                    self._crash(seat, fault)
                case faults.Freeze():
                    life.frozen = True
                    self.loop.post(self.loop.now + fault.ms / 1_000, None, life.thaw, self.loop)
                case faults.Disconnect() if seat.client is not None:
                    seat.client.disconnect()
                    self._reconnect(seat.client, self.loop.now + fault.ms / 1_000)
        life.stop_at = seat.next_stop()

    def _crash(self, seat: Seat, fault: faults.Crash) -> None:
        self.history.crashes += 1
        self.history.at_work += seat.busy is not None
        if seat.client is not None and seat.client.is_connected:
            buffer = seat.client.buffer
            seat.client.buffer = buffer[: round(fault.sent * len(buffer))]
            seat.client.flush()
        self._take_down(seat)
        self.loop.post(self.loop.now + fault.down_ms / 1_000, None, self._start, seat)

    def _take_down(self, seat: Seat) -> None:
        """End a process where it stands: nothing that it still does reaches anybody."""
        life = seat.life
        assert life is not None
        if seat.client is not None:
            seat.client.cut()
        seat.steps = life.steps
        self.history.broken += [f"{seat.name}: {what}" for what in life.broken]
        life.kill(self.loop)
        seat.client, seat.busy = None, None

    # ------------------------------------------------------------------------------------ processes

    def _start(self, seat: Seat) -> None:
        seat.life = Life(seat.name, seat.steps, seat.next_stop(), self._stop)
        self.loop.spawn(seat.life, self._boot(seat, seat.life), f"boot-{seat.name}")

    async def _boot(self, seat: Seat, life: Life) -> None:
        kind: dict[str, Callable[[Seat, Broker], Coroutine[Any, Any, None]]] = {
            "c": self._conductor,
            "w": self._workers,
            "k": self._caretaker,
            "u": self._user,
        }
        try:
            await asyncio.sleep(max(0.0, self._down_until - self.loop.now))
            await kind[seat.name[0]](seat, await self._connect(seat, life))
        except PodiumError:  # whoever looks after processes starts it again
            self.loop.post(self.loop.now, None, self._failed, seat, life)

    def _failed(self, seat: Seat, life: Life) -> None:
        if life.alive:
            self._take_down(seat)
            self.loop.post(self.loop.now + BOOT_S, None, self._start, seat)

    async def _connect(self, seat: Seat, life: Life) -> Broker:
        client = seat.client = Client(self.server, life, self.loop)
        self.server.connect(client)
        broker = Broker(
            cast(NatsClient, client),
            grouped=self.chance.random() < 0.5,
            monotonic=self.loop.time,
            jitter=self.chance.random,
        )

        def again() -> None:
            for callback in list(broker.reconnected):
                callback()

        client.reconnected = again
        await broker.open()
        return broker

    @staticmethod
    def _started(seat: Seat, busy: Callable[[], bool]) -> None:
        """A process is up: from here on its steps count while it has work in hand."""
        assert seat.life is not None
        seat.busy = seat.life.counts = busy

    def clock(self, seat: Seat) -> Callable[[], int]:
        """The wall clock of a process: milliseconds since the epoch."""
        return lambda: EPOCH_MS + seat.skew_ms + int(self.loop.now * 1_000)

    def _log(self, broker: Broker, seat: Seat) -> JetStreamLog:
        return _watched(self.parts.log)(broker, self, seat)  # type: ignore[arg-type]

    async def _conductor(self, seat: Seat, broker: Broker) -> None:
        found: dict[str, Policy] = {"at-once": Rules(), "asked": Endpoint(self.chance)}

        def policy(spec: PolicySpec) -> Policy:
            return found[spec.name]

        conductor = self.parts.conductor(
            log=self._log(broker, seat),
            tasks=self._queue(broker, subjects.TASKS),
            calls=self._queue(broker, subjects.CALLS),
            bus=NatsBus(broker),
            policies=policy,
            clock=self.clock(seat),
            options=ConductorOptions(name=seat.name, lease_s=LEASE_S, look_s=LOOK_S),
            monotonic=self.loop.time,
        )
        broker.reconnected.append(conductor.redo)
        broker.counts = conductor.counts
        await conductor.start()
        self._started(seat, lambda: bool(conductor.runs))

    async def _workers(self, seat: Seat, broker: Broker) -> None:
        workers = [
            self.parts.worker(
                adapter=Hands(spec, self.chance, self.worked),
                log=self._log(broker, seat),
                calls=self._queue(broker, subjects.CALLS),
                bus=NatsBus(broker),
                clock=self.clock(seat),
                options=WorkerOptions(replica=seat.name, lease_s=LEASE_S),
                monotonic=self.loop.time,
            )
            for spec in WORKERS
        ]
        for worker in workers:
            await worker.start()
        tool, sloth, agent = workers
        self._started(seat, lambda: bool(tool.busy or sloth.busy or agent.busy))

    async def _caretaker(self, seat: Seat, broker: Broker) -> None:
        log = JetStreamLog(broker)
        tasks = self._queue(broker, subjects.TASKS)
        caretaker = Caretaker(log, BrokerLedger(log), tasks, clock=self.clock(seat))
        self._started(seat, lambda: True)
        await caretaker.run()

    async def _user(self, seat: Seat, broker: Broker) -> None:
        user = User(
            JetStreamLog(broker),
            self._queue(broker, subjects.TASKS),
            clock=self.clock(seat),
            randomness=self.chance.randbytes,
        )

        def going() -> set[str]:
            return self.begun - self.ended

        script = Script(user, self.jobs, self.progress, self.chance, going)
        self._started(seat, lambda: script.busy)
        await script.run()

    def _queue(self, broker: Broker, stream: str) -> JetStreamQueue:
        return self.parts.queue(broker, stream, lease_s=LEASE_S)


@cache
def _watched(kind: type[JetStreamLog]) -> Callable[[Broker, World, Seat], JetStreamLog]:
    """The log, with a note of every commit that a conductor was told is stored."""

    class Watched(kind):  # type: ignore[valid-type, misc]
        def __init__(self, broker: Broker, world: World, seat: Seat) -> None:
            super().__init__(broker)
            self._world, self._seat = world, seat

        async def append(self, commit: Commit, after: Head) -> Head:
            head: Head = await super().append(commit, after)
            known = self._world.believed.setdefault(commit.run, {})
            if known.setdefault(head.n, head.hash) != head.hash:
                text = f"run {commit.run}: two commits {head.n} were both taken for stored"
                self._world.doubts.append(text)
            return head

    return Watched
