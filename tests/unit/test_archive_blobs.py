"""Blobs leave the live store when the archive has them and no run there names them."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import BlobRef, Report
from protocol.codec import blob_ref, encode
from protocol.commands import Activate, Fork
from protocol.errors import InvalidData, NotFound, Unreachable
from protocol.run import RULES
from replay.archive.blobs import mentioned
from replay.archive.folder import Folder
from replay.archive.keeper import MemoryKeeper
from replay.archive.shelf import ArchiveShelf
from replay.chain import Messages, Stored
from replay.forks import origin_at
from replay.history import entries
from replay.layered import LayeredLog
from tests.archives import Deployment
from tests.runs import AT, Driver, begin
from tests.stored import BLOB, MANY, RECORD, put, stored_family, stored_of

VALUE, OTHER = blob_ref(BLOB), blob_ref(RECORD)


@pytest.fixture
def there(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "archive")


def left(there: Deployment) -> set[str]:
    return set(there.store.blobs)


async def readable(log: LayeredLog) -> None:
    assert await log.get_blob(VALUE) == BLOB
    assert await log.get_blob(OTHER) == RECORD


async def test_blobs_of_archived_runs_go_and_are_read_from_the_archive(there: Deployment) -> None:
    early = there.readers()
    runs = stored_family(there.store)
    assert await there.archiver().free() == 0, "there is no archive"
    await there.archive(runs)
    assert left(there) == {VALUE.sha256, OTHER.sha256}
    assert await there.archiver().free() == 2
    assert left(there) == set()
    assert await there.archiver().free() == 0
    await readable(there.readers())
    await readable(early)  # it looks again before it says that there is none
    with pytest.raises(NotFound):
        await early.get_blob(blob_ref(b"never"))
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []


def names(run: str, *refs: BlobRef) -> bytes:
    """A report that comes late, or twice."""
    record = refs[1] if len(refs) > 1 else None
    return encode(
        Report(run=run, call="1-1", attempt=1, status="OK", blob=refs[0], record_blob=record)
    )


def goes_on(there: Deployment) -> None:
    """Have another run in the live log that has not ended."""
    driver = Driver()
    driver.give(msgspec.structs.replace(begin(), run=MANY), Activate("conductor", RULES))
    assert driver.state.phase != "ended"
    put(there.store, MANY, stored_of(driver))


async def test_what_a_run_that_goes_on_names_stays(there: Deployment) -> None:
    runs = stored_family(there.store)
    goes_on(there)
    await there.live.post(MANY, names(MANY, VALUE))
    await there.archive(runs)
    assert await there.archiver().free() == 1
    assert left(there) == {VALUE.sha256}


async def test_what_a_run_that_ended_and_is_not_archived_names_stays(there: Deployment) -> None:
    runs = stored_family(there.store)
    await there.archive(runs, keep=True)
    assert await there.archiver().free() == 0
    assert left(there) == {VALUE.sha256, OTHER.sha256}


async def test_what_a_late_message_names_stays_until_that_is_archived(there: Deployment) -> None:
    run, *others = stored_family(there.store)
    await there.archive([run, *others])
    await there.live.post(run, names(run, OTHER))
    assert await there.archiver().free() == 1
    assert left(there) == {OTHER.sha256}
    await there.archive([run])
    assert await there.archiver().free() == 1


async def test_what_a_fork_shares_with_an_archived_run_stays(there: Deployment) -> None:
    root, *children = stored_family(there.store)
    whole = await there.live.read(root)
    await there.archive([root, *children])
    at = next(entry.number for entry in entries(whole) if entry.kind == "RoundClosed") + 1
    driver = Driver(at=AT + 10**6)
    driver.state = whole.state(at)
    driver.give(Fork(run=MANY, origin=origin_at(whole, at)), Activate("conductor", RULES))
    put(there.store, MANY, stored_of(driver))
    assert await there.archiver().free() == 0
    assert left(there) == {VALUE.sha256, OTHER.sha256}


async def test_what_nobody_can_decode_counts_too(there: Deployment) -> None:
    runs = stored_family(there.store)
    await there.archive(runs)
    await there.live.post(MANY, b"\x00 damaged: " + VALUE.sha256.encode() + b"!")
    assert await there.archiver().free() == 1
    assert left(there) == {VALUE.sha256}


async def test_what_is_not_in_the_archive_stays(there: Deployment) -> None:
    runs = stored_family(there.store)
    await there.archive(runs)
    alone = await there.live.put_blob(b"of a worker that has not reported yet")
    assert await there.archiver().free() == 2
    assert left(there) == {alone.sha256}


async def test_what_was_stored_just_now_stays(there: Deployment) -> None:
    runs = stored_family(there.store)
    await there.archive(runs)
    there.keeper.fresh.add(VALUE.sha256)
    assert await there.archiver().free() == 1
    assert left(there) == {VALUE.sha256}


async def test_what_the_archive_does_not_give_back_stays(
    there: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    runs = stored_family(there.store)
    await there.archive(runs)
    (name,) = os.listdir(there.path / "blobs")
    path = there.path / "blobs" / name
    path.write_bytes(path.read_bytes()[:-20])
    assert await there.archiver().free() == 0
    assert left(there) == {VALUE.sha256, OTHER.sha256}
    assert "stays in the live store" in caplog.text
    await readable(there.readers())


async def test_an_upload_that_found_its_blob_there_is_read_from_the_archive(
    there: Deployment,
) -> None:
    """What the broker can't exclude: it was removed before the report was stored."""
    runs = stored_family(there.store)
    await there.archive(runs)
    assert await there.live.put_blob(BLOB) == VALUE
    await there.archiver().free()
    goes_on(there)
    await there.live.post(MANY, names(MANY, VALUE))
    await readable(there.readers())
    assert await there.live.put_blob(BLOB) == VALUE
    assert await there.live.get_blob(VALUE) == BLOB, "the next upload puts it back"


