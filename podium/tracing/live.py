"""The process that exports traces and metrics beside a deployment.

    python -m podium.tracing.live < one line of JSON (`Asked`)

It answers with one line, ``{"ready": true}`` or ``{"error": ...}``, reads the log with the rights
of a reader, and ends with its input. No run waits for it: it has the lowest priority that the
system gives, and when it is behind, the log keeps what it has not read.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from actors.logs import log_to
from actors.programs import Connection
from podium.tracing.feed import BrokerFeed, Offsets, begin
from podium.tracing.follower import Feed, Follower, Take
from podium.tracing.pace import Pace
from protocol.errors import PodiumError
from protocol.secret_forms import EVERYTHING, Redaction
from replay.shelves import Shelves
from replay.spans import Span
from replay.trace import Projector

logger = logging.getLogger("podium.tracing")

_S = TypeVar("_S")
_T = TypeVar("_T")

NICENESS: Final = 19
"""The lowest priority, where the system has no policy for idle time: whatever a run needs comes
first."""

EVERY_S: Final = 1.0
"""Seconds between two looks into the log. What ends meanwhile travels together, as in batches of
OpenTelemetry's own, which wait for five."""

LAST_S: Final = 5.0
"""Seconds for what is left when it is told to end, whatever a backend does. The rest is exported at
the next start."""

METRICS_S: Final = 1.0
"""Seconds of these that are kept for the last metrics."""

SAY_S: Final = 60.0
"""Seconds between two words on how far it is behind."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with; where to, the ``OTEL_*`` variables say."""

    connection: Connection
    folder: str
    shelves: Shelves = Shelves()
    redact: Redaction = EVERYTHING
    """What is taken for a secret, also in what it logs."""
    content: bool = False
    messages: bool = False
    traces: bool = True
    metrics: bool = True


class _Sink:
    """Where spans go, and their measures with them."""

    def __init__(self, asked: Asked) -> None:
        from podium.tracing.metrics import Meters
        from podium.tracing.otlp import Sender

        self._sender = Sender() if asked.traces else None
        self._meters = Meters() if asked.metrics else None
        # Not the loop's own, whose end waits for a request that hangs.
        self._threads = ThreadPoolExecutor(2, "sink")

    async def take(self, spans: Sequence[Span]) -> bool:
        """See `Follower`."""
        if self._sender is not None and not await self._apart(self._sender.send, spans):
            return False
        if self._meters is not None:
            self._meters.count(spans)
        return True

    async def close(self) -> None:
        """Send the last metrics."""
        if self._sender is not None:
            self._sender.close()
        if self._meters is not None:
            await self._apart(self._meters.close, METRICS_S * 1e3)

    async def _apart(self, function: Callable[[_S], _T], given: _S) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, given)


async def follow(asked: Asked, ending: asyncio.Event) -> None:
    """Export until told to end."""
    broker = await asked.connection.open("traces")
    try:
        feed = BrokerFeed(broker, asked.shelves)
        offsets = await begin(feed, Path(asked.folder))
        sink = _Sink(asked)
        _say({"ready": True})
        _step_back()  # only here: whoever starts us waits
        work = asyncio.create_task(_Work(asked, feed, sink.take, offsets, ending).run())
        end = asyncio.create_task(ending.wait())
        await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
        end.cancel()
        last = asyncio.get_running_loop().time() + LAST_S
        try:
            async with asyncio.timeout_at(last - METRICS_S):
                await work
        except TimeoutError:
            logger.warning("traces are not all exported: the rest follows at the next start")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(last):
                await sink.close()
    finally:
        await broker.close()


class _Work:
    """Reads on whenever there is something, until told to end, and once more then."""

    def __init__(
        self, asked: Asked, feed: Feed, take: Take, offsets: Offsets, ending: asyncio.Event
    ) -> None:
        self._ending, self._pace, self._said = ending, Pace(), time.monotonic()
        self._follower = Follower(
            feed,
            take,
            offsets.seqs,
            offsets.store,
            rest=self._rest,
            project=partial(Projector, content=asked.content, messages=asked.messages),
        )

    async def run(self) -> None:
        """Return when all is exported that there was when the end was asked for."""
        last = False
        while not last:
            last = self._ending.is_set()
            try:
                await self._follower.catch_up()
            except PodiumError as error:  # the broker is away, and the log with it
                logger.warning("%s; %s", error.message, error.hint)
            await self._until_ending(EVERY_S)

    async def _rest(self) -> None:
        behind = self._follower.behind
        if behind and time.monotonic() - self._said > SAY_S:
            self._said = time.monotonic()
            logger.info("traces are %d messages behind", behind)
        if pause := self._pace.rest_s():
            await self._until_ending(pause)

    async def _until_ending(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._ending.wait()


def _say(answer: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def _main(asked: Asked) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)

    def heard() -> None:
        if not os.read(sys.stdin.fileno(), 1_024):
            loop.remove_reader(sys.stdin.fileno())
            ending.set()

    loop.add_reader(sys.stdin.fileno(), heard)
    await follow(asked, ending)


def _step_back() -> None:
    """Let everything else go first: within the session, and the session among others."""
    os.nice(NICENESS)
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getsid(0) == os.getpid():  # else it is somebody else's
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(f"{NICENESS}\n")


def main() -> int:
    """Be the process."""
    asked = msgspec.json.decode(sys.stdin.buffer.readline(), type=Asked)
    log_to("", "traces", asked.redact)
    try:
        asyncio.run(_main(asked))
    except PodiumError as error:
        logger.error("%s; %s", error.message, error.hint)
        _say({"error": error.message})
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # a request that hangs is given up with its thread
