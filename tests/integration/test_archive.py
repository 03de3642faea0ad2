"""The archive of a real server: the restore drill, and what is left alone."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.jetstream_queue import JetStreamQueue
from protocol import subjects
from protocol.actions import BlobRef, Report
from protocol.codec import Commit, blob_ref, digest, encode
from protocol.commands import Continue
from protocol.inbox import Label
from protocol.limits import BLOB_CHUNK_BYTES
from replay.archive.archiver import Archiver
from replay.archive.blobs import GRACE_MS, free
from replay.archive.folder import Folder
from replay.archive.keeper import BrokerKeeper
from replay.archive.shelf import ArchiveShelf
from replay.broker import Broker
from replay.chain import EMPTY, Messages, assemble
from replay.foreign import foreign
from replay.jetstream_log import JetStreamLog
from replay.layered import LayeredLog
from replay.memory_log import MemoryLog, MemoryStore
from replay.scrub import BrokerLedger, Scrubber
from replay.streams import ensure_streams
from tests.broker import One, in_thread, r1
from tests.contract.test_log import first
from tests.places import connected, new_run
from tests.runs import AT
from tests.stored import BLOB, RECORD, datas, stored_family
from tests.world import now_ms

NOW = AT + 10**9


@pytest.fixture
async def server() -> AsyncIterator[One]:
    with r1() as one:
        yield one


async def opened(server: One) -> Broker:
    broker = await connected(server, "conductor")
    await ensure_streams(broker)
    return broker


async def fill(log: JetStreamLog) -> dict[str, Messages]:
    """A run with two child runs, stored as conductors and workers would; and how they stand."""
    source = MemoryLog(MemoryStore())
    runs = stored_family(source.store, 2)
    for data in (BLOB, RECORD):
        await log.put_blob(data)
    for run in runs:
        messages = await source.stored(run)
        head = EMPTY
        for each in messages.inbox:
            await log.post(run, each.data)
        for commit in (await source.read(run)).commits:
            head = await log.append(commit, head)
    return {run: await log.stored(run) for run in runs}


def archiver(log: JetStreamLog, path: Path) -> Archiver:
    shelf = ArchiveShelf(Folder(os.fspath(path)))
    return Archiver(log, BrokerLedger(log), BrokerKeeper(log), shelf, lambda: NOW)


async def test_restore_drill(server: One, tmp_path: Path) -> None:
    """Archive, throw the server's data away, bring up a fresh one: every byte is read."""
    path = tmp_path / "archive"
    broker = await opened(server)
    log = JetStreamLog(broker)
    before = await fill(log)
    scrubber = Scrubber(log, BrokerLedger(log))
    assert await scrubber.scrub() == []
    outcomes = await archiver(log, path).archive(list(before))
    assert [each.done for each in outcomes] == ["archived"] * len(before)
    assert await scrubber.scrub(thorough=True) == [], "an archived run isn't cut"
    assert (await foreign(log)).total == 0, "and what stands for it is nobody else's"
    left = await log.stored(next(iter(before)))
    assert (len(left.commits), left.inbox) == (1, [])
    layered = LayeredLog(log, [ArchiveShelf(Folder(os.fspath(path)))])
    for run, messages in before.items():
        found = await layered.stored(run)
        assert found.commits[:-1] == messages.commits
        assert found.inbox == messages.inbox
    await broker.close()
    await in_thread(server.stop)

    with r1() as fresh:
        broker = await opened(fresh)
        log = JetStreamLog(broker)
        assert await log.runs() == []
        shelf = ArchiveShelf(Folder(os.fspath(path)))
        layered = LayeredLog(log, [shelf])
        assert await layered.runs() == sorted(before)
        for run, messages in before.items():
            assert await layered.stored(run) == messages
            read = await layered.read(run)
            assert (read.head.n, read.aside) == (len(messages.commits), [])
            assert read.state().phase == "ended"
        refs = [BlobRef(sha, place.size) for sha, place in shelf.index.blobs.items()]
        assert {await layered.get_blob(ref) for ref in refs} == {BLOB, RECORD}
        assert shelf.check() == []
        run = next(iter(before))
        late = encode(Label(run=run, key="good", value=True, by="ada"))
        await layered.post(run, late)  # and life goes on
        assert datas((await layered.stored(run)).inbox) == [*datas(before[run].inbox), late]
        await broker.close()


async def test_a_run_whose_task_is_queued_is_left_alone(server: One, tmp_path: Path) -> None:
    broker = await opened(server)
    log = JetStreamLog(broker)
    before = await fill(log)
    run = next(iter(before))
    tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=10)
    assert await tasks.put(subjects.task("normal", run), encode(Continue(run=run)))
    (outcome,) = await archiver(log, tmp_path / "archive").archive([run])
    assert (outcome.done, outcome.why) == ("skipped", "a conductor has it, or will get it")
    assert await log.stored(run) == before[run]
    await broker.close()


