"""The simulator's event loop: virtual time, on which processes live, are killed and frozen.

Every callback belongs to a `Life`, one incarnation of a simulated process, or to nobody (the
network). So a process can be stopped between any two of its callbacks, which is to say at any
await: killed as by kill -9, or frozen as by SIGSTOP.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from actors import virtual
from actors.virtual import Handle, put_down

PRUNE_TASKS: Final = 256
"""Tasks that a process remembers before it forgets those that are done."""


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
        before, loop.owner = loop.owner, self
        put_down(self._tasks)
        loop.owner = before
        self._tasks = []


def _goes_on(life: Life, handle: Handle) -> bool:
    """Whether a process still runs after it was stopped; one that is frozen keeps the callback."""
    if life.alive and life.frozen:
        life.stash(handle)
    return life.alive and not life.frozen


class VirtualLoop(virtual.VirtualLoop):
    """See the module, and `actors.virtual`; a callback's owner is its `Life`, or None."""

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> "asyncio.Task[Any]":
        """See `asyncio`."""
        task = super().create_task(coro, name=name, context=context)
        if self.owner is not None:
            self.owner.add(task)
        return task

    def spawn(self, life: Life, coro: Coroutine[Any, Any, Any], name: str) -> None:
        """Begin a task as a part of a process."""
        before, self.owner = self.owner, life
        self.create_task(coro, name=name)
        self.owner = before

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio would log. A future whose failure nobody asked for is none of our business.

        Tasks retrieve what ends them; what a bare callback raises is kept with its process.
        """
        error = context.get("exception")
        if self.owner is not None and "never retrieved" not in context.get("message", ""):
            self.owner.broken.append(f"{context.get('message')}: {error!r}")

    def _run_ready(self) -> None:
        ready = self._ready
        while ready:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            life: Life | None = handle._owner
            if life is not None and not self._may_run(life, handle):
                continue
            self.steps += 1
            self.owner = life
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
                self.owner = None

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
