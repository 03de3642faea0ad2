"""The process of a deployment: starts the broker and Ray, and starts again what dies.

    python -m podium.daemon < one line of JSON (`Asked`)

It answers with one line, ``{"ready": true}`` or ``{"error": ...}``. A *tied* daemon ends with its
input, a standing one with SIGTERM. Killed, it leaves nothing behind but the data: the broker ends
with its last holder, Ray with its driver, and a guard each sees to it.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from actors import descendants
from actors.embedded import NatsServer
from actors.embedded.launch import read_record
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.logs import log_to
from actors.programs import Connection, Declared
from actors.secrets import ambient
from podium.cluster import Cluster
from podium.config import BudgetTable, Config
from podium.declared import actors_of
from podium.roster import Roster
from podium.tracing.keeper import Keeper
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import PolicySpec
from protocol.errors import Conflict, PodiumError
from protocol.redaction import Redactor
from protocol.registry import Registered
from protocol.secret_forms import Redaction
from replay import disk, durability
from replay.address import shown
from replay.broker import Broker
from replay.registry_log import JetStreamRegistry
from replay.streams import ensure_streams

logger = logging.getLogger("podium.daemon")

RECORD: Final = "deployment.json"
LOCK: Final = "deployment.lock"
LOG: Final = "deployment.log"

RESTART_PAUSE_S: Final = 1.0
"""Seconds before a cluster is started anew, if it lived shorter than ``SHORT_LIFE_S``: one that
fails at once must not burn the machine."""

SHORT_LIFE_S: Final = 20.0
"""Seconds that a cluster lives, its start included, if there is something wrong with it."""

MAX_FAILURES: Final = 5
"""Clusters in a row that never became ready before the daemon gives up."""

PREPARE_PAUSE_S: Final = 2.0
"""Seconds before a broker that is back, and could not be prepared, is tried again: it may still be
electing leaders, and each try is a handful of requests."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with."""

    config: Config
    pool_name: str
    pool: Pool
    policy: str = ""
    """The pool's own, for runs that name none."""
    spec: PolicySpec | None = None
    """What a run records of it, where its name doesn't say it all."""
    policies: tuple[str, ...] = ()
    endpoints: tuple[PolicySpec, ...] = ()
    """Further ones that its conductors may import, or ask where they say."""
    budget: BudgetTable = BudgetTable()
    """The pool's own, likewise."""
    folder: str = ""
    """Where the pool's modules are imported from."""
    tables: dict[str, str] = {}
    """The pool's tables that take all that a server offers, by the names of their workers."""
    tied: bool
    """Whether it ends with its input."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a standing deployment says of itself, in its folder."""

    pid: int
    url: str
    pool: str
    workers: Pool
    """What runs that begin get."""
    earlier: tuple[WorkerSpec, ...] = ()
    """What runs may have that began earlier, and is hosted for them: the latest."""
    policy: str = ""
    spec: PolicySpec | None = None
    endpoints: tuple[PolicySpec, ...] = ()
    """Further policies that it asks where they say."""
    folders: tuple[str, ...] = ()
    """Where the modules of its pool, and of its workers, are imported from."""
    budget: BudgetTable = BudgetTable()
    redact: Redaction = Redaction()
    """What its processes take for a secret, and so must whoever gives it tasks."""
    since: int
    """Milliseconds since the epoch."""
    durability: str
    """As found on the server, in words."""
    address: str = ""
    """Of the Ray cluster; empty for its own."""


