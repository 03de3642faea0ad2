"""A deployment of real processes, and the hand that kills them.

Nothing here mends anything: the harness starts a daemon that it has killed, as an init system
would, and everything else has to come back by itself.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import psutil

from podium import host
from podium.config import BudgetTable, Config
from podium.host import Host
from podium.poolfile import LoadedPool
from podium.poolmodules import import_from
from protocol.actions import Pool
from tests.integration import chaos_pool

ROOT: Final = Path(__file__).resolve().parents[2]

Victim = Literal["conductor", "worker", "nats-server", "raylet", "gcs_server", "cluster", "daemon"]
"""``raylet`` and ``gcs_server`` are Ray's own; ``cluster`` is the process that is Ray's driver,
``daemon`` the one that a person starts."""

VICTIMS: Final[tuple[Victim, ...]] = get_args(Victim)

RECOVERY_LIMIT_S: Final = 90.0
"""Seconds in which everything has to work again, on a busy machine; usually a tenth of it."""

LOOK_S: Final = 0.05
"""Seconds between two questions to processes that can't call us."""

MARK: Final = "CHAOS_FOLDER"
"""Environment variable by which a deployment's processes are known: children inherit it."""

DRIVER: Final = ["-P", "-m", "actors.ray_cluster"]
"""What Ray's driver is started with, which its guard's command line has at its end."""

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T | None]], what: str, limit_s: float = RECOVERY_LIMIT_S
) -> T:
    """The first answer that is not None (nor empty, nor 0); fails after ``limit_s`` seconds."""
    deadline = time.monotonic() + limit_s
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        await asyncio.sleep(LOOK_S)
    return answer


async def ended(pid: int, limit_s: float = 30.0) -> None:
    """Return when the process has ended; fail after ``limit_s`` seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await asyncio.wait_for(over.wait(), limit_s)
    except TimeoutError:
        name = " ".join(psutil.Process(pid).cmdline())
        raise AssertionError(f"process {pid} lives after {limit_s:g} s: {name}") from None
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def of_deployment(folder: Path) -> dict[int, str]:
    """Every living process of a folder's deployment, also those whose parent is gone.

    Ray's agents write their title over their environment: they are known by their parents alone.
    """
    found: dict[int, str] = {}
    others: dict[int, tuple[int, str]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                text = " ".join(process.cmdline()).rstrip()
                if process.environ().get(MARK) == str(folder):
                    found[process.pid] = text
                else:
                    others[process.pid] = (process.ppid(), text)
    while below := {pid: text for pid, (parent, text) in others.items() if parent in found}:
        found |= below
        for pid in below:
            del others[pid]
    return found


class Deployment:
    """A standing deployment in a folder."""

    def __init__(self, folder: Path, pool: Pool, lease_s: float = 3.0) -> None:
        self.folder = folder
        self.config = Config(folder=str(folder), lease_s=lease_s)
        policy = chaos_pool.POLICY.name
        self.pool = LoadedPool(folder / "pool.toml", "chaos", pool, policy, BudgetTable())
        import_from(ROOT)

    async def up(self) -> None:
        """Start it, and return when it works."""
        with self.marked():
            await host.up(self.config, self.pool)

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """Have the processes that are started known as the deployment's."""
        os.environ[MARK] = str(self.folder)
        try:
            yield
        finally:
            del os.environ[MARK]

    async def down(self) -> None:
        """Stop it, and see that nothing is left."""
        await host.down(self.config)
        await self.nothing_left()

    async def nothing_left(self, limit_s: float = 45.0) -> None:
        """Return when every process of the deployment has ended."""
        for pid in of_deployment(self.folder):
            await ended(pid, limit_s)

    async def clear(self) -> None:
        """Kill whatever is left, whatever happened."""
        while left := of_deployment(self.folder):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                await ended(pid)

    def connected(self) -> contextlib.AbstractAsyncContextManager[Host]:
        """A client's connection."""
        return Host.connect(self.config)

    def said(self) -> str:
        """Its log."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "deployment.log").read_text()
        return ""

    # ------------------------------------------------------------------------------------ processes

    def daemon(self) -> int:
        """The daemon's process id; 0 if there is none."""
        record = host.standing(self.config)
        return record.pid if record is not None else 0

    def server(self) -> int:
        """The nats-server's."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(json.loads((self.folder / "nats" / "server.json").read_text())["pid"])
            return pid if psutil.pid_exists(pid) else 0
        return 0

    def cluster(self) -> int:
        """That of Ray's driver."""
        return self._child(lambda process: process.cmdline()[1:4] == DRIVER)

    def raylet(self) -> int:
        """That of Ray's node."""
        return self._child(lambda process: process.name() == "raylet")

    def gcs_server(self) -> int:
        """That of Ray's control store."""
        return self._child(lambda process: process.name() == "gcs_server")

    def _child(self, fits: Callable[[psutil.Process], bool]) -> int:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.daemon()).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.status() != psutil.STATUS_ZOMBIE and fits(child):
                        return child.pid
        return 0


async def actors(hosted: Host) -> dict[str, dict[str, Any]]:
    """What each actor says of itself, by name."""
    return {said["actor"]: said for said in await hosted.stats()}


async def kill(pid: int) -> None:
    """Kill -9, and wait for the end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    await ended(pid)
