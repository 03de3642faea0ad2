"""A warden's work while its family is at it: it reads what comes, and looks at limits.

Loaded by an isolated interpreter, the standard library only.
"""

import os
import select
import time
from typing import Final

from actors.workers.processes.pipes import Lifeline, Streams

LOOK_S: Final = 0.02
"""Seconds between looks at what all processes use together, while they work. Each costs as much as
there are processes, so what they print brings none about."""

IDLE_LOOK_S: Final = 1.0
"""Seconds between looks while nothing is to be done: is the worker there, are all stopped."""


class Watch:
    """Looks after a family until there is an end.

    Args:
        first: Its first process.
        streams: What comes out of it.
        line: The lifeline to the worker.
    """

    def __init__(self, first: int, streams: Streams, line: Lifeline) -> None:
        self.first, self.streams, self.line = first, streams, line
        self.end = ""
        self.pidfd = os.pidfd_open(first)
        self.names = {fd: name for name, fd in streams.read.items()}
        self.poll = select.poll()
        for fd in (0, self.pidfd, *self.names):
            self.poll.register(fd, select.POLLIN)

    def watch(self, until: float | None) -> None:
        """Look until there is an ``end``, at the latest at a time; or no time given, a line."""
        self.end = ""
        look = time.monotonic() + LOOK_S
        while not self.end:
            now = time.monotonic()
            next_s = IDLE_LOOK_S if until is None else min(look, until) - now
            ready = {fd for fd, _ in self.poll.poll(max(0, next_s) * 1_000)}
            self.end = self.attend(ready)
            if not self.end and not self.line.held():
                self.end = "withdrawn"
            if until is None:
                if self.line.data or not ready:
                    return
            elif not self.end and (now := time.monotonic()) >= min(look, until):
                look = now + LOOK_S
                self.end = "wall" if now >= until else self.excess()

    def attend(self, ready: set[int]) -> str:
        """Read what is ready; the end, if that is one."""
        for fd in ready & set(self.names):
            if not self.took(self.names[fd]):
                self.poll.unregister(fd)
                del self.names[fd]
        if 0 in ready:
            self.line.take()
        return "ended" if self.pidfd in ready else ""

    def took(self, name: str) -> bytes:
        """Read once from a stream."""
        return self.streams.take(name)

    def excess(self) -> str:
        """The limit that the family has gone over; "" for none."""
        raise NotImplementedError
