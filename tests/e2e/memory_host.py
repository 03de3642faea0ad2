"""Deployments in memory for the command line: real conductor, policies and adapters, no server.

Every command runs in an event loop of its own, and so does what it hosts; log and queues stay.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from actors import policies, workers
from actors.bus import MemoryBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.ports import Policy
from actors.secrets import Secrets
from actors.worker import Worker, WorkerOptions
from podium.applying import Applied, applied
from podium.cli import main
from podium.cli.world import World
from podium.client import Client
from podium.config import BudgetTable, Config
from podium.poolfile import LoadedPool
from podium.shelved import shelves_of
from protocol import subjects
from protocol.actions import UNHOSTED, Pool, WorkerSpec
from protocol.decisions import PolicySpec
from protocol.redaction import Redactor
from protocol.registry import Change, Registry, verdict
from protocol.secret_forms import Redaction
from replay.archive.archiver import Archiver
from replay.archive.keeper import MemoryKeeper
from replay.archive.shelf import ArchiveShelf
from replay.damage import Known
from replay.durability import Settings
from replay.foreign import Foreign
from replay.memory_log import MemoryLog, MemoryStore
from replay.registry_log import MemoryRegistry
from replay.scrub import Finding, MemoryLedger, Scrubber
from tests.world import now_ms


class Record(msgspec.Struct, frozen=True):
    """Of a standing deployment that is none."""

    pid: int = 7
    url: str = "memory"
    pool: str = "test"
    workers: Pool = Pool(())
    earlier: tuple[WorkerSpec, ...] = ()
    policy: str = "rules"
    spec: PolicySpec | None = None
    budget: BudgetTable = BudgetTable()
    folders: tuple[str, ...] = ()
    redact: Redaction = Redaction()
    since: int = 1


class Registering(MemoryRegistry):
    """A registry whose workers work, unless the test says why one doesn't."""

    why = ""

    def __init__(self) -> None:
        super().__init__()
        self._heard: list[Callable[[Any], None]] = []

    async def listen(self, heard: Callable[[Any], None]) -> "Registering":
        """See `applying.Woken`."""
        self._heard.append(heard)
        return self

    async def close(self) -> None:
        """Listen no more."""
        self._heard.clear()

    async def append(self, change: Change) -> Registry:
        """See `RegistryLog.append`; what comes of it follows at once."""
        registry = await super().append(change)
        if registry.pending is not None:
            await super().append(verdict(registry, self.why, at=now_ms()))
            for heard in self._heard:
                heard(None)
        return registry


class MemoryHost:
    """A connection to what is in memory."""

    def __init__(self, deployments: "MemoryDeployments", bus: MemoryBus, config: Config) -> None:
        self.memory = MemoryLog(deployments.store)
        self.log = shelves_of(config).over(self.memory)
        self._client = Client(
            self.log,
            deployments.tasks,
            by="tester",
            look_s=0.2,
            redactor=Redactor(config.redact),
            registry=deployments.registry,
        )
        self._registry, self._deployments = deployments.registry, deployments
        self._bus, self._ledger, self._config = bus, deployments.ledger, config

    @property
    def client(self) -> Client:
        """See `Hosted`."""
        return self._client

    async def stats(self) -> list[dict[str, Any]]:
        """See `Hosted`."""
        return [msgspec.json.decode(answer) for answer in await self._bus.ask("stats", b"", 0.1)]

    async def registry(self) -> Registry:
        """See `Hosted`."""
        return await self._registry.read()

    async def apply(
        self, pool: LoadedPool, renewed: frozenset[str] = frozenset(), *, dry_run: bool = False
    ) -> Applied:
        """See `Hosted`: whatever is registered works."""
        return await applied(
            self._registry, pool, renewed, by="tester", woken=self._registry.listen, dry_run=dry_run
        )

    async def gone(self) -> None:
        """See `Hosted`."""
        if not self._deployments.lost:
            await asyncio.Event().wait()

    async def settings(self) -> Settings | None:
        """See `Hosted`."""
        return None

    async def foreign(self) -> Foreign:
        """See `Hosted`."""
        logs = [await self.memory.read(run) for run in await self.memory.runs()]
        runs = {log.run: log.set_aside.total() for log in logs if log.set_aside}
        return Foreign(runs=runs)

    async def findings(self) -> list[Finding]:
        """See `Hosted`."""
        return await Scrubber(self.memory, self._ledger, keep=False, readers=self.log).scrub()

    @contextlib.asynccontextmanager
    async def archiver(self, shelf: ArchiveShelf) -> AsyncIterator[Archiver]:
        """See `Hosted`."""
        store = self.memory.store
        others = shelves_of(self._config).other_than(shelf.name)
        yield Archiver(self.memory, self._ledger, MemoryKeeper(store), shelf, now_ms, others)

    async def heads(self, run: str = "") -> dict[str, Known]:
        """See `Hosted`."""
        kept = await self._ledger.kept(run)
        return {name: Known(each.head.n, each.head.hash) for name, each in kept.items()}


