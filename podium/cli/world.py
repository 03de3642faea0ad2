"""What the commands need of the outside: streams, clock, environment, and a deployment.

A command asks `current` for its world. `main` makes the real one; tests give another, with a
deployment in memory, so that every command runs as it is without a server.
"""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

if TYPE_CHECKING:
    from podium.applying import Applied
    from podium.client import Client
    from podium.config import BudgetTable, Config
    from podium.poolfile import LoadedPool
    from protocol.actions import Pool, WorkerSpec
    from protocol.decisions import PolicySpec
    from protocol.registry import Registry
    from protocol.secret_forms import Redaction
    from replay.archive.archiver import Archiver
    from replay.archive.shelf import ArchiveShelf
    from replay.damage import Known
    from replay.durability import Settings
    from replay.foreign import Foreign
    from replay.scrub import Finding


class Hosted(Protocol):
    """A deployment that a command has a connection to."""

    @property
    def client(self) -> "Client":
        """For everything that is done with runs."""
        ...

    async def stats(self) -> list[dict[str, Any]]:
        """What each actor says of itself: ``actor``, ``kind``, ``counts``, and more."""
        ...

    async def gone(self) -> None:
        """Return when nobody hosts any more what was opened."""
        ...

    async def settings(self) -> "Settings | None":
        """What the broker's servers really do; None where there is no broker."""
        ...

    async def foreign(self) -> "Foreign":
        """What stands on the broker and belongs to nobody."""
        ...

    async def findings(self) -> "list[Finding]":
        """What is wrong with the runs' logs: cut, broken, or written to by strangers."""
        ...

    async def heads(self, run: str = "") -> "dict[str, Known]":
        """How far each run's log, or that of one run, was seen to reach."""

    async def registry(self) -> "Registry":
        """What was said of the deployment's workers."""
        ...

    async def apply(
        self, pool: "LoadedPool", renewed: frozenset[str] = ..., *, dry_run: bool = ...
    ) -> "Applied":
        """Have runs that begin get this pool's workers; returns when they do."""
        ...

    def archiver(self, shelf: "ArchiveShelf") -> "AbstractAsyncContextManager[Archiver]":
        """What moves runs into an archive; it takes a conductor's rights."""
        ...


class Standing(Protocol):
    """The record of a standing deployment."""

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    @property
    def url(self) -> str:
        """Of its broker."""
        ...

    @property
    def pool(self) -> str:
        """The name of the pool whose workers it hosts."""
        ...

    @property
    def workers(self) -> "Pool":
        """What it hosts."""
        ...

    @property
    def earlier(self) -> "tuple[WorkerSpec, ...]":
        """What it hosts besides, for runs that began with it."""
        ...

    @property
    def folders(self) -> "tuple[str, ...]":
        """Where its modules are imported from, its own pool's first."""
        ...

    @property
    def policy(self) -> str:
        """The pool's own, for runs that name none; empty if it has none."""
        ...

    @property
    def spec(self) -> "PolicySpec | None":
        """What a run records of it, where its name doesn't say it all."""
        ...

    @property
    def budget(self) -> "BudgetTable":
        """The pool's own."""
        ...

    @property
    def redact(self) -> "Redaction":
        """What its processes take for a secret."""
        ...

    @property
    def since(self) -> int:
        """When it was started, milliseconds since the epoch."""
        ...


class Deployments(Protocol):
    """How a command comes by a deployment."""

    def open(self, config: "Config", pool: "LoadedPool") -> AbstractAsyncContextManager[Hosted]:
        """One that works: the standing one, or one of this process's own, stopped at the end."""
        ...

    def connect(self, config: "Config") -> AbstractAsyncContextManager[Hosted]:
        """The log and the queues only: nothing is hosted, nothing works."""
        ...

    def standing(self, config: "Config") -> Standing | None:
        """The standing deployment, if one lives."""
        ...

    async def up(self, config: "Config", pool: "LoadedPool") -> Standing:
        """Start a standing deployment, and return when it works."""
        ...

    async def down(self, config: "Config") -> bool:
        """Stop it, and return when it has ended. False if there was none."""
        ...


class Real:
    """Deployments over Ray and NATS. Nothing is loaded before it is asked for."""

    def open(self, config: "Config", pool: "LoadedPool") -> AbstractAsyncContextManager[Hosted]:
        """See `Deployments.open`."""
        from podium.host import Host

        return Host.open(config, pool)

    def connect(self, config: "Config") -> AbstractAsyncContextManager[Hosted]:
        """See `Deployments.connect`: where there is only what was imported or archived, that."""
        from podium import shelved

        if shelved.only_shelves(config):
            return shelved.connect(config)
        if shelved.no_broker(config):
            raise shelved.no_deployment(config)
        from podium.host import Host

        return Host.connect(config)

    def standing(self, config: "Config") -> Standing | None:
        """See `Deployments.standing`."""
        from podium import host

        return host.standing(config)

    async def up(self, config: "Config", pool: "LoadedPool") -> Standing:
        """See `Deployments.up`."""
        from podium import host

        return await host.up(config, pool)

    async def down(self, config: "Config") -> bool:
        """See `Deployments.down`."""
        from podium import host

        return await host.down(config)


class World:
    """The outside, as one command sees it."""

    def __init__(
        self,
        *,
        deployments: Deployments | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        stdin: TextIO | None = None,
    ) -> None:
        self.deployments: Deployments = deployments or Real()
        self.environment = os.environ if environment is None else environment
        self.folder = folder
        """Where ``podium.toml`` is looked for; None for the working folder."""
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.stdin = stdin or sys.stdin
        self.files: dict[str, str] = {}
        """The names, as they were typed, of the exported files that were read; by their runs."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    @property
    def user(self) -> str:
        """Who gives the command; recorded with runs and signals."""
        return self.environment.get("USER") or self.environment.get("LOGNAME") or "user"


_CURRENT: Final[ContextVar[World]] = ContextVar("world")


def current() -> World:
    """The world of the command that is running."""
    return _CURRENT.get()


def enter(world: World) -> None:
    """Make this the world of the commands that run from here on."""
    _CURRENT.set(world)
