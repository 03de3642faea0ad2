"""The supervisor: keeps the declared actors alive, and working.

Liveness is progress, not a heartbeat. An actor that answers but takes nothing while work waits for
it is as dead as one that does not answer, and is started anew.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from actors.programs import Declared, Health
from protocol.actions import WorkerSpec

logger = logging.getLogger("podium.supervisor")

CHECK_S: Final = 1.0
"""Seconds between two looks at every actor."""

MAX_SILENCES: Final = 5
"""Looks in a row without an answer after which an actor is started anew: longer than a restart by
Ray takes."""

DEAF_S: Final = 20.0
"""Seconds without progress, with work waiting and places free, after which an actor is started
anew."""

PATIENCE_S: Final = 10.0
"""Seconds between two new starts of one actor: what fails at once must not burn the machine."""


class Actors(Protocol):
    """Where actors live: Ray, or a test."""

    async def ensure(self, declared: Declared) -> None:
        """Start an actor unless one of that name is there."""
        ...

    async def health(self, declared: Declared) -> Health | None:
        """How it is doing; None if it doesn't answer."""
        ...

    async def replace(self, declared: Declared) -> None:
        """End it, however it is doing, and start it anew."""
        ...

    async def stop(self, declared: Declared) -> None:
        """Have it hand back what it has, and end it."""
        ...

    async def backlog(self, declared: Declared, queue: str) -> int:
        """How many messages wait for it in one of its queues."""
        ...


class _Watched:
    def __init__(self, declared: Declared, now: float) -> None:
        self.declared = declared
        self.silences = 0
        self.moved: dict[str, tuple[int, float]] = {}
        """How far each queue was, and when it was last seen to move, or to have no need to."""
        self.replaced_at = now
        self.replaced = False
        self.seen = False
        self.failed = ""
        self.offers: tuple[WorkerSpec, ...] = ()


class Supervisor:
    """Plain Python over `Actors`; `ray_actors` gives it a process.

    Args:
        actors: Where they live.
        declared: Which should be there at first.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        actors: Actors,
        declared: Sequence[Declared],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.actors, self.clock = actors, clock
        self._watched = [_Watched(each, clock()) for each in declared]
        self._one_at_a_time = asyncio.Lock()
        """Held by a look and by a change: an actor that is being ended must not be started."""

    @property
    def starting(self) -> bool:
        """Whether an actor may be about to answer for the first time."""
        return any(not (each.seen or each.failed or each.replaced) for each in self._watched)

    @property
    def missing(self) -> dict[str, str]:
        """The actors that have not worked yet, and why they can't, where that is known."""
        return {each.declared.name: each.failed for each in self._watched if not each.seen}

    @property
    def offers(self) -> dict[str, tuple[WorkerSpec, ...]]:
        """What the servers of actors offer, where that is no more what they host."""
        return {each.declared.name: each.offers for each in self._watched if each.offers}

    async def declare(self, declared: Sequence[Declared]) -> None:
        """Have these actors there and no others. One that is there under its name stays."""
        async with self._one_at_a_time:
            there = {watched.declared.name: watched for watched in self._watched}
            names = {each.name for each in declared}
            self._watched = []
            for each in declared:
                watched = there.get(each.name) or _Watched(each, self.clock())
                watched.declared = each
                self._watched.append(watched)
            gone = [watched.declared for name, watched in there.items() if name not in names]
            for each in gone:
                logger.info("actor %s is not needed any more: ended", each.name)
            await asyncio.gather(*(self.actors.stop(each) for each in gone))

    async def run(self) -> None:
        """Look after the actors until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(CHECK_S / 10 if self.starting else CHECK_S)

    async def look(self) -> None:
        """One look at every actor, at all of them at once."""
        async with self._one_at_a_time:
            await asyncio.gather(*(self._look_at(watched) for watched in self._watched))

    async def _look_at(self, watched: _Watched) -> None:
        try:
            await self.actors.ensure(watched.declared)
            health = await self.actors.health(watched.declared)
            why = await self._trouble(watched, health)
            if why and self.clock() - watched.replaced_at > PATIENCE_S:
                logger.warning("actor %s %s: started anew", watched.declared.name, why)
                watched.replaced_at, watched.replaced = self.clock(), True
                watched.silences = 0
                watched.moved.clear()
                await self.actors.replace(watched.declared)
        except Exception:
            logger.exception("actor %s could not be looked after", watched.declared.name)

    async def _trouble(self, watched: _Watched, health: Health | None) -> str:
        if health is None:
            watched.silences += 1
            return "does not answer" if watched.silences >= MAX_SILENCES else ""
        watched.silences, watched.failed, watched.offers = 0, health.failed, health.offers
        if health.failed:
            return f"can't work: {health.failed}"
        watched.seen = True
        for queue, pulled in health.queues.items():
            now = self.clock()
            progress, since = watched.moved.get(queue, (-1, now))
            if pulled.progress != progress or not health.connected or pulled.free <= 0:
                watched.moved[queue] = (pulled.progress, now)
            elif now - since >= DEAF_S:
                if await self.actors.backlog(watched.declared, queue):
                    return f"has taken nothing of {queue} for {DEAF_S:g} s while work waits"
                watched.moved[queue] = (pulled.progress, now)
        return ""
