"""A second attempt of a call goes to another replica if there is one that is free."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from actors.bus import MemoryBus
from actors.ports import Attempt, Outcome
from actors.queues import Outgoing
from actors.worker import MAX_HANDED_BACK, Worker, WorkerOptions
from protocol import subjects
from protocol.actions import Report, Spend, WorkerSpec
from protocol.codec import CallMessage, encode
from protocol.inbox import HANDED_BACK, HandedBack, Label, Message
from replay.chain import InboxEntry, Stored, read_inbox
from replay.log import EventLog
from tests.places import WITHIN_S, Place, new_run, new_worker
from tests.world import Adapted, now_ms

LEASE_S = 30.0
"""Seconds of a lease that no test outlives."""

BUSY, LATE = "1-0", "1-1"
"""The call that a replica is busy with, and the one that is tried a second time."""


class Replicas:
    """Replicas of a worker whose attempts cost something and end when a test wants it."""

    def __init__(self, place: Place) -> None:
        self.place, self.run, self.bus = place, new_run(), MemoryBus()
        self.spec = WorkerSpec(
            name=new_worker(), kind="agent", replicas=2, reserve=Spend(tokens=50), concurrency=2
        )
        self.seen: Callable[[EventLog], Any] = lambda log: log
        """What workers see of a log."""
        self.workers: dict[str, Worker] = {}
        self.working: dict[tuple[str, int], asyncio.Future[str]] = defaultdict(_future)
        """Who is at an attempt, once somebody is."""
        self.go: dict[tuple[str, int], asyncio.Future[str]] = defaultdict(_future)

    async def start(self, name: str, *, hand_back_s: float = 0.01, **changed: int) -> None:
        """One more replica."""

        async def work(attempt: Attempt) -> Outcome:
            key = attempt.call, attempt.attempt
            self.working[key].set_result(name)
            return Outcome(value=await self.go[key])

        worker = self.workers[name] = Worker(
            adapter=Adapted(msgspec.structs.replace(self.spec, **changed), work),
            log=self.seen(await self.place.log()),
            calls=await self.place.queue(self.spec.name, LEASE_S),
            bus=self.bus,
            clock=now_ms,
            options=WorkerOptions(replica=name, lease_s=LEASE_S, hand_back_s=hand_back_s),
        )
        await worker.start()

    async def send(self, call: str, attempt: int, *, again: bool = False) -> None:
        """Queue an attempt."""
        message = CallMessage(
            run=self.run,
            call=call,
            attempt=attempt,
            worker=self.spec.name,
            arguments={},
            timeout_ms=60_000,
            again=again,
        )
        subject = subjects.call(self.spec.name, "normal", self.run, call, attempt)
        queue = await self.place.queue(self.spec.name, LEASE_S)
        await queue.send([Outgoing(subject, encode(message), WITHIN_S)])

    async def at(self, call: str, attempt: int) -> str:
        """Which replica is at an attempt, once one is."""
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.shield(self.working[call, attempt])

    async def told(self, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """What stands in the inbox, once that is enough."""
        changed = asyncio.Event()
        log = await self.place.log()
        hints = await log.hints(self.run, lambda *_: changed.set())
        async with asyncio.timeout(WITHIN_S):
            while True:
                entries = [read_inbox(self.run, each) for each in await log.inbox(self.run)]
                found = [each.message for each in entries if isinstance(each, InboxEntry)]
                if enough(found):
                    await hints.close()
                    return found
                await changed.wait()
                changed.clear()

    async def report(self, call: str, attempt: int) -> Report:
        """The report of an attempt."""

        def those(found: list[Message]) -> list[Report]:
            reports = (each for each in found if isinstance(each, Report))
            return [each for each in reports if (each.call, each.attempt) == (call, attempt)]

        (report,) = those(await self.told(lambda found: bool(those(found))))
        return report

    async def handed_back(self) -> list[HandedBack]:
        """What was handed back so far, once something was."""
        found = await self.told(lambda found: any(isinstance(each, Label) for each in found))
        labels = [each for each in found if isinstance(each, Label)]
        assert {each.key for each in labels} == {HANDED_BACK}
        return [msgspec.convert(each.value, HandedBack) for each in labels]

    async def close(self) -> None:
        """Stop all replicas."""
        for worker in self.workers.values():
            await worker.stop()


def _future() -> "asyncio.Future[str]":
    return asyncio.get_running_loop().create_future()


@pytest.fixture
async def replicas(place: Place) -> AsyncIterator[Replicas]:
    made = Replicas(place)
    yield made
    await made.close()


async def test_it_waits_for_another_replica_and_costs_what_one_costs(replicas: Replicas) -> None:
    await replicas.start("busy", concurrency=1)
    await replicas.send(BUSY, 1)
    assert await replicas.at(BUSY, 1) == "busy"
    await replicas.start("slow", hand_back_s=0.1)
    await replicas.send(LATE, 1)
    assert await replicas.at(LATE, 1) == "slow"
    await replicas.send(LATE, 2)
    first = (await replicas.handed_back())[0]
    assert first == HandedBack(LATE, 2, 1)
    replicas.go[BUSY, 1].set_result("done")
    assert await replicas.at(LATE, 2) == "busy"
    replicas.go[LATE, 2].set_result("the second")
    report = await replicas.report(LATE, 2)
    assert (report.status, report.value, report.by) == ("OK", "the second", "busy")
    assert report.deliveries == 1, "nobody has taken it before"


async def test_where_there_is_no_other_it_is_made_all_the_same(replicas: Replicas) -> None:
    await replicas.start("slow")
    await replicas.send(LATE, 1)
    await replicas.at(LATE, 1)
    await replicas.send(LATE, 2)
    assert await replicas.at(LATE, 2) == "slow"
    assert [each.delivery for each in await replicas.handed_back()] == [
        *range(1, MAX_HANDED_BACK + 1)
    ]
    replicas.go[LATE, 2].set_result("the second")
    assert (await replicas.report(LATE, 2)).deliveries == 1


class Lagging:
    """A log whose replicas have nothing yet."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    async def inbox(self, run: str, after: int = 0, *, fresh: bool = False) -> list[Stored]:
        return await self.log.inbox(run, after, fresh=True) if fresh else []


