"""A connection that lives in a thread of its own, used from a thread that has no event loop.

A trainer computes for minutes at a time; whatever keeps a connection alive must not wait for that.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from protocol.errors import Usage

_C = TypeVar("_C")
_T = TypeVar("_T")

Connect = Callable[[], AbstractAsyncContextManager[_C]]
"""Opens a connection, such as ``lambda: podium.connect(config)``; called in that thread's loop."""


class Beside(Generic[_C]):
    """Holds a connection.

    Args:
        connect: See `Connect`.
    """

    def __init__(self, connect: Connect[_C]) -> None:
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._opened: Future[_C] = Future()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)

    def start(self) -> None:
        """Open it. Raises whatever keeps it from being opened."""
        self._thread.start()
        self._opened.result()

    def stop(self) -> None:
        """Close it, and end what is still under way."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def begin(self, work: Callable[[_C], Coroutine[Any, Any, _T]]) -> "Future[_T]":
        """Have something done with the connection, and don't wait for it."""
        if self._loop is None or not self._thread.is_alive():
            raise Usage("this source is not started, or has stopped", hint="call start() first")
        return asyncio.run_coroutine_threadsafe(self._done(work), self._loop)

    def do(self, work: Callable[[_C], Coroutine[Any, Any, _T]]) -> _T:
        """What comes of something done with the connection."""
        return self.begin(work).result()

    async def _done(self, work: Callable[[_C], Coroutine[Any, Any, _T]]) -> _T:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            return await work(self._opened.result())
        finally:
            self._under_way.discard(task)

    def _run(self) -> None:
        try:
            asyncio.run(self._hold())
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)  # told to whoever opens it

    async def _hold(self) -> None:
        self._stopping = asyncio.Event()
        async with self._connect() as connection:
            self._loop = asyncio.get_running_loop()
            self._opened.set_result(connection)
            await self._stopping.wait()
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
