"""Messages that are not stored: over core NATS, and in memory."""

import asyncio
import contextlib
from collections import defaultdict
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from actors.queues import Listener
from replay.broker import Broker
from replay.connection import Heard, inbox

MAX_ANSWERS: Final = 10_000
"""Answers to one question that are collected: more actors than one deployment has."""


_INBOXES: Final = tuple(f"{inbox(user)}." for user in (None, "client", "conductor"))
"""Where answers go: to those who may ask. Anywhere else, whoever asks would write with the
rights of whoever answers."""


class NatsBus:
    """A `Bus` over a `Broker`; its subscriptions end with the connection."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    async def publish(self, subject: str, data: bytes) -> None:
        """See `Bus.publish`."""
        with contextlib.suppress(NatsError, OSError):
            await self.broker.client.publish(subject, data)

    async def listen(self, subject: str, listener: Listener) -> None:
        """See `Bus.listen`."""

        async def heard(message: Msg) -> None:
            answer = await listener(message.data)
            if answer is not None and message.reply.startswith(_INBOXES):
                await self.publish(message.reply, answer)

        await self.broker.client.subscribe(subject, cb=heard)

    async def ask(self, subject: str, data: bytes, within_s: float) -> list[bytes]:
        """See `Bus.ask`."""
        answers: list[bytes] = []

        def answered(message: Heard) -> None:
            if message.data and len(answers) < MAX_ANSWERS:
                answers.append(message.data)

        reply = self.broker.expect(answered, lambda: None, within_s)
        with contextlib.suppress(NatsError, OSError):
            await self.broker.client.publish(subject, data, reply=reply)
        await asyncio.sleep(within_s)
        self.broker.forget(reply)
        return answers


class MemoryBus:
    """A `Bus` within one event loop."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = defaultdict(list)

    async def publish(self, subject: str, data: bytes) -> None:
        """See `Bus.publish`."""
        for listener in list(self._listeners[subject]):
            await listener(data)

    async def listen(self, subject: str, listener: Listener) -> None:
        """See `Bus.listen`."""
        self._listeners[subject].append(listener)

    async def ask(self, subject: str, data: bytes, within_s: float) -> list[bytes]:
        """See `Bus.ask`."""
        answers = [await listener(data) for listener in list(self._listeners[subject])]
        return [answer for answer in answers if answer is not None]
