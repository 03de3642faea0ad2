"""Architecture's rules of the log, those of the server: a test for each, that carries its name.

Where a rule exists because of what the server does, the test shows that it does it. What every log
holds to is in `tests/contract`; ownership in `test_rules_of_ownership`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

import pytest
from nats.aio.client import Client

from actors.jetstream_queue import JetStreamQueue, consumers_of
from protocol import subjects
from protocol.codec import encode
from protocol.errors import Fenced, Unreachable
from protocol.events import RunActivated
from replay import jetstream_log
from replay.broker import Broker, Refused, Unanswered
from replay.chain import EMPTY, Head
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams
from tests.broker import One, Three, in_thread, r1, r3
from tests.contract.test_log import begun, commit, first, report, signal_read
from tests.contract.test_queue import Taker, a_moment, subject_of, until_accepted
from tests.places import WITHIN_S, BrokerPlace, new_run, new_worker, with_streams

RACES: Final = 40
"""Tries in which a stale writer races with another: on three servers nearly all are accepted."""


@pytest.fixture(scope="module")
def one_server() -> Iterator[One]:
    with r1() as server:
        with_streams(server)
        yield server


@pytest.fixture(scope="module")
def three_servers() -> Iterator[Three]:
    with r3() as server:
        with_streams(server)
        yield server


@pytest.fixture
async def one(one_server: One) -> AsyncIterator[BrokerPlace]:
    async with contextlib.AsyncExitStack() as stack:
        yield BrokerPlace(one_server, stack)


@pytest.fixture
async def three(three_servers: Three) -> AsyncIterator[BrokerPlace]:
    async with contextlib.AsyncExitStack() as stack:
        yield BrokerPlace(three_servers, stack)


class FaultyBroker(Broker):
    """A real connection on which the next appends meet a fault, each of them once."""

    def __init__(self, client: Client, *, grouped: bool = False) -> None:
        super().__init__(client, grouped=grouped)
        self.faults: list[str] = []
        self.sent: list[tuple[bytes, int | None]] = []
        self.late: asyncio.Task[int] | None = None

    async def append(
        self,
        subject: str,
        data: bytes,
        expected: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """See `Broker.append`."""
        self.sent.append((data, expected))
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refused-once":  # as three servers do while another append is in flight
            raise Refused(10164, "wrong last sequence")
        if fault == "lost-before":
            raise Unanswered("lost on the way there")
        if fault == "late":  # the first copy arrives after the second
            self.late = asyncio.create_task(self._late(subject, data, expected))
            raise Unanswered("not there yet")
        seq = await super().append(subject, data, expected, headers)
        if fault == "lost-after":
            raise Unanswered("lost on the way back")
        return seq

    async def _late(self, subject: str, data: bytes, expected: int | None) -> int:
        while len(self.sent) < 2 or await self.last("LOG-0", subject) is None:
            await a_moment()
        return await super().append(subject, data, expected)


async def faulty(place: BrokerPlace, *faults: str) -> tuple[JetStreamLog, FaultyBroker]:
    user, password = place.server.credentials("conductor")
    broker = await FaultyBroker.connect(place.server.url, user=user, password=password)
    assert isinstance(broker, FaultyBroker)
    broker.faults = list(faults)
    place.stack.push_async_callback(broker.close)
    return JetStreamLog(broker), broker


# ------------------------------------------------------------------------------- one exact subject


async def stale_accepted(place: BrokerPlace, condition: str) -> int:
    """How many stale writers get in, of `RACES`, each racing with an append that is in flight.

    The stale writer believes in sequence 0 of the run; the other writes the run's first message.
    """
    client = (await place.broker()).client
    accepted = 0
    for _ in range(RACES):
        run = new_run()
        exact = subjects.commits(run)
        head = {"Nats-Expected-Last-Subject-Sequence": "0"}
        if condition == "wildcard":
            head["Nats-Expected-Last-Subject-Sequence-Subject"] = f"log.0.{run}.*"
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox, max_msgs=2)
        await client.publish(exact, b"in flight", reply=inbox)
        await client.publish(exact, b"stale", reply=inbox, headers=head)
        async with asyncio.timeout(WITHIN_S):
            got = [await answers.next_msg(), await answers.next_msg()]
        accepted += sum(b"error" not in answer.data for answer in got) == 2
    return accepted


async def test_one_exact_subject_refuses_every_stale_writer(
    one: BrokerPlace, three: BrokerPlace
) -> None:
    assert await stale_accepted(one, "exact") == 0
    assert await stale_accepted(three, "exact") == 0


async def test_known_bad_a_wildcard_condition_accepts_stale_writers_on_three_servers(
    one: BrokerPlace, three: BrokerPlace
) -> None:
    """Why a condition is on the exact subject: documents the server, and notices its mending."""
    assert await stale_accepted(one, "wildcard") == 0
    accepted = await stale_accepted(three, "wildcard")
    if accepted == 0:
        pytest.skip("this nats-server refuses them: the rule of the exact subject could be relaxed")
    assert accepted > 0


# --------------------------------------------------------------------- refused, unanswered appends


async def test_a_refused_append_over_its_predecessor_is_retried_with_identical_bytes(
    one: BrokerPlace,
) -> None:
    log, broker = await faulty(one, "", "refused-once", "refused-once")
    run = new_run()
    head = await begun(log, run)
    second = commit(run, head, [signal_read()])
    assert (await log.append(second, head)).n == 2
    assert broker.sent[1:] == [(encode(second), head.seq)] * 3
    assert (await log.read(run)).commits == [first(run), second]


@pytest.mark.parametrize("fault", ["lost-before", "lost-after", "late"])
async def test_an_unanswered_append_is_stored_once(one: BrokerPlace, fault: str) -> None:
    log, broker = await faulty(one, fault)
    run = new_run()
    head = await begun(log, run)
    stored = await log.read(run)
    assert stored.commits == [first(run)]
    assert (stored.head, stored.aside) == (head, [])
    assert len(set(broker.sent)) == 1
    assert len(broker.sent) == (1 if fault == "lost-after" else 2)
    if broker.late is not None:
        with pytest.raises(Refused, match="wrong last sequence"):
            await broker.late
        assert (await log.read(run)).aside == []
    assert (await log.append(commit(run, head, [signal_read()]), head)).n == 2


async def test_an_append_that_was_lost_under_somebody_elses_is_fenced(one: BrokerPlace) -> None:
    log, broker = await faulty(one, "", "lost-after")
    other = await one.log()
    run = new_run()
    head = await begun(log, run)
    mine = commit(run, head, [signal_read()])
    answer = broker.last

    async def meanwhile(stream: str, subject: str) -> object:
        seen = (await other.read(run)).head
        taken = commit(run, seen, [RunActivated(epoch=2, conductor="b", rules="1")], 2)
        await other.append(taken, seen)
        broker.last = answer  # type: ignore[method-assign]
        return await answer(stream, subject)

    broker.last = meanwhile  # type: ignore[method-assign,assignment]
    with pytest.raises(Fenced, match=run):
        await log.append(mine, head)
    assert [each.epoch for each in (await other.read(run)).commits] == [1, 1, 2]


async def test_an_append_that_nobody_answers_says_so(
    one: BrokerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_log, "SETTLE_S", 0.3)
    log, _ = await faulty(one, *["lost-before"] * 50)
    run = new_run()
    with pytest.raises(Unreachable, match=f"run {run}: commit 1 was not taken"):
        await begun(log, run)
    assert await log.tail(run) is None


async def test_an_append_outlives_a_server_that_was_away(one: BrokerPlace) -> None:
    assert isinstance(one.server, One)
    log = await one.log()
    run = new_run()
    head = await begun(log, run)
    with one.server.paused():
        waiting = asyncio.create_task(log.append(commit(run, head, [signal_read()]), head))
        done, _ = await asyncio.wait([waiting], timeout=2.5)  # longer than one answer may take
        assert not done, waiting
    async with asyncio.timeout(WITHIN_S):
        last = await waiting
    stored = await log.read(run)
    assert (stored.head, len(stored.commits), stored.aside) == (last, 2, [])


@pytest.mark.slow
async def test_no_acknowledged_commit_is_lost_or_twice_when_the_leader_is_killed(
    three: BrokerPlace,
) -> None:
    server = three.server
    assert isinstance(server, Three)
    log = await three.log()
    runs = [new_run() for _ in range(8)]
    heads = {run: await begun(log, run) for run in runs}
    killed = asyncio.Event()

    async def write(run: str) -> None:
        after = 0
        while after < 3:  # three commits after the leader has gone
            was_killed = killed.is_set()
            n = heads[run].n
            heads[run] = await log.append(
                commit(run, heads[run], [signal_read(str(n))]), heads[run]
            )
            after += was_killed

    leader = await in_thread(server.leader_of, "LOG-0")
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(write(run))
        await in_thread(server.kill, leader)
        killed.set()
    await in_thread(server.restart, leader)
    for run in runs:
        stored = await log.read(run)
        while stored.head.seq < heads[run].seq:  # from a replica that has just come back
            await log.read_on(stored)
        assert stored.head == heads[run]
        assert [each.n for each in stored.commits] == list(range(1, heads[run].n + 1))
        assert stored.aside == []
    await in_thread(server.await_current, "LOG-0")


# --------------------------------------------------------------------------------- atomic batches


async def test_one_stale_member_of_a_batch_is_fenced_and_all_others_are_stored(
    one: BrokerPlace,
) -> None:
    broker = await one.broker(grouped=True)
    log = JetStreamLog(broker)
    runs = [new_run() for _ in range(60)]
    heads = dict(zip(runs, await asyncio.gather(*(begun(log, run) for run in runs)), strict=True))
    await one.strange(runs[30], "c", b"somebody else")
    results = await asyncio.gather(
        *(log.append(commit(run, heads[run], [signal_read()]), heads[run]) for run in runs),
        return_exceptions=True,
    )
    assert [isinstance(each, Fenced) for each in results] == [run == runs[30] for run in runs]
    for run, result in zip(runs, results, strict=True):
        if isinstance(result, Head):
            stored = await log.read(run)
            assert (stored.head, len(stored.commits)) == (result, 2)


async def test_appends_to_several_streams_at_once_are_all_stored(one: BrokerPlace) -> None:
    """What waits together may belong to streams that can't share a batch."""
    broker = await one.broker(grouped=True)
    log, tasks = JetStreamLog(broker), JetStreamQueue(broker, subjects.TASKS, lease_s=60)
    runs = [new_run() for _ in range(40)]
    blobs = [run.encode() for run in runs]

    async def all_of(run: str, data: bytes) -> None:
        head, seq, ref, put = await asyncio.gather(
            begun(log, run),
            log.post(run, report(run)),
            log.put_blob(data),
            tasks.put(subjects.task("normal", run), b"{}"),
        )
        assert put
        assert await log.get_blob(ref) == data
        stored = await log.read(run)
        assert (stored.head, [entry.seq for entry in stored.inbox]) == (head, [seq])

    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(all_of(run, data) for run, data in zip(runs, blobs, strict=True)))
    await tasks.withdraw("tasks.>")


