"""What every event log holds to: memory, one server, three servers, and a log behind shelves."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from typing import Final

import pytest

from benchmarks import synthetic
from protocol.actions import BlobRef, Report
from protocol.budgets import Budget
from protocol.codec import Commit, blob_ref, decode_commit, digest, encode
from protocol.commands import Activate
from protocol.decisions import PolicySpec, Task
from protocol.errors import Fenced, InvalidData, NotFound, TooLarge
from protocol.events import (
    AnyEvent,
    Archived,
    RunActivated,
    RunCancelled,
    RunStarted,
    SignalReceived,
)
from protocol.limits import BLOB_CHUNK_BYTES, MAX_COMMIT_BYTES, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES
from protocol.run import decide
from replay.chain import EMPTY, Head
from replay.log import EventLog
from tests.contract.conftest import opened
from tests.places import WITHIN_S, BrokerPlace, Place, SimPlace, new_run
from tests.runs import AT, POOL, begin

WRITERS: Final = 4
COMMITS_EACH: Final = 6


@pytest.fixture(params=["memory", "layered", "r1", "r3", "sim"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Each place in turn."""
    async with contextlib.AsyncExitStack() as stack:
        yield opened(request, stack)


def first(run: str, conductor: str = "a") -> Commit:
    """The commit that begins a run."""
    started = RunStarted(
        run=run,
        task=Task(text="a task"),
        pool=POOL,
        policy=PolicySpec(name="script"),
        budget=Budget(),
        at=AT,
    )
    return commit(run, EMPTY, [started, RunActivated(epoch=1, conductor=conductor, rules="1")], 1)


def commit(run: str, head: Head, events: Sequence[AnyEvent], epoch: int = 0) -> Commit:
    """The commit that follows a head."""
    return Commit(
        run=run,
        n=head.n + 1,
        epoch=epoch or head.epoch,
        at=max(AT, head.at) + 1,
        causes=("deadline",),
        events=tuple(events),
        prev=head.hash,
    )


def signal_read(name: str = "x", by: str = "ada") -> SignalReceived:
    return SignalReceived(signal=digest(name.encode()), kind="pause", by=by)


def report(run: str, call: str = "1-0", value: str = "42") -> bytes:
    return encode(Report(run=run, call=call, attempt=1, status="OK", value=value))


async def begun(log: EventLog, run: str) -> Head:
    return await log.append(first(run), EMPTY)


# ------------------------------------------------------------------------------------ append, read


async def test_what_is_appended_is_read_by_everybody(place: Place) -> None:
    mine, other = await place.log(), await place.log()
    run = new_run()
    head = await begun(mine, run)
    second = commit(run, head, [signal_read()])
    last = await mine.append(second, head)
    log = await other.read(run)
    assert log.commits == [first(run), second]
    assert log.head == last == Head(2, digest(encode(second)), log.seqs[-1], 1, second.at)
    assert (log.inbox, log.aside) == ([], [])
    tail = await other.tail(run)
    assert tail is not None
    assert (tail.seq, tail.data) == (last.seq, encode(second))


async def test_an_unknown_run_is_empty(place: Place) -> None:
    log = await place.log()
    run = new_run()
    found = await log.read(run)
    assert (found.commits, found.inbox, found.aside, found.head) == ([], [], [], EMPTY)
    assert await log.tail(run) is None
    assert await log.inbox(run) == []


async def test_a_condition_looks_at_the_exact_subject_only(place: Place) -> None:
    log = await place.log()
    run, other = new_run(), new_run()
    head = await begun(log, run)
    await begun(log, other)
    await log.post(run, report(run))
    after = await log.append(commit(run, head, [signal_read()]), head)
    assert after.seq > head.seq + 2  # the other messages stand between, and don't matter


@pytest.mark.parametrize("stranger", [b"no commit at all", b""])
async def test_a_foreign_tail_fences(place: Place, stranger: bytes) -> None:
    log = await place.log()
    run = new_run()
    head = await begun(log, run)
    await place.strange(run, "c", stranger)
    with pytest.raises(Fenced, match=run):
        await log.append(commit(run, head, [signal_read()]), head)
    assert len((await log.read(run)).commits) == 1


async def test_a_newer_activation_fences_whoever_was_there_before(place: Place) -> None:
    before, after = await place.log(), await place.log()
    run = new_run()
    head = await begun(before, run)
    taken = await after.append(
        commit(run, head, [RunActivated(epoch=2, conductor="b", rules="1")], 2), head
    )
    with pytest.raises(Fenced):
        await before.append(commit(run, head, [signal_read()]), head)
    assert (await after.read(run)).head == taken


async def test_a_first_commit_is_refused_where_there_is_one(place: Place) -> None:
    log = await place.log()
    run = new_run()
    await begun(log, run)
    with pytest.raises(Fenced):
        await log.append(first(run, "another"), EMPTY)


