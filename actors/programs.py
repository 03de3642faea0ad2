"""What runs in an actor's process: a conductor, or workers, with a connection of its own.

Plain Python: `ray_actors` gives each program a Ray actor, tests run them in their own loop.
"""

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import msgspec

from actors import policies, tracing, workers
from actors.bus import NatsBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.models.remote import RemoteModels, Service
from actors.policies import local
from actors.ports import Closing, Policy
from actors.secrets import Secrets, ambient, named_keys
from actors.worker import Worker, WorkerOptions
from actors.workers.agent.chat import key_from
from protocol import subjects
from protocol.actions import UNHOSTED, Pool, WorkerSpec
from protocol.codec import encode
from protocol.decisions import PolicySpec, asked
from protocol.errors import Denied, PodiumError
from protocol.redaction import Redactor
from protocol.secret_forms import EVERYTHING, Redaction
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.shelves import Shelves

GC_OBJECTS: Final = 50_000
"""New objects between two looks for cycles. Python's 700 are made by a few messages, and messages
leave no cycles behind."""


LOAD_S: Final = 40.0
"""Seconds that the start of a model's process waits for it, to say why it can't be loaded: less
than Ray's own patience. A large one goes on loading, and questions wait for it."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is, and as whom to connect."""

    url: str
    user: str = ""
    password: str = ""
    credentials: str = ""
    """Path of a credentials file, instead of user and password."""
    grouped: bool = False
    """Whether each append costs an fsync, so that grouping them is worth it."""

    async def open(self, name: str) -> Broker:
        """Connect. Raises `Unreachable` or `Denied`."""
        return await Broker.connect(
            self.url,
            user=self.user or None,
            password=self.password or None,
            credentials=self.credentials or None,
            name=name,
            grouped=self.grouped,
        )


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """An actor that should be there."""

    name: str
    kind: Literal["conductor", "worker", "model"]
    connection: Connection
    lease_s: float
    policies: tuple[str, ...] = ()
    """For a conductor: which policies of the user's own it may import. A task names its policy, and
    whoever may submit must not thereby have any code run where the rights to the log are."""
    endpoints: tuple[PolicySpec, ...] = ()
    """For a conductor: policies whose models it may ask where they say, with the keys that they
    name; see `policies.asks`. For a model: the policy that is asked."""
    specs: tuple[WorkerSpec, ...] = ()
    """For a worker: what it hosts; several where they share a session."""
    folders: tuple[str, ...] = ()
    """For a worker: where its modules are imported from, besides where Python looks anyway."""
    redact: Redaction = EVERYTHING
    """What is taken for a secret, and never stored."""
    secrets: str = ""
    """For a worker: the folder or file with the secrets that it declares, besides its
    environment."""
    variables: dict[str, str] = {}
    """The environment variables by which OpenTelemetry is configured, also on another machine. A
    worker's process gets them, unless it has them; a conductor's calls say their spans for them."""
    shelves: Shelves = Shelves()
    """For a conductor: where else runs are read from."""
    archive_after_ms: int = 0
    """For a conductor's caretaker: how long after its end a run is archived; 0 for never."""

    def consumers(self, queue: str) -> list[tuple[str, str]]:
        """Stream and name of the consumers of one of its queues."""
        stream = subjects.CALLS if self.specs else subjects.TASKS
        return [(stream, name) for name in consumers_of(queue)]


class Pulled(msgspec.Struct, frozen=True):
    """How one queue is worked on. Liveness is progress: a count that grows while there is work."""

    progress: int
    """How much was done."""
    free: int
    """How much more could be taken now."""


class Health(msgspec.Struct, frozen=True):
    """How an actor is doing."""

    queues: dict[str, Pulled]
    """Each queue that it pulls: ``tasks``, or the places of its workers."""
    connected: bool
    failed: str = ""
    """Why it can't work, and what to do about it; empty if it can."""
    offers: tuple[WorkerSpec, ...] = ()
    """All that its server offers, by bare names and full addresses, where that is no more what is
    hosted."""


