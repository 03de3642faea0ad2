"""Sandboxed Python for tests: calls of it, and what of it is seen from the host."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import psutil
import pytest

from actors.ports import Attempt, Outcome
from actors.workers import PythonAdapter, draft, isolation

LIMIT_S: Final = 20.0
"""Seconds after which a test that waits for something gives up."""

WHOLE: Final = 3 if isolation().level == "namespaces" else 2
"""Processes of a sandbox whose code has started none: the warden, init if there is one, it."""

walls = pytest.mark.skipif(
    isolation().level != "namespaces", reason=f"no isolation here: {isolation().reason}"
)
"""Marks what only namespaces keep."""


def attempt(code: str, timeout_s: float = LIMIT_S, run: str = "r") -> Attempt:
    return Attempt(run=run, call="1-0", attempt=1, arguments={"code": code}, timeout_s=timeout_s)


def families(before: set[psutil.Process]) -> list[list[psutil.Process]]:
    """The processes of each sandbox that is locked in, its warden first.

    Args:
        before: Children of ours that are none.
    """
    found = []
    for warden in set(psutil.Process().children()) - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append([warden, *warden.children(recursive=True)])
    return [family for family in found if len(family) >= WHOLE]


async def locked_in(number: int, before: set[psutil.Process]) -> list[list[psutil.Process]]:
    """Wait until so many sandboxes are locked in, at work or warm."""
    async with asyncio.timeout(LIMIT_S):
        while len(found := families(before)) != number:
            await asyncio.sleep(0)
            found = families(before)
    return found


async def warm(adapter: PythonAdapter, number: int) -> None:
    """Wait until so many of a worker's sandboxes wait for a call."""
    async with asyncio.timeout(LIMIT_S):
        waiting = -1
        while waiting != number:
            await asyncio.sleep(0)
            waiting = adapter.warm.waiting


@asynccontextmanager
async def sandbox(**options: Any) -> AsyncIterator[PythonAdapter]:
    """A worker with these options; nothing of it is left in the end."""
    before = set(psutil.Process().children(recursive=True))
    adapter = PythonAdapter(draft("python", {"isolation": isolation().level, **options}))
    try:
        yield adapter
    finally:
        await adapter.close()
    assert set(psutil.Process().children(recursive=True)) <= before


def ran(code: str, timeout_s: float = LIMIT_S, **options: Any) -> Outcome:
    """The outcome of one call of a worker that has no other."""

    async def once() -> Outcome:
        async with sandbox(warm=0, **options) as adapter:
            return await adapter.run(attempt(code, timeout_s))

    return asyncio.run(once())
