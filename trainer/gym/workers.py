"""The workers of an episode, in this process: real tools, at a price, with faults and delays.

What fails is decided by a hash of the seed, the run, the call, the attempt and the worker, so the
same run fails in the same places, whatever else goes on; runs may also share their luck. All
waiting is by a ``sleep`` that is given, so that a lane can have a clock of its own.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from actors.ports import Adapter, Attempt, Outcome, Sleep
from actors.tools import offline
from actors.workers import function
from actors.workers.outcomes import failure
from protocol.actions import Json, Spend, Status, WorkerSpec
from protocol.commands import Start
from protocol.errors import NotFound
from trainer.gym.episodes import Episode, key_of
from trainer.gym.kinds import ToolError, given
from trainer.gym.pools import Member

TIMEOUT_SHARE: Final = 0.4
"""Of the attempts that fail, those that take too long; the others fail at once."""

ERRORS: Final = (
    "ConnectionError: the source closed the connection",
    "RuntimeError: out of memory",
    "OSError: the data could not be read",
    "RuntimeError: internal error, try again",
)
"""What a worker says that fails at once."""

Failure = Literal["", "EXEC_ERR", "TIMEOUT"]


def chance(*of: object) -> float:
    """A number from 0 up to 1, the same for the same things."""
    text = "\x1f".join(str(each) for each in of)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def failing(rate: float, *of: object) -> Failure:
    """Whether and how an attempt fails that does so at a rate."""
    drawn = chance("fails", *of)
    if drawn >= rate:
        return ""
    return "TIMEOUT" if drawn < rate * TIMEOUT_SHARE else "EXEC_ERR"


def by_chance(status: Status | None, value: Json) -> bool:
    """Whether what came of a call is a failure by chance, as `failing` draws them.

    Another failure is the tool's answer to a call that it can't do, such as a country's name for a
    city: a worker can't tell whose fault that is, but here it was the caller's.
    """
    return status == "TIMEOUT" or (status == "EXEC_ERR" and value in ERRORS)


class ToolAdapter:
    """Hosts a worker of the gym. An `actors.ports.Adapter`.

    Args:
        spec: The worker.
        member: What is behind it.
        seed: Of the faults.
        sleep: Waits.
        luck: What they follow from in place of the run, so that runs of the same luck, which make
            the same calls, fail alike.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        member: Member,
        seed: int = 0,
        sleep: Sleep = asyncio.sleep,
        luck: str = "",
    ) -> None:
        self.spec, self._member, self._seed, self._sleep = spec, member, seed, sleep
        self._luck = luck
        self._spend = Spend(cost=member.price)

    async def run(self, attempt: Attempt) -> Outcome:
        """See `actors.ports.Adapter`."""
        member = self._member
        run = self._luck or attempt.run
        of = (self._seed, run, attempt.call, attempt.attempt, self.spec.name)
        fails = failing(member.fault_rate, *of)
        if fails == "TIMEOUT":
            await self._sleep(attempt.timeout_s)
            text = f"{self.spec.name} took longer than {attempt.timeout_s:g} s."
            return failure("TIMEOUT", "worker", text, self._spend)
        if member.latency_ms:
            await self._sleep(member.latency_ms * (0.5 + chance("takes", *of)) / 1_000)
        if fails:
            text = ERRORS[int(chance("says", *of) * len(ERRORS))]
            return failure("EXEC_ERR", "worker", text, self._spend)
        try:
            return Outcome(value=self._given(attempt.arguments), spend=self._spend)
        except ToolError as error:
            return failure("EXEC_ERR", "worker", str(error), self._spend)

    def _given(self, arguments: Mapping[str, Json]) -> Json:
        return given(self._member.kind, arguments)

    async def close(self) -> None:
        """See `actors.ports.Adapter`."""


class ShippedAdapter(ToolAdapter):
    """Hosts a function of the shipped pool, without a thread of its own."""

    def _given(self, arguments: Mapping[str, Json]) -> Json:
        tool: Any = getattr(offline, self._member.kind)
        try:
            return tool(**arguments)
        except ValueError as error:
            raise ToolError(f"{type(error).__name__}: {error}") from None


def adapters(episode: Episode, seed: int = 0, sleep: Sleep = asyncio.sleep) -> tuple[Adapter, ...]:
    """An adapter for each worker of an episode's pool, in its order.

    Args:
        episode: The episode.
        seed: Of the faults; the run's id is part of them, too.
        sleep: Waits for so many seconds, by whatever clock.
    """
    every = zip(episode.pool.workers, episode.members, strict=True)
    return tuple(_adapter(spec, member, seed, sleep) for spec, member in every)


def _adapter(spec: WorkerSpec, member: Member, seed: int, sleep: Sleep, luck: str = "") -> Adapter:
    shipped = spec.adapter.startswith(f"{function.KIND}:{offline.PUBLIC}:")
    return (ShippedAdapter if shipped else ToolAdapter)(spec, member, seed, sleep, luck)


class Host:
    """Hosts the workers of some episodes, whichever of them a run has.

    What a lane asks for a worker: ``Host(episodes)(start, spec)``.

    Args:
        episodes: Those whose runs may come.
        seed: See `adapters`.
        sleep: See `adapters`.
        alike: Whether all runs of an episode have the same luck: what differs between them is
            then what was decided, and not which of them met the faults.
    """

    def __init__(
        self,
        episodes: Iterable[Episode],
        seed: int = 0,
        sleep: Sleep = asyncio.sleep,
        *,
        alike: bool = False,
    ) -> None:
        self._episodes = {episode.key: episode for episode in episodes}
        self._seed, self._sleep, self._alike = seed, sleep, alike

    def __call__(self, start: Start, spec: WorkerSpec) -> Adapter:
        """The adapter of a worker of a run. Raises `NotFound` for one of no episode."""
        episode = self._episodes.get(key_of(start.task, start.pool))
        if episode is None:
            raise NotFound(
                f"run {start.run} is of no episode that is hosted here",
                hint="give the host every episode that is run",
            )
        luck = f"{episode.set}/{episode.seed}" if self._alike else ""
        return _adapter(spec, episode.member(spec.name), self._seed, self._sleep, luck)
