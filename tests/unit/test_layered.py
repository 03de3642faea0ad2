"""Shelves and a live log as one: wherever a run's messages stand, it reads the same."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import BlobRef
from protocol.codec import Commit, blob_ref, digest, encode
from protocol.errors import Conflict, InvalidData, NotFound, Unreachable
from protocol.events import Archived, RunActivated
from protocol.inbox import Label, Reward, Signal
from replay.chain import EMPTY, Messages, RunLog, Stored, assemble
from replay.layered import FRESH_S, LayeredLog
from replay.memory_log import MemoryLog, MemoryStore
from replay.shelf import checked, no_blob
from tests.runs import AT
from tests.stored import BLOB, datas, put, stored_family


class DictShelf:
    """A shelf in memory, that knows only what it has been told to look at."""

    name = "a dictionary"

    def __init__(self, **runs: Messages) -> None:
        self.there = runs
        self.known = set(runs)
        self.blobs: dict[str, bytes] = {}
        self.looks = 0

    def refresh(self) -> None:
        self.looks += 1
        self.known = set(self.there)

    def has(self, run: str) -> bool:
        return run in self.known

    def runs(self, prefix: str = "") -> list[str]:
        return sorted(run for run in self.known if run.startswith(prefix))

    def get(self, run: str) -> Messages:
        return self.there.get(run, Messages([], []))

    def blob(self, ref: BlobRef) -> bytes:
        if ref.sha256 not in self.blobs:
            raise no_blob(ref, self.name)
        return checked(self.blobs[ref.sha256], ref, self.name)


STORE = MemoryStore()
ROOT, *CHILDREN = stored_family(STORE, 2)
WHOLE = Messages(STORE.messages[ROOT, "c"], STORE.messages[ROOT, "i"])


def stub(log: RunLog) -> Commit:
    return Commit(
        run=log.run,
        n=log.head.n + 1,
        epoch=log.head.epoch,
        at=log.head.at,
        causes=("archive",),
        events=(Archived(manifest="there", head=log.head.hash),),
        prev=log.head.hash,
    )


@given(st.data())
async def test_however_a_run_is_spread_it_reads_the_same(data: st.DataObject) -> None:
    """The shelf has a beginning, the live log an end, and both may have what is between."""
    whole = await MemoryLog(STORE).read(ROOT)
    upto, since = (data.draw(st.integers(0, len(WHOLE.commits))) for _ in range(2))
    i_upto, i_since = (data.draw(st.integers(0, len(WHOLE.inbox))) for _ in range(2))
    shelf = DictShelf(
        **{ROOT: Messages(WHOLE.commits[:upto], WHOLE.inbox[:i_upto])},
    )
    live = MemoryStore()
    rest = WHOLE.commits[min(since, upto) :]
    put(live, ROOT, Messages(rest, WHOLE.inbox[min(i_since, i_upto) :]))
    log = LayeredLog(MemoryLog(live), [shelf])
    found = await log.read(ROOT)
    assert found.commits == whole.commits
    assert [entry.hash for entry in found.inbox] == [entry.hash for entry in whole.inbox]
    assert found.aside == []
    assert found.state() == whole.state()
    assert found.head.hash == whole.head.hash
    assert found.head.seq == (rest[-1].seq if rest else 0), "the position is the live log's"
    assert await log.stored(ROOT) == WHOLE


async def test_an_archived_run_is_read_from_both_places() -> None:
    whole = await MemoryLog(STORE).read(ROOT)
    live = MemoryStore()
    last = stub(whole)
    live.put((ROOT, "c"), encode(last))
    shelf = DictShelf(**{ROOT: WHOLE})
    shelf.known.clear()  # it was archived after the shelf was looked at
    found = await LayeredLog(MemoryLog(live), [shelf]).read(ROOT)
    assert found.commits == [*whole.commits, last]
    assert found.aside == []
    assert found.state().archived == "there"
    assert found.head.seq == live.last((ROOT, "c"))


async def test_a_run_that_is_archived_between_two_reads_loses_nothing() -> None:
    """Its commits were read before they were removed, its inbox after."""
    whole = await MemoryLog(STORE).read(ROOT)
    live = MemoryStore()
    put(live, ROOT, Messages(WHOLE.commits, []))
    shelf = DictShelf(**{ROOT: WHOLE})
    shelf.known.clear()
    log = LayeredLog(MemoryLog(live), [shelf])
    assert (await log.read(ROOT)).inbox == whole.inbox
    shelf.known.clear()
    assert await log.stored(ROOT) == WHOLE


async def test_a_shelf_that_knew_the_beginning_only_is_looked_at_again() -> None:
    """A fork's prefix was archived, then the run itself: a process that goes on sees all of it."""
    whole = await MemoryLog(STORE).read(ROOT)

    class Archive(DictShelf):
        def refresh(self) -> None:
            self.there[ROOT] = WHOLE

    for read in ("read", "stored"):
        shelf = Archive(**{ROOT: Messages(WHOLE.commits[:2], [])})
        live = MemoryStore()
        live.put((ROOT, "c"), encode(last := stub(whole)))
        log = LayeredLog(MemoryLog(live), [shelf])
        if read == "read":
            assert (await log.read(ROOT)).commits == [*whole.commits, last]
        else:
            assert (await log.stored(ROOT)).commits[:-1] == WHOLE.commits


