"""The archive: nothing is lost or doubled wherever the archiver is cut short."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from actors.ports import Attempt
from actors.ports import Outcome as Outcome_
from protocol.actions import WorkerSpec
from protocol.codec import blob_ref, encode
from protocol.commands import Activate
from protocol.decisions import Decision
from protocol.errors import PodiumError, Usage
from protocol.inbox import Label, Reward
from protocol.run import RULES, decide
from protocol.subjects import run_id
from replay.archive import folder as folders
from replay.archive import shelf as shelves
from replay.archive.archiver import Outcome
from replay.archive.folder import Folder
from replay.archive.keeper import MemoryKeeper, Where
from replay.archive.manifest import MANIFESTS, Manifest, Named, Part
from replay.archive.shelf import ArchiveShelf
from replay.chain import Head, Messages, assemble
from replay.layered import LayeredLog
from replay.memory_log import MemoryLog
from replay.redecide import redecide
from replay.scrub import KeptHead, Scrubber
from replay.trace import spans
from tests.archives import NOW, Deployment, everything
from tests.contract.test_queue import a_moment
from tests.runs import Driver, answer, begin, started
from tests.stored import BLOB, RECORD, datas, put, stored_family, stored_of
from tests.world import World


class Crash(Exception):
    """The archiver's process dies here."""


@pytest.fixture
def there(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "archive")


async def test_archived_runs_are_read_as_before(there: Deployment) -> None:
    runs = stored_family(there.store, 2)
    before = await everything(there.live, runs)
    states = {run: (await there.live.read(run)).state() for run in runs}
    outcomes = await there.archiver().archive(runs)
    assert [each.done for each in outcomes] == ["archived"] * 3
    assert sum(each.messages for each in outcomes) == sum(
        len(each.commits) + len(each.inbox) for each in before.values()
    )
    assert sum(each.blobs for each in outcomes) == 2
    log = there.readers()
    for run in runs:
        assert [each.data for each in there.store.messages[run, "c"]] == [
            (await log.stored(run)).commits[-1].data
        ], "the live log keeps the last commit alone"
        assert (run, "i") not in there.store.messages
        found = await log.read(run)
        assert found.aside == []
        assert found.commits[:-1] == assemble(run, *before[run]).commits
        assert (await log.stored(run)).inbox == before[run].inbox
        state = found.state()
        assert state.archived.startswith(there.path.as_uri() + f"/{MANIFESTS}/00000001-")
        state.archived = ""
        assert state == states[run]
    assert await log.runs() == sorted(runs)
    there.store.blobs.clear()
    for data in (BLOB, RECORD):
        assert await log.get_blob(blob_ref(data)) == data


async def test_the_archive_alone_has_every_byte(there: Deployment) -> None:
    runs = stored_family(there.store, 2)
    before = await everything(there.live, runs)
    await there.archive(runs)
    log = there.archive_only()
    assert await everything(log, runs) == before
    assert (await log.read(runs[0])).state().outcome == "finished"
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []


async def test_archiving_again_changes_nothing(there: Deployment) -> None:
    runs = stored_family(there.store)
    await there.archive(runs)
    before = {key: list(stored) for key, stored in there.store.messages.items() if stored}
    files = sorted(os.walk(there.path))
    outcomes = await there.archiver().archive(runs)
    assert [(each.done, each.messages) for each in outcomes] == [("added", 0)] * len(runs)
    assert {key: stored for key, stored in there.store.messages.items() if stored} == before
    assert sorted(os.walk(there.path)) == files
    assert await there.archiver().ended() == []


async def test_what_comes_later_goes_into_a_later_segment(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    before = await there.live.stored(run)
    await there.archive([run])
    late = [
        encode(Reward(run=run, channel="c", value=1.0, by="a")),
        encode(Label(run=run, key="k", value=[1], by="a")),
    ]
    for data in late:
        await there.live.post(run, data)
    log = there.readers()
    assert datas((await log.stored(run)).inbox) == datas(before.inbox) + late
    assert [each.run for each in await there.archiver().ended() if not each.at] == [run]
    assert await there.archive([run]) == ["added"]
    assert (run, "i") not in there.store.messages
    assert datas((await there.readers().stored(run)).inbox) == datas(before.inbox) + late
    assert datas((await there.archive_only().stored(run)).inbox) == datas(before.inbox) + late
    assert len(os.listdir(there.path / MANIFESTS)) == 2
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []


def test_whoever_reads_while_the_shelf_is_looked_at_again_misses_nothing(tmp_path: Path) -> None:
    """Shelves are looked at in threads: what one reads, another may be adding to."""
    shelf = ArchiveShelf(Folder(os.fspath(tmp_path)))
    part = Part(segment="s", first=0, last=0, commits=1, n=1)
    wrong: list[str] = []
    adding = threading.Event()

    def reader() -> None:
        while not adding.is_set():
            try:
                shelf.runs()
            except RuntimeError as error:
                wrong.append(str(error))
            else:
                if shelf.has("run") and shelf.head("run") is None:
                    wrong.append("a run was not there for a moment")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for number in range(1, 1_000):
            runs = {"run": part, f"run-{number}": part}
            more = Manifest(at=1, previous=(), segments=(), runs=runs, blobs={})
            shelf.add(Named(f"{number:08d}-{number:032x}.json", more))
    finally:
        adding.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert wrong == []


async def test_a_copy_leaves_everything_in_its_place(there: Deployment) -> None:
    runs = stored_family(there.store)
    before = await everything(there.live, runs)
    assert await there.archive(runs, keep=True) == ["copied"] * len(runs)
    assert await everything(there.live, runs) == before
    assert await everything(there.archive_only(), runs) == before
    assert await everything(there.readers(), runs) == before, "and is read once"
    assert await there.archive(runs) == ["archived"] * len(runs)
    assert len(os.listdir(there.path / MANIFESTS)) == 1, "nothing is written again"


async def test_a_late_duplicate_task_begins_nothing_again(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    await there.archive([run])
    start = begin()
    for log in (await there.live.read(run), await there.readers().read(run)):
        state = log.state()
        assert state.phase == "ended"
        assert decide(state, [start, Activate("late", RULES)], NOW) == []


@pytest.mark.parametrize("layered", [False, True])
async def test_a_conductor_that_gets_a_late_task_of_an_archived_run_puts_it_away(
    there: Deployment, layered: bool
) -> None:
    world = World()
    world.log = there.live
    world.policy(lambda _: Decision(answer="done"))
    await world.worker(WorkerSpec(name="tool"), _unused)
    conductor = await world.conductor(log=there.readers() if layered else there.live)
    start = world.start()
    run = await world.submit(start)
    await world.ended(run)
    await put_away(world)
    assert await there.archive([run]) == ["archived"]
    before = await there.live.stored(run)
    await world.submit(start)
    await put_away(world)
    assert await there.live.stored(run) == before
    assert conductor.counts["aside"] == conductor.counts["broken"] == 0
    await world.close()


async def _unused(_: Attempt) -> Outcome_:
    raise AssertionError("nobody calls this")


async def put_away(world: World) -> None:
    """Return when the queue is empty."""
    async with asyncio.timeout(10):
        while world.tasks.items:
            await a_moment()


async def test_an_archived_run_is_decided_again_as_it_was(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    await there.archive([run])
    decided = list(redecide(await there.readers().read(run)))
    assert [each.commit.causes for each in decided][-1] == ("archive",)
    for each in decided:
        assert each.events == each.commit.events
        assert [step.problem for step in each.steps] == [""] * len(each.steps)


async def test_the_trace_of_an_archived_run_is_the_same(there: Deployment) -> None:
    runs = stored_family(there.store)
    before = spans([await there.live.read(run) for run in runs])
    await there.archive(runs)
    assert spans([await there.readers().read(run) for run in runs]) == before
    assert spans([await there.live.read(runs[0])]) == [], "nothing is known of it there"


# ----------------------------------------------------------------------------- what is left alone


async def skipped(there: Deployment, run: str) -> str:
    (outcome,) = await there.archiver().archive([run])
    assert outcome.done == "skipped"
    assert not there.path.exists(), "nothing was written"
    return outcome.why


async def test_runs_that_are_not_over_are_left_alone(there: Deployment) -> None:
    going = started()
    run = going.state.run
    put(there.store, run, stored_of(going))
    assert await there.archiver().ended() == []
    assert await skipped(there, run) == "it has not ended"
    assert await skipped(there, "0" * 13) == "it has no commits here"
    root, *_ = stored_family(there.store)
    there.keeper.at_work.add(root)
    assert "a conductor has it" in await skipped(there, root)


async def test_a_log_that_was_cut_is_not_archived_as_whole(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    head = (await there.live.read(run)).head
    await there.ledger.keep(KeptHead(run=run, n=head.n + 1, hash="0" * 32), 0)
    assert "its log is cut" in await skipped(there, run)


async def test_a_run_that_is_archived_elsewhere_is_left_there(
    there: Deployment, tmp_path: Path
) -> None:
    run, *_ = stored_family(there.store)
    await there.archive([run])
    other = there.archiver(shelf=ArchiveShelf(Folder(os.fspath(tmp_path / "other"))))
    (outcome,) = await other.archive([run])
    assert outcome.why.startswith(f"it is archived already, elsewhere: {there.path.as_uri()}")


async def test_whoever_writes_meanwhile_is_not_disturbed(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    whole = await there.live.stored(run)

    class Busy(MemoryKeeper):
        async def queued(self, run: str) -> bool:
            there.store.put((run, "c"), b"somebody's")
            return False

    archiver = there.archiver(keeper=Busy(there.store))
    (outcome,) = await archiver.archive([run])
    assert (outcome.done, outcome.why) == ("skipped", "somebody is writing to it")
    assert datas((await there.live.stored(run)).commits) == [*datas(whole.commits), b"somebody's"]
    assert (await there.readers().read(run)).set_aside["commits"] == 1


async def test_only_what_ended_before_is_due(there: Deployment) -> None:
    run, *children = stored_family(there.store)
    ended = (await there.live.read(run)).state().ended_at
    assert await there.archiver().ended(ended) == []
    assert {each.run for each in await there.archiver().ended(ended + 1)} == {run, *children}
    driver = Driver(begin())
    driver.reply(answer())
    assert len(await there.archiver().ended()) == 1 + len(children)


async def test_the_scrubber_knows_an_archived_run(there: Deployment) -> None:
    runs = stored_family(there.store, 2)
    scrubber = Scrubber(there.live, there.ledger)
    assert await scrubber.scrub() == []
    await there.archive(runs)
    assert await scrubber.scrub(thorough=True) == []
    assert await Scrubber(there.live, there.ledger).scrub() == []
    assert (await there.ledger.kept())[runs[0]].head.n == (await there.live.read(runs[0])).head.n
    there.store.messages[runs[0], "c"].clear()
    assert [each.kind for each in await scrubber.scrub()] == ["cut"]


# ------------------------------------------------------------------------------------- crashes


class Plug:
    """Stops whoever does their ``at``-th thing, before or after it is done."""

    def __init__(self, at: int, after: bool) -> None:
        self.left, self.after, self.did = at, after, list[str]()

    def now(self, name: str, work: Callable[[], Any]) -> Any:
        self.did.append(name)
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        done = work()
        if self.left == 0:
            raise Crash
        return done

    async def later(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        self.did.append(name)
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        done = await work()
        if self.left == 0:
            raise Crash
        return done


class PluggedLog(MemoryLog):
    plug: Plug

    async def append(self, commit: Any, after: Head) -> Head:
        head: Head = await self.plug.later("append", lambda: MemoryLog.append(self, commit, after))
        return head


class PluggedKeeper(MemoryKeeper):
    plug: Plug

    async def trim(self, run: str, where: Where, before: int) -> None:
        await self.plug.later("trim", lambda: MemoryKeeper.trim(self, run, where, before))


class PluggedFolder(Folder):
    plug: Plug

    def put(self, name: str, source: Path) -> None:
        self.plug.now(name.partition("/")[0], lambda: Folder.put(self, name, source))


async def cut_short(there: Deployment, runs: list[str], plug: Plug) -> list[Outcome] | None:
    """Archive until the plug is pulled."""
    log, keeper = PluggedLog(there.store), PluggedKeeper(there.store)
    folder = PluggedFolder(os.fspath(there.path))
    log.plug = keeper.plug = folder.plug = plug
    archiver = there.archiver(log=log, keeper=keeper, shelf=ArchiveShelf(folder))
    try:
        return await archiver.archive(runs)
    except Crash:
        return None


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_step_loses_and_doubles_nothing(tmp_path: Path, after: bool) -> None:
    """At each step in turn; then a second crash at each step of going on; then to the end."""
    at = 0
    while True:
        at += 1
        there = Deployment(tmp_path / str(at))
        runs = stored_family(there.store, 2)
        before = await everything(there.live, runs)
        plug = Plug(at, after)
        if await cut_short(there, runs, plug) is not None:
            break
        await same(there, runs, before)
        again = 0
        while await cut_short(there, runs, Plug(again := again + 1, after)) is None:
            await same(there, runs, before)
        await same(there, runs, before)
        assert await there.archiver().ended() == []
        assert await everything(there.archive_only(), runs) == before
        assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []
    assert plug.did == ["segments", "blobs", "manifests", *["append", "trim", "trim"] * 3]
    assert at == len(plug.did) + 1


async def same(there: Deployment, runs: list[str], before: dict[str, Messages]) -> None:
    """Whoever reads sees every message once, in its order."""
    log = there.readers()
    for run in runs:
        found = await log.stored(run)
        n = len(before[run].commits)
        assert datas(found.commits[:n]) == datas(before[run].commits)
        assert len(found.commits) <= n + 1
        assert found.inbox == before[run].inbox
        read = await log.read(run)
        assert read.aside == []
        assert read.head.n == len(found.commits)
        assert read.state().outcome == "finished"


async def test_two_archivers_at_once_write_it_twice_and_it_is_read_once(there: Deployment) -> None:
    runs = stored_family(there.store, 2)
    before = await everything(there.live, runs)
    found = await asyncio.gather(there.archiver().archive(runs), there.archiver().archive(runs))
    done = sorted(each.done for outcomes in found for each in outcomes)
    assert done.count("archived") >= len(runs), "the same bytes twice are one commit"
    await same(there, runs, before)
    assert await everything(there.archive_only(), runs) == before
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []


@pytest.mark.parametrize(("most", "reads"), [(10**6, 12), (1, 24)])
async def test_small_batches_are_read_once_and_large_ones_fill_no_memory(
    there: Deployment, monkeypatch: pytest.MonkeyPatch, most: int, reads: int
) -> None:
    runs = [run_id(bytes([number] * 16)) for number in range(12)]
    for run in runs:
        driver = Driver(msgspec.structs.replace(begin(), run=run))
        driver.reply(answer("42"))
        put(there.store, run, stored_of(driver))
        assert await there.archive([run]) == ["archived"]
    monkeypatch.setattr(shelves, "KEPT_BYTES", most)
    opened: list[str] = []

    class Counting(Folder):
        def open(self, name: str) -> BufferedReader:
            opened.append(name)
            return super().open(name)

    shelf = ArchiveShelf(Counting(os.fspath(there.path)))
    shelf.refresh()
    for run in runs * 2:  # nobody lists runs in the order of their batches
        assert shelf.get(run).commits
    assert len(opened) == reads


async def test_rows_are_what_any_parquet_reader_sees(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    before = await there.live.stored(run)
    await there.archive([run])
    (name,) = os.listdir(there.path / "segments")
    table = pq.read_table(there.path / "segments" / name)
    assert table.column_names == ["run", "where", "seq", "n", "at", "hash", "bytes"]
    rows = table.to_pylist()
    assert [row["n"] for row in rows if row["where"] == "c"] == [*range(1, len(before.commits) + 1)]
    assert {row["run"] for row in rows} == {run}


def test_an_archive_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Usage, match="can't be reached"):
        Folder("nonsense://bucket/x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(Usage, match="can't be reached") as lacking:
        Folder("s3a://bucket/x")
    assert "podium[s3]" in lacking.value.hint
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(Usage, match="needs fsspec") as caught:
        Folder(os.fspath(tmp_path))
    assert "podium[archive]" in caught.value.hint


def test_passwords_in_a_url_are_not_shown() -> None:
    assert folders.shown("sftp://me:secret@host/a/b") == "sftp://host/a/b"
    assert folders.shown("/a/b@c") == "/a/b@c"


async def test_an_archive_in_another_file_system(there: Deployment) -> None:
    runs = stored_family(there.store)
    before = await everything(there.live, runs)
    url = f"memory://{os.fspath(there.path)}"
    await there.archiver(shelf=ArchiveShelf(Folder(url))).archive(runs)
    log = LayeredLog(None, [ArchiveShelf(Folder(url))])
    assert await log.runs() == sorted(runs)
    assert await everything(log, runs) == before
    with pytest.raises(PodiumError):
        Folder(url).read("nowhere")
