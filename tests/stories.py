"""Small stories of runs: a policy of rounds, work that waits for a sign, and what a log shows."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from actors.ports import Attempt, Outcome
from actors.waking import queue_again
from protocol.actions import WorkerSpec
from protocol.codec import encode
from protocol.decisions import Decision, View
from protocol.events import CallSettled
from protocol.inbox import Signal, SignalKind
from replay.chain import RunLog
from tests.faults import WITHIN_S
from tests.world import World, calls

TOOL: Final = WorkerSpec(name="tool", concurrency=64)

LEASE_S: Final = 0.5
"""Seconds. Long enough for a busy machine to keep it, short enough to wait for."""


def rounds_of(count: int) -> Callable[[View], Decision]:
    """A policy of so many rounds of one call, and the answer."""

    def decide(view: View) -> Decision:
        if view.final or len(view.turns) >= count:
            good = sum(o.status == "OK" for turn in view.turns for o in turn.observations)
            return Decision(answer=f"{good} of {len(view.turns)}")
        return calls(("tool", {"round": len(view.turns)}))

    return decide


class Gate:
    """Work that says that it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Attempt] = asyncio.Queue()
        self.open = asyncio.Event()
        self.cancelled: list[str] = []
        self.count = 0

    async def work(self, attempt: Attempt) -> Outcome:
        self.count += 1
        self.begun.put_nowait(attempt)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(attempt.call)
            raise
        return Outcome(value=attempt.call)

    async def next(self) -> Attempt:
        async with asyncio.timeout(WITHIN_S):
            return await self.begun.get()


async def at_once(attempt: Attempt) -> Outcome:
    return Outcome(value=attempt.call)


def events(log: RunLog, kind: type) -> list[object]:
    return [event for commit in log.commits for event in commit.events if isinstance(event, kind)]


def one_report_counts(log: RunLog) -> bool:
    """Whether each call has settled once, and no report counts twice."""
    settled = [e for e in events(log, CallSettled) if isinstance(e, CallSettled)]
    reports = [e.report for e in settled if e.report]
    once = len({e.call for e in settled}) == len(settled)
    return once and len(set(reports)) == len(reports)


def epoch(number: int) -> Callable[[RunLog], bool]:
    return lambda log: log.head.epoch >= number


def wish(run: str, kind: SignalKind) -> bytes:
    """A signal, each a new one."""
    return encode(Signal(id=f"{kind}{time.monotonic_ns()}", run=run, kind=kind, by="ada"))


async def signalled(world: World, run: str, kind: SignalKind, *, queue: bool = False) -> None:
    """Say something to a run; and have it queued again where it holds no task."""
    await world.log.post(run, wish(run, kind))
    if queue:
        assert await queue_again(world.log, world.tasks, run)


async def empty(world: World) -> None:
    """Wait until no task is queued or in flight."""
    async with asyncio.timeout(WITHIN_S):
        while world.tasks.items:
            await a_moment()


async def a_moment() -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


def is_paused(log: RunLog) -> bool:
    return log.state().phase == "paused"
