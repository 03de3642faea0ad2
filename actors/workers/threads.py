"""Threads for functions that block the one that calls them.

`asyncio.to_thread` would do, but for two things: its threads keep a process from ending while a
user's function hangs in one, and it gives a slot back when the waiting is cancelled although the
function still runs. Here threads are daemons, and a slot is free only when its function is done.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

_withdrawn: Final[contextvars.ContextVar[threading.Event | None]] = contextvars.ContextVar(
    "withdrawn", default=None
)


def cancelled() -> bool:
    """Whether the call that this function works on was withdrawn or ran out of time.

    A thread cannot be stopped from outside: a sync tool that works for long asks this now and then,
    and returns when it is true. Always false in an async tool, which is cancelled instead.
    """
    event = _withdrawn.get()
    return event is not None and event.is_set()


class Threads:
    """At most ``limit`` daemon threads, started as they are needed."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._unfinished = 0

    async def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns, or raises, in a thread of its own.

        Cancelled, it returns at once: a function not yet begun never is; one that runs goes on
        until it ends or asks `cancelled`, and holds its thread till then.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Callable[[], T]] = loop.create_future()
        withdrawn = threading.Event()
        context = contextvars.copy_context()
        context.run(_withdrawn.set, withdrawn)

        def settle(result: Callable[[], T]) -> None:
            if not done.done():
                done.set_result(result)

        def job() -> None:
            if withdrawn.is_set():
                return
            result = context.run(_call, function)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result)

        self._submit(job)
        try:
            result = await done
        finally:
            withdrawn.set()
        return result()

    def close(self) -> None:
        """End the threads that are idle; the others end with their function."""
        with self._lock:
            for _ in range(self._started):
                self._jobs.put(None)

    def _submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._unfinished += 1
            if self._unfinished > self._started and self._started < self._limit:
                self._started += 1
                threading.Thread(
                    target=self._work, name=f"{self._name}-{self._started}", daemon=True
                ).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                with self._lock:
                    self._unfinished -= 1


def _call(function: Callable[[], T]) -> Callable[[], T]:
    """The function's end, as something that returns or raises it again.

    A future cannot hold a StopIteration, and a SystemExit in a future would end the loop.
    """
    try:
        value = function()
    except BaseException as error:
        failed = error

        def again() -> T:
            raise failed

        return again
    return lambda: value
