"""The work queues in memory: for tests, and for rollouts that need no durability."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from actors.queues import Delivery, Outgoing


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject fits a pattern with ``*`` (one token) and ``>`` (the rest)."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > index
        if index >= len(tokens) or token not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


class _Item:
    def __init__(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        self.subject, self.data, self.headers = subject, data, dict(headers)
        self.delivered = 0
        self.in_flight = False
        self.timer: asyncio.TimerHandle | None = None
        self.end: asyncio.TimerHandle | None = None
        """When it is dropped, whoever has it."""

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Delivery:
    def __init__(self, queue: "MemoryQueue", item: _Item) -> None:
        self._queue, self._item = queue, item
        self.data, self.subject, self.delivered = item.data, item.subject, item.delivered

    def header(self, name: str) -> str:
        return self._item.headers.get(name, "")

    async def ack(self) -> None:
        self._queue.remove(self._item)

    async def nak(self, delay_s: float = 0.0) -> None:
        if delay_s:
            self._queue.lease(self._item, delay_s)
        else:
            self._queue.release(self._item)

    async def progress(self) -> None:
        if self._item.in_flight:
            self._queue.lease(self._item, self._queue.lease_s)


class _Puller:
    def __init__(
        self,
        queue: "MemoryQueue",
        consumers: Iterable[str],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> None:
        self.queue, self.capacity, self.handler = queue, capacity, handler
        self.consumers = tuple(consumers)

    def want(self) -> None:
        self.queue.wake()

    async def close(self) -> None:
        self.queue.pullers.remove(self)


class MemoryQueue:
    """A `Queue` in memory; every process of a test shares one.

    Args:
        filters: The subjects of each consumer, by name.
        lease_s: Seconds after which an unacknowledged message is delivered again.
    """

    def __init__(self, filters: dict[str, str], lease_s: float = 30.0) -> None:
        self.filters, self.lease_s = filters, lease_s
        self.items: OrderedDict[str, _Item] = OrderedDict()
        self.pullers: list[_Puller] = []
        self._waking = False

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue.put`."""
        if subject in self.items:
            return False
        self.items[subject] = _Item(subject, data, headers or {})
        self.wake()
        return True

    async def waits(self, subject: str) -> bool:
        """See `Queue.waits`."""
        item = self.items.get(subject)
        return item is not None and not item.delivered

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """See `Queue.send`."""
        loop = asyncio.get_running_loop()
        for subject, data, ttl_s, headers in messages:
            if await self.put(subject, data, headers):
                item = self.items[subject]
                item.end = loop.call_later(ttl_s, self.remove, item)

    async def withdraw(self, subject: str) -> None:
        """See `Queue.withdraw`."""
        for item in [item for item in self.items.values() if matches(subject, item.subject)]:
            self.remove(item)

    async def pull(
        self,
        consumers: Iterable[str],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> _Puller:
        """See `Queue.pull`."""
        puller = _Puller(self, consumers, capacity, handler)
        self.pullers.append(puller)
        self.wake()
        return puller

    def remove(self, item: _Item) -> None:
        """Take a message out for good."""
        item.stop()
        if item.end is not None:
            item.end.cancel()
        if self.items.get(item.subject) is item:
            del self.items[item.subject]

    def release(self, item: _Item) -> None:
        """Make a message deliverable again."""
        item.stop()
        item.in_flight = False
        self.wake()

    def lease(self, item: _Item, seconds: float) -> None:
        """Give a message to somebody for a time."""
        item.stop()
        item.in_flight = True
        item.timer = asyncio.get_running_loop().call_later(seconds, self.release, item)

    def wake(self) -> None:
        """Deliver what can be delivered, soon."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        for puller in list(self.pullers):
            given = 0
            for consumer in puller.consumers:
                pattern = self.filters[consumer]
                for item in list(self.items.values()):
                    if item.in_flight or not matches(pattern, item.subject):
                        continue
                    if puller.capacity(consumer) <= 0:
                        break
                    given += 1
                    item.delivered += 1
                    self.lease(item, self.lease_s)
                    puller.handler(_Delivery(self, item))
            if given:  # whoever was served last is served last, as by a server
                self.pullers.remove(puller)
                self.pullers.append(puller)
