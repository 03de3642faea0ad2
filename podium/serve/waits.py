"""Who waits for runs: how many at a time, and no longer than the server goes on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Final

from protocol.errors import Busy
from replay.chain import RunLog

MAX_RUNS: Final = 256
"""Runs of one server that are waited for at a time: each holds a connection, two subscriptions and
the whole of its log. More are told to come again."""


class Waits:
    """All that wait, whatever protocol they speak.

    Args:
        most: How many may at a time.
    """

    def __init__(self, most: int = MAX_RUNS) -> None:
        self._most, self._there = most, 0
        self._quiet, self._stopping = asyncio.Event(), asyncio.Event()
        self._quiet.set()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among those that wait, for as long as the block. Raises `Busy` if all are."""
        if self._there >= self._most:
            raise Busy(f"{self._most} runs are at work here, which is the limit", hint="try again")
        self._there += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._there -= 1
            if not self._there:
                self._quiet.set()

    async def each(
        self, logs: AsyncIterator[RunLog], sign_s: float | None = None, until: float | None = None
    ) -> AsyncGenerator[RunLog | None, None]:
        """Each log as it comes, until there are no more or the server stops.

        Args:
            logs: Of one run, as it grows.
            sign_s: Seconds of silence after which None comes, as a sign of life.
            until: When None comes anyway, by the event loop's clock.
        """
        loop = asyncio.get_running_loop()
        stopping = asyncio.create_task(self._stopping.wait())
        upcoming = asyncio.create_task(_next(logs))
        try:
            while True:
                left = None if until is None else max(0.0, until - loop.time())
                patience = [each for each in (sign_s, left) if each is not None]
                await asyncio.wait(
                    {upcoming, stopping},
                    timeout=min(patience, default=None),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if upcoming.done():
                    if (log := upcoming.result()) is None:
                        return
                    yield log
                    upcoming = asyncio.create_task(_next(logs))
                elif self.stopped:
                    return
                else:
                    yield None
        finally:
            upcoming.cancel()
            stopping.cancel()
            await asyncio.wait({upcoming, stopping})

    @property
    def stopped(self) -> bool:
        """Whether the server stops."""
        return self._stopping.is_set()

    async def stopping(self) -> None:
        """Wait until the server stops."""
        await self._stopping.wait()

    async def quiet(self) -> None:
        """Wait until nobody waits."""
        await self._quiet.wait()

    def stop(self) -> None:
        """Have everybody who waits be told now: the server ends."""
        self._stopping.set()


async def _next(logs: AsyncIterator[RunLog]) -> RunLog | None:
    return await anext(logs, None)
