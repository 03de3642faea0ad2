"""Many runs, read at the same time: one that can't be read hides no other."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from protocol.errors import UNREAD, PodiumError

_T = TypeVar("_T")

READS_AT_ONCE: Final = 16
"""Runs that are read at the same time for a list: enough to hide the round trips to the broker."""


class Found(NamedTuple, Generic[_T]):
    """What came of many runs."""

    there: list[_T]
    unread: dict[str, PodiumError]
    """The runs that can't be read, and why: what holds them is damaged, of a version that this one
    doesn't know, gone, or not given by the disk."""

    def all(self) -> list[_T]:
        """What is there. Raises what there is to say of the first that can't be read."""
        for error in self.unread.values():
            raise error
        return self.there


async def of_each(runs: Iterable[str], read: Callable[[str], Awaitable[_T | None]]) -> Found[_T]:
    """What is made of each run, in their order.

    Args:
        runs: Their ids.
        read: Reads one; None for one that is of no interest.

    Raises:
        ...: Whatever ``read`` raises and isn't of that one run, such as `Unreachable`.
    """
    gate = asyncio.Semaphore(READS_AT_ONCE)
    unread: dict[str, PodiumError] = {}

    async def one(run: str) -> _T | None:
        async with gate:
            try:
                return await read(run)
            except UNREAD as error:
                unread[run] = error
                return None

    made = await asyncio.gather(*map(one, runs))
    return Found([it for it in made if it is not None], dict(sorted(unread.items())))
