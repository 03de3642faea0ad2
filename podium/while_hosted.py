"""Waiting for what a deployment does, for as long as somebody hosts it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from protocol.errors import Unreachable

T = TypeVar("T")


class Mortal(Protocol):
    """What may end while others wait for what it does."""

    async def gone(self) -> None:
        """Return when nobody hosts it any more."""
        ...


async def while_hosted(host: Mortal, work: Coroutine[Any, Any, T], runs: str, hint: str) -> T:
    """The result of ``work``, which waits for what a deployment does.

    The broker lives as long as anybody is connected to it, so the end of whoever does the work is
    heard of in no other way.

    Args:
        host: The deployment.
        work: Cancelled when that has ended.
        runs: What is waited for, in words.
        hint: How that goes on afterwards.

    Raises:
        Unreachable: Nobody hosts it any more.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(host.gone())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        gone.result()
        raise Unreachable(
            f"the deployment has ended, and nobody works on {runs}; nothing of it is lost",
            hint=hint,
        )
    finally:
        left = {each for each in (task, gone) if not each.done()}
        for each in left:
            each.cancel()
        if left:
            await asyncio.wait(left)
