"""The simulated NATS client: as much of nats-py's surface as `replay.broker.Broker` stands on.

What is published waits in a buffer until the process's next step, as in the real client: a process
that is killed in between has said only a part of it. What arrives is handed to a subscription's
callback message by message.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

from nats.errors import ConnectionClosedError

from podium.sim.loop import Life, VirtualLoop
from podium.sim.wire import Headers, Message, Published

if TYPE_CHECKING:
    from podium.sim.server import Server

Callback = Callable[[Any], Awaitable[None]]

MAX_BUFFER: Final = 100_000
"""Messages that a client without a connection keeps; the real one counts bytes."""


class Subscription:
    """Messages of a subject for a callback, one after the other."""

    def __init__(self, client: "Client", subject: str, callback: Callback) -> None:
        self.client, self.subject, self.callback = client, subject, callback
        self.open = True
        self._backlog: deque[Message] = deque()
        self._busy = False

    async def unsubscribe(self) -> None:
        """Hear nothing any more."""
        self.open = False
        self.client.unsubscribed(self)

    def take(self, *messages: Message) -> None:
        """Hand messages to the callback, in order; a step of the process."""
        if not self.open:
            return
        if self._busy:
            self._backlog.extend(messages)
            return
        for number, message in enumerate(messages, 1):
            coroutine: Any = self.callback(message)
            try:
                waits = coroutine.send(None)
            except StopIteration:
                continue
            self._busy = True
            self._backlog.extend(messages[number:])
            asyncio.get_running_loop().create_task(self._finish(coroutine, waits), name="heard")
            return

    async def _finish(self, coroutine: Any, waits: Any) -> None:
        """The rest of a callback that waits for something, then what came meanwhile."""
        try:
            await _Rest(coroutine, waits)
        finally:
            self._busy = False
        waiting, self._backlog = list(self._backlog), deque()
        self.take(*waiting)


class _Rest:
    """A coroutine that has already said what it waits for."""

    def __init__(self, coroutine: Any, waits: Any) -> None:
        self._coroutine, self._waits = coroutine, waits

    def __await__(self) -> Generator[Any, Any, None]:
        waits = self._waits
        while True:
            try:
                got = yield waits
            except BaseException as error:
                step, given = self._coroutine.throw, error
            else:
                step, given = self._coroutine.send, got
            try:
                waits = step(given)
            except StopIteration:
                return


class Client:
    """One connection of one process.

    Args:
        server: The simulated server.
        life: The process.
        loop: The virtual loop.
    """

    def __init__(self, server: "Server", life: Life, loop: VirtualLoop) -> None:
        self.server, self.life, self.loop = server, life, loop
        self.is_closed = False
        self.is_connected = True
        self.listening = True
        """Whether the server still has its subscriptions."""
        self.number = 0
        """Which of all connections that the server has seen it is."""
        self.connection = 1
        """How many connections it has had: what was under way on an earlier one is lost."""
        self.up_at = self.down_at = 0.0
        """When the last message in each direction arrives: none overtakes another."""
        self.reconnected: Callable[[], None] = lambda: None
        self.subscriptions: list[Subscription] = []
        self.buffer: list[Published | Subscription] = []
        self._flushing = False
        self._inboxes = 0

    def new_inbox(self) -> str:
        """A subject that nobody else hears."""
        self._inboxes += 1
        return f"_INBOX.{self.number}-{self._inboxes}"

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Headers | None = None,
    ) -> None:
        """See nats-py."""
        if self.is_closed:
            raise ConnectionClosedError
        self._put(Published(subject, payload, reply, headers))

    async def subscribe(self, subject: str, *, cb: Callback, **_limits: int) -> Subscription:
        """See nats-py."""
        if self.is_closed:
            raise ConnectionClosedError
        subscription = Subscription(self, subject, cb)
        self.subscriptions.append(subscription)
        self._put(subscription)
        return subscription

    def unsubscribed(self, subscription: Subscription) -> None:
        """A subscription hears nothing any more; the server learns of it."""
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
        if not self.is_closed:
            self._put(subscription)

    async def drain(self) -> None:
        """See nats-py."""
        self.flush()
        self.cut()

    async def close(self) -> None:
        """See nats-py."""
        self.cut()

    def cut(self) -> None:
        """Carry nothing any more: closed, or its process is gone."""
        self.is_closed, self.is_connected = True, False
        self.buffer = []
        self.server.gone(self)

    def _put(self, what: Published | Subscription) -> None:
        if len(self.buffer) < MAX_BUFFER:
            self.buffer.append(what)
        if not self._flushing and self.is_connected:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is buffered, if there is a connection."""
        self._flushing = False
        if self.is_connected and self.buffer:
            batch, self.buffer = self.buffer, []
            self.server.sent(self, batch)

    def disconnect(self) -> None:
        """The connection breaks: what was under way on it is lost, what is buffered stays."""
        if not self.is_closed:
            self.connection += 1
            self.is_connected = False
            self.server.gone(self)

    def reconnect(self) -> None:
        """There is a connection again: subscribe again, send what waits, say so."""
        if self.is_closed or self.is_connected:
            return
        self.is_connected = self.listening = True
        waiting = [each for each in self.buffer if isinstance(each, Published)]
        self.buffer = [*self.subscriptions, *waiting]
        self.flush()
        self.reconnected()