def own_process() -> None:
    """Set up a process that is an actor's alone: messages make many objects and few cycles.

    To be called when all is loaded: what there is then, the user's libraries with it, is never
    looked through again.
    """
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 100)


def working_folder_last() -> None:
    """Import from the working folder only what is nowhere else, unless ``PYTHONPATH`` names it.

    Ray puts that of its driver before all others, and what lies there by chance is not the pool's.
    It stays, since what is being developed may be installed from there.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    named = {os.path.abspath(path) for path in paths if path}
    here = {"", os.getcwd()} - named
    sys.path.sort(key=lambda path: path in here)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def known_to(declared: Declared) -> dict[str, str]:
    """The secrets that an actor's process holds, by what is said in their place."""
    if not declared.specs:
        known = ambient()
        for place in {policies.ANYWHERE, *map(policies.place, declared.endpoints)}:
            if place is not None and place.key_env:
                known |= named_keys(place.key_env, key_from(place.key_env))
        return known
    known = ambient()
    for spec in declared.specs:
        with contextlib.suppress(PodiumError):  # said when the worker starts
            known |= Secrets.of(spec, Redactor(declared.redact), declared.secrets).known
    return known


def placed(pool: Pool) -> dict[str, tuple[WorkerSpec, ...]]:
    """What each actor of a pool hosts, by the actor's name: workers of one host share it."""
    found: dict[str, tuple[WorkerSpec, ...]] = {}
    for spec in pool.workers:
        if spec.kind in UNHOSTED:
            continue
        for number in range(1, spec.replicas + 1):
            name = f"host-{spec.host}" if spec.host else f"worker-{spec.place}"
            found[f"{name}-{number}"] = (*found.get(f"{name}-{number}", ()), spec)
    return found


class Program:
    """A started conductor, started workers, or a started model."""

    def __init__(
        self,
        broker: Broker,
        health: Mapping[str, Callable[[], tuple[int, int]]],
        stop: Callable[[], Awaitable[None]],
        offers: Callable[[], tuple[WorkerSpec, ...]] = tuple,
        failed: Callable[[], str] = str,
    ) -> None:
        self._broker, self._health, self._stop = broker, health, stop
        self._offers, self._failed = offers, failed

    async def health(self) -> Health:
        """See `Health`."""
        queues = {queue: Pulled(*ask()) for queue, ask in self._health.items()}
        return Health(
            queues, self._broker.client.is_connected, self._failed(), offers=self._offers()
        )

    async def stop(self) -> None:
        """Hand everything back, and disconnect."""
        try:
            await self._stop()
        finally:
            await self._broker.close()


def need_hosted(declared: Declared, spec: PolicySpec) -> None:
    """Raise `Denied` unless a conductor may ask the policy that a task names."""
    hint = "name it in the pool's file or in podium.toml, and start the deployment again"
    inner = asked(spec.name)
    if inner.startswith("python:") and not {spec.name, inner} & set(declared.policies):
        raise Denied(f"this deployment does not host policy {spec.name!r}", hint=hint)
    if not policies.asks(declared.endpoints, spec):
        raise Denied(
            f"this deployment does not ask policy {spec.name!r} {policies.place(spec)}", hint=hint
        )


async def start(declared: Declared) -> Program:
    """Connect, and begin to work.

    Raises:
        Unreachable: The broker does not answer.
        PodiumError: A worker's adapter can't be made.
    """
    if declared.kind == "model":
        return await _model(declared)
    return await (_workers(declared) if declared.specs else _conductor(declared))


def _queue(broker: Broker, stream: str, declared: Declared) -> JetStreamQueue:
    return JetStreamQueue(broker, stream, lease_s=declared.lease_s)


