"""The scrubber over every log: what it finds, what it keeps, and that it rests when it may."""

import asyncio

import pytest

from protocol import subjects
from protocol.codec import decode_commit, encode
from protocol.events import RunActivated
from replay.chain import Head, Stored
from replay.jetstream_log import JetStreamLog
from replay.log import EventLog
from replay.memory_log import MemoryLog
from replay.scrub import BrokerLedger, Kept, KeptHead, Ledger, MemoryLedger, Scrubber
from tests.contract.test_log import begun, commit, signal_read
from tests.contract.test_queue import a_moment
from tests.places import WITHIN_S, BrokerPlace, MemoryPlace, Place, SimPlace, new_run


class Scrubbed:
    """One place, its log, and scrubbers that see only the runs of this test."""

    def __init__(self, place: Place, log: EventLog, ledger: Ledger) -> None:
        self.place, self.log, self.ledger = place, log, ledger
        self.scrubber = Scrubber(log, ledger)
        self.runs: list[str] = []

    async def run(self, commits: int) -> tuple[str, Head]:
        """A run of so many commits."""
        run = new_run()
        self.runs.append(run)
        head = await begun(self.log, run)
        for number in range(1, commits):
            head = await self.log.append(commit(run, head, [signal_read(str(number))]), head)
        return run, head

    async def found(self, *, thorough: bool = False) -> dict[str, list[str]]:
        """Kinds of findings, by run."""
        kinds: dict[str, list[str]] = {}
        for finding in await self.scrubber.scrub(thorough=thorough):
            if finding.run in self.runs:
                kinds.setdefault(finding.run, []).append(finding.kind)
        return kinds

    async def until(self, run: str, kinds: list[str]) -> None:
        """Passes until that is found of a run: replicas may lag behind."""
        async with asyncio.timeout(WITHIN_S):
            while (await self.found()).get(run, []) != kinds:
                await a_moment()

    async def kept(self, run: str, n: int) -> Kept:
        """The kept head of a run, once it is that of its commit ``n``: replicas may lag behind."""
        async with asyncio.timeout(WITHIN_S):
            while (kept := (await self.ledger.kept()).get(run)) is None or kept.head.n != n:
                await a_moment()
        return kept

    async def cut(self, run: str, keep: int) -> None:
        """Lose the end of a run, as a disk or a restored backup would."""
        if isinstance(self.place, MemoryPlace):
            del self.place.store.messages[run, "c"][keep:]
            return
        assert isinstance(self.place, BrokerPlace | SimPlace)
        broker = await self.place.broker()
        seqs = (await self.log.read(run)).seqs
        whole = [decode_commit(stored.data) for stored in await _stored(self.log, run)]
        # deny_delete keeps single messages from being deleted: purge all, write the first again
        await broker.request(
            f"$JS.API.STREAM.PURGE.{subjects.log_stream(0)}", {"filter": subjects.commits(run)}
        )
        assert len(seqs) == len(whole)
        for each in whole[:keep]:
            await broker.append(subjects.commits(run), encode(each))


async def _stored(log: EventLog, run: str) -> list[Stored]:
    assert isinstance(log, JetStreamLog)
    return await log.broker.read(subjects.log_stream(0), subjects.commits(run))


@pytest.fixture
async def scrubbed(place: Place) -> Scrubbed:
    log = await place.log()
    ledger: Ledger
    if isinstance(log, JetStreamLog):
        ledger = BrokerLedger(log)
    else:
        assert isinstance(log, MemoryLog)
        ledger = MemoryLedger(log.store)
    return Scrubbed(place, log, ledger)


async def test_sound_runs_are_read_once_and_their_heads_kept(scrubbed: Scrubbed) -> None:
    (run, head), (other, _) = await scrubbed.run(3), await scrubbed.run(1)
    assert await scrubbed.found() == {}
    assert (await scrubbed.kept(run, 3)).head == KeptHead(run=run, n=3, hash=head.hash)
    read = scrubbed.scrubber.read
    assert await scrubbed.found() == {}
    assert scrubbed.scrubber.read == read  # nothing changed: nothing read
    head = await scrubbed.log.append(commit(run, head, [signal_read("more")]), head)
    assert await scrubbed.found() == {}
    assert scrubbed.scrubber.read == read + 1  # the one that changed
    assert (await scrubbed.kept(run, 4)).seq > (await scrubbed.kept(other, 1)).seq