async def test_who_wants_only_the_beginning_reads_no_more() -> None:
    class Begun(MemoryLog):
        async def read(self, run: str, least: int = 0, until: int | None = None) -> RunLog:
            assert until == 1, "all of it is read"
            return assemble(run, WHOLE.commits[:4], [])

    log = LayeredLog(Begun(), [DictShelf()])
    assert len((await log.read(ROOT, until=1)).commits) == 4


async def test_a_replica_that_lags_is_not_believed_of_a_run_that_is_also_on_a_shelf() -> None:
    class Lagging(MemoryLog):
        async def stored(self, run: str, least: int = 0) -> Messages:
            found = await super().stored(run, least)
            return found if least else Messages(found.commits[:-1], found.inbox)

    live = MemoryStore()
    put(live, ROOT, WHOLE)
    shelf = DictShelf(**{ROOT: Messages(WHOLE.commits[:1], [])})
    log = LayeredLog(Lagging(live), [shelf])
    count = len(WHOLE.commits)
    assert (await log.read(ROOT, count)).head.n == count
    assert len((await log.stored(ROOT, count)).commits) == count


async def test_an_archive_that_does_not_answer_is_in_the_way_of_no_live_run() -> None:
    class Away(DictShelf):
        def refresh(self) -> None:
            raise Unreachable("the archive does not answer")

    live = MemoryStore()
    log = LayeredLog(MemoryLog(live), [Away()])
    assert (await log.read("new")).commits == []
    assert await log.stored("new") == ([], [])
    live.put((ROOT, "c"), b"a stranger's")
    for each in WHOLE.commits:
        live.put((ROOT, "c"), each.data)
    for each in WHOLE.inbox:
        live.put((ROOT, "i"), each.data)
    assert (await log.read(ROOT)).head.n == len(WHOLE.commits)
    assert len((await log.stored(ROOT)).inbox) == len(WHOLE.inbox)
    whole = await MemoryLog(STORE).read(ROOT)
    live.messages.clear()
    live.put((ROOT, "c"), encode(stub(whole)))
    for reading in (log.read(ROOT), log.stored(ROOT)):
        with pytest.raises(Unreachable, match="does not answer"):
            await reading


async def test_a_damaged_shelf_hides_no_run_that_is_whole_elsewhere() -> None:
    class Damaged(DictShelf):
        def get(self, run: str) -> Messages:
            raise InvalidData(f"the file with run {run} is damaged")

    live = MemoryStore()
    put(live, ROOT, WHOLE)
    damaged = Damaged(**{ROOT: WHOLE})
    for log in (
        LayeredLog(MemoryLog(live), [damaged]),
        LayeredLog(None, [damaged, DictShelf(**{ROOT: WHOLE})]),
    ):
        assert (await log.read(ROOT)).commits == (await MemoryLog(live).read(ROOT)).commits
        assert await log.stored(ROOT) == WHOLE
    for there in (Messages([], []), Messages(WHOLE.commits, []), Messages(WHOLE.commits[3:], [])):
        put(live, ROOT, there)
        for read in ("read", "stored"):
            with pytest.raises(InvalidData, match="is damaged"):
                await getattr(LayeredLog(MemoryLog(live), [damaged]), read)(ROOT)


@pytest.mark.parametrize("upto", [0, 1, len(WHOLE.commits) - 1, len(WHOLE.commits)])
async def test_who_follows_a_run_that_is_archived_meanwhile_sees_its_end(upto: int) -> None:
    whole = await MemoryLog(STORE).read(ROOT)
    live = MemoryStore()
    put(live, ROOT, Messages(WHOLE.commits[:upto], WHOLE.inbox[:upto]))
    shelf = DictShelf()
    log = LayeredLog(MemoryLog(live), [shelf])
    found = await log.read(ROOT)
    shelf.there[ROOT] = WHOLE
    live.messages.clear()
    live.skip_to(WHOLE.commits[-1].seq)
    live.put((ROOT, "c"), encode(last := stub(whole)))
    await log.read_on(found)
    assert found.commits == [*whole.commits, last]
    assert found.inbox == whole.inbox
    assert found.aside == []
    assert found.head.seq == live.last((ROOT, "c"))


async def test_what_comes_later_is_read_on() -> None:
    live = MemoryStore()
    shelf = DictShelf(**{ROOT: WHOLE})
    log = LayeredLog(MemoryLog(live), [shelf])
    found = await log.read(ROOT)
    label = encode(Label(run=ROOT, key="good", value=True, by="ada"))
    await log.post(ROOT, label)
    await log.read_on(found)
    assert found.inbox[-1].hash == digest(label)
    await log.read_on(found)
    fresh = await log.read(ROOT)
    assert [each.hash for each in found.inbox] == [each.hash for each in fresh.inbox]
    assert found.commits == fresh.commits
    assert (await log.inbox(ROOT))[-1].data == label
    assert datas(await log.inbox(ROOT, fresh.inbox_seq)) == []


