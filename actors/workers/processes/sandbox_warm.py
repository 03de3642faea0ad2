"""Warm sandboxes: locked in already, waiting for code, so that a call does not wait for a start."""

import asyncio
import contextlib
from collections import deque

from actors.workers.processes.sandbox_process import Refused, Request, Sandbox


class WarmSandboxes:
    """A few sandboxes of one kind that wait for their one use, made in the background.

    None is made before the first is taken: whoever hosts a worker that nobody calls pays nothing.

    Args:
        request: What each is started with.
        number: Sandboxes that wait at most; 0 for none, and each is started when it is needed.
    """

    def __init__(self, request: Request, number: int) -> None:
        self._request, self._number = request, number
        self._waiting: deque[Sandbox] = deque()
        self._filling: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Sandboxes that wait."""
        return sum(sandbox.alive for sandbox in self._waiting)

    async def take(self) -> Sandbox:
        """A sandbox that nobody has used; who takes it closes it.

        Raises:
            Refused: The host can't isolate code.
            OSError: It can't be started.
        """
        while self._waiting:
            sandbox = self._waiting.popleft()
            if sandbox.alive:
                self._fill()
                return sandbox
            await sandbox.close()
        sandbox = await Sandbox.start(self._request)
        self._fill()
        return sandbox

    async def close(self) -> None:
        """End those that wait, and whatever is being made."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        await asyncio.gather(*(sandbox.close() for sandbox in self._waiting))
        self._waiting.clear()

    def _fill(self) -> None:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._make())

    async def _make(self) -> None:
        """One after the other: calls that are worked on need the cores as well."""
        with contextlib.suppress(Refused, OSError):  # the next call meets it, and says so
            while len(self._waiting) < self._number:
                self._waiting.append(await Sandbox.start(self._request))
