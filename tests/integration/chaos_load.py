"""Runs kept in flight while processes are killed, and a witness who hears what is appended."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import msgspec
from nats.aio.msg import Msg

from podium.host import Host
from protocol.actions import Pool, Report
from protocol.budgets import Budget
from protocol.codec import decode_commit, decode_message
from protocol.commands import Start
from protocol.errors import InvalidData, Unreachable
from protocol.events import AttemptStarted, CallSettled, RunFailed, RunFinished, RunPaused
from tests.broker import settled
from tests.integration import chaos_pool

BUDGET: Final = Budget(rounds=1_000, calls=10_000, wall_ms=3_600_000)
"""Never reached: a limit would change answers."""

SILENCE_S: Final = 10.0
"""Seconds without a word of a run after which its log is looked at: hints may be lost."""


class Asked(msgspec.Struct, frozen=True):
    """A run that was submitted, and what it must answer."""

    run: str
    n: int
    rounds: int
    child: bool

    @property
    def answer(self) -> str:
        """The answer of an undisturbed execution."""
        return str(chaos_pool.expected(self.n, self.rounds, self.child))


class Witness:
    """Counts what is appended to any run's log, as the broker republishes it."""

    def __init__(self) -> None:
        self.commits = 0
        self.reports: dict[str, int] = {}
        """By replica."""
        self.started = 0
        self.settled = 0
        self.ended: set[str] = set()
        self.paused: dict[str, str] = {}
        """Why; a run of these tests has no reason to be paused."""
        self.heard: dict[str, float] = {}
        """When a run was last heard of, on the monotonic clock."""
        self._changed = asyncio.Condition()

    async def listen(self, host: Host) -> None:
        """Hear every run."""
        await host.broker.client.subscribe("hint.*.c", cb=self._commit)
        await host.broker.client.subscribe("hint.*.i", cb=self._message)
        await settled(host.broker.client)

    async def _commit(self, message: Msg) -> None:
        with contextlib.suppress(InvalidData):
            commit = decode_commit(message.data)
            self.commits += 1
            self.heard[commit.run] = time.monotonic()
            for event in commit.events:
                match event:
                    case AttemptStarted():
                        self.started += 1
                    case CallSettled():
                        self.settled += 1
                    case RunFinished() | RunFailed():
                        self.ended.add(commit.run)
                    case RunPaused():
                        self.paused[commit.run] = f"{event.reason}: {event.detail}"
            await self.tell()

    async def _message(self, message: Msg) -> None:
        with contextlib.suppress(InvalidData):
            said = decode_message(message.data)
            if isinstance(said, Report) and said.by:
                self.reports[said.by] = self.reports.get(said.by, 0) + 1
            await self.tell()

    async def tell(self) -> None:
        """Have everybody who waits look again."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, fits: Callable[[], bool], what: str, limit_s: float) -> None:
        """Wait for something to be heard."""
        try:
            async with asyncio.timeout(limit_s), self._changed:
                await self._changed.wait_for(fits)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {limit_s:g} s") from None

    async def works(self, replicas: list[str], limit_s: float) -> None:
        """Wait until the whole path has worked once more, from now on.

        Every replica has reported, a call was settled and another one started.
        """
        before, started, settled = dict(self.reports), self.started, self.settled

        def fits() -> bool:
            reported = all(self.reports.get(each, 0) > before.get(each, 0) for each in replicas)
            return reported and self.started > started and self.settled > settled

        await self.until(fits, "calls are started, made and settled again", limit_s)

    async def moments(self, count: int, limit_s: float) -> None:
        """Wait for so many further commits: a moment that depends on no clock."""
        until = self.commits + count
        await self.until(lambda: self.commits >= until, f"{count} further commits", limit_s)


class Load:
    """Keeps so many runs in flight."""

    def __init__(self, host: Host, witness: Witness, pool: Pool, rounds: tuple[int, ...]) -> None:
        self.host, self.witness, self.pool, self.rounds = host, witness, pool, rounds
        self.asked: dict[str, Asked] = {}
        self.replacing = True
        self._flying: set[str] = set()

    async def begin(self, count: int) -> None:
        """Submit so many runs."""
        await asyncio.gather(*(self._submit() for _ in range(count)))

    async def _submit(self) -> None:
        number = len(self.asked)
        rounds = self.rounds[number % len(self.rounds)]
        asked = Asked(self.host.client.new_run(), 1_000 + number, rounds, number % 8 == 0)
        self.asked[asked.run] = asked
        self._flying.add(asked.run)
        task = chaos_pool.task(asked.n, asked.rounds, asked.child)
        while True:
            with contextlib.suppress(Unreachable):  # submitting again begins nothing again
                await self.host.client.submit(
                    task, self.pool, chaos_pool.POLICY, BUDGET, run=asked.run
                )
                self.witness.heard[asked.run] = time.monotonic()
                return

    async def refill(self) -> None:
        """Replace the runs that have ended, until cancelled or told to stop replacing."""
        while self.replacing:
            await self.witness.until(
                lambda: not self.replacing or bool(self._flying & self.witness.ended),
                "a run ends",
                300,
            )
            over = self._flying & self.witness.ended
            self._flying -= over
            if self.replacing:
                await asyncio.gather(*(self._submit() for _ in over))

    async def stop_replacing(self) -> None:
        """Let the runs in flight be the last."""
        self.replacing = False
        await self.witness.tell()

    async def all_ended(self, limit_s: float) -> None:
        """Wait for every run's end."""
        deadline = time.monotonic() + limit_s
        while left := set(self.asked) - self.witness.ended:
            assert time.monotonic() < deadline, (
                f"{len(left)} of {len(self.asked)} runs did not end within {limit_s:g} s; "
                f"paused: {self.witness.paused}; some: {sorted(left)[:5]}"
            )
            with contextlib.suppress(AssertionError):
                await self.witness.until(lambda: not left - self.witness.ended, "all end", 5)
            for run in left - self.witness.ended:
                silent = time.monotonic() - self.witness.heard.get(run, 0.0)
                if silent > SILENCE_S and (await self.host.client.state(run)).phase == "ended":
                    self.witness.ended.add(run)

    def as_start(self, asked: Asked) -> Start:
        """The task message of a run."""
        task = chaos_pool.task(asked.n, asked.rounds, asked.child)
        return Start(
            run=asked.run, task=task, pool=self.pool, policy=chaos_pool.POLICY, budget=BUDGET
        )
