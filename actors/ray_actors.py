"""Ray at the edge: every program gets an actor, which is a process that Ray places and restarts.

An actor's constructor starts its program and does nothing else; state comes from the log. Actors
are detached and named, restarted for ever, and their methods are never retried: a Ray call is a
hint.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec
import ray
from ray.exceptions import RayError

from actors.archiving import Archiving
from actors.caretaker import Caretaker
from actors.jetstream_queue import JetStreamQueue
from actors.logs import log_to
from actors.programs import (
    Declared,
    Health,
    Program,
    known_to,
    now_ms,
    own_process,
    start,
    working_folder_last,
)
from actors.ray_messages import Looked, fingerprint
from actors.supervisor import PATIENCE_S, Supervisor
from protocol import subjects
from protocol.errors import Busy, PodiumError, TimedOut, Unreachable
from protocol.secret_forms import EVERYTHING
from replay.archive.archiver import Archiver
from replay.archive.folder import Folder
from replay.archive.keeper import BrokerKeeper
from replay.archive.shelf import ArchiveShelf
from replay.broker import Broker, Refused, Unanswered
from replay.jetstream_log import JetStreamLog
from replay.scrub import BrokerLedger

logger = logging.getLogger("podium.ray")

START_S: Final = 60.0
"""Seconds that a program may take to start: imports on a busy machine, a broker that restarts."""

HEALTH_S: Final = 3.0
"""Seconds that an actor may take to say how it is doing."""

STOP_S: Final = 10.0
"""Seconds that an actor may take to hand back what it has."""

_T = TypeVar("_T")


class LoopThread:
    """An event loop on a thread of its own, so that Ray's own loop never waits for ours."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        threading.Thread(target=self.loop.run_forever, name=name, daemon=True).start()

    def call(self, work: Coroutine[Any, Any, _T], within_s: float) -> _T:
        """Run a coroutine there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within_s)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class ProgramActor:
    """A conductor, or workers."""

    def __init__(self, encoded: bytes, log: str) -> None:
        working_folder_last()
        declared = msgspec.json.decode(encoded, type=Declared)
        log_to(log, declared.name, declared.redact, known_to(declared))
        self._thread = LoopThread(declared.name)
        self._program: Program | None = None
        self._failed = ""
        try:
            self._program = self._thread.call(start(declared), START_S)
        except (Unreachable, TimedOut, Busy):  # Ray tries again
            raise
        except PodiumError as error:  # trying again won't help: be there, and say why
            self._failed = error.whole()
            logger.error("actor %s can't work: %s", declared.name, self._failed)
        own_process()

    def health(self) -> bytes:
        """How it is doing, asked on the program's own loop: a loop that hangs does not answer."""
        if self._program is None:
            return msgspec.json.encode(Health({}, connected=False, failed=self._failed))
        return msgspec.json.encode(self._thread.call(self._program.health(), HEALTH_S))

    def stop(self) -> None:
        """Hand everything back."""
        if self._program is not None:
            self._thread.call(self._program.stop(), STOP_S)

    def pid(self) -> int:
        """The process's id."""
        return os.getpid()


class RayActors:
    """`Actors` that are Ray's.

    Args:
        namespace: Ray's namespace of this deployment.
        env: Environment variables of the actors' processes, for a cluster that was not started
            here.
        log: File of this machine to which the actors log.
    """

    def __init__(self, namespace: str, env: dict[str, str] | None = None, log: str = "") -> None:
        self._namespace, self._env, self._log = namespace, env or {}, log
        self._brokers: dict[str, Broker] = {}

    def handle(self, declared: Declared) -> Any:
        """The actor of that name, started if it isn't there."""
        options: dict[str, Any] = {"runtime_env": {"env_vars": self._env}} if self._env else {}
        remote = ray.remote(ProgramActor).options(
            name=declared.name,
            namespace=self._namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            num_cpus=0,
            max_concurrency=2,
            **options,
        )
        return remote.remote(msgspec.json.encode(declared), self._log)

    async def ensure(self, declared: Declared) -> None:
        """See `Actors.ensure`."""
        await asyncio.to_thread(self.handle, declared)

    async def health(self, declared: Declared) -> Health | None:
        """See `Actors.health`."""
        handle = await asyncio.to_thread(self.handle, declared)
        try:
            data = await asyncio.wait_for(_result(handle.health.remote()), HEALTH_S)
        except (RayError, TimeoutError, PodiumError) as error:
            logger.debug("actor %s: %s", declared.name, error)
            return None
        return msgspec.json.decode(data, type=Health)

    async def replace(self, declared: Declared) -> None:
        """See `Actors.replace`."""
        handle = await asyncio.to_thread(self.handle, declared)
        await asyncio.to_thread(lambda: ray.kill(handle, no_restart=True))
        await self.ensure(declared)

    async def stop(self, declared: Declared) -> None:
        """Hand back what an actor has, and end it."""
        handle = await asyncio.to_thread(self.handle, declared)
        try:
            await asyncio.wait_for(_result(handle.stop.remote()), STOP_S)
        except (RayError, TimeoutError) as error:
            logger.warning("actor %s did not stop by itself: %s", declared.name, error)
        await asyncio.to_thread(lambda: ray.kill(handle, no_restart=True))

    async def backlog(self, declared: Declared, queue: str) -> int:
        """See `Actors.backlog`."""
        key = declared.connection.url
        if key not in self._brokers:
            self._brokers[key] = await declared.connection.open("supervisor")
        waiting = 0
        for stream, name in declared.consumers(queue):
            try:
                info = await self._brokers[key].request(f"$JS.API.CONSUMER.INFO.{stream}.{name}")
            except (Refused, Unanswered):
                continue
            waiting += info.get("num_pending", 0)
        return waiting


