"""A connection that speaks NATS's wire protocol itself.

A well-behaved library would refuse to send most of what a stranger may say.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Final

from actors.embedded import Role
from tests.broker import One

ANSWER_LIMIT_S: Final = 30.0
"""Seconds for the broker to answer a ping behind a flood."""


class Stranger:
    """A connection that says whatever it is told to, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.accepted: Counter[str] = Counter()
        """Messages that a stream stored, by tag."""
        self.refused: Counter[str] = Counter()
        """Messages that a stream or the broker refused, by tag; ``broker`` for the latter."""
        self.errors: list[bytes] = []
        """What the broker complained of."""
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._pongs = asyncio.Semaphore(0)
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, broker: One, role: Role = "conductor") -> AsyncIterator["Stranger"]:
        """Connect as ``role``; with the conductor's rights by default."""
        host, _, port = broker.url.removeprefix("nats://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        user, password = broker.credentials(role)
        login = {
            "user": user,
            "pass": password,
            "headers": True,
            "verbose": False,
            "pedantic": False,
        }
        stranger = cls(reader, writer)
        await reader.readline()
        writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nSUB said.* 1\r\n")
        stranger._listening = asyncio.create_task(stranger._listen())
        try:
            await stranger.sync()
            yield stranger
        finally:
            stranger._listening.cancel()
            await asyncio.gather(stranger._listening, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def say(
        self, subject: bytes, data: bytes, headers: bytes | None = None, reply: bytes = b""
    ) -> None:
        """Publish; whatever the subject, the headers and the reply subject are."""
        to = subject + b" " + reply if reply else subject
        if headers is None:
            self._writer.write(b"PUB %s %d\r\n%s\r\n" % (to, len(data), data))
        else:
            sizes = (len(headers), len(headers) + len(data))
            self._writer.write(b"HPUB %s %d %d\r\n%s%s\r\n" % (to, *sizes, headers, data))

    def tell(self, tag: str, subject: bytes, data: bytes, headers: bytes | None = None) -> None:
        """Publish to a stream, and count its answer under ``tag``."""
        self._unanswered += 1
        self.say(subject, data, headers, b"said." + tag.encode())

    async def settled(self, left: int = 0) -> None:
        """Return when at most ``left`` of the messages to streams are not answered."""
        await self.sync()
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while self._unanswered > left:
                self._answered.clear()
                await self._answered.wait()

    async def sync(self) -> None:
        """Return when the broker has read all that was said."""
        self._writer.write(b"PING\r\n")
        await self._writer.drain()
        await asyncio.wait_for(self._pongs.acquire(), ANSWER_LIMIT_S)

    async def _listen(self) -> None:
        while line := await self._reader.readline():
            if line.startswith(b"PONG"):
                self._pongs.release()
            elif line.startswith(b"PING"):
                self._writer.write(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                self.refused["broker"] += 1
                self.errors.append(line)
            elif line.startswith((b"MSG", b"HMSG")):
                _, subject, *_, size = line.split()
                data = await self._reader.readexactly(int(size) + 2)
                no = line.startswith(b"HMSG") or b'"error"' in data
                counts = self.refused if no else self.accepted
                counts[subject.decode().removeprefix("said.")] += 1
                self._unanswered -= 1
                self._answered.set()