class MemoryDeployments:
    """See `Deployments`."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ledger = MemoryLedger(self.store)
        self.tasks = MemoryQueue(consumers_of("tasks"))
        self.registry = Registering()
        self.up_record: Record | None = None
        self.lost = False
        """Whether nobody hosts it any more."""
        self.failure: Exception | None = None
        """What comes of every attempt to connect."""

    @contextlib.asynccontextmanager
    async def open(self, config: Config, pool: LoadedPool) -> AsyncIterator[MemoryHost]:
        """See `Deployments.open`."""
        self._answer()
        config = msgspec.structs.replace(config, redact=config.redact.plus(pool.redact))
        log, bus, calls = MemoryLog(self.store), MemoryBus(), MemoryQueue({})
        asked: dict[bytes, Any] = {}

        def policy(spec: PolicySpec) -> Policy:
            found: Policy = asked.setdefault(msgspec.json.encode(spec), policies.make(spec))
            return found

        conductor = Conductor(
            log=shelves_of(config).over(log),
            tasks=self.tasks,
            calls=calls,
            bus=bus,
            policies=policy,
            clock=now_ms,
            options=ConductorOptions(name="c1", look_s=0.2),
            redactor=Redactor(config.redact),
        )
        running: list[Worker] = []
        for spec in pool.pool.workers:
            calls.filters.update(consumers_of(spec.place))
            if spec.kind in UNHOSTED:
                continue
            secrets = Secrets.of(spec, Redactor(config.redact), config.secrets.place())
            worker = Worker(
                adapter=workers.host(secrets.options(spec)),
                log=log,
                calls=calls,
                bus=bus,
                clock=now_ms,
                options=WorkerOptions(replica=f"{spec.name}-1"),
                secrets=secrets,
            )
            await worker.start()
            running.append(worker)
        await conductor.start()
        try:
            yield MemoryHost(self, bus, config)
        finally:
            await conductor.stop()
            for worker in running:
                await worker.stop()
            for each in asked.values():
                if hasattr(each, "close"):
                    await each.close()

    @contextlib.asynccontextmanager
    async def connect(self, config: Config) -> AsyncIterator[MemoryHost]:
        """See `Deployments.connect`."""
        self._answer()
        yield MemoryHost(self, MemoryBus(), config)

    def _answer(self) -> None:
        if self.failure is not None:
            raise self.failure

    def standing(self, config: Config) -> Record | None:
        """See `Deployments.standing`."""
        return self.up_record

    async def up(self, config: Config, pool: LoadedPool) -> Record:
        """See `Deployments.up`."""
        self.up_record = Record(
            pool=pool.name, workers=pool.pool, policy=pool.policy, folders=(str(pool.folder),)
        )
        return self.up_record

    async def down(self, config: Config) -> bool:
        """See `Deployments.down`."""
        there, self.up_record = self.up_record, None
        return there is not None

    def queued(self) -> list[str]:
        """The runs in the task queue."""
        return [subject.rpartition(".")[2] for subject in self.tasks.items]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class Said(msgspec.Struct):
    """What a command printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The only line of stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return msgspec.json.decode(lines[0])

    def lines(self) -> list[Any]:
        """Every line of stdout."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


class Shell:
    """Types commands."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {"PODIUM_FOLDER": str(folder / ".podium"), **environment}
        self.deployments = MemoryDeployments()

    def __call__(self, *arguments: str, terminal: bool = False, typed: str = "") -> Said:
        out = Terminal() if terminal else io.StringIO()
        err = Terminal() if terminal else io.StringIO()
        world = World(
            deployments=self.deployments,
            environment=self.environment,
            folder=self.folder,
            stdout=out,
            stderr=err,
            stdin=io.StringIO(typed),
        )
        return Said(main(arguments, world), out.getvalue(), err.getvalue())

    def begin(self, task: str = "How large is Chad?") -> str:
        """A finished run's id."""
        launch = self("run", "--json", task).lines()[0]
        run: str = launch["launch"]["run_id"]
        assert subjects.is_run(run)
        return run