async def _result(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())


def _archiving(conductor: Declared, log: JetStreamLog) -> Archiving | None:
    """What archives this deployment's runs, if it is to be done at all."""
    url = conductor.shelves.archive or conductor.shelves.perhaps
    if not conductor.archive_after_ms or not url:
        return None
    try:
        shelf = ArchiveShelf(Folder(url))
    except PodiumError as error:  # runs are looked after all the same
        logger.error("runs are not archived: %s; %s", error.message, error.hint)
        return None
    others = conductor.shelves.other_than(shelf.name)
    archiver = Archiver(log, BrokerLedger(log), BrokerKeeper(log), shelf, now_ms, others)
    return Archiving(archiver, conductor.archive_after_ms, now_ms)


class SupervisorActor:
    """The supervisor, as an actor of its own: it outlives whoever started it."""

    def __init__(self, encoded: bytes, namespace: str, env: dict[str, str], log: str) -> None:
        self._encoded = encoded
        self._declared = msgspec.json.decode(encoded, type=list[Declared])
        redact = self._declared[0].redact if self._declared else EVERYTHING
        log_to(log, "supervisor", redact)
        self._actors = RayActors(namespace, env, log)
        self._supervisor = Supervisor(self._actors, self._declared)
        self._thread = LoopThread("supervisor")
        self._running = asyncio.run_coroutine_threadsafe(self._run(), self._thread.loop)

    async def _run(self) -> None:
        """Look after the actors; and, as soon as they are there, after runs that nobody is at."""
        care = asyncio.create_task(self._care())
        try:
            await self._supervisor.run()
        finally:
            care.cancel()

    async def _care(self) -> None:
        conductor = next((each for each in self._declared if each.kind == "conductor"), None)
        while conductor is not None:
            broker: Broker | None = None
            try:
                broker = await conductor.connection.open("caretaker")
                log = JetStreamLog(broker)
                tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=conductor.lease_s)
                readers = conductor.shelves.over(log)
                caretaker = Caretaker(log, BrokerLedger(log), tasks, clock=now_ms, readers=readers)
                archiving = _archiving(conductor, log)
                async with asyncio.TaskGroup() as group:
                    group.create_task(caretaker.run())
                    if archiving is not None:
                        group.create_task(archiving.run())
            except Exception:
                logger.exception("the caretaker starts again")
            finally:
                if broker is not None:
                    await broker.close()
            await asyncio.sleep(PATIENCE_S)

    def look(self, of: str) -> bytes | None:
        """How the actors are (`Looked`); None if others than those were declared here.

        Args:
            of: What was declared, see `fingerprint`.
        """
        if self._running.done():
            raise RuntimeError(f"the supervisor ended: {self._running.exception()}")
        if fingerprint(self._encoded) != of:
            return None
        supervisor = self._supervisor
        return msgspec.json.encode(Looked(of, supervisor.missing, supervisor.offers))

    def declare(self, encoded: bytes) -> None:
        """Have these actors looked after and no others; ends the others."""
        declared = msgspec.json.decode(encoded, type=list[Declared])
        self._thread.call(self._supervisor.declare(declared), START_S)
        self._encoded, self._declared = encoded, declared

    def stop(self) -> None:
        """Stop every actor."""
        self._running.cancel()

        async def all_of_them() -> None:
            await asyncio.gather(*(self._actors.stop(each) for each in self._declared))

        self._thread.call(all_of_them(), 2 * STOP_S)
