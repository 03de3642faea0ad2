"""Rollouts of a standing deployment: its conductors and workers drive them, we ask and read.

Ids of runs follow from job, group and member, and a run that has begun is never begun again. So a
trainer that was killed asks for the same once more, and finds what has been done meanwhile.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import Future
from contextlib import aclosing
from typing import Final, Protocol

import msgspec

from protocol.actions import Pool
from protocol.budgets import Budget
from protocol.decisions import PolicySpec, Task
from protocol.errors import Busy, Conflict, PodiumError, TimedOut, Unreachable, Usage
from protocol.inbox import SignalKind
from replay.chain import RunLog
from trainer.rollouts.beside import Beside, Connect
from trainer.rollouts.groups import Series, group_of
from trainer.rollouts.reading import Reader, with_all
from trainer.rollouts.source import (
    TELL,
    TIMEOUT_S,
    WHY,
    Ask,
    Ended,
    Group,
    Health,
    last_version,
    paused,
)

logger = logging.getLogger("podium.rollouts")

IN_FLIGHT: Final = 256
"""Runs that are begun and not given yet, if nothing is said: what a step or two of training needs;
more would be of an older policy when they are trained on."""

RETRY_S: Final = 1.0
"""Seconds before a deployment that didn't answer is asked again."""


class Deployment(Reader, Protocol):
    """What has runs done; `podium.Client` is one."""

    def run_of(self, key: str) -> str:
        """The id of the run of a key."""
        ...

    async def submit(
        self,
        task: Task | str,
        pool: Pool,
        policy: PolicySpec,
        budget: Budget | None = None,
        *,
        run: str | None = None,
    ) -> str:
        """Queue a run. The same ``run`` again begins nothing again."""
        ...

    async def signal(self, run: str, kind: SignalKind, by: str = "", reason: str = "") -> str:
        """Say something to a run."""
        ...

    def follow(self, run: str) -> AsyncGenerator[RunLog, None]:
        """A run's log, now and after each change, until it has ended."""
        ...


class LiveSource:
    """Has groups run by a deployment, and gives each when it is closed.

    Args:
        connect: Opens a connection to it, see `beside.Connect`.
        job: What ids are derived from. The same job goes on where it was; another begins anew.
        in_flight: Runs that are begun and not given yet, at most; a larger group comes alone.
        timeout_s: Seconds after which a group is given without those of its runs that go on. They
            are cancelled.
    """

    def __init__(
        self,
        connect: Connect[Deployment],
        job: str,
        *,
        in_flight: int = IN_FLIGHT,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._beside = Beside(connect)
        self._job, self._limit, self._timeout_s = job, in_flight, timeout_s
        self._asks = Series()
        self._open: dict[str, tuple[int, Future[Group]]] = {}
        """By key: how many runs, and what will come of them."""
        self._begun = 0
        self._health = Health()
        self._version = ""

    def start(self) -> None:
        """See `RolloutSource.start`."""
        self._beside.start()

    def ask(self, asks: Iterable[Ask]) -> None:
        """See `AskingSource.ask`."""
        self._asks.add(asks)
        self._fill()

    def poll(self, timeout_s: float) -> list[Group]:
        """See `RolloutSource.poll`."""
        self._fill()
        waiting = [future for _, future in self._open.values()]
        if not waiting:
            return []
        concurrent.futures.wait(waiting, timeout_s, concurrent.futures.FIRST_COMPLETED)
        closed = [key for key, (_, future) in self._open.items() if future.done()]
        groups = [self._taken(key) for key in closed]
        self._fill()
        return groups

    @property
    def done(self) -> bool:
        """See `RolloutSource.done`."""
        return not self._open and not self._asks

    def publish(self, version: str) -> None:
        """See `RolloutSource.publish`.

        Whoever hosts the model sees the version by itself within a second; what comes says by whom
        it was made (`Group.versions`).
        """

    @property
    def version(self) -> str:
        """See `RolloutSource.version`."""
        return self._version

    def health(self) -> Health:
        """See `RolloutSource.health`."""
        return msgspec.structs.replace(
            self._health, waiting=self._asks.series, in_flight=self._begun
        )

    def stop(self) -> None:
        """See `RolloutSource.stop`: a source of the same job finds what goes on."""
        self._beside.stop()

    def _fill(self) -> None:
        while (ask := self._asks.first) is not None:
            if self._begun and self._begun + ask.members > self._limit:
                return
            if ask.key in self._open:
                raise Usage(f"two groups are asked for by the key {ask.key!r}", hint="rename one")
            self._open[ask.key] = ask.members, self._beside.begin(self._work(ask))
            self._begun += ask.members
            self._asks.next()

    def _work(self, ask: Ask) -> "_Work":
        return _Work(ask, self._job, self._timeout_s)

    def _taken(self, key: str) -> Group:
        members, future = self._open.pop(key)
        self._begun -= members
        try:
            group = future.result()
        except PodiumError as error:
            self._health = msgspec.structs.replace(self._health, error=str(error))
            raise
        self._health = self._health.plus(group)
        self._version = last_version((each.rollout for each in group.rollouts), self._version)
        return group


class _Work:
    """One group's runs, from their being asked for to their end."""

    def __init__(self, ask: Ask, job: str, timeout_s: float) -> None:
        self._ask, self._job, self._timeout_s = ask, job, timeout_s

    async def __call__(self, deployment: Deployment) -> Group:
        runs = [deployment.run_of(key) for key in self._ask.keys(self._job)]
        tasks = {run: asyncio.create_task(self._ended(deployment, run)) for run in runs}
        try:
            await asyncio.wait(tasks.values(), timeout=self._timeout_s)
            late = [run for run, task in tasks.items() if not task.done()]
            for run in late:
                await self._give_up(deployment, run)
            found = {run: task.result() if task.done() else None for run, task in tasks.items()}
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return group_of(self._ask.key, found)

    async def _ended(self, deployment: Deployment, run: str) -> Ended | None:
        """What came of a run; None if nobody could begin it."""
        while True:
            try:
                return await self._followed(deployment, run)
            except Conflict as error:  # it was set aside, and the log says why
                logger.warning("%s", error)
                return None
            except (Unreachable, Busy, TimedOut) as error:
                logger.warning("run %s: asked again in %g s: %s", run, RETRY_S, error)
                await asyncio.sleep(RETRY_S)

    async def _followed(self, deployment: Deployment, run: str) -> Ended:
        log = await deployment.log(run)
        if not log.commits:
            ask = self._ask
            await deployment.submit(ask.task, ask.pool, ask.policy, ask.budget, run=run)
        async with aclosing(deployment.follow(run)) as logs:
            async for log in logs:
                state = log.state()
                if state.phase != "paused":
                    continue
                what = paused(log, state)
                if what == "give_up":
                    break
                if what == "tell":
                    await deployment.signal(run, TELL, self._job, WHY)
        return await with_all(deployment, log)

    async def _give_up(self, deployment: Deployment, run: str) -> None:
        """Have a run stopped that its group doesn't wait for."""
        with contextlib.suppress(PodiumError):  # it ends by its budget, too
            why = f"its group was closed after {self._timeout_s:g} s"
            await deployment.signal(run, "cancel", self._job, why)
