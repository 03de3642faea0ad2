"""The simulated server's connections: who hears which subject, and when each message arrives."""

import random
from abc import ABC, abstractmethod
from typing import Final

from podium.sim.client import Client, Subscription
from podium.sim.loop import VirtualLoop
from podium.sim.wire import Headers, Message, Network, Published, Request

FASTEST_S: Final = 0.0002
"""Seconds that a message takes, one way, at least."""

SPREAD_S: Final = 0.002
"""Seconds that it may take longer."""


class Switchboard(ABC):
    """Clients, their subscriptions, and the messages between them.

    Args:
        loop: The virtual loop.
        chance: For delays.
        network: What becomes of each message.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random, network: Network) -> None:
        self.loop, self.chance, self.network = loop, chance, network
        self._connections = 0
        self._clients: list[Client] = []
        self._exact: dict[str, list[Subscription]] = {}
        self._below: dict[str, list[Subscription]] = {}

    @abstractmethod
    def received(self, client: Client, said: Published) -> None:
        """A message has come from a client."""

    def connect(self, client: Client) -> None:
        """Take a connection, and give it a number of its own."""
        self._clients.append(client)
        self._connections += 1
        client.number = self._connections

    def disconnect_all(self) -> list[Client]:
        """End every connection; who was connected."""
        clients = list(self._clients)
        for client in clients:
            client.disconnect()
        return clients

    def delay(self) -> float:
        """Seconds until a message arrives."""
        return FASTEST_S + SPREAD_S * self.chance.random() ** 4

    def sent(self, client: Client, batch: list[Published | Subscription]) -> None:
        """A client has sent something."""
        client.up_at = max(client.up_at, self.loop.now + self.delay())
        self.loop.post(client.up_at, None, self._arrived, client, client.connection, batch)

    def _arrived(
        self, client: Client, connection: int, batch: list[Published | Subscription]
    ) -> None:
        if connection != client.connection:
            return
        for each in batch:
            if isinstance(each, Subscription):
                self._subscribe(each)
            else:
                self.received(client, each)

    def _subscribe(self, subscription: Subscription) -> None:
        table, key = self._exact, subscription.subject
        if key.endswith(".*"):
            table, key = self._below, key[:-2]
        there = table.setdefault(key, [])
        if not subscription.open:
            if subscription in there:
                there.remove(subscription)
            if not there:
                del table[key]
        elif subscription.client.listening and subscription not in there:
            there.append(subscription)

    def gone(self, client: Client) -> None:
        """A connection has ended: nothing is delivered on it any more."""
        client.listening = False
        for table in (self._exact, self._below):
            for key in [
                key for key, there in table.items() if any(s.client is client for s in there)
            ]:
                table[key] = [each for each in table[key] if each.client is not client]
                if not table[key]:
                    del table[key]
        if client.is_closed and client in self._clients:
            self._clients.remove(client)

    def heard(self, subject: str) -> list[Subscription]:
        """Who hears a subject."""
        found = self._exact.get(subject, ())
        below = self._below.get(subject.rpartition(".")[0], ())
        return [*found, *below]

    def say(
        self,
        subject: str,
        data: bytes,
        headers: Headers | None = None,
        *,
        reply: str = "",
        at: str = "",
    ) -> int:
        """Deliver a message to whoever hears the subject; how many do.

        Args:
            subject: Who hears it.
            data: The bytes.
            headers: Its headers.
            reply: Where an answer goes.
            at: The subject that the message carries, if another.
        """
        heard = self.heard(subject)
        for subscription in heard:
            self.deliver(subscription, Message(at or subject, data, reply, headers))
        return len(heard)

    def deliver(self, subscription: Subscription, *messages: Message) -> None:
        """Send messages to one subscription."""
        client = subscription.client
        for late_s in self.network.outward(client, messages[0]):
            when = self.loop.now + self.delay()
            if late_s:
                when += late_s
            else:
                when = client.down_at = max(client.down_at, when)
            self.loop.post(
                when, client.life, self._delivered, client.connection, subscription, messages
            )

    @staticmethod
    def _delivered(connection: int, on: Subscription, messages: tuple[Message, ...]) -> None:
        if connection == on.client.connection:
            on.take(*messages)

    def answer(self, request: Request, data: bytes, headers: Headers | None = None) -> None:
        """Answer a request."""
        if request.reply and not request.silent:
            self.say(request.reply, data, headers)
