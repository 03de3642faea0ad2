"""An event loop on virtual time: nothing waits, and the same seed takes the same steps.

Time stands still while callbacks run and jumps to the next timer when none is ready. Every callback
belongs to a `Life`, one incarnation of a simulated process, or to nobody (the network). So a
process can be stopped between any two of its callbacks, which is to say at any await: killed as by
kill -9, or frozen as by SIGSTOP. There is no input or output, and no thread.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, cast

MAX_CLOSINGS: Final = 8
"""Times that a killed coroutine is closed: one that awaits in a ``finally`` is told again."""

PRUNE_TASKS: Final = 256
"""Tasks that a process remembers before it forgets those that are done."""


class Handle:
    """A callback that is to run; `asyncio`'s own, with the process that it belongs to."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_life", "_when")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        life: "Life | None",
    ) -> None:
        self._when, self._callback, self._args = when, callback, args
        self._context, self._life, self._cancelled = context, life, False

    def cancel(self) -> None:
        """See `asyncio.Handle.cancel`."""
        self._cancelled = True

    def cancelled(self) -> bool:
        """See `asyncio.Handle.cancelled`."""
        return self._cancelled

    def when(self) -> float:
        """See `asyncio.TimerHandle.when`."""
        return self._when


class Life:
    """One incarnation of a process: what it has running, and when it is to be stopped.

    Args:
        name: Whose it is.
        steps: Steps that the process took in the lives before this one.
        stop_at: The step before which ``stop`` is called; 0 for none.
        stop: Called with the life; it may kill or freeze it, and sets the next ``stop_at``.
    """

    def __init__(self, name: str, steps: int, stop_at: int, stop: Callable[["Life"], None]) -> None:
        self.name, self.steps, self.stop_at, self.stop = name, steps, stop_at, stop
        self.alive = True
        self.frozen = False
        self.counts: Callable[[], bool] = lambda: True
        """Whether the next step counts: not while it only waits, with nothing in hand to lose."""
        self.broken: list[str] = []
        """What went wrong in callbacks and was nobody's to catch."""
        self._stash: list[Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = PRUNE_TASKS

    def add(self, task: "asyncio.Task[Any]") -> None:
        """Remember a task, to take it down with the process."""
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = 2 * len(self._tasks) + PRUNE_TASKS

    def stash(self, handle: Handle) -> None:
        """Keep a callback until the process is thawed."""
        self._stash.append(handle)

    def thaw(self, loop: "VirtualLoop") -> None:
        """Go on after a freeze."""
        self.frozen = False
        if self.alive:
            loop.again(self._stash)
        self._stash = []

    def kill(self, loop: "VirtualLoop") -> None:
        """End the process where it stands.

        Its coroutines are closed so that they can be collected; whatever their ``finally`` blocks
        do, they do with a life that has ended: no callback of theirs ever runs.
        """
        self.alive = False
        self._stash = []
        before, loop.life = loop.life, self
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        loop.life = before
        self._tasks = []


def _goes_on(life: Life, handle: Handle) -> bool:
    """Whether a process still runs after it was stopped; one that is frozen keeps the callback."""
    if life.alive and life.frozen:
        life.stash(handle)
    return life.alive and not life.frozen


def _close(coroutine: Any) -> None:
    for _ in range(MAX_CLOSINGS):
        try:
            coroutine.close()
        except RuntimeError:  # it awaits while it is told to stop
            continue
        except Exception:  # what a finally block does without its process is nobody's concern
            pass
        return


class VirtualLoop:
    """See the module. The methods are those of `asyncio`'s loops that code without I/O needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.life: Life | None = None
        """Whose callback is running."""
        self.steps = 0
        """Callbacks run so far, those of the network included."""
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._order = 0
        self._running = False
        self._asyncio = cast(asyncio.AbstractEventLoop, self)
        """Itself, as asyncio's functions take it."""

    # ------------------------------------------------------------------------------------ callbacks

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """See `asyncio`."""
        handle = Handle(self.now, callback, args, context or copy_context(), self.life)
        self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        """See `asyncio`."""
        handle = Handle(when, callback, args, context or copy_context(), self.life)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        """See `asyncio`."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def post(
        self, when: float, life: Life | None, callback: Callable[..., object], *args: Any
    ) -> None:
        """Have something happen to a process, or to nobody, at a time."""
        self._order += 1
        handle = Handle(when, callback, args, None, life)
        heapq.heappush(self._timers, (when, self._order, handle))

    def again(self, handles: list[Handle]) -> None:
        """Run callbacks whose time came while their process was frozen."""
        self._ready.extend(handles)

    # ---------------------------------------------------------------------------- futures and tasks

    def create_future(self) -> "asyncio.Future[Any]":
        """See `asyncio`."""
        return asyncio.Future(loop=self._asyncio)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> "asyncio.Task[Any]":
        """See `asyncio`."""
        task = asyncio.Task(coro, loop=self._asyncio, name=name or "task", context=context)
        if self.life is not None:
            self.life.add(task)
        return task

    def spawn(self, life: Life, coro: Coroutine[Any, Any, Any], name: str) -> None:
        """Begin a task as a part of a process."""
        before, self.life = self.life, life
        self.create_task(coro, name=name)
        self.life = before

    def run_in_executor(
        self, _executor: object, work: Callable[..., object], *args: object
    ) -> "asyncio.Future[Any]":
        """There is no thread: the work is done here, and what came of it is known a step later."""
        future = self.create_future()

        def done() -> None:
            try:
                future.set_result(work(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_soon(done)
        return future

    def get_debug(self) -> bool:
        """See `asyncio`."""
        return False

    def is_running(self) -> bool:
        """See `asyncio`."""
        return self._running

    def is_closed(self) -> bool:
        """See `asyncio`."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio would log. A future whose failure nobody asked for is none of our business.

        Tasks retrieve what ends them; what a bare callback raises is kept with its process.
        """
        error = context.get("exception")
        if self.life is not None and "never retrieved" not in context.get("message", ""):
            self.life.broken.append(f"{context.get('message')}: {error!r}")

    # ---------------------------------------------------------------------------------------- steps

    def run(self, done: Callable[[], bool], until: float) -> bool:
        """Run until ``done()``, asked each time the clock moves, or until a time has come.

        Returns:
            Whether it is done; also False when nothing would ever happen again.
        """
        asyncio._set_running_loop(self._asyncio)
        self._running = True
        try:
            while True:
                self._run_ready()
                if done():
                    return True
                timers = self._timers
                while timers and timers[0][2]._cancelled:
                    heapq.heappop(timers)
                if not timers or timers[0][0] > until:
                    return False
                self.now = max(self.now, timers[0][0])
                while timers and timers[0][0] <= self.now:
                    self._ready.append(heapq.heappop(timers)[2])
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def _run_ready(self) -> None:
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            life = handle._life
            if life is not None and not self._may_run(life, handle):
                continue
            self.steps += 1
            self.life = life
            try:
                if handle._context is None:
                    handle._callback(*handle._args)
                else:
                    handle._context.run(handle._callback, *handle._args)
            except Exception as error:
                if life is None:
                    raise
                self.call_exception_handler({"message": "a callback raised", "exception": error})
            finally:
                self.life = None

    @staticmethod
    def _may_run(life: Life, handle: Handle) -> bool:
        """Count a step of a process; False if it doesn't come to it any more."""
        if not life.alive:
            return False
        if life.frozen:
            life.stash(handle)
            return False
        if not life.stop_at or not life.counts():
            return True
        life.steps += 1
        if life.steps == life.stop_at:
            life.stop(life)
            return _goes_on(life, handle)
        return True

    def close(self) -> None:
        """Forget everything."""
        self._ready.clear()
        self._timers.clear()
