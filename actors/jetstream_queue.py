"""The work queues on NATS JetStream.

Messages are pulled by a standing demand: as soon as a place is free the server may send, without
being asked again.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from actors.queues import Delivery, Outgoing
from protocol import subjects
from protocol.errors import Busy
from replay.broker import Broker, Refused, Unanswered, persist
from replay.connection import RECONNECT_S, Heard, Listening, listen

logger = logging.getLogger("podium.queue")

PUT_S: Final = 30.0
"""Seconds to keep trying to queue a message: longer than an election."""

DEMAND_S: Final = 30
"""Seconds that one demand stands before it is made anew."""

HEARTBEAT_S: Final = 5
"""Seconds between the server's signs of life on a demand; two missed, and it is made anew."""

MAX_DEMAND: Final = 500
"""Messages of one demand."""

MAX_IN_FLIGHT: Final = 200_000
"""Unacknowledged messages per consumer. High: runs that wait must never keep others from being
delivered."""

_NO_DEMAND: Final = b'{"idle_heartbeat":1}'
"""A demand that a consumer refuses at once: signs of life of what has no end."""

_SAME_SUBJECT: Final = 10077
_MANY: Final = "maximum messages per subject exceeded"


def consumers_of(kind: str) -> dict[str, str]:
    """The consumers of a queue and their subjects, the more urgent first.

    Args:
        kind: ``tasks``, or the name of a worker for its calls.
    """
    if kind == "tasks":
        return {f"tasks-{p}": f"tasks.{p}.*" for p in subjects.PRIORITIES}
    return {f"calls-{kind}-{p}": f"calls.{kind}.{p}.>" for p in subjects.PRIORITIES}


def _consumer_of(subject: str) -> str:
    """The consumer that delivers a subject, see `consumers_of`."""
    kind, *tokens = subject.split(".")
    return "-".join([kind, *tokens[: 1 if kind == "tasks" else 2]])


