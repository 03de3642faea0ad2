"""Ray's driver, as the daemon has it: a process that it starts, tells what to host, and ends.

The process that is ours is its guard, which ends when the driver and all below it have.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.embedded import guard
from actors.programs import Declared
from actors.ray_messages import Asked, Looked, fingerprint
from podium.children import started
from podium.config import Config
from protocol.errors import Unreachable

logger = logging.getLogger("podium.daemon")

READY_S: Final = 150.0
"""Seconds that Ray and all actors may take to start."""

STOP_S: Final = 45.0
"""Seconds that a cluster may take to hand everything back."""


class Cluster:
    """One deployment's Ray, through its driver.

    Args:
        config: Whose.
        log: The file that the driver and the actors here write to.
    """

    def __init__(self, config: Config, log: Path) -> None:
        self._config, self._log = config, log
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[str] | None = None
        self._declared = ""
        self._looked: Looked | None = None
        self.news = asyncio.Event()
        """Set when there is something else to tell of the actors."""
        self.started_at = 0.0

    @property
    def looked(self) -> Looked | None:
        """How those actors are that were declared last; None while nobody knows."""
        found = self._looked
        return found if found is not None and found.declared == self._declared else None

    async def start(self, declared: Sequence[Declared], ending: asyncio.Event) -> None:
        """Start a fresh one, and return when every actor works, or when it is to end.

        Raises:
            Unreachable: It did not start, and why.
        """
        self.started_at = time.monotonic()
        environment = _environment(self._config)
        under = guard.command("family")  # so that nothing of it is left, even if we are killed
        self._process = await started("actors.ray_cluster", self._log, environment, under=under)
        config, address = self._config, self._config.ray.address
        asked = Asked(
            declared=list(declared),
            address=address,
            deployment=sha256(f"{config.path()}@{config.nats.url}".encode()).hexdigest()[:12],
            log="" if address else str(self._log),
        )
        self._declared = fingerprint(msgspec.json.encode(asked.declared))
        self._looked = None
        self._say(msgspec.json.encode(asked))
        self._ready = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process))
        either: set[asyncio.Future[Any]] = {self._ready, asyncio.create_task(ending.wait())}
        await asyncio.wait(either, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        (either - {self._ready}).pop().cancel()
        why = self._ready.result() if self._ready.done() else f"no answer within {READY_S:g} s"
        if why and not ending.is_set():
            raise Unreachable(
                f"Ray or one of its actors did not start: {why}",
                hint=f"more of it is at the end of {self._log}",
            )

    def declare(self, declared: Sequence[Declared]) -> None:
        """Have these actors there and no others. What came of it is told by `looked`."""
        line = msgspec.json.encode(list(declared))
        if (found := fingerprint(line)) != self._declared:
            self._declared = found
            self._say(line)

    def _say(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line + b"\n")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """What the process says. It may print more than that."""
        assert process.stdout is not None
        ready = self._ready
        assert ready is not None
        async for line in process.stdout:
            if line.startswith(b'{"looked"'):
                self._looked = msgspec.json.decode(line, type=dict[str, Looked])["looked"]
                self.news.set()
            elif not ready.done() and line.startswith(b'{"ready"'):
                ready.set_result("")
            elif not ready.done() and line.startswith(b'{"error"'):
                ready.set_result(str(json.loads(line)["error"]).splitlines()[0])
        if not ready.done():
            ready.set_result("it ended without a word")

    async def ended(self) -> None:
        """Wait until it has ended by itself; at once if it is not there."""
        if self._process is not None:
            await self._process.wait()

    def kill(self) -> None:
        """End it at once. Nothing is lost."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Have it hand everything back and end."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                logger.warning("the Ray cluster does not end by itself: killing it")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if self._reading is not None:
            await self._reading
            self._reading = None


def _environment(config: Config) -> dict[str, str]:
    """Ray's driver's. `ray start` asks for a token by default, and drivers don't send one."""
    environment = dict(os.environ)
    if config.ray.address and (Path.home() / ".ray" / "auth_token").exists():
        environment.setdefault("RAY_AUTH_MODE", "token")
    return environment
