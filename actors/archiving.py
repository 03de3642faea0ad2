"""Archiving from time to time: what a standing deployment does with runs that ended long ago."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from protocol.errors import PodiumError
from replay.archive.archiver import Archiver

logger = logging.getLogger("podium.archive")

EVERY_S: Final = 3_600.0
"""Seconds between two rounds: each one makes a file or two, and reads every run once."""


class Archiving:
    """Rounds of an archiver; the supervisor's process runs them.

    Args:
        archiver: Does the work.
        after_ms: Milliseconds after its end that a run is archived.
        clock: Milliseconds since the epoch.
    """

    def __init__(self, archiver: Archiver, after_ms: int, clock: Callable[[], int]) -> None:
        self.archiver, self.after_ms = archiver, after_ms
        self._clock = clock

    async def run(self) -> None:
        """Make rounds until cancelled, the first one at once."""
        while True:
            await self.round()
            await asyncio.sleep(EVERY_S)

    async def round(self) -> dict[str, int]:
        """Archive what is due, and free its blobs; how many runs went which way, and blobs.

        What can't be done now is said, and done in the next round.
        """
        try:
            due = await self.archiver.ended(self._clock() - self.after_ms)
            outcomes = await self.archiver.archive([each.run for each in due])
            freed = await self.archiver.free()
        except PodiumError as error:
            logger.error("runs were not archived: %s; %s", error.message, error.hint)
            return {}
        except Exception:  # a full disk, a library: whoever looks after the runs goes on meanwhile
            logger.exception("runs were not archived")
            return {}
        for each in outcomes:
            if each.done == "skipped":
                why = each.error.whole() if each.error is not None else each.why
                logger.warning("run %s was not archived: %s", each.run, why)
        counts = dict(Counter[str](each.done for each in outcomes))
        if freed:
            counts["blobs freed"] = freed
        if counts:
            logger.info("archive %s: %s", self.archiver.shelf.name, counts)
        return counts
