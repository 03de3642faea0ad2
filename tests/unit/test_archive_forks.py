"""Forks in the archive: a fork brings what it shares, and finds it there."""

import os
from pathlib import Path

import pytest

from protocol.codec import Commit, blob_ref
from protocol.commands import Activate, Fork
from protocol.run import RULES
from replay.archive.folder import Folder
from replay.archive.shelf import ArchiveShelf
from replay.chain import assemble
from replay.forks import origin_at
from replay.history import entries, reports
from replay.imported import FolderShelf, export
from replay.memory_log import MemoryLog, MemoryStore
from replay.scrub import Scrubber
from replay.verify import verify_run
from tests.archives import Deployment
from tests.runs import AT, Driver, answer, planned, started
from tests.stored import BLOB, MANY, RECORD, datas, put, stored_family, stored_of


@pytest.fixture
def there(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "archive")


def forked_off(there: Deployment, at: int = 0) -> tuple[str, str]:
    """A run in its second round and a fork of it that has ended; their ids."""
    origin = started(planned(n=1), planned(n=2))
    origin.report("1-0", value=7)
    run = origin.state.run
    put(there.store, run, stored_of(origin))
    log = assemble(run, *stored_of(origin))
    fork = Driver(at=AT + 10**6)
    shared = at or len(origin.events)
    fork.state = log.state(shared)
    fork.give(Fork(run=MANY, origin=origin_at(log, shared)), Activate("conductor", RULES))
    fork.report("1-1", value=8)
    fork.reply(answer("15"))
    assert fork.state.outcome == "finished"
    put(there.store, MANY, stored_of(fork))
    return run, MANY


async def test_a_fork_is_archived_with_what_it_shares(there: Deployment) -> None:
    run, fork = forked_off(there)
    before = await there.live.read(fork)
    state, known = before.state(), reports(before).keys()
    assert [each.run for each in await there.archiver().ended()] == [fork]
    assert await there.archive([fork]) == ["archived"]
    alone = there.archive_only()
    found = await alone.read(fork)
    assert found.state() == state
    assert reports(found).keys() == known
    assert len(known) == 2
    assert await alone.runs() == [fork], "what it shares is no run by itself"
    again = await there.readers().read(fork)
    assert again.state().answer == "15"
    assert (await there.readers().read(run)).state().phase == "working"
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []


async def test_a_run_and_its_fork_can_be_archived_in_any_order(there: Deployment) -> None:
    run, fork = forked_off(there)
    await there.archive([fork])
    origin = await there.live.read(run)
    driver = Driver()
    driver.state, driver.at = origin.state(), origin.head.at
    driver.signal("cancel")
    ((*_, draft),) = driver.steps
    commit = Commit(
        run=run,
        n=origin.head.n + 1,
        epoch=origin.head.epoch,
        at=driver.at,
        causes=tuple(draft.causes),
        events=tuple(draft.events),
        prev=origin.head.hash,
    )
    await there.live.append(commit, origin.head)
    whole = await there.live.stored(run)
    assert await there.archive([run]) == ["archived"]
    for log in (there.archive_only(), there.readers()):
        assert datas((await log.stored(run)).commits)[: len(whole.commits)] == datas(whole.commits)
        assert (await log.read(fork)).state().answer == "15"
        assert await log.runs() == sorted([run, fork])
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []
    plain = await there.live.read(fork)
    assert plain.state().phase == "ended"
    assert await Scrubber(there.live, there.ledger).scrub() == []


async def test_a_fork_of_an_archived_run_reads_what_it_shares_there(there: Deployment) -> None:
    root, *_ = stored_family(there.store)
    whole = await there.live.read(root)
    await there.archive([root])
    at = next(entry.number for entry in entries(whole) if entry.kind == "RoundPlanned")
    driver = Driver(at=AT + 10**6)
    driver.state = whole.state(at)
    driver.give(Fork(run=MANY, origin=origin_at(whole, at)), Activate("conductor", RULES))
    driver.signal("cancel")
    put(there.store, MANY, stored_of(driver))
    assert (await there.live.read(MANY)).set_aside["origin"] == 1, "the live log has it no more"
    found = await there.readers().read(MANY)
    assert found.set_aside.total() == 0
    assert found.state() == driver.state
    assert await Scrubber(there.live, there.ledger).scrub() == []
    unread = await verify_run(there.live, MANY)
    assert [(each.kind, each.what) for each in unread.problems] == [("aside", "archived")]
    assert (await verify_run(there.readers(), MANY)).problems == ()
    assert await there.archive([MANY]) == ["archived"]
    assert len(os.listdir(there.path / "segments")) == 2, "the prefix was there already"
    assert (await there.archive_only().read(MANY)).state() == driver.state


async def test_a_fork_of_an_imported_run_brings_it_along(there: Deployment, tmp_path: Path) -> None:
    """With its blobs: neither its messages nor these are in the live log."""
    source = MemoryLog(MemoryStore())
    root, *_ = stored_family(source.store)
    whole = await source.read(root)
    await export(source, root, tmp_path / "imported" / "a.podium", podium="0")
    at = next(entry.number for entry in entries(whole) if entry.kind == "RoundClosed") + 1
    driver = Driver(at=AT + 10**6)
    driver.state = whole.state(at)
    driver.give(Fork(run=MANY, origin=origin_at(whole, at)), Activate("conductor", RULES))
    driver.signal("cancel")
    put(there.store, MANY, stored_of(driver))
    (alone,) = await there.archiver().archive([MANY])
    assert alone.why.startswith("what it shares can't be had")

    others = [FolderShelf(tmp_path / "imported")]
    assert [each.run for each in await there.archiver(others=others).ended()] == [MANY]
    (outcome,) = await there.archiver(others=others).archive([MANY])
    assert (outcome.done, outcome.blobs) == ("archived", 2)
    log = there.archive_only()
    found = await log.read(MANY)
    assert found.state() == driver.state
    assert reports(found).keys() == reports(whole).keys()
    for data in (BLOB, RECORD):
        assert await log.get_blob(blob_ref(data)) == data
    assert (await verify_run(log, MANY)).problems == ()
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []
