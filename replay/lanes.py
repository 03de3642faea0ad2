"""What waits to be appended, stream by stream: an atomic batch can't span two."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final

MAX_GROUP: Final = 400
"""Appends of one atomic batch; the server takes 1000."""

MAX_GROUP_BYTES: Final = 4_194_304
"""Bytes of one atomic batch: bounds what the server holds in staging."""


class Append:
    """One append, and who waits for it."""

    __slots__ = ("data", "expected", "future", "headers", "subject")

    def __init__(
        self,
        subject: str,
        data: bytes,
        expected: int | None,
        future: "asyncio.Future[int]",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.subject, self.data, self.expected, self.future = subject, data, expected, future
        self.headers = headers


class Lane:
    """The appends to one stream: an atomic batch can't span two."""

    __slots__ = ("groups", "queue", "singles")

    def __init__(self) -> None:
        self.queue: deque[Append] = deque()
        self.groups = 0
        """Batches under way."""
        self.singles = 0
        """Appends under way that are in none."""

    def take_group(self) -> list[Append]:
        """The next members of a batch."""
        group: list[Append] = []
        size = 0
        while self.queue and len(group) < MAX_GROUP and size < MAX_GROUP_BYTES:
            size += len(self.queue[0].data)
            group.append(self.queue.popleft())
        return group