async def test_a_run_that_is_only_on_a_shelf_moves_for_nobody() -> None:
    shelf = DictShelf(**{ROOT: Messages(WHOLE.commits[:-1], WHOLE.inbox)})
    live = MemoryLog()
    log = LayeredLog(live, [shelf])
    found = await log.read(ROOT)
    activated = RunActivated(epoch=found.head.epoch + 1, conductor="b", rules="1")
    commit = Commit(
        run=ROOT,
        n=found.head.n + 1,
        epoch=activated.epoch,
        at=AT + 10**9,
        causes=("activation",),
        events=(activated,),
        prev=found.head.hash,
    )
    with pytest.raises(NotFound, match=f"run {ROOT} was imported"):
        await log.append(commit, found.head)
    with pytest.raises(Conflict, match="can't be told"):
        await log.post(ROOT, encode(Signal(id="1", run=ROOT, kind="resume", by="ada")))
    assert await live.stored(ROOT) == ([], [])


async def test_where_there_is_no_log_everything_can_be_read_and_nothing_written() -> None:
    shelf = DictShelf(**{ROOT: WHOLE})
    shelf.blobs[blob_ref(BLOB).sha256] = BLOB
    log = LayeredLog(None, [shelf])
    found = await log.read(ROOT)
    assert found.state().phase == "ended"
    assert await log.runs(ROOT[:3]) == [ROOT]
    assert await log.runs("zzz") == []
    assert await log.get_blob(blob_ref(BLOB)) == BLOB
    assert (await log.read(CHILDREN[0])).commits == []
    assert await log.tail(ROOT) is None
    await log.read_on(found)
    await (await log.watch(ROOT, lambda *_: None)).close()
    await (await log.hints(ROOT, lambda *_: None)).close()
    for writing in (
        log.put_blob(b"x"),
        log.post(ROOT, b"x"),
        log.append(stub(found), EMPTY),
    ):
        with pytest.raises(NotFound, match="no deployment"):
            await writing


async def test_a_damaged_blob_is_taken_from_another_place() -> None:
    ref = blob_ref(BLOB)
    store, good, bad = MemoryStore(), DictShelf(), DictShelf()
    store.blobs[ref.sha256] = bad.blobs[ref.sha256] = b"damaged"
    log = LayeredLog(MemoryLog(store), [bad, good])
    with pytest.raises(InvalidData, match=ref.sha256):
        await log.get_blob(ref)
    good.blobs[ref.sha256] = BLOB
    assert await log.get_blob(ref) == BLOB
    with pytest.raises(NotFound):
        await log.get_blob(blob_ref(b"never"))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_new_runs_do_not_make_the_shelves_be_looked_at_each_time() -> None:
    clock, shelf = Clock(), DictShelf()
    log = LayeredLog(MemoryLog(), [shelf], monotonic=clock)
    for number in range(20):
        assert (await log.read(f"new{number}")).commits == []
        assert await log.stored(f"new{number}") == ([], [])
    await asyncio.gather(*(log.read(f"other{number}") for number in range(20)))
    assert shelf.looks == 1
    shelf.there[ROOT] = WHOLE  # put there by somebody else
    clock.now = FRESH_S
    assert (await log.read(ROOT)).head.n == len(WHOLE.commits)
    assert shelf.looks == 2


async def test_what_is_known_to_be_archived_is_looked_for_at_once() -> None:
    whole = await MemoryLog(STORE).read(ROOT)
    live, shelf = MemoryStore(), DictShelf()
    log = LayeredLog(MemoryLog(live), [shelf], monotonic=Clock())
    assert (await log.read(ROOT)).commits == []
    live.put((ROOT, "c"), encode(stub(whole)))
    shelf.there[ROOT] = WHOLE
    assert (await log.read(ROOT)).inbox == whole.inbox


class Segments(DictShelf):
    """A shelf that has more of a run when it is looked at again."""

    later: Messages | None = None

    def refresh(self) -> None:
        super().refresh()
        if self.later is not None:
            self.there[ROOT] = self.later


@pytest.mark.parametrize("read", ["read", "stored", "inbox"])
async def test_a_late_reward_that_was_archived_is_seen_before_long(read: str) -> None:
    late = Reward(run=ROOT, channel="quality", value=1.0, by="a person")
    live, shelf, clock = MemoryStore(), Segments(**{ROOT: WHOLE}), Clock()
    live.put((ROOT, "c"), encode(stub(await MemoryLog(STORE).read(ROOT))))
    log = LayeredLog(MemoryLog(live), [shelf], monotonic=clock)

    async def heard() -> int:
        found = await getattr(log, read)(ROOT)
        return len(found if read == "inbox" else found.inbox)

    assert await heard() == len(WHOLE.inbox)
    shelf.later = Messages(WHOLE.commits, [*WHOLE.inbox, Stored(999, encode(late))])
    clock.now = FRESH_S
    assert await heard() == len(WHOLE.inbox) + 1
