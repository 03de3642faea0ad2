"""Sessions: a sandbox for each run, in which what one call leaves is there for the next.

A session can be lost at any time, and whoever calls must hear of it: each call is told what it
began with (`Sessions.call`). What another replica, or this one before it was started again, has
kept is known to nobody here; such a call is told that it began with nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from actors.workers.processes.sandbox_process import Answer, Sandbox

MAX_NOTES: Final = 1_024
"""Lost sessions that are remembered with the reason; of those before it is only known that
nothing is there."""

LOST: Final = {
    "ended": "its interpreter ended",
    "wall": "a call took too long",
    "cpu": "a call used too much CPU",
    "memory": "a call used too much memory",
    "forged": "a call wrote over its own result",
    "restless": "a call left processes that could not be stopped",
}
"""Why a session is gone, by how its last call ended."""


class Late(Exception):
    """The calls of the run that came before took too long."""


class Full(Exception):
    """Every session is at work for another run."""


class _Session:
    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.sandbox: Sandbox | None = None
        self.calls = 0
        """Calls that it has had."""
        self.users = 0
        """Calls that are at work in it, or wait for their turn."""
        self.idle: asyncio.TimerHandle | None = None


class Sessions:
    """The sessions of one worker, by run.

    Args:
        start: Gives a persistent sandbox that nobody has used.
        most: Runs that have one at a time; for another, the one idle for longest is ended.
        idle_s: Seconds without a call after which one is ended.
    """

    def __init__(self, start: Callable[[], Awaitable[Sandbox]], most: int, idle_s: float) -> None:
        self._start, self._most, self._idle_s = start, most, idle_s
        self._open: dict[str, _Session] = {}  # the one idle for longest comes first
        self._lost: dict[str, str] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def call(
        self, run: str, code: str, wall_s: Callable[[], float], latest: float
    ) -> tuple[Answer, str]:
        """Run code in a run's session, after the calls of the run that came before.

        Args:
            run: The run's id.
            code: Python.
            wall_s: Gives the seconds that it may take, once it is its turn.
            latest: The loop's time at which it must have its turn.

        Returns:
            How it ended, and in words what it began with.

        Raises:
            Late: The calls before it took until ``latest``.
            Full: There is no place for the run.
            Refused, OSError: As `Sandbox.start` and `Sandbox.run`.
        """
        session = self._enter(run)
        try:
            try:
                async with asyncio.timeout_at(latest):
                    await session.turn.acquire()
            except TimeoutError:
                raise Late from None
            try:
                return await self._turn(run, session, code, wall_s)
            finally:
                session.turn.release()
        finally:
            self._leave(run, session)

    async def close(self) -> None:
        """End all of them."""
        for run in list(self._open):
            self._end(run, "the worker was stopped")
        while self._ending:
            await asyncio.gather(*self._ending)

    async def _turn(
        self, run: str, session: _Session, code: str, wall_s: Callable[[], float]
    ) -> tuple[Answer, str]:
        if session.sandbox is not None and not session.sandbox.alive:
            await self._drop(run, session, "its process was killed")
        if session.sandbox is None:
            while self._ending:  # else there would be more processes than there are places
                await asyncio.wait(self._ending)
            session.sandbox = await self._start()
        began = self._began(run, session)
        session.calls += 1
        why = "a call was withdrawn or its process was killed"
        try:
            answer = await session.sandbox.run(code, wall_s())
            why = LOST.get(answer.end, "")
        finally:
            if why:
                await self._drop(run, session, why)
        return answer, began

    def _began(self, run: str, session: _Session) -> str:
        lost = self._lost.pop(run, "")
        if session.calls:
            return f"kept: it has had {session.calls} call{'s' * (session.calls > 1)} before"
        if lost:
            return f"lost: {lost}, so this call began without variables and files of those before"
        return "new: this call began without variables and files of any before"

    def _enter(self, run: str) -> _Session:
        """A run's session, its place taken from another if need be."""
        session = self._open.get(run)
        if session is None:
            if len(self._open) >= self._most:
                idle = next((run for run, each in self._open.items() if not each.users), None)
                if idle is None:
                    raise Full
                self._end(idle, "its place was needed for another run")
            session = self._open[run] = _Session()
        session.users += 1
        if session.idle is not None:
            session.idle.cancel()
        return session

    def _leave(self, run: str, session: _Session) -> None:
        session.users -= 1
        if session.users or self._open.get(run) is not session:
            return
        if session.sandbox is None:
            del self._open[run]
            return
        self._open[run] = self._open.pop(run)
        why = f"nobody used it for {self._idle_s:g} seconds"
        session.idle = asyncio.get_running_loop().call_later(self._idle_s, self._end, run, why)

    def _end(self, run: str, why: str) -> None:
        session = self._open.pop(run)
        if session.idle is not None:
            session.idle.cancel()
        task = asyncio.create_task(self._drop(run, session, why))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _drop(self, run: str, session: _Session, why: str) -> None:
        sandbox, session.sandbox, session.calls = session.sandbox, None, 0
        if sandbox is None:
            return
        self._lost.pop(run, None)
        self._lost[run] = why
        if len(self._lost) > MAX_NOTES:
            del self._lost[next(iter(self._lost))]
        await sandbox.close()
