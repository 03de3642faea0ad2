"""Where golden stories happen: a loop of virtual time, workers, endpoints, and what waits for runs.

Time jumps to whatever is waited for next, so a minute's time-out takes no time and gives the same
log again.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from actors.ports import Attempt, Outcome
from podium.client import Client
from protocol.actions import Spend, WorkerSpec
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View
from protocol.redaction import Redactor
from protocol.secret_forms import EVERYTHING, Redaction
from replay.chain import RunLog
from tests.runs import AT, NUMBER
from tests.world import World

LONG_S: Final = 10**4
"""Virtual seconds that a story may wait for anything: it is over at once, or never."""


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: where nothing is ready, time jumps on."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[Any]:
        """See `selectors`; without a time-out and with nothing ready, nothing will ever happen."""
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("the story stands still: nothing will ever happen")
            self._jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is whatever is waited for next."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self._jump))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def clock(self) -> int:
        """Virtual milliseconds since the epoch."""
        return AT + round(self._now * 1_000)


TOOL: Final = WorkerSpec(name="tool", parameters=NUMBER, attempts=2, timeout_ms=5_000)
AGENT: Final = WorkerSpec(
    name="agent", kind="agent", parameters=NUMBER, reserve=Spend(tokens=50, cost=20), attempts=3
)
CHILD: Final = WorkerSpec(name="below", kind="conductor", attempts=1)
ABSENT: Final = WorkerSpec(name="absent", timeout_ms=3_000, wait_ms=1_000)


class Working:
    """A worker's work: each call takes its time, and may fail."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        """Calls whose first attempt the infrastructure loses."""
        self.broken = True

    async def work(self, attempt: Attempt) -> Outcome:
        n = attempt.arguments.get("n", 0)
        assert isinstance(n, int)
        await asyncio.sleep(n / 10)
        if n == 13 and self.broken:
            raise KeyError("no such article: 13")
        if attempt.call in self.lost and attempt.attempt == 1:
            return Outcome(status="EXEC_ERR", fault="infrastructure", value="the host went away")
        if n == 70:
            return Outcome(value="long " * 14_000)
        return Outcome(value={"n": n, "square": n * n}, spend=Spend(tokens=n, cost=2))


class Endpoint:
    """A policy that has to be waited for, and follows a list of replies."""

    def __init__(self, name: str, replies: list[Reply], dialect: Any = "decision") -> None:
        self.spec = PolicySpec(name=name, dialect=dialect, reserve=Spend(tokens=100, cost=5))
        self._replies: Iterator[Reply] = iter(replies)
        self.after_s = 0.5

    async def ask(self, view: View) -> Reply:
        """See `EndpointPolicy`."""
        await asyncio.sleep(self.after_s)
        return next(self._replies)


def said(*planned: PlannedCall, answer: str | None = None, **more: Any) -> Reply:
    """A reply of an endpoint."""
    return Reply(
        decision=Decision(planned, answer),
        spend=Spend(tokens=30, cost=1),
        latency_ms=500,
        version="story-1",
        **more,
    )


def tool(n: int, **more: Any) -> PlannedCall:
    """A call of the tool."""
    return PlannedCall("tool", {"n": n}, **more)


@asynccontextmanager
async def story_world(loop: VirtualLoop) -> AsyncIterator[World]:
    """A world in virtual time."""
    world = World(lease_s=30.0, look_s=1.0, clock=loop.clock)
    try:
        yield world
    finally:
        await world.close()


def client(world: World, redaction: Redaction = EVERYTHING) -> Client:
    """A user, whose randomness is none, and who hides that."""
    count = iter(range(1, 10**6))
    return Client(
        world.log,
        world.tasks,
        by="ada",
        clock=world.clock,
        randomness=lambda size: (next(count) << 40).to_bytes(8, "big").rjust(size, b"\1")[:size],
        redactor=Redactor(redaction),
    )


async def ended(world: World, run: str) -> RunLog:
    """Wait for a run's end."""
    return await world.ended(run, LONG_S)


async def paused(world: World, run: str) -> RunLog:
    """Wait until a run rests, and its conductor has let go of it."""
    log = await world.until(run, lambda log: log.state().phase == "paused", LONG_S)
    while world.tasks.items:
        await _a_moment()
    return log


async def _a_moment() -> None:
    moment = 0.1
    await asyncio.sleep(moment)


async def begun(world: World, work: Working | None = None) -> Working:
    """The usual workers and a conductor."""
    work = work or Working()
    await world.worker(TOOL, work.work)
    await world.worker(AGENT, work.work)
    await world.conductor()
    return work


# ----------------------------------------------------------------------------------------- stories
