"""The work queues, as ports: tasks for conductors, calls for workers.

A queue says a thing once: it keeps one message per subject and refuses a second while one is queued
or in flight. What is not acknowledged within its lease is delivered again, to anybody.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple, Protocol


class Delivery(Protocol):
    """A message in flight to this process. Its verbs are sent without waiting for an answer."""

    data: bytes
    subject: str
    delivered: int
    """How many times it has been delivered, this time included."""

    def header(self, name: str) -> str:
        """What travels beside the message, such as ``traceparent``; anybody may have written it.

        Empty if there is none of that name.
        """
        ...

    async def ack(self) -> None:
        """Done: take it out of the queue."""
        ...

    async def nak(self, delay_s: float = 0.0) -> None:
        """Not by me: deliver it again, after so many seconds."""
        ...

    async def progress(self) -> None:
        """Still at it: begin the lease anew."""
        ...


class Puller(Protocol):
    """A standing demand for messages."""

    def want(self) -> None:
        """Look at the capacity again: a place has become free."""
        ...

    async def close(self) -> None:
        """Demand nothing any more. What has been delivered stays with whoever has it.

        What is queued after that goes to others at once, as far as the queue can be reached.
        """
        ...


class Outgoing(NamedTuple):
    """A message that is about to be queued."""

    subject: str
    data: bytes
    ttl_s: float
    """Seconds after which it is dropped undelivered."""
    headers: Mapping[str, str] = {}


class Queue(Protocol):
    """One work queue."""

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Queue a message, durably. Returns False if that subject has one already.

        Raises:
            Unreachable: No answer in time; putting it again is safe.
            Busy: The queue is full.
        """
        ...

    async def waits(self, subject: str) -> bool:
        """Whether a message stands under a subject that was delivered to nobody yet.

        Raises:
            Unreachable: No answer in time.
        """
        ...

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """Queue messages, and don't wait to hear whether they arrived.

        For what is looked after anyway.
        """
        ...

    async def withdraw(self, subject: str) -> None:
        """Take out whatever stands under a subject (wildcards allowed), queued or in flight."""
        ...

    async def pull(
        self,
        consumers: Iterable[str],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> Puller:
        """Have messages delivered as long as there is capacity.

        Args:
            consumers: Names of the queue's consumers, the more urgent first.
            capacity: How many more messages this process can take from a consumer now.
            handler: Called with each message, on the event loop; must not block.
        """
        ...


Listener = Callable[[bytes], Awaitable[bytes | None]]
"""Called with each message on a subject; what it returns is sent back to whoever asked."""


class Bus(Protocol):
    """Messages that are not stored: heard by whoever listens now, or by nobody."""

    async def publish(self, subject: str, data: bytes) -> None:
        """Say something once. Never fails; may be lost."""
        ...

    async def listen(self, subject: str, listener: Listener) -> None:
        """Hear a subject until the connection closes."""
        ...

    async def ask(self, subject: str, data: bytes, within_s: float) -> list[bytes]:
        """What everybody who listens has to say, collected for so many seconds."""
        ...
