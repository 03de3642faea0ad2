"""An event loop on virtual time: nothing waits, and the same start takes the same steps.

Time stands still while callbacks run and jumps to the next timer when none is ready, so a minute of
latency costs what it takes to jump over it. There is no input or output, and no thread: what would
be done in one is done where it is asked for. The simulator (`podium.sim`) and the fast lane of
rollouts run on it; whoever needs a socket needs a real loop.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from typing import Any, Final, NoReturn, cast

SWEEP_TIMERS: Final = 1_024
"""Timers above which those that were cancelled are swept out, when they are half of all: a timer
that is far ahead would otherwise keep what it refers to until its time comes."""

MAX_CLOSINGS: Final = 8
"""Times that a coroutine is closed: one that awaits in a ``finally`` is told again."""


class Handle:
    """A callback that is to run; `asyncio`'s own, with whose it is."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_owner", "_when")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        owner: Any,
    ) -> None:
        self._when, self._callback, self._args = when, callback, args
        self._context, self._owner, self._cancelled = context, owner, False

    def cancel(self) -> None:
        """See `asyncio.Handle.cancel`."""
        self._cancelled = True
        self._args = ()

    def cancelled(self) -> bool:
        """See `asyncio.Handle.cancelled`."""
        return self._cancelled

    def when(self) -> float:
        """See `asyncio.TimerHandle.when`."""
        return self._when


class VirtualLoop:
    """See the module. The methods are those of `asyncio`'s loops that code without I/O needs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.owner: Any = None
        """Whose callback is running: what it has called later is its owner's, too."""
        self.steps = 0
        """Callbacks run so far."""
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._sweep_at = SWEEP_TIMERS
        self._order = 0
        self._running = False
        self.as_asyncio = cast(asyncio.AbstractEventLoop, self)
        """Itself, as asyncio's functions take it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"an event loop on virtual time has no {name!r}: nothing is read, written or waited "
            "for outside of it"
        )

    # ------------------------------------------------------------------------------------ callbacks

    @property
    def ready(self) -> bool:
        """Whether a callback is to run before time moves."""
        return bool(self._ready)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """See `asyncio`."""
        handle = Handle(self.now, callback, args, context or copy_context(), self.owner)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """See `asyncio`: between two runs, too, since there is one thread only."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        """See `asyncio`."""
        handle = Handle(when, callback, args, context or copy_context(), self.owner)
        self._push(handle)
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

    def post(self, when: float, owner: Any, callback: Callable[..., object], *args: Any) -> None:
        """Have something happen to somebody, or to nobody, at a time."""
        self._push(Handle(when, callback, args, None, owner))

    def again(self, handles: list[Handle]) -> None:
        """Run callbacks whose time has come before."""
        self._ready.extend(handles)

    def _push(self, handle: Handle) -> None:
        self._order += 1
        heapq.heappush(self._timers, (handle._when, self._order, handle))
        if len(self._timers) > self._sweep_at:
            self._timers = [each for each in self._timers if not each[2]._cancelled]
            heapq.heapify(self._timers)
            self._sweep_at = 2 * len(self._timers) + SWEEP_TIMERS

    # ---------------------------------------------------------------------------- futures and tasks

    def create_future(self) -> "asyncio.Future[Any]":
        """See `asyncio`."""
        return asyncio.Future(loop=self.as_asyncio)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> "asyncio.Task[Any]":
        """See `asyncio`."""
        return asyncio.Task(coro, loop=self.as_asyncio, name=name or "task", context=context)

    def run_in_executor(
        self, _executor: object, work: Callable[..., object], *args: object
    ) -> "asyncio.Future[Any]":
        """There is no thread: the work is done here, and what came of it is known a step later."""
        future = self.create_future()

        def done() -> None:
            if future.cancelled():
                return
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
        """What asyncio would log: a failure that nobody asked for is told to nobody."""

    # ---------------------------------------------------------------------------------------- steps

    def run(self, done: Callable[[], bool], until: float) -> bool:
        """Run until ``done()``, asked each time no callback is ready, or until a time has come.

        Returns:
            Whether it is done; also False when nothing would ever happen again.
        """
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.as_asyncio)
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
            asyncio._set_running_loop(before)

    def _run_ready(self) -> None:
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            self.steps += 1
            self.owner = handle._owner
            try:
                if handle._context is None:
                    handle._callback(*handle._args)
                else:
                    handle._context.run(handle._callback, *handle._args)
            finally:
                self.owner = None

    def close(self) -> None:
        """Forget everything."""
        self._ready.clear()
        self._timers.clear()


def put_down(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """End tasks where they stand, whose loop goes on without them.

    Their coroutines are closed so that they can be collected; what comes of their ``finally``
    blocks is nobody's concern.
    """
    for task in tasks:
        if not task.done():
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _close(task.get_coro())


def _close(coroutine: Any) -> None:
    for _ in range(MAX_CLOSINGS):
        try:
            coroutine.close()
        except RuntimeError:  # it awaits while it is told to stop
            continue
        except Exception:  # what a finally block does without its loop
            pass
        return
