"""How a command comes by a deployment: the folder's standing one, or one of its own."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors import policies
from actors.bus import NatsBus
from actors.embedded import NatsServer
from actors.jetstream_queue import JetStreamQueue
from actors.programs import now_ms
from actors.secrets import ambient, named_keys
from actors.workers.agent.chat import KEY_ENV, key_from
from podium.applying import Applied, applied
from podium.checks import unlike, withdrawing
from podium.children import started
from podium.client import Client
from podium.config import Config
from podium.daemon import LOCK, LOG, RECORD, Asked, Record, connection, read_settings
from podium.poolfile import LoadedPool, check_options
from podium.shelved import no_broker, no_deployment, shelves_of
from protocol import errors, subjects
from protocol.errors import Conflict, PodiumError, TimedOut, Unreachable, Usage
from protocol.redaction import Redactor
from protocol.registry import Registry
from protocol.secret_forms import Redaction
from replay.broker import Broker
from replay.connection import listen
from replay.damage import Known
from replay.durability import Settings
from replay.foreign import Foreign, foreign
from replay.jetstream_log import JetStreamLog
from replay.registry_log import JetStreamRegistry
from replay.scrub import BrokerLedger, Finding, Scrubber

if TYPE_CHECKING:
    from replay.archive.archiver import Archiver
    from replay.archive.shelf import ArchiveShelf

READY_S: Final = 180.0
"""Seconds that a deployment may take to start: a first start on a busy machine."""

STATS_S: Final = 0.3
"""Seconds in which actors answer for themselves."""

GONE_LOOK_S: Final = 1.0
"""Seconds between two looks whether a deployment is still hosted."""

GONE_LOOKS: Final = 3
"""Looks in a row that find it hosted by nobody, after which it has ended: enough time to start it
again by `podium down && podium up` without those noticing who wait for its runs."""

DOWN_S: Final = 60.0
"""Seconds that a deployment may take to hand everything back and end."""


class Host:
    """A connection to a deployment."""

    def __init__(
        self, config: Config, broker: Broker, server: NatsServer | None, shards: int
    ) -> None:
        self.config, self.broker, self._server = config, broker, server
        tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=config.lease_s)
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or "user"
        known = ambient() | named_keys(KEY_ENV, key_from(KEY_ENV))
        redactor = Redactor(config.redact, known)
        log = shelves_of(config).over(JetStreamLog(broker))
        self._registry = JetStreamRegistry(broker)
        self._client = Client(
            log, tasks, by=user, shards=shards, redactor=redactor, registry=self._registry
        )

    @property
    def client(self) -> Client:
        """For everything that is done with runs."""
        return self._client

    async def stats(self) -> list[dict[str, Any]]:
        """What each actor says of itself."""
        answers = await NatsBus(self.broker).ask("stats", b"", STATS_S)
        found = (_object(answer) for answer in answers)
        return [answer for answer in found if answer]

    async def foreign(self) -> Foreign:
        """What stands on the broker and belongs to nobody."""
        return await foreign(JetStreamLog(self.broker))

    async def gone(self) -> None:
        """Return when nobody hosts this folder any more."""
        missing = 0
        while missing < GONE_LOOKS:
            await asyncio.sleep(GONE_LOOK_S)
            missing = 0 if _held(self.config.path() / LOCK) else missing + 1

    async def settings(self) -> Settings | None:
        """What the broker's servers really do."""
        return await read_settings(self.config, self.broker, self._server)

    async def findings(self) -> list[Finding]:
        """What is wrong with the runs' logs, as far as one look shows; changes nothing."""
        log = JetStreamLog(self.broker)
        readers = self._client.reader
        return await Scrubber(log, BrokerLedger(log), keep=False, readers=readers).scrub()

    async def heads(self, run: str = "") -> dict[str, Known]:
        """How far each run's log, or that of one run, was seen to reach."""
        ledger = BrokerLedger(JetStreamLog(self.broker))
        kept = (await ledger.kept(run)).values()
        return {each.head.run: Known(each.head.n, each.head.hash) for each in kept}

    async def registry(self) -> Registry:
        """What was said of the deployment's workers."""
        return await self._registry.read()

    async def apply(
        self, pool: LoadedPool, renewed: frozenset[str] = frozenset(), *, dry_run: bool = False
    ) -> Applied:
        """Have runs that begin get this pool's workers; returns when they do.

        Args:
            pool: The pool. Its policy, its budget and its forms of secrets don't count.
            renewed: Workers that are taken for changed though their definition is the same.
            dry_run: Whether to find out only what would be said.

        Raises:
            Unreachable: A worker of it can't work, and nothing has changed.
            Busy, Conflict: Somebody else changes them.
            Usage: ``renewed`` has no worker of the pool, or an option holds a secret.
            TimedOut: It isn't known what came of it; `registry` will tell.
        """
        pool = _without_secrets(self.config, pool)
        broker = await connection(self.config, self._server, "conductor").open("registry")
        try:
            return await applied(
                JetStreamRegistry(broker),
                pool,
                renewed,
                by=self._client.by,
                woken=partial(listen, broker.client, subjects.REGISTRY),
                dry_run=dry_run,
            )
        finally:
            await broker.close()

    @contextlib.asynccontextmanager
    async def archiver(self, shelf: "ArchiveShelf") -> "AsyncIterator[Archiver]":
        """What moves runs into an archive, on a connection with a conductor's rights."""
        from replay.archive.archiver import Archiver
        from replay.archive.keeper import BrokerKeeper

        broker = await connection(self.config, self._server, "conductor").open("archiver")
        try:
            log = JetStreamLog(broker)
            others = shelves_of(self.config).other_than(shelf.name)
            yield Archiver(log, BrokerLedger(log), BrokerKeeper(log), shelf, now_ms, others)
        finally:
            await broker.close()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, config: Config, pool: LoadedPool) -> AsyncIterator["Host"]:
        """A deployment that works: the standing one, or one of this process's own.

        Raises:
            Usage: The standing deployment hosts other workers.
            Unreachable, Denied, ...: It can't be started; the message says why.
        """
        config = _redacting(config, pool.redact)
        pool = _without_secrets(config, pool)
        there = standing(config)
        if there is not None:
            _same(there, pool)
            async with cls.connect(config) as host:
                yield host
            return
        process = await _start(config, pool, tied=True)
        try:
            async with cls.connect(config) as host:
                yield host
        finally:
            await _end(process)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, config: Config) -> AsyncIterator["Host"]:
        """The log and the queues only: nothing is hosted.

        An embedded broker is started if none runs.

        Raises:
            NotFound: There is no broker, and never was one in this folder.
        """
        if (there := standing(config)) is not None:
            config = _redacting(config, there.redact)
        server: NatsServer | None = None
        if not config.nats.url:
            folder = config.path() / "nats"
            if no_broker(config):
                raise no_deployment(config)
            server = await asyncio.to_thread(NatsServer.find, folder)
            if server is None:
                server = await asyncio.to_thread(NatsServer.start, folder, config.durability)
        try:
            broker = await connection(config, server, "client").open("client")
            try:
                yield cls(config, broker, server, await _shards(broker, config))
            finally:
                await broker.close()
        finally:
            if server is not None:
                await asyncio.to_thread(server.close)


