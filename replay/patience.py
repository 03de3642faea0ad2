"""Asking again until somebody answers: what is idempotent may be asked as often as it takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from protocol.errors import Unreachable
from replay.answers import Unanswered
from replay.connection import RECONNECT_S

MAX_PAUSE_S: Final = 2.0
"""Seconds between two tries, at most: as long as one of them may take."""


async def persist(attempt: Callable[[], Awaitable[Any]], within: float, what: str) -> Any:
    """Repeat an idempotent request until it is answered.

    Raises:
        Unreachable: It was not, within so many seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    pause = RECONNECT_S
    while True:
        try:
            return await attempt()
        except Unanswered:
            if loop.time() + pause > deadline:
                raise Unreachable(
                    f"{what}: no answer from the NATS server within {within:g} s",
                    hint="`podium doctor` shows what the server says of itself",
                ) from None
        await asyncio.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_S)