class JetStreamQueue:
    """A `Queue` over a `Broker`.

    Args:
        broker: The connection; it stays its owner's to close.
        stream: TASKS or CALLS.
        lease_s: Seconds after which an unacknowledged message is delivered again.
    """

    def __init__(self, broker: Broker, stream: str, *, lease_s: float) -> None:
        self.broker, self.stream, self.lease_s = broker, stream, lease_s

    async def ensure(self, consumers: dict[str, str]) -> None:
        """Make the consumers that are not there, and bring the others to today's configuration."""
        for name, subject in consumers.items():
            config = {
                "durable_name": name,
                "name": name,
                "filter_subject": subject,
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": int(self.lease_s * 1e9),
                "max_deliver": -1,
                "max_ack_pending": MAX_IN_FLIGHT,
            }
            body = {"stream_name": self.stream, "config": config}
            path = f"$JS.API.CONSUMER.CREATE.{self.stream}.{name}.{subject}"
            await persist(partial(self.broker.request, path, body), PUT_S, f"consumer {name}")

    async def drop(self, consumers: Iterable[str]) -> None:
        """End consumers that nobody pulls from. What stands in the queue stays there."""
        for name in consumers:
            path = f"$JS.API.CONSUMER.DELETE.{self.stream}.{name}"
            with contextlib.suppress(Refused):  # it is not there
                await persist(partial(self.broker.request, path), PUT_S, f"consumer {name}")

    async def present(self) -> None:
        """Wait until the stream is there: one in memory is gone when its server restarts."""
        path = f"$JS.API.STREAM.INFO.{self.stream}"
        while True:
            with contextlib.suppress(Refused, Unanswered):
                await self.broker.request(path)
                return
            await asyncio.sleep(RECONNECT_S)

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue.put`."""
        try:
            await persist(
                lambda: self.broker.append(subject, data, headers=headers),
                PUT_S,
                f"queue {self.stream}",
            )
        except Refused as error:
            if error.code == _SAME_SUBJECT and _MANY in error.text:
                return False
            raise Busy(
                f"queue {self.stream} takes no more: {error.text} ({error.code})",
                hint="wait until work is done, or start more conductors or workers",
            ) from None
        return True

    async def waits(self, subject: str) -> bool:
        """See `Queue.waits`.

        Replicas tell of a delivery when most of them have it, milliseconds late: a run that a dying
        conductor leaves at rest in just that time is found by the caretaker.
        """
        path = f"$JS.API.CONSUMER.INFO.{self.stream}.{_consumer_of(subject)}"

        async def look() -> bool:
            found = await self.broker.last(self.stream, subject)
            if found is None:
                return False
            info = await self.broker.request(path)  # after the message: what it says is no older
            return bool(found.seq > info["delivered"]["stream_seq"])

        try:
            return bool(await persist(look, PUT_S, f"queue {self.stream}"))
        except Refused:  # there is no such consumer, until somebody makes it again
            return False

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """See `Queue.send`."""
        for subject, data, ttl_s, more in messages:
            headers = {**more, "Nats-TTL": str(max(1, math.ceil(ttl_s)))}
            with contextlib.suppress(NatsError, OSError):
                await self.broker.client.publish(subject, data, headers=headers)

    async def withdraw(self, subject: str) -> None:
        """See `Queue.withdraw`."""
        path, body = f"$JS.API.STREAM.PURGE.{self.stream}", {"filter": subject}
        await persist(lambda: self.broker.request(path, body), PUT_S, f"queue {self.stream}")

    async def pull(
        self,
        consumers: Iterable[str],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> "_Puller":
        """See `Queue.pull`."""
        puller = _Puller(self, tuple(consumers), capacity, handler)
        await puller.open()
        return puller


class _Delivery:
    __slots__ = ("_client", "_message", "data", "delivered", "subject")

    def __init__(self, client: Client, message: Heard, delivered: int) -> None:
        self._client, self._message = client, message
        self.data, self.subject, self.delivered = message.data, message.subject, delivered

    def header(self, name: str) -> str:
        return self._message.header(name)

    async def ack(self) -> None:
        await self._say(b"+ACK")

    async def nak(self, delay_s: float = 0.0) -> None:
        verb = b"-NAK"
        if delay_s:
            verb += b' {"delay": %d}' % int(delay_s * 1e9)
        await self._say(verb)

    async def progress(self) -> None:
        await self._say(b"+WPI")

    async def _say(self, verb: bytes) -> None:
        with contextlib.suppress(NatsError, OSError):  # unsaid: the lease ends, and it comes again
            await self._client.publish(self._message.reply, verb)


class _Demand:
    """One standing request for messages of one consumer."""

    __slots__ = ("heard", "left", "reply")

    def __init__(self, reply: str, left: int, heard: float) -> None:
        self.reply, self.left, self.heard = reply, left, heard


class _Source:
    """One consumer, pulled by one process: its demands, oldest first, as the server serves them."""

    def __init__(self, puller: "_Puller", name: str) -> None:
        self.puller, self.name = puller, name
        self.inbox = ""
        self.demands: deque[_Demand] = deque()
        self.listening: Listening | None = None
        self._numbers = itertools.count()
        # $JS.ACK.<stream>.<consumer>.<delivered>..., or with domain and account before the stream
        place = re.escape(f"{puller.stream}.{name}")
        self._delivered = re.compile(rf"\$JS\.ACK\.(?:[^.]+\.[^.]+\.)?{place}\.([0-9]{{1,9}})\..+")

    async def open(self, client: Client) -> None:
        self.inbox = client.new_inbox()
        self.listening = await listen(client, f"{self.inbox}.*", self._heard)

    def _heard(self, message: Heard) -> None:
        if delivered := self._delivered.fullmatch(message.reply):
            if self.demands:
                first = self.demands[0]
                first.heard = self.puller.monotonic()
                first.left -= 1
                if first.left <= 0:
                    self.demands.popleft()
            self.puller.take(message, int(delivered[1]))
            return
        demand = next((d for d in self.demands if d.reply == message.subject), None)
        status = message.status
        if demand is None or not status:  # a demand of before; or a stranger's
            self.puller.counts["strange_answers"] += not status
            return
        demand.heard = self.puller.monotonic()
        if status == "503":  # there is no such consumer, until somebody makes it again
            self.demands.remove(demand)
            asyncio.get_running_loop().call_later(RECONNECT_S, self.puller.want)
        elif status != "100":  # expired, or the consumer has moved
            self.demands.remove(demand)
            self.puller.want()

    async def demand(self, client: Client, stream: str, wanted: int) -> None:
        """Make up for what is not demanded yet: few large demands, not one per free place."""
        now = self.puller.monotonic()
        deaf = now - 2.5 * HEARTBEAT_S
        while self.demands and self.demands[0].heard < deaf:
            self.demands.popleft()
        outstanding = sum(demand.left for demand in self.demands)
        count = min(wanted, MAX_DEMAND) - outstanding
        if count <= 0 or count < outstanding:
            return
        demand = _Demand(f"{self.inbox}.{next(self._numbers)}", count, now)
        body = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            count,
            DEMAND_S * 10**9,
            HEARTBEAT_S * 10**9,
        )
        path = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self.name}"
        with contextlib.suppress(NatsError, OSError):  # the next look makes it again
            await client.publish(path, body, reply=demand.reply)
            self.demands.append(demand)


class _Puller:
    def __init__(
        self,
        queue: JetStreamQueue,
        consumers: tuple[str, ...],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> None:
        self._queue, self._capacity, self._handler = queue, capacity, handler
        self._client, self.counts = queue.broker.client, queue.broker.counts
        self.stream, self.monotonic = queue.stream, queue.broker.monotonic
        self._sources = [_Source(self, name) for name in consumers]
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for source in self._sources:
            await source.open(self._client)
        self._queue.broker.reconnected.append(self._renew)
        self._task = asyncio.create_task(self._run(), name=f"pull-{self._queue.stream}")

    def want(self) -> None:
        self._wake.set()

    def take(self, message: Heard, delivered: int) -> None:
        self._handler(_Delivery(self._client, message, delivered))
        self._wake.set()

    async def close(self) -> None:
        self._queue.broker.reconnected.remove(self._renew)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for source in self._sources:
            if source.listening is not None:
                await source.listening.close()
        await asyncio.gather(*(self._told(source.name) for source in self._sources))

    async def _told(self, consumer: str) -> None:
        """Wait until whoever leads a consumer knows that nobody listens here any more.

        Until then it may serve a demand of before, and what it sends waits for its lease. Asked as
        for a demand, it answers after what it was told before.
        """
        broker = self._queue.broker
        if not self._client.is_connected:  # it is told by that
            return
        known = asyncio.Event()
        reply = broker.expect(lambda _: known.set(), known.set)
        path = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{consumer}"
        try:
            with contextlib.suppress(NatsError, OSError):
                await self._client.publish(path, _NO_DEMAND, reply=reply)
                await known.wait()
        finally:
            broker.forget(reply)

    def _renew(self) -> None:
        """The connection is a new one: what was demanded on the old one is forgotten."""
        for source in self._sources:
            source.demands.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            for source in self._sources:
                wanted = self._capacity(source.name)
                if wanted > 0:
                    await source.demand(self._client, self._queue.stream, wanted)
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it loses a cancellation when just woken.
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._wake.wait()
            self._wake.clear()
