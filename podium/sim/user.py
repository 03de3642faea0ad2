"""The user of a simulated deployment: submits runs, signals and forks them, has paused ones go on.

It remembers what it was told, beyond its own crashes: what is acknowledged must not be lost.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Final

import msgspec

from podium.client import Client
from podium.sim.scenario import Job, WishKind, made
from protocol.awaited import asked_people
from protocol.budgets import Extension
from protocol.codec import encode
from protocol.errors import Conflict, PodiumError, Usage
from protocol.inbox import Signal, SignalKind
from protocol.state import RunState

AGAIN_S: Final = 0.5
"""Seconds before a person tries again."""

WATCH_S: Final = 4.0
"""Seconds between two looks at runs that don't move."""

MORE: Final = Extension(tokens=10_000, cost=10_000, calls=100, rounds=10)
"""What a run gets that has used up its budget."""


class Forked(msgspec.Struct, frozen=True):
    """A fork that was acknowledged."""

    fork: str
    run: str
    """What it was forked from."""
    at: int
    """The last event that both share."""


class Progress(msgspec.Struct):
    """What the user knows to have been done, whatever became of the process."""

    submitted: set[str] = msgspec.field(default_factory=set)
    given: dict[str, int] = msgspec.field(default_factory=dict)
    """Wishes of each job that were acknowledged, in order."""
    signals: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """Run and id of every acknowledged signal."""
    forks: list[Forked] = msgspec.field(default_factory=list)
    done: set[str] = msgspec.field(default_factory=set)
    """Jobs whose end the user has seen."""


class Script:
    """What the user does.

    Args:
        client: The user's hand on the runs.
        jobs: What is to be done.
        progress: What has been done.
        chance: For where a run is forked.
        going: The runs that have begun and not ended.
    """

    def __init__(
        self,
        client: Client,
        jobs: Sequence[Job],
        progress: Progress,
        chance: random.Random,
        going: Callable[[], Collection[str]],
    ) -> None:
        self.client, self.jobs, self.progress = client, jobs, progress
        self.chance, self.going = chance, going
        self._saying = 0

    @property
    def busy(self) -> bool:
        """Whether something was said that is not acknowledged."""
        return self._saying > 0

    async def run(self) -> None:
        """Do it all."""
        await asyncio.gather(self._operate(), *(self._job(job) for job in self.jobs))

    async def _job(self, job: Job) -> None:
        if job.run not in self.progress.submitted:
            await asyncio.sleep(job.at_ms / 1_000)
            await self._until(lambda: self._submit(job))
            self.progress.submitted.add(job.run)
        while (given := self.progress.given.get(job.run, 0)) < len(job.wishes):
            wish = job.wishes[given]
            await asyncio.sleep(wish.after_ms / 1_000)
            await self._until(partial(self._wish, job.run, wish.kind))
            self.progress.given[job.run] = given + 1
        while job.run not in self.progress.done:
            await asyncio.sleep(WATCH_S)
            await self._until(lambda: self._watch(job.run))

    async def _operate(self) -> None:
        """Have every run go on that was paused, whoever began it."""
        while True:
            await asyncio.sleep(WATCH_S)
            for run in sorted(self.going()):
                try:
                    state = await self.client.state(run)
                    if state.phase == "paused" and state.pause_reason == "person":
                        await self._answer(run, state)
                    elif state.phase == "paused":
                        more = state.pause_reason == "budget"
                        await self._signal(run, "extend" if more else "resume")
                except PodiumError:
                    continue

    async def _until(self, attempt: Callable[[], Awaitable[object]]) -> None:
        """Try until it is acknowledged, or refused for good."""
        self._saying += 1
        while True:
            try:
                await attempt()
            except (Conflict, Usage):  # the run has ended meanwhile
                pass
            except PodiumError:
                await asyncio.sleep(AGAIN_S)
                continue
            self._saying -= 1
            return

    async def _submit(self, job: Job) -> None:
        await self.client.submit(job.task, job.pool, job.policy, job.budget, run=job.run)

    async def _wish(self, run: str, kind: WishKind) -> None:
        if kind == "fork":
            await self._fork(run)
        elif kind == "hedge":
            await self._hedge(run)
        else:
            await self._signal(run, kind)

    async def _answer(self, run: str, state: RunState) -> None:
        """Say for whoever is asked what a worker would have given."""
        for call in asked_people(state):
            given = state.calls[call].call.arguments
            await self.client.answer(run, call, made(str(given["op"]), int(str(given["n"]))))

    async def _hedge(self, run: str) -> None:
        """Have every open call tried a second time."""
        for call in (await self.client.state(run)).open:
            said = f"hedge/{call}"
            wish = Signal(id=said, run=run, kind="hedge", by="a user", call=call)
            await self.client.reader.post(run, encode(wish))
            self.progress.signals.append((run, said))

    async def _signal(self, run: str, kind: SignalKind) -> None:
        more = MORE if kind == "extend" else None
        said = await self.client.signal(run, kind, extension=more)
        self.progress.signals.append((run, said))

    async def _fork(self, run: str) -> None:
        """Fork a run somewhere, while it is still at work; or not at all, if it is too early."""
        events = sum(1 for _ in (await self.client.log(run)).events())
        if events:
            at = self.chance.randint(1, events)
            (fork,) = await self.client.fork(run, at)
            self.progress.forks.append(Forked(fork, run, at))

    async def _watch(self, run: str) -> None:
        """Note a run's end."""
        if (await self.client.state(run)).phase == "ended":
            self.progress.done.add(run)