async def test_only_what_was_archived_is_removed(server: One, tmp_path: Path) -> None:
    broker = await opened(server)
    log = JetStreamLog(broker)
    before = await fill(log)
    run = next(iter(before))
    other = new_run()
    await log.append(first(other), EMPTY)
    await log.post(other, encode(Label(run=other, key="k", value=1, by="a")))
    kept = await log.stored(other)
    keeper = BrokerKeeper(log)

    class Late(BrokerKeeper):
        """Somebody speaks to the run when it is being removed."""

        async def trim(self, run: str, where: str, before: int) -> None:
            await log.post(run, late)
            await keeper.trim(run, where, before)  # type: ignore[arg-type]

    late = encode(Label(run=run, key="late", value=1, by="a"))
    one = archiver(log, tmp_path / "archive")
    one.keeper = Late(log)
    await one.archive([run])
    assert await log.stored(other) == kept
    assert datas((await log.stored(run)).inbox) == [late, late]
    layered = LayeredLog(log, [ArchiveShelf(Folder(os.fspath(tmp_path / "archive")))])
    assert datas((await layered.stored(run)).inbox) == [*datas(before[run].inbox), late, late]
    assert await keeper.spoken_to() == {*before, other}
    stub: Commit = (await log.read(run)).commits[0]
    assert stub.causes == ("archive",)
    await broker.close()


async def test_whoever_reads_while_a_run_is_archived_sees_all_of_it(
    server: One, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commits are read before they are removed, its inbox after."""
    broker, slow = await opened(server), await opened(server)
    before = await fill(JetStreamLog(broker))
    run = next(iter(before))
    read, archived = asyncio.Event(), asyncio.Event()
    page = slow.page

    async def later(stream: str, subject: str, *rest: Any) -> Any:
        if subject == subjects.inbox(run):
            await archived.wait()
        found = await page(stream, subject, *rest)
        read.set()
        return found

    monkeypatch.setattr(slow, "page", later)
    path = tmp_path / "archive"
    layered = LayeredLog(JetStreamLog(slow), [ArchiveShelf(Folder(os.fspath(path)))])
    reading = asyncio.create_task(layered.read(run))
    await read.wait()
    await archiver(JetStreamLog(broker), path).archive([run])
    archived.set()
    found = await reading
    assert found.commits[: len(before[run].commits)] == assemble(run, *before[run]).commits
    assert [each.hash for each in found.inbox] == [digest(each.data) for each in before[run].inbox]
    assert found.aside == []
    await slow.close()
    await broker.close()


async def test_blobs_that_only_archived_runs_name_are_removed(server: One, tmp_path: Path) -> None:
    broker = await opened(server)
    log = JetStreamLog(broker)
    before = await fill(log)
    keeper = BrokerKeeper(log)
    value, record = blob_ref(BLOB), blob_ref(RECORD)
    one = archiver(log, tmp_path / "archive")
    await one.archive(list(before))
    shelf, all_time = one.shelf, now_ms() + 10**9
    assert await free(log, one.all, keeper, shelf, now_ms() - GRACE_MS) == 0, "stored just now"
    run = new_run()
    await log.append(first(run), EMPTY)
    report = Report(run=run, call="1-0", attempt=1, status="OK", blob=record)
    await log.post(run, encode(report))
    assert await free(log, one.all, keeper, shelf, all_time) == 1
    assert await keeper.blobs() == {record.sha256}
    assert await log.get_blob(record) == RECORD
    assert await LayeredLog(log, [ArchiveShelf(shelf.folder)]).get_blob(value) == BLOB
    assert await log.put_blob(BLOB) == value, "and is put there again when it is needed"
    assert await log.get_blob(value) == BLOB
    await broker.close()


async def test_what_is_stored_after_the_mark_is_not_removed(server: One) -> None:
    broker = await opened(server)
    log = JetStreamLog(broker)
    keeper = BrokerKeeper(log)
    large = bytes(3 * BLOB_CHUNK_BYTES)
    refs = [await log.put_blob(b"a"), await log.put_blob(large)]
    mark = await keeper.mark(now_ms() + 10**9)
    assert await keeper.mark(now_ms() - 10**9) == 1
    late = await log.put_blob(b"late")
    assert not await keeper.remove(late.sha256, mark)
    assert [await keeper.remove(ref.sha256, mark) for ref in refs] == [True, True]
    assert not await keeper.remove(refs[0].sha256, mark), "it went already"
    assert await keeper.blobs() == {late.sha256}
    assert await log.put_blob(large) == refs[1]
    assert not await keeper.remove(refs[1].sha256, mark), "an upload that came meanwhile"
    assert await log.get_blob(refs[1]) == large
    await broker.close()
