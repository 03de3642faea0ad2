"""What every work queue holds to: memory, one server, three servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest

from actors.jetstream_queue import consumers_of
from actors.queues import Delivery, Outgoing, Puller, Queue
from protocol import subjects
from tests.broker import LOOK_S
from tests.places import WITHIN_S, Place, new_run, new_worker

LONG_S: Final = 60.0
"""Seconds of a lease that no test outlives."""

SHORT_S: Final = 0.6
"""Seconds of a lease that a test waits for."""

CLOSED: Final = 200
"""Demands closed one after the other: a server that is told late is met once in some hundred."""

QUIET_S: Final = 0.3
"""Seconds in which nothing may come."""


class Taker:
    """A process that takes messages of a queue, up to a number at a time."""

    def __init__(self, capacity: int = 1_000) -> None:
        self.capacity = capacity
        self.taken: list[Delivery] = []
        self._arrived = asyncio.Queue[Delivery]()
        self._puller: Puller | None = None

    async def open(self, queue: Queue, worker: str) -> "Taker":
        self._puller = await queue.pull(list(consumers_of(worker)), self._free, self._take)
        return self

    def _free(self, _: str) -> int:
        return self.capacity - len(self.taken)

    def _take(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        self._arrived.put_nowait(delivery)

    async def next(self) -> Delivery:
        """The next message, once it is there."""
        async with asyncio.timeout(WITHIN_S):
            return await self._arrived.get()

    async def nothing_within(self, seconds: float, *, but: frozenset[bytes] = frozenset()) -> None:
        """Fails if a message comes that soon; but those that may, whose lease may have ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (delivery := await self._arrived.get()).data in but:
                    await delivery.ack()
                pytest.fail(f"{delivery.subject} was delivered")

    def free(self) -> None:
        """Have room again for all that was taken."""
        self.taken.clear()
        assert self._puller is not None
        self._puller.want()

    def room(self, capacity: int) -> None:
        """Take so many at a time from now on."""
        self.capacity = capacity
        self.free()

    async def close(self) -> None:
        if self._puller is not None:
            async with asyncio.timeout(WITHIN_S):
                await self._puller.close()


@pytest.fixture
async def taker() -> AsyncIterator[Callable[[int], Taker]]:
    """Makes takers, and closes them before their connections."""
    made: list[Taker] = []

    def make(capacity: int = 1_000) -> Taker:
        made.append(Taker(capacity))
        return made[-1]

    yield make
    for each in made:
        await each.close()


Makes = Callable[..., Taker]


def subject_of(worker: str, run: str = "", attempt: int = 1, urgent: bool = False) -> str:
    return subjects.call(worker, "high" if urgent else "normal", run or new_run(), "1-0", attempt)


async def until_accepted(queue: Queue, subject: str, data: bytes) -> None:
    """An acknowledgement is sent without an answer; once it is in, the queue has room."""
    async with asyncio.timeout(WITHIN_S):
        while not await queue.put(subject, data):
            await a_moment()