# ------------------------------------------------------------------------------------------- blobs


async def test_a_blob_whose_acknowledgement_was_lost_is_written_once(one: BrokerPlace) -> None:
    log, _ = await faulty(one, "lost-after", "lost-before", "lost-after")
    data = new_run().encode()
    ref = await log.put_blob(data)
    assert await log.put_blob(data) == ref
    assert await log.get_blob(ref) == data
    info = await log.broker.request(
        "$JS.API.STREAM.INFO.BLOBS", {"subjects_filter": subjects.blob(ref.sha256, "*")}
    )
    assert list(info["state"]["subjects"].values()) == [1]


# ----------------------------------------------------------------------------------------- archive


async def test_purging_down_to_the_last_commit_leaves_the_condition(one: BrokerPlace) -> None:
    """A late duplicate of its task can't start an archived run again."""
    log = await one.log()
    run = new_run()
    head = await begun(log, run)
    head = await log.append(commit(run, head, [signal_read()]), head)
    await (await one.broker()).request(
        "$JS.API.STREAM.PURGE.LOG-0", {"filter": subjects.commits(run), "keep": 1}
    )
    with pytest.raises(Fenced):
        await log.append(first(run, "late"), EMPTY)
    assert (await log.append(commit(run, head, [signal_read("x")]), head)).n == 3