async def test_the_identical_bytes_again_are_done_and_stored_once(place: Place) -> None:
    log = await place.log()
    run = new_run()
    head = await begun(log, run)
    assert await log.append(first(run), EMPTY) == head
    second = commit(run, head, [signal_read()])
    once = await log.append(second, head)
    assert await log.append(second, head) == once
    assert (await log.read(run)).commits == [first(run), second]


async def test_a_log_is_read_on_from_where_it_was(place: Place) -> None:
    mine, other = await place.log(), await place.log()
    run = new_run()
    head = await begun(mine, run)
    log = await other.read(run)
    await mine.post(run, report(run))
    head = await mine.append(commit(run, head, [signal_read()]), head)
    await place.strange(run, "i", b"noise")
    await other.read_on(log)
    fresh = await other.read(run)
    assert (log.commits, log.seqs, log.inbox, log.aside) == (
        fresh.commits,
        fresh.seqs,
        fresh.inbox,
        fresh.aside,
    )
    assert log.head == head
    assert log.inbox_seq == fresh.inbox_seq
    await other.read_on(log)
    assert len(log.commits) == 2
    assert len(log.inbox) == 1


async def test_of_many_writers_exactly_one_gets_each_place(place: Place) -> None:
    run = new_run()
    head = await begun(await place.log(), run)
    epochs = {1: "start"}

    async def write(name: str) -> list[int]:
        log = await place.log()
        mine: list[int] = []
        while len(mine) < COMMITS_EACH:
            seen = await log.read(run)
            epoch = seen.head.epoch + 1
            activated = RunActivated(epoch=epoch, conductor=name, rules="1")
            try:
                head = await log.append(commit(run, seen.head, [activated], epoch), seen.head)
            except Fenced:
                continue
            assert epochs.setdefault(head.epoch, name) == name
            mine.append(head.n)
        return mine

    async with asyncio.timeout(WITHIN_S * 2):
        won = await asyncio.gather(*(write(f"c{number}") for number in range(WRITERS)))
    log = await (await place.log()).read(run)
    assert sorted(n for each in won for n in each) == list(range(2, 2 + WRITERS * COMMITS_EACH))
    assert [each.n for each in log.commits] == list(range(1, 2 + WRITERS * COMMITS_EACH))
    assert log.aside == []
    assert log.commits[0] == first(run)
    assert log.seqs[0] == head.seq


async def test_a_commit_that_does_not_fit_is_not_sent(place: Place) -> None:
    log = await place.log()
    run = new_run()
    head = await begun(log, run)
    large = RunCancelled(by="ada", reason="x" * MAX_COMMIT_BYTES)
    with pytest.raises(TooLarge, match=f"{run}.*at most {MAX_COMMIT_BYTES}"):
        await log.append(commit(run, head, [large]), head)
    assert (await log.read(run)).head == head


async def test_the_largest_commit_that_may_be_encoded_is_stored(place: Place) -> None:
    log = await place.log()
    run = new_run()
    head = await begun(log, run)
    room = MAX_COMMIT_BYTES - len(encode(commit(run, head, [RunCancelled(by="a", reason="")])))
    largest = commit(run, head, [RunCancelled(by="a", reason="x" * (room - len(',"reason":""')))])
    assert len(encode(largest)) == MAX_COMMIT_BYTES
    await log.append(largest, head)
    assert (await log.read(run)).commits[-1] == largest


# ----------------------------------------------------------------------------------------- inbox


async def test_what_is_posted_stands_in_the_inbox_in_order(place: Place) -> None:
    mine, other = await place.log(), await place.log()
    run, elsewhere = new_run(), new_run()
    sent = [report(run, f"1-{number}") for number in range(5)]
    seqs = [await mine.post(run, data) for data in sent]
    await mine.post(elsewhere, report(elsewhere))
    assert seqs == sorted(set(seqs))
    stored = await other.inbox(run)
    assert [(each.seq, each.data) for each in stored] == list(zip(seqs, sent, strict=True))
    assert [each.seq for each in await other.inbox(run, seqs[2])] == seqs[3:]
    log = await other.read(run)
    assert [entry.hash for entry in log.inbox] == [digest(data) for data in sent]
    assert log.inbox_seq == seqs[-1]


async def test_two_equal_messages_are_two_entries_of_one_identity(place: Place) -> None:
    log = await place.log()
    run = new_run()
    for _ in range(2):
        await log.post(run, report(run))
    entries = (await log.read(run)).inbox
    assert len(entries) == 2
    assert len({entry.hash for entry in entries}) == 1
    assert len({entry.seq for entry in entries}) == 2