async def test_an_archive_that_does_not_answer_is_no_missing_blob(there: Deployment) -> None:
    class Away(ArchiveShelf):
        def refresh(self) -> None:
            raise Unreachable("the archive is away")

    log = LayeredLog(there.live, [Away(Folder(os.fspath(there.path)))])
    with pytest.raises(Unreachable):
        await log.get_blob(VALUE)
    there.store.blobs[VALUE.sha256] = b"spoilt"
    with pytest.raises(InvalidData):
        await log.get_blob(VALUE)


# ------------------------------------------------------------------------------------- crashes


class Crash(Exception):
    """The archiver's process dies here."""


class DyingKeeper(MemoryKeeper):
    """Dies at its ``at``-th step, before or after it is done."""

    at, after = 0, False

    async def _step(self, work: Callable[[], Awaitable[Any]]) -> Any:
        self.at -= 1
        if self.at == 0 and not self.after:
            raise Crash
        done = await work()
        if self.at == 0:
            raise Crash
        return done

    async def trim(self, run: str, where: Any, before: int) -> None:
        await self._step(lambda: MemoryKeeper.trim(self, run, where, before))

    async def remove(self, blob: str, mark: int) -> bool:
        done: bool = await self._step(lambda: MemoryKeeper.remove(self, blob, mark))
        return done


@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_step_loses_no_blob(tmp_path: Path, after: bool) -> None:
    for at in range(1, 2 * 3 + 2 + 2):
        crashed = False
        there = Deployment(tmp_path / str(at))
        runs = stored_family(there.store, 2)
        keeper = DyingKeeper(there.store)
        keeper.at, keeper.after = at, after
        archiver = there.archiver(keeper=keeper)
        try:
            await archiver.archive(runs)
            await archiver.free()
        except Crash:
            crashed = True
            await readable(there.readers())
        await there.archive(runs)
        await there.archiver().free()
        assert left(there) == set()
        await readable(there.readers())
        await readable(there.archive_only())
        assert crashed is (at <= 2 * len(runs) + 2)


@given(st.binary(max_size=40), st.binary(max_size=40), st.booleans())
def test_every_blob_that_a_report_names_is_mentioned(a: bytes, b: bytes, last: bool) -> None:
    refs = blob_ref(a), blob_ref(b)
    stored = [Stored(1, b"{}"), Stored(2, names(MANY, *refs))]
    messages = Messages([], stored) if last else Messages(stored, [])
    assert mentioned(messages) >= {each.sha256 for each in refs}
