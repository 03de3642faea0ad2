"""How the exporter keeps out of the way of runs where the machine is full.

The lowest priority alone doesn't: whoever works in every gap has thrown out of the caches what the
runs need next, and takes the other half of a core. So where it had to wait for a core for longer
than it worked on one, it rests.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

SHARE: Final = 0.03
"""Of one core, where the machine is full: runs lose about as much again to caches that it has
emptied and to what it asks of the server, together 2 or 3 % on two cores."""

MAX_REST_S: Final = 5.0
"""Seconds of one rest, however much work there was before it."""

THREADS: Final = Path("/proc/self/task")
"""Where Linux says of each thread how long it worked, and how long it waited to."""

_NS: Final = 1e9
"""Nanoseconds of a second."""


class Times(NamedTuple):
    """What a process has had of the machine so far."""

    worked_s: float
    """Seconds on a core."""
    waited_s: float
    """Seconds in which it could have worked, and others did."""


def times(threads: Path = THREADS) -> Times:
    """Those of this process; zeros where the system doesn't say."""
    worked = waited = 0
    for thread in threads.glob("*/schedstat"):
        try:
            on_core, in_line, *_ = thread.read_text().split()
        except (OSError, ValueError):  # a thread that has ended meanwhile
            continue
        worked, waited = worked + int(on_core), waited + int(in_line)
    return Times(worked / _NS, waited / _NS)


def rest_s(worked_s: float, waited_s: float) -> float:
    """Seconds to rest after some work, given how long it had to wait for a core meanwhile."""
    if waited_s <= worked_s:
        return 0.0
    return min(MAX_REST_S, max(0.0, worked_s / SHARE - worked_s - waited_s))


class Pace:
    """Says after each piece of work how long to rest.

    Args:
        read: Where the times are read.
    """

    def __init__(self, read: Callable[[], Times] = times) -> None:
        self._read, self._before = read, read()

    def rest_s(self) -> float:
        """Seconds to rest, for what was worked since this was last asked."""
        before, self._before = self._before, self._read()
        worked, waited = self._before
        return rest_s(worked - before.worked_s, waited - before.waited_s)
