"""How a deployment's daemon keeps the process that exports its traces.

It is no part of any run: it may be missing, late, or killed, and everything goes on. It is started
before the first run can be, so that none is missed, and ended after the last.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from actors import tracing
from actors.programs import Connection
from podium.children import started
from podium.config import Config
from podium.shelved import shelves_of
from protocol.actions import Json
from protocol.errors import Usage

logger = logging.getLogger("podium.daemon")

READY_S: Final = 15.0
"""Seconds that it may take to find its place in the log, before anything else is started."""

PAUSE_S: Final = 2.0
"""Seconds before one that ended is started again; doubles while none of them lives for long."""

MAX_PAUSE_S: Final = 60.0
"""Seconds between two starts of one that always fails at once."""

STOP_S: Final = 8.0
"""Seconds that it may take to end. More than its own limit for what is left, `live.LAST_S`."""

INSTALL: Final = "pip install 'podium[otel]', or set `enabled = false` under [trace] in podium.toml"

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


def variables(config: Config, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The ``OTEL_*`` variables with which a deployment exports; empty if it doesn't.

    Raises:
        Usage: The configuration names an endpoint, and OpenTelemetry isn't installed.
    """
    if not config.trace.enabled:
        return {}
    found = tracing.variables(environment)
    if config.trace.endpoint:
        found[ENDPOINT] = config.trace.endpoint
    if not (tracing.wanted(found) or (config.trace.metrics and tracing.wanted(found, "metrics"))):
        return {}
    if not tracing.installed():
        if config.trace.endpoint:
            raise Usage(
                "[trace] names an endpoint, and OpenTelemetry is not installed", hint=INSTALL
            )
        logger.warning("OTEL_* asks for traces, and OpenTelemetry is not installed: %s", INSTALL)
        return {}
    return found


class Keeper:
    """Keeps the exporter going, if the deployment has one.

    Args:
        config: The deployment's.
        log: File to which the process says what goes wrong.
        connection: How it reaches the broker, asked at each start.
    """

    def __init__(self, config: Config, log: Path, connection: Callable[[], Connection]) -> None:
        self.config, self._log, self._connection = config, log, connection
        self.variables = variables(config)
        """With which this deployment exports; empty if it doesn't."""
        self._process: asyncio.subprocess.Process | None = None
        self._began = 0.0

    @property
    def pids(self) -> set[int]:
        """The process's id, if it is there."""
        process = self._process
        return {process.pid} if process is not None and process.returncode is None else set()

    async def start(self) -> None:
        """Start it, and wait until it knows its place in the log; not for ever. Never fails."""
        if not self.variables:
            return
        self._began = time.monotonic()
        try:
            await self._start()
        except OSError as error:  # no memory, no file left: runs go on, and it is tried again
            logger.warning("the exporter of traces can't be started: %s", error)

    async def _start(self) -> None:
        environment = {**os.environ, **self.variables}
        self._process = await started("podium.tracing.live", self._log, environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._asked()).encode() + b"\n")
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(READY_S):
                await self._process.stdout.readline()

    def _asked(self) -> dict[str, Json]:
        trace = self.config.trace
        return {
            "connection": msgspec.to_builtins(self._connection()),
            "folder": str(self.config.path()),
            "shelves": msgspec.to_builtins(shelves_of(self.config)),
            "redact": msgspec.to_builtins(self.config.redact),
            "content": trace.content or tracing.content(self.variables),
            "messages": trace.messages,
            "traces": tracing.wanted(self.variables),
            "metrics": trace.metrics and tracing.wanted(self.variables, "metrics"),
        }

    async def keep(self) -> None:
        """Start it again whenever it ends. Never returns."""
        pause = PAUSE_S
        while self.variables:
            if self._process is not None:
                await self._process.wait()
            lived = time.monotonic() - self._began
            pause = PAUSE_S if lived > MAX_PAUSE_S else min(2 * pause, MAX_PAUSE_S)
            logger.warning("the exporter of traces ended: starting it again in %g s", pause)
            await asyncio.sleep(pause)
            await self.start()
        await asyncio.Event().wait()

    def renew(self) -> None:
        """The broker is elsewhere: have it started anew."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Have it export the rest, and end it."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            logger.warning("the exporter of traces does not end by itself: killing it")
            process.kill()
            await process.wait()