class Daemon:
    """One deployment."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.config = asked, asked.config
        self.folder = asked.config.path()
        self.server: NatsServer | None = None
        self.cluster = Cluster(self.config, self.folder / LOG)
        self.roster = Roster(
            self.cluster,
            declare=self._declare,
            changed=self._write,
            redactor=Redactor(self.config.redact, ambient()),
            secrets=self.config.secrets.place(),
        )
        self.broker: Broker | None = None
        self.tracer = Keeper(self.config, self.folder / LOG, lambda: self._connection("tracer"))
        self.ending = asyncio.Event()
        self.reconnected = asyncio.Event()
        self._began = asyncio.Event()
        self._processes = asyncio.Lock()
        """Held by whoever starts the broker or ends what is left of a cluster: a broker that is
        just being started is in no record yet, and would be ended with the rest."""
        self._preparing = asyncio.Lock()
        self._label = ""
        self._url = ""
        self._since = time.time_ns() // 1_000_000

    # ----------------------------------------------------------------------------------------- life

    async def run(self) -> None:
        """Start everything, say so, and keep it going until told to end."""
        descendants.adopt()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ending.set)
        if self.asked.tied:
            loop.add_reader(sys.stdin.fileno(), self._input)
        try:
            await self._start_broker()
            await self._prepare()
            await self.tracer.start()
            await self._keep_going()
        finally:
            await self.cluster.stop()
            await self.tracer.stop()
            if not self.asked.tied:
                (self.folder / RECORD).unlink(missing_ok=True)
            if self.broker is not None:
                await self.broker.close()
            if self.server is not None:
                await asyncio.to_thread(self.server.close)

    def _input(self) -> None:
        if not os.read(sys.stdin.fileno(), 1_024):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.ending.set()

    def _record(self) -> Record:
        return Record(
            pid=os.getpid(),
            url=shown(self._connection("client").url),
            pool=self.asked.pool_name,
            workers=self.roster.registry.pool,
            earlier=tuple(each.spec for each in self.roster.earlier),
            policy=self.asked.policy,
            spec=self.asked.spec,
            endpoints=self.asked.endpoints,
            folders=self._folders(),
            budget=self.asked.budget,
            redact=self.config.redact,
            since=self._since,
            durability=self._label,
            address=self.config.ray.address,
        )

    def _folders(self) -> tuple[str, ...]:
        hosted = (each.folder for each in (*self.roster.hosted, *self.roster.earlier))
        return tuple(dict.fromkeys(filter(None, (self.asked.folder, *hosted))))

    def _write(self) -> None:
        """Say so in the folder, too."""
        if not self.asked.tied:
            temporary = self.folder / f"{RECORD}.new"
            temporary.write_bytes(msgspec.json.encode(self._record()))
            temporary.chmod(0o600)
            temporary.replace(self.folder / RECORD)

    async def _keep_going(self) -> None:
        """Keep broker and cluster going, each by itself: one may die while the other starts."""
        ending = asyncio.create_task(self.ending.wait())
        keepers = (
            self._keep_broker(),
            self._keep_prepared(),
            self._keep_cluster(),
            self._keep_roster(),
            self.tracer.keep(),
        )
        tasks = {ending, *(asyncio.create_task(keeper) for keeper in keepers)}
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            task.result()

    async def _keep_broker(self) -> None:
        while True:
            await self._broker_ended()
            logger.warning("the broker ended: starting it again on the same data")
            await self._start_broker()
            if self.broker is not None and self._connection("client").url != self._url:
                await self._move()

    async def _move(self) -> None:
        """The broker's port was taken meanwhile, and it has another: nobody would find it."""
        logger.warning("the broker has moved to another port: starting a fresh Ray cluster")
        old, self.broker = self.broker, None
        if old is not None:
            await old.close()
        await self._prepare_until_done()
        self.tracer.renew()
        self.cluster.kill()

    async def _keep_prepared(self) -> None:
        """Mend what a broker that is back has lost: the calls' stream, which was in memory."""
        while True:
            await self.reconnected.wait()
            self.reconnected.clear()
            await self._prepare_until_done()

    async def _prepare_until_done(self) -> None:
        while True:
            try:
                await self._prepare()
            except PodiumError as error:
                logger.error("the broker can't be used yet: %s; %s", error.message, error.hint)
            else:
                return
            await asyncio.sleep(PREPARE_PAUSE_S)

    async def _keep_cluster(self) -> None:
        assert self.broker is not None
        registry = JetStreamRegistry(self.broker)
        asked = self.asked
        await self.roster.begin(registry, asked.pool, asked.folder, asked.tables)
        await self._ensure_calls(self.broker)
        try:
            await self._start_cluster()
        except PodiumError as error:
            await self.roster.settle(registry, error.message)
            raise
        if self.ending.is_set():
            return
        await self.roster.settle(registry, "")
        self.roster.required = ()
        self._began.set()
        if not self.ending.is_set():
            self._write()
            _say({"ready": True})
        failures = 0
        while True:
            await self.cluster.ended()
            failures = await self._replace_cluster(failures)
            if not failures:
                self._write()

    async def _replace_cluster(self, failures: int) -> int:
        """Start a fresh one. Returns how many in a row did not start; raises after too many."""
        logger.warning("the Ray cluster ended: starting a fresh one")
        if time.monotonic() - self.cluster.started_at < SHORT_LIFE_S:
            await asyncio.sleep(RESTART_PAUSE_S)
        try:
            await self._start_cluster()
        except PodiumError as error:
            logger.error("%s; %s", error.message, error.hint)
            if failures + 1 >= MAX_FAILURES:
                raise
            return failures + 1
        return 0

    # --------------------------------------------------------------------------------------- broker

    async def _start_broker(self) -> None:
        if self.config.nats.url:
            return
        old, folder = self.server, self.folder / "nats"
        async with self._processes:
            self.server = await asyncio.to_thread(NatsServer.start, folder, self.config.durability)
        if old is not None:
            await asyncio.to_thread(old.close)

    async def _broker_ended(self) -> None:
        if self.server is None:
            await asyncio.Event().wait()
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        number = self.server.fileno()
        loop.add_reader(number, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(number)

    def _connection(self, role: Any) -> Connection:
        return connection(self.config, self.server, role)

    async def _prepare(self) -> None:
        """Streams, consumers, and a look at what the server really does; one at a time."""
        async with self._preparing:
            await self._prepare_all()

    async def _prepare_all(self) -> None:
        if self.broker is None:
            self._url = self._connection("client").url
            self.broker = await self._connection("conductor").open("daemon")
            self.broker.reconnected.append(self.reconnected.set)
        broker = self.broker
        replicas = 3 if self.config.durability == "site" else 1
        await ensure_streams(broker, shards=self.config.shards, replicas=replicas)
        tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=self.config.lease_s)
        await tasks.ensure(consumers_of("tasks"))
        await self._ensure_calls(broker)
        self._label = await self._check_durability(broker)

    async def _ensure_calls(self, broker: Broker) -> None:
        """The consumers by which workers take their calls."""
        calls = JetStreamQueue(broker, subjects.CALLS, lease_s=self.config.lease_s)
        for each in self.roster.hosted:
            await calls.ensure(consumers_of(each.spec.place))

    async def _check_durability(self, broker: Broker) -> str:
        settings = await read_settings(self.config, broker, self.server)
        return durability.require(settings, self.config.durability)

    # -------------------------------------------------------------------------------------- cluster

    def _declared(self, hosted: Sequence[Registered]) -> list[Declared]:
        return actors_of(self.asked, hosted, self._connection, self.tracer.variables)

    def _declare(self) -> None:
        """Have the cluster host what is to be hosted."""
        self.cluster.declare(self._declared(self.roster.hosted))

    async def _keep_roster(self) -> None:
        """Follow the registry of workers, as soon as what it has at first is there."""
        await self._began.wait()
        await self.roster.keep(
            lambda: self._connection("conductor").open("registry"), self.config.lease_s
        )

    async def _start_cluster(self) -> None:
        """Start a fresh one with what it can't do without; the rest follows when it works."""
        await self.cluster.stop()
        async with self._processes:
            await asyncio.to_thread(self._clear)
        needed = self.roster.required or self.roster.registry.offered
        await self.cluster.start(self._declared(self.roster.those(needed)), self.ending)
        self.cluster.news.set()

    def _clear(self) -> None:
        """End what a cluster that was killed has left: actors of the same names."""
        guard = read_record(self.folder / "nats") if self.server is not None else None
        spared = self.tracer.pids | ({guard.guard} if guard is not None else set())
        if left := descendants.kill(but=spared):
            logger.warning("killed %d processes that the last Ray cluster had left", left)