async def test_an_inbox_message_that_does_not_fit_is_not_sent(place: Place) -> None:
    log = await place.log()
    run = new_run()
    with pytest.raises(TooLarge, match=run):
        await log.post(run, b"x" * (MAX_MESSAGE_BYTES // 2 + 1))
    assert await log.inbox(run) == []


async def test_more_messages_than_one_batch_of_reads_are_all_read(place: Place) -> None:
    log = await place.log()
    run = new_run()
    count = 1_100
    await asyncio.gather(*(log.post(run, report(run, f"1-{n}")) for n in range(count)))
    assert len({entry.hash for entry in (await log.read(run)).inbox}) == count


# --------------------------------------------------------------------------------- foreign messages


async def test_foreign_messages_are_set_aside_and_said_so(place: Place) -> None:
    log = await place.log()
    run, other = new_run(), new_run()
    head = await begun(log, run)
    strangers = [
        b"\xff\x00 no JSON",
        b"{}",
        encode(first(other)),  # well-formed, of another run
        encode(commit(run, head._replace(hash="0" * 32), [signal_read()])),
        encode(commit(run, head._replace(n=7), [signal_read()])),
        encode(commit(run, head, [signal_read()], epoch=9)),
        encode(commit(run, head._replace(at=AT - 10**6), [signal_read()])),
    ]
    strangers[-1] = strangers[-1].replace(b"%d" % (AT + 1), b"%d" % (AT - 9))
    for data in strangers:
        await place.strange(run, "c", data)
    for data in (b"noise", report(other), encode(first(run))):
        await place.strange(run, "i", data)
    seen = await log.read(run)
    assert seen.commits == [first(run)]
    assert seen.inbox == []
    assert [each.where for each in seen.aside] == ["commits"] * len(strangers) + ["inbox"] * 3
    assert all(each.why for each in seen.aside)
    assert (seen.head.n, seen.head.hash) == (head.n, head.hash)
    assert seen.head.seq > head.seq
    next_head = await log.append(commit(run, seen.head, [signal_read()]), seen.head)
    assert next_head.n == 2
    assert (await log.read(run)).state().signals == {digest(b"x")}


# ------------------------------------------------------------------------------------------- hints


async def test_hints_tell_of_the_inbox_and_show_a_gap(place: Place) -> None:
    mine, other = await place.log(), await place.log()
    run, elsewhere = new_run(), new_run()
    unheard = await mine.post(run, report(run, "1-0"))
    heard: asyncio.Queue[tuple[bytes, int, int]] = asyncio.Queue()
    hints = await other.hints(run, lambda *hint: heard.put_nowait(hint))
    await other.inbox(run)  # answered after the subscription is in place
    await mine.post(elsewhere, report(elsewhere))
    second = await mine.post(run, report(run, "1-1"))
    third = await mine.post(run, report(run, "1-2"))
    async with asyncio.timeout(WITHIN_S):
        assert await heard.get() == (report(run, "1-1"), second, unheard)
        assert await heard.get() == (report(run, "1-2"), third, second)
    await hints.close()
    assert heard.empty()


async def test_watching_tells_of_commits(place: Place) -> None:
    mine, other = await place.log(), await place.log()
    run = new_run()
    heard: asyncio.Queue[tuple[bytes, int, int]] = asyncio.Queue()
    hints = await other.watch(run, lambda *hint: heard.put_nowait(hint))
    await other.inbox(run)
    head = await begun(mine, run)
    await mine.post(run, report(run))
    second = await mine.append(commit(run, head, [signal_read()]), head)
    async with asyncio.timeout(WITHIN_S):
        assert await heard.get() == (encode(first(run)), head.seq, 0)
        assert (await heard.get())[1:] == (second.seq, head.seq)
    await hints.close()


async def test_a_closed_subscription_hears_nothing(place: Place) -> None:
    log = await place.log()
    run = new_run()
    closed: list[int] = []
    heard: asyncio.Queue[int] = asyncio.Queue()
    await (await log.hints(run, lambda _data, seq, _before: closed.append(seq))).close()
    hints = await log.hints(run, lambda _data, seq, _before: heard.put_nowait(seq))
    seq = await log.post(run, report(run))
    async with asyncio.timeout(WITHIN_S):
        assert await heard.get() == seq
    assert closed == []
    await hints.close()


# ------------------------------------------------------------------------------------------- blobs


@pytest.mark.parametrize(
    "size", [0, 1, BLOB_CHUNK_BYTES, BLOB_CHUNK_BYTES + 1, 3 * BLOB_CHUNK_BYTES]
)
async def test_a_blob_comes_back(place: Place, size: int) -> None:
    mine, other = await place.log(), await place.log()
    data = (new_run().encode() * (size // 13 + 1))[:size]
    ref = await mine.put_blob(data)
    assert ref == blob_ref(data)
    assert await other.get_blob(ref) == data


async def test_a_blob_is_written_once(place: Place) -> None:
    mine, other = await place.log(), await place.log()
    data = new_run().encode() * BLOB_CHUNK_BYTES
    data = data[: 2 * BLOB_CHUNK_BYTES]
    refs = await asyncio.gather(*(log.put_blob(data) for log in (mine, other, mine)))
    assert set(refs) == {blob_ref(data)}
    if isinstance(place, BrokerPlace | SimPlace):
        info = await (await place.broker()).request(
            "$JS.API.STREAM.INFO.BLOBS", {"subjects_filter": f"blobs.{refs[0].sha256}.>"}
        )
        assert list(info["state"]["subjects"].values()) == [1, 1]
    assert await other.get_blob(refs[0]) == data


async def test_a_blob_that_is_too_large_is_not_stored(place: Place) -> None:
    log = await place.log()
    data = bytes(MAX_VALUE_BYTES + 1)
    with pytest.raises(TooLarge, match=str(MAX_VALUE_BYTES)):
        await log.put_blob(data)
    with pytest.raises(NotFound):
        await log.get_blob(BlobRef(blob_ref(data).sha256, BLOB_CHUNK_BYTES))


async def test_a_blob_that_is_not_there_is_not_found(place: Place) -> None:
    ref = blob_ref(new_run().encode())
    with pytest.raises(NotFound, match=ref.sha256):
        await (await place.log()).get_blob(ref)


async def test_a_spoilt_blob_is_not_given_out(place: Place) -> None:
    ref = blob_ref(new_run().encode())
    await place.spoil(ref, b"something else")
    with pytest.raises(InvalidData, match=ref.sha256):
        await (await place.log()).get_blob(ref)


# -------------------------------------------------------------------------------------------- runs


async def test_runs_are_listed_by_prefix(place: Place) -> None:
    log = await place.log()
    mark = new_run()[:6]
    begun_runs = [f"{mark}{tail}" for tail in ("aaaaaa0", "aabbbb0", "ccdddd0")]
    await begun(log, begun_runs[0])
    await begun(log, begun_runs[1])
    await log.post(begun_runs[2], report(begun_runs[2]))  # only its inbox
    assert await log.runs(mark) == begun_runs
    assert await log.runs(f"{mark}aa") == begun_runs[:2]
    assert await log.runs(begun_runs[2]) == [begun_runs[2]]
    assert await log.runs(new_run()) == []
    assert set(begun_runs) <= set(await log.runs())


# ------------------------------------------------------------------------------------- as it stands


async def test_what_is_stored_comes_with_its_original_bytes(place: Place) -> None:
    log = await place.log()
    run = new_run()
    head = await begun(log, run)
    sent = report(run)
    await place.strange(run, "c", b"noise \xff")
    await log.post(run, sent)
    seen = await log.read(run)
    second = commit(run, seen.head, [signal_read()])
    await log.append(second, seen.head)
    found = await log.stored(run)
    assert [each.data for each in found.commits] == [
        encode(first(run)),
        b"noise \xff",
        encode(second),
    ]
    assert [each.data for each in found.inbox] == [sent]
    assert found.commits[0].seq == head.seq
    assert await log.stored(new_run()) == ([], [])


async def test_a_log_may_begin_with_the_commit_that_stands_for_what_is_archived(
    place: Place,
) -> None:
    log = await place.log()
    run = new_run()
    past = first(run)
    prev = digest(encode(past))
    stub = Commit(
        run=run,
        n=7,
        epoch=3,
        at=AT,
        causes=("archive",),
        events=(Archived(manifest="file:///somewhere", head=prev),),
        prev=prev,
    )
    await place.strange(run, "c", encode(stub))
    seen = await log.read(run)
    assert (seen.commits, seen.aside) == ([stub], [])
    assert (seen.head.n, seen.head.epoch) == (7, 3)
    assert seen.state().phase == "ended"
    with pytest.raises(Fenced):
        await log.append(first(run), EMPTY)
    assert decide(seen.state(), [begin(), Activate("b", "1")], AT) == []  # it never begins again


async def test_a_log_that_is_read_as_far_as_an_event(place: Place) -> None:
    log = await place.log()
    made = synthetic.run(60, int.from_bytes(os.urandom(7), "big"))
    head = EMPTY
    for data in made.commits:
        head = await log.append(decode_commit(data), head)
    for data in made.inbox:
        await log.post(made.run, data)
    whole = await log.read(made.run)
    for until in (1, 2, 3, 30, made.events):
        begun = await log.read(made.run, until=until)
        assert begun.state(until) == whole.state(until)
    assert (await log.read(made.run, until=made.events + 1)).head == whole.head