async def a_moment() -> None:
    """Between two questions to a queue that can't call us."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await asyncio.Event().wait()


async def test_what_is_put_is_delivered_once_and_gone_when_acknowledged(
    place: Place, taker: Makes
) -> None:
    worker = new_worker()
    queue, other = await place.queue(worker, LONG_S), await place.queue(worker, LONG_S)
    subject = subject_of(worker)
    assert await queue.put(subject, b"work")
    first, second = await taker().open(queue, worker), await taker().open(other, worker)
    done, _ = await asyncio.wait(
        [asyncio.create_task(first.next()), asyncio.create_task(second.next())],
        return_when=asyncio.FIRST_COMPLETED,
        timeout=WITHIN_S,
    )
    (delivery,) = [each.result() for each in done]
    assert (delivery.subject, delivery.data, delivery.delivered) == (subject, b"work", 1)
    await delivery.ack()
    await until_accepted(queue, subject, b"more")


async def test_a_queue_says_a_thing_once(place: Place, taker: Makes) -> None:
    worker = new_worker()
    queue = await place.queue(worker, LONG_S)
    subject = subject_of(worker)
    assert await queue.put(subject, b"first")
    assert not await queue.put(subject, b"second")  # queued
    assert await queue.put(subject_of(worker), b"another thing")
    busy = await taker().open(queue, worker)
    delivery = await busy.next()
    await busy.next()
    assert delivery.data == b"first"
    assert not await queue.put(subject, b"third")  # in flight
    await queue.send([Outgoing(subject, b"fourth", LONG_S)])
    assert not await queue.put(subject, b"fifth")
    await delivery.ack()
    await until_accepted(queue, subject, b"sixth")
    again = await busy.next()
    assert (again.data, again.delivered) == (b"sixth", 1)
    await busy.nothing_within(QUIET_S)


async def test_a_message_waits_until_it_is_given_to_somebody(place: Place, taker: Makes) -> None:
    worker = new_worker()
    queue, other = await place.queue(worker, LONG_S), await place.queue(worker, LONG_S)
    subject = subject_of(worker, urgent=True)
    assert not await other.waits(subject)
    assert await queue.put(subject_of(worker, urgent=True), b"before")
    assert await queue.put(subject, b"work")
    assert await other.waits(subject)
    busy = await taker(capacity=1).open(queue, worker)
    await (await busy.next()).ack()
    assert await other.waits(subject)
    busy.free()
    delivery = await busy.next()
    await said(other, subject, waits=False)
    await delivery.nak()
    busy.free()
    assert (await busy.next()).delivered == 2
    assert not await other.waits(subject)  # though it came back


async def said(queue: Queue, subject: str, *, waits: bool) -> None:
    """What replicas were given is known when most of them have it."""
    async with asyncio.timeout(WITHIN_S):
        while await queue.waits(subject) is not waits:
            await a_moment()


async def test_headers_travel_beside_a_message_however_it_is_queued(
    place: Place, taker: Makes
) -> None:
    worker = new_worker()
    queue = await place.queue(worker, LONG_S)
    put, sent, bare = subject_of(worker), subject_of(worker), subject_of(worker)
    assert await queue.put(put, b"x", {"traceparent": "of what was put"})
    await queue.send([Outgoing(sent, b"x", LONG_S, {"traceparent": "of what was sent"})])
    assert await queue.put(bare, b"x")
    busy = await taker().open(queue, worker)
    found = [await busy.next() for _ in range(3)]
    assert {each.subject: each.header("traceparent") for each in found} == {
        put: "of what was put",
        sent: "of what was sent",
        bare: "",
    }


async def test_of_many_who_put_the_same_one_is_accepted(place: Place) -> None:
    worker = new_worker()
    queues = [await place.queue(worker, LONG_S) for _ in range(3)]
    for _ in range(20):
        subject = subject_of(worker)
        accepted = await asyncio.gather(*(queue.put(subject, b"x") for queue in queues))
        assert sorted(accepted) == [False, False, True]


async def test_what_is_not_acknowledged_in_time_is_delivered_to_another(
    place: Place, taker: Makes
) -> None:
    worker = new_worker()
    queue, other = await place.queue(worker, SHORT_S), await place.queue(worker, SHORT_S)
    await queue.put(subject_of(worker), b"work")
    silent = await taker(capacity=1).open(queue, worker)
    await silent.next()
    heir = await taker(capacity=1).open(other, worker)
    delivery = await heir.next()
    assert (delivery.data, delivery.delivered) == (b"work", 2)
    await delivery.ack()
    await heir.nothing_within(2 * SHORT_S)


async def test_a_sign_of_life_keeps_a_message_from_others(place: Place, taker: Makes) -> None:
    worker = new_worker()
    queue, other = await place.queue(worker, SHORT_S), await place.queue(worker, SHORT_S)
    await queue.put(subject_of(worker), b"work")
    delivery = await (await taker(capacity=1).open(queue, worker)).next()
    heir = await taker(capacity=1).open(other, worker)
    for _ in range(8):  # two leases in all
        await heir.nothing_within(SHORT_S / 4)
        await delivery.progress()
    assert (await heir.next()).delivered == 2  # no more signs: the lease ends


async def test_a_message_that_is_handed_back_is_delivered_at_once(
    place: Place, taker: Makes
) -> None:
    worker = new_worker()
    queue = await place.queue(worker, LONG_S)
    await queue.put(subject_of(worker), b"work")
    busy = await taker().open(queue, worker)
    await (await busy.next()).nak()
    again = await busy.next()
    assert (again.data, again.delivered) == (b"work", 2)
    await again.nak(QUIET_S * 2)
    await busy.nothing_within(QUIET_S)
    assert (await busy.next()).delivered == 3


async def test_withdrawing_takes_out_what_is_queued_and_what_is_in_flight(
    place: Place, taker: Makes
) -> None:
    worker, run = new_worker(), new_run()
    queue = await place.queue(worker, SHORT_S)
    flying, queued, others = (
        subject_of(worker, run, 1),
        subject_of(worker, run, 2),
        subject_of(worker),
    )
    await queue.put(flying, b"flying")
    busy = await taker(capacity=1).open(queue, worker)
    await busy.next()
    await queue.put(queued, b"queued")
    await queue.put(others, b"of another run")
    await queue.withdraw(f"calls.{worker}.*.{run}.>")
    assert await queue.put(queued, b"accepted again")
    busy.room(10)
    left = frozenset({b"of another run", b"accepted again"})
    seen: set[bytes] = set()
    while seen < left:
        delivery = await busy.next()
        await delivery.ack()
        seen.add(delivery.data)
    assert seen == left
    await busy.nothing_within(2 * SHORT_S, but=left)  # the withdrawn one doesn't come back


async def test_no_more_is_delivered_than_there_is_room_for(place: Place, taker: Makes) -> None:
    worker = new_worker()
    queue, other = await place.queue(worker, LONG_S), await place.queue(worker, LONG_S)
    for number in range(5):
        await queue.put(subject_of(worker), b"%d" % number)
    small = await taker(capacity=2).open(queue, worker)
    first = [await small.next(), await small.next()]
    await small.nothing_within(QUIET_S)
    rest = await taker().open(other, worker)
    others = [(await rest.next()).data for _ in range(3)]
    assert {each.data for each in first} | set(others) == {b"%d" % number for number in range(5)}
    for delivery in first:
        await delivery.ack()
    await queue.put(subject_of(worker), b"late")
    small.free()
    await asyncio.wait(
        [asyncio.create_task(small.next()), asyncio.create_task(rest.next())],
        return_when=asyncio.FIRST_COMPLETED,
        timeout=WITHIN_S,
    )
    assert b"late" in {each.data for each in small.taken + rest.taken}


async def test_a_demand_that_stands_is_served_without_being_asked_again(
    place: Place, taker: Makes
) -> None:
    worker = new_worker()
    queue, other = await place.queue(worker, LONG_S), await place.queue(worker, LONG_S)
    waiting = await taker().open(queue, worker)
    for urgent in (False, True):
        await other.put(subject_of(worker, urgent=urgent), b"now")
        assert (await waiting.next()).subject.split(".")[2] == ("high" if urgent else "normal")


async def test_what_is_sent_lives_as_long_as_it_is_wanted(place: Place, taker: Makes) -> None:
    worker = new_worker()
    queue = await place.queue(worker, LONG_S)
    short, long = subject_of(worker), subject_of(worker)
    await queue.send([Outgoing(short, b"short", 1.0), Outgoing(long, b"long", LONG_S)])
    await until_dropped(queue, short)
    busy = await taker().open(queue, worker)
    assert {(await busy.next()).data for _ in range(2)} == {b"long", b"probe"}


async def until_dropped(queue: Queue, subject: str) -> None:
    """Wait until the subject takes a message again, which it does once the old one is dropped."""
    await until_sent(queue, subject)
    await until_accepted(queue, subject, b"probe")


async def until_sent(queue: Queue, subject: str) -> None:
    """What is sent on a connection is there before what is put on it afterwards."""
    assert not await queue.put(subject, b"probe")


async def test_what_was_never_acknowledged_is_delivered_for_ever(
    place: Place, taker: Makes
) -> None:
    worker = new_worker()
    queue = await place.queue(worker, LONG_S)
    await queue.put(subject_of(worker), b"work")
    busy = await taker().open(queue, worker)
    for delivered in range(1, 12):
        delivery = await busy.next()
        assert delivery.delivered == delivered
        await delivery.nak()


async def test_a_demand_that_was_just_woken_can_be_closed(place: Place) -> None:
    worker = new_worker()
    queue = await place.queue(worker, LONG_S)
    for _ in range(CLOSED):
        busy = await Taker().open(queue, worker)
        busy.free()
        # The one that was closed before had a demand standing: it must not be served any more.
        await queue.put(subject_of(worker), b"work")
        await (await busy.next()).ack()
        busy.free()
        await busy.close()