def connection(config: Config, server: NatsServer | None, role: Any) -> Connection:
    """How to reach the broker in a role: the embedded one's own, or the configured one's."""
    grouped = config.durability != "process"
    if server is None:
        return Connection(
            url=config.nats.url, credentials=config.nats.credentials_of(role), grouped=grouped
        )
    user, password = server.credentials(role)
    return Connection(url=server.url, user=user, password=password, grouped=grouped)


async def read_settings(
    config: Config, broker: Broker, server: NatsServer | None
) -> durability.Settings:
    """What the broker's servers really do; through the system account, where it may be used."""
    if server is None and not config.nats.system_credentials:
        return await durability.read(broker.client, None)
    system = await connection(config, server, "system").open("system")
    try:
        return await durability.read(broker.client, system.client)
    finally:
        await system.close()


@contextlib.contextmanager
def only_one(folder: Path) -> Any:
    """Hold the folder's lock: there is one daemon per folder. Raises `Conflict`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    refusal = Conflict(
        f"a deployment is running in {folder} already",
        hint="another `podium run` hosts this folder: wait for it, use another --folder, "
        "or `podium up` first, so that several runs share one deployment",
    )
    with disk.only_one(folder / LOCK, refusal):
        yield


def _say(answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Be the daemon."""
    asked = msgspec.json.decode(sys.stdin.buffer.readline(), type=Asked)
    folder = asked.config.path()
    try:
        with only_one(folder):
            (folder / RECORD).unlink(missing_ok=True)  # of a daemon that was killed
            log = folder / LOG
            log_to(str(log), redaction=asked.config.redact)
            asyncio.run(Daemon(asked).run())
    except PodiumError as error:
        logger.error("%s; %s", error.message, error.hint)
        _say(
            {"error": {"class": type(error).__name__, "message": error.message, "hint": error.hint}}
        )
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