# ------------------------------------------------------------------------------------------ queues


async def test_known_bad_the_server_honours_a_stale_holder(one: BrokerPlace) -> None:
    """Why a fenced conductor says nothing: its acknowledgement would take the new owner's task."""
    worker = new_worker()
    queue, other = await one.queue(worker, 0.4), await one.queue(worker, 0.4)
    subject = subject_of(worker)
    await queue.put(subject, b"work")
    stale, owner = Taker(1), Taker(1)
    await stale.open(queue, worker)
    old = await stale.next()
    await owner.open(other, worker)
    new = await owner.next()
    assert new.delivered == 2
    await old.ack()
    await until_accepted(queue, subject, b"another")  # gone, under its new owner
    for each in (stale, owner):
        await each.close()


async def test_queues_have_no_limit_of_deliveries_and_one_consumer_per_priority(
    one: BrokerPlace,
) -> None:
    worker = new_worker()
    await one.queue(worker, 60.0)
    broker = await one.broker()
    for name, subject in consumers_of(worker).items():
        info = await broker.request(f"$JS.API.CONSUMER.INFO.CALLS.{name}")
        config = info["config"]
        assert config["filter_subject"] == subject
        assert config.get("max_deliver", -1) == -1


async def test_queued_calls_do_not_outlive_their_server_and_their_queue_is_made_again() -> None:
    """CALLS is in memory: a conductor derives the calls from the log and sends them again."""
    worker = new_worker()
    with r1() as server:
        with_streams(server)
        async with contextlib.AsyncExitStack() as stack:
            place = BrokerPlace(server, stack)
            queue = await place.queue(worker, 60.0)
            subject = subject_of(worker)
            await queue.put(subject, b"lost")
            taker = await Taker(0).open(queue, worker)
            await in_thread(server.kill)
            await in_thread(server.restart)
            await ensure_streams(queue.broker)
            await queue.ensure(consumers_of(worker))
            assert await queue.put(subject, b"sent again")
            taker.room(10)
            assert (await taker.next()).data == b"sent again"
            await taker.close()


async def test_tasks_and_commits_outlive_their_server() -> None:
    with r1() as server:
        with_streams(server)
        async with contextlib.AsyncExitStack() as stack:
            place = BrokerPlace(server, stack)
            log, run = await place.log(), new_run()
            tasks = JetStreamQueue(await place.broker(), subjects.TASKS, lease_s=60)
            head = await begun(log, run)
            seq = await log.post(run, report(run))
            assert await tasks.put(subjects.task("normal", run), b"a task")
            await in_thread(server.kill)
            await in_thread(server.restart)
            assert not await tasks.put(subjects.task("normal", run), b"a task")
            stored = await log.read(run)
            assert (stored.head, stored.inbox_seq) == (head, seq)
            assert (await log.append(commit(run, head, [signal_read()]), head)).n == 2
