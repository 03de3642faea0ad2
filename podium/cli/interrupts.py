"""Ctrl-C: once ends gracefully, twice ends now."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from podium.cli.output import Output

EXIT_INTERRUPTED: Final = 130
"""The exit code of a command that was interrupted."""

SHOW_CURSOR: Final = "\x1b[?25h"
"""Ends the hiding of the cursor that a live picture begins with."""

T = TypeVar("T")


class Interrupts:
    """Turns the first SIGINT or SIGTERM into an event, and the second into the end.

    Args:
        output: Where the first is talked about.
        farewell: What is said at the first; asked when it comes.
    """

    def __init__(self, output: Output, farewell: Callable[[], str] = lambda: "stopping") -> None:
        self.output, self.farewell = output, farewell
        self.asked = asyncio.Event()
        """Set by the first."""
        self.before: Callable[[], None] = lambda: None
        """Done before the farewell is said: a live picture is let go of, or it would cover that."""

    def __enter__(self) -> "Interrupts":
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    def _take(self) -> None:
        if not self.asked.is_set():
            self.asked.set()
            self.before()
            first, _, rest = self.farewell().partition("\n")
            self.output.say(f"\n{first} (once more: at once)")
            if rest:
                self.output.say(rest)
            return
        if self.output.lively():
            self.output.world.stderr.write(f"{SHOW_CURSOR}\n")
        self.output.world.stderr.flush()
        os._exit(EXIT_INTERRUPTED)

    async def unless(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``; None, and ``work`` cancelled, if the first comes before."""
        task = asyncio.create_task(work)
        asked = asyncio.create_task(self.asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            asked.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