def _redacting(config: Config, redact: Redaction) -> Config:
    """The configuration, in which that is a secret, too."""
    return msgspec.structs.replace(config, redact=config.redact.plus(redact))


def _without_secrets(config: Config, pool: LoadedPool) -> LoadedPool:
    """The pool as runs record it, so that what is hosted and what was recorded are the same.

    Raises:
        Usage: A worker's options hold a secret.
    """
    redactor = Redactor(config.redact, ambient())
    for spec in pool.pool.workers:
        try:
            check_options(spec, redactor)
        except Usage as error:
            raise Usage(f"the worker {spec.name!r}: {error.message}", hint=error.hint) from None
    return msgspec.structs.replace(pool, pool=redactor.pool(pool.pool))


def _object(answer: bytes) -> dict[str, Any]:
    """What an actor said; nothing, if somebody else answered in its place."""
    try:
        return msgspec.json.decode(answer, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


async def _shards(broker: Broker, config: Config) -> int:
    """How many logs the deployment has: a run in one that isn't there would never begin."""
    there = await JetStreamLog(broker).shards()
    unbroken = [k for place, k in enumerate(there) if place == k]
    return len(unbroken) or config.shards


def _same(there: Record, pool: LoadedPool) -> None:
    """Raise `Usage` unless all of the pool's workers are hosted, and just as the pool has them.

    So must be what its policy asks.
    """
    hint = f"podium worker apply {pool.path}   (or leave --pool out to use its own)"
    if names := withdrawing(there.workers, pool.pool):
        hint = (
            f"the same command with --folder .podium-{pool.path.stem} hosts it by itself; "
            f"`podium worker apply {pool.path}` would withdraw {names} from what stands"
        )
    if differs := unlike((*there.workers.workers, *there.earlier), pool.pool):
        raise Usage(f"the standing deployment hosts pool {there.pool!r}, {differs}", hint=hint)
    hint = "`podium down`, then `podium up --pool FILE`; or leave --pool out to use its own"
    hosted = tuple(filter(None, [there.spec, *there.endpoints]))
    for spec in filter(None, [pool.spec, *pool.endpoints]):
        if not policies.asks(hosted, spec):
            raise Usage(
                f"the standing deployment does not ask the policy {spec.name} "
                f"{policies.place(spec)}",
                hint=hint,
            )


def standing(config: Config) -> Record | None:
    """The folder's standing deployment, if one lives."""
    folder = config.path()
    if not _held(folder / LOCK):
        return None
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _held(lock: Path) -> bool:
    """Whether a daemon holds the folder's lock: the kernel's word, which no crash makes stale."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


async def up(config: Config, pool: LoadedPool) -> Record:
    """Start a standing deployment, and return when it works.

    Raises:
        Conflict: There is one already.
    """
    there = standing(config)
    if there is not None:
        raise Conflict(
            f"a deployment of pool {there.pool!r} is standing already (process {there.pid})",
            hint="`podium status` shows it, `podium down` stops it",
        )
    config = _redacting(config, pool.redact)
    process = await _start(config, _without_secrets(config, pool), tied=False)
    record = standing(config)
    if record is None:
        raise Unreachable(
            f"the deployment (process {process.pid}) ended right after its start",
            hint=f"the reason is at the end of {config.path() / LOG}",
        )
    return record


async def down(config: Config) -> bool:
    """Stop the standing deployment, and return when it has ended. False if there was none."""
    record = standing(config)
    if record is None:
        return False
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        await asyncio.wait_for(ended.wait(), DOWN_S)
    except TimeoutError:
        raise TimedOut(
            f"the deployment (process {record.pid}) did not end within {DOWN_S:g} s",
            hint=f"`kill -9 {record.pid}` loses nothing: its runs go on at the next start",
        ) from None
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True


async def _start(config: Config, pool: LoadedPool, *, tied: bool) -> asyncio.subprocess.Process:
    """Start a daemon and wait until it works. Raises what it says."""
    folder = config.path()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    process = await started("podium.daemon", folder / LOG)
    assert process.stdin is not None
    assert process.stdout is not None
    asked = Asked(
        config=config,
        pool_name=pool.name,
        pool=pool.pool,
        policy=pool.policy,
        spec=pool.spec,
        policies=pool.policies,
        endpoints=pool.endpoints,
        budget=pool.budget,
        folder=str(pool.folder),
        tables=pool.tables,
        tied=tied,
    )
    try:
        process.stdin.write(msgspec.json.encode(asked) + b"\n")
        await process.stdin.drain()
        line = await asyncio.wait_for(process.stdout.readline(), READY_S)
    except TimeoutError:
        await _end(process)
        raise TimedOut(
            f"the deployment did not start within {READY_S:g} s",
            hint=f"the reason is at the end of {folder / LOG}",
        ) from None
    except BaseException:
        await _end(process)
        raise
    answer = msgspec.json.decode(line) if line else {}
    if "ready" not in answer:
        await _end(process)
        raise _said(answer, folder)
    return process


def _said(answer: dict[str, Any], folder: Path) -> PodiumError:
    error = answer.get("error")
    if error is None:
        return Unreachable(
            "the deployment ended while it was starting",
            hint=f"the reason is at the end of {folder / LOG}",
        )
    kind: type[PodiumError] = getattr(errors, error["class"], PodiumError)
    return kind(error["message"], hint=error["hint"])


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a tied daemon with its input; by force if it doesn't."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), DOWN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