async def test_kept_heads_show_a_cut_tail(scrubbed: Scrubbed) -> None:
    run, head = await scrubbed.run(4)
    sound, _ = await scrubbed.run(2)
    assert await scrubbed.found() == {}
    await scrubbed.cut(run, 2)
    await scrubbed.until(run, ["cut"])
    log = await scrubbed.log.read(run)
    assert (len(log.commits), log.aside) == (2, [])  # sound in itself
    assert await scrubbed.found() == {run: ["cut"]}  # and it stays known
    fresh = Scrubber(scrubbed.log, scrubbed.ledger)
    (finding,) = [each for each in await fresh.scrub() if each.run == run]
    assert "ends with commit 2; it once had 4" in finding.detail
    assert (await scrubbed.kept(run, 4)).head.hash == head.hash  # never moves back
    assert sound not in await scrubbed.found(thorough=True)


async def test_kept_heads_show_a_run_that_is_gone(scrubbed: Scrubbed) -> None:
    run, _ = await scrubbed.run(2)
    assert await scrubbed.found() == {}
    await scrubbed.cut(run, 0)
    await scrubbed.until(run, ["cut"])


async def test_a_tail_that_was_cut_and_written_anew_is_found(scrubbed: Scrubbed) -> None:
    run, _ = await scrubbed.run(3)
    assert await scrubbed.found() == {}
    await scrubbed.cut(run, 1)
    log = await scrubbed.log.read(run)
    while len(log.commits) != 1:  # from a replica that lags behind
        log = await scrubbed.log.read(run)
    activated = RunActivated(epoch=2, conductor="b", rules="1")
    head = await scrubbed.log.append(commit(run, log.head, [activated], 2), log.head)
    for number in range(3):
        head = await scrubbed.log.append(commit(run, head, [signal_read(f"b{number}")]), head)
    await scrubbed.until(run, ["broken"])


async def test_foreign_messages_are_told_and_keep_nobody_from_keeping_heads(
    scrubbed: Scrubbed,
) -> None:
    run, head = await scrubbed.run(2)
    await scrubbed.place.strange(run, "c", b"noise")
    await scrubbed.place.strange(run, "i", b"noise")
    assert await scrubbed.found() == {run: ["foreign"]}
    assert (await scrubbed.kept(run, 2)).head.hash == head.hash


async def test_a_head_is_never_kept_over_another_one(scrubbed: Scrubbed) -> None:
    run, _ = await scrubbed.run(1)
    assert await scrubbed.found() == {}
    there = await scrubbed.kept(run, 1)
    late = KeptHead(run=run, n=9, hash="late")
    assert await scrubbed.ledger.keep(late, 0) is None
    assert await scrubbed.ledger.keep(late, there.seq) is not None
    assert await scrubbed.ledger.keep(there.head, there.seq) is None
    assert (await scrubbed.kept(run, 9)).head == late


async def test_whoever_only_looks_keeps_nothing(scrubbed: Scrubbed) -> None:
    run, _ = await scrubbed.run(1)
    await Scrubber(scrubbed.log, scrubbed.ledger, keep=False).scrub()
    assert run not in await scrubbed.ledger.kept()


async def test_noise_among_the_kept_heads_is_written_over(place: Place, scrubbed: Scrubbed) -> None:
    if not isinstance(place, BrokerPlace | SimPlace):
        pytest.skip("the ledger in memory has no subjects to write to")
    run, head = await scrubbed.run(2)
    await (await place.broker()).append(subjects.head(run), b"noise")
    assert await scrubbed.found() == {}
    assert (await scrubbed.kept(run, 2)).head == KeptHead(run=run, n=2, hash=head.hash)