async def test_none_is_given_up_because_a_replica_of_the_log_lags(replicas: Replicas) -> None:
    """It is handed back more often than it may kill a worker, and whoever looks sees none of it."""
    replicas.spec = msgspec.structs.replace(replicas.spec, reserve=Spend())
    replicas.seen = Lagging
    await replicas.start("slow")
    await replicas.send(LATE, 1)
    await replicas.at(LATE, 1)
    await replicas.send(LATE, 2)
    assert await replicas.at(LATE, 2) == "slow"


async def test_of_two_that_come_together_the_later_one_is_for_others(replicas: Replicas) -> None:
    """An attempt that is a retry, and one beside it, both queued while all replicas were busy."""
    for attempt in (2, 3):
        await replicas.send(LATE, attempt)
    await replicas.start("slow")
    assert await replicas.at(LATE, 2) == "slow"
    assert await replicas.at(LATE, 3) == "slow"
    assert {each.attempt for each in await replicas.handed_back()} == {3}


async def test_a_worker_of_one_replica_takes_it_at_once(replicas: Replicas) -> None:
    await replicas.start("only", replicas=1)
    for attempt in (1, 2):
        await replicas.send(LATE, attempt)
        assert await replicas.at(LATE, attempt) == "only"
    replicas.go[LATE, 2].set_result("the second")
    await replicas.report(LATE, 2)
    assert replicas.workers["only"].counts["handed_back"] == 0


async def test_one_that_was_queued_again_is_not_handed_back(replicas: Replicas) -> None:
    """What was said of deliveries of the message before would be taken for said of its own."""
    await replicas.start("slow")
    await replicas.send(LATE, 1)
    await replicas.at(LATE, 1)
    await replicas.send(LATE, 2, again=True)
    assert await replicas.at(LATE, 2) == "slow"
    assert replicas.workers["slow"].counts["handed_back"] == 0


@pytest.mark.parametrize(
    ("said", "status", "deliveries"),
    [
        ({"call": LATE, "attempt": 2, "delivery": 1}, "OK", 1),
        ({"call": LATE, "attempt": 1, "delivery": 1}, "EXEC_ERR", 2),
        ("whatever", "EXEC_ERR", 2),
    ],
    ids=["handed back", "another attempt", "nonsense"],
)
async def test_only_what_was_handed_back_is_taken_for_untouched(
    replicas: Replicas, said: object, status: str, deliveries: int
) -> None:
    """Whoever was given it before may have spent what was reserved, and died."""
    taken: asyncio.Queue[object] = asyncio.Queue()
    queue = await replicas.place.queue(replicas.spec.name, LEASE_S)
    consumer = f"calls-{replicas.spec.name}-normal"
    puller = await queue.pull([consumer], lambda _: 1 - taken.qsize(), taken.put_nowait)
    await replicas.send(LATE, 2)
    async with asyncio.timeout(WITHIN_S):
        delivery = await taken.get()
    await puller.close()
    log = await replicas.place.log()
    label = Label(run=replicas.run, key=HANDED_BACK, value=said, by="somebody")
    await log.post(replicas.run, encode(label))
    await delivery.nak()  # type: ignore[attr-defined]
    replicas.go[LATE, 2].set_result("the second")
    await replicas.start("slow")
    report = await replicas.report(LATE, 2)
    assert (report.status, report.deliveries) == (status, deliveries)