async def _conductor(declared: Declared) -> Program:
    broker = await declared.connection.open(declared.name)
    models = RemoteModels(broker)
    cache: dict[bytes, Policy] = {}

    def policy(spec: PolicySpec) -> Policy:
        need_hosted(declared, spec)
        key = encode(spec)
        if key not in cache:
            cache[key] = policies.make(spec, models)
        return cache[key]

    calls = _queue(broker, subjects.CALLS, declared)
    conductor = Conductor(
        log=declared.shelves.over(JetStreamLog(broker)),
        tasks=_queue(broker, subjects.TASKS, declared),
        calls=calls,
        bus=NatsBus(broker),
        policies=policy,
        clock=now_ms,
        options=ConductorOptions(
            name=declared.name,
            lease_s=declared.lease_s,
            traced=tracing.wanted(declared.variables),
        ),
        redactor=Redactor(declared.redact, known_to(declared)),
    )
    waiting: set[asyncio.Task[None]] = set()

    def again() -> None:
        task = asyncio.create_task(_send_again(conductor, calls), name="send-again")
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    async def stop() -> None:
        for task in waiting:
            task.cancel()
        await conductor.stop()
        for each in cache.values():
            if isinstance(each, Closing):
                await each.close()

    broker.reconnected.append(again)
    broker.counts = conductor.counts
    return await _begun(Program(broker, {"tasks": conductor.health}, stop), conductor)


async def _send_again(conductor: Conductor, calls: JetStreamQueue) -> None:
    """Queue calls again: what stood on a server that has restarted is gone, even the stream."""
    await calls.present()
    conductor.redo()


async def _model(declared: Declared) -> Program:
    (spec,) = declared.endpoints
    options = local.options_of(spec)
    broker = await declared.connection.open(declared.name)
    service = Service(broker, options.folder, options.batching, declared.name)
    await NatsBus(broker).listen("stats", service.stats)
    try:
        await service.start(LOAD_S)
    except BaseException:
        await broker.close()
        raise
    return Program(broker, {}, service.stop, failed=lambda: service.failed)


async def _workers(declared: Declared) -> Program:
    for name, value in declared.variables.items():
        os.environ.setdefault(name, value)
    sys.path[:] = (*declared.folders, *(path for path in sys.path if path not in declared.folders))
    redactor = Redactor(declared.redact)
    secrets = [Secrets.of(spec, redactor, declared.secrets) for spec in declared.specs]
    adapters = [
        workers.host(each.options(spec)) for each, spec in zip(secrets, declared.specs, strict=True)
    ]
    # After the user's modules were imported, which may do it themselves.
    flush = tracing.set_up(declared.name) if declared.variables else None
    broker = await declared.connection.open(declared.name)
    together = len(adapters) > 1
    started = [
        Worker(
            adapter=adapter,
            log=JetStreamLog(broker),
            calls=_queue(broker, subjects.CALLS, declared),
            bus=NatsBus(broker),
            clock=now_ms,
            options=WorkerOptions(
                replica=f"{declared.name}/{adapter.spec.place}" if together else declared.name,
                lease_s=declared.lease_s,
            ),
            secrets=own,
        )
        for adapter, own in zip(adapters, secrets, strict=True)
    ]
    broker.counts = started[0].counts

    async def stop() -> None:
        await asyncio.gather(*(worker.stop() for worker in started))
        if flush is not None:
            await asyncio.to_thread(flush)

    def offers() -> tuple[WorkerSpec, ...]:
        return next((worker.offers for worker in started if worker.offers), ())

    health = {worker.spec.place: worker.health for worker in started}
    return await _begun(Program(broker, health, stop, offers), *started)


async def _begun(program: Program, *actors: Conductor | Worker) -> Program:
    """Have all of them work, or none: whoever hears that it failed takes none of them for there."""
    try:
        for actor in actors:
            await actor.start()
    except BaseException:
        await program.stop()
        raise
    return program
