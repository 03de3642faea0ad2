"""A damaged archive: found, named, and in nobody's way."""

import errno
import os
from io import BufferedReader, RawIOBase
from pathlib import Path

import pytest

from protocol.codec import blob_ref, encode
from protocol.errors import DiskFault, InvalidData
from protocol.inbox import Label
from replay.archive.folder import Folder
from replay.archive.manifest import MANIFESTS
from replay.archive.shelf import ArchiveShelf
from tests.archives import Deployment, everything
from tests.stored import BLOB, RECORD, stored_family


@pytest.fixture
def there(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "archive")


async def test_every_damaged_file_is_found(there: Deployment) -> None:
    runs = stored_family(there.store)
    await there.archive(runs)
    for path in sorted(each for each in there.path.rglob("*") if each.is_file()):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 3] ^= 1
        path.write_bytes(bytes(damaged))
        assert ArchiveShelf(Folder(os.fspath(there.path))).check() != [], path
        path.unlink()
        if path.parent.name != MANIFESTS:
            assert ArchiveShelf(Folder(os.fspath(there.path))).check() != [], path
        path.write_bytes(whole)
    assert ArchiveShelf(Folder(os.fspath(there.path))).check() == []


async def test_a_flipped_bit_of_a_file_is_an_error_and_never_another_run(
    there: Deployment,
) -> None:
    runs = stored_family(there.store)
    before = await everything(there.live, runs)
    await there.archive(runs)
    shelf = ArchiveShelf(Folder(os.fspath(there.path)))
    shelf.refresh()
    refused = 0
    for path in [*there.path.glob("segments/*"), *there.path.glob("blobs/*")]:
        whole = path.read_bytes()
        for at in range(0, len(whole), 5):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << at % 8
            path.write_bytes(bytes(flipped))
            shelf.forget()
            try:
                assert {run: shelf.get(run) for run in runs} == before
                assert shelf.blob(blob_ref(BLOB)) == BLOB
                assert shelf.blob(blob_ref(RECORD)) == RECORD
            except InvalidData:
                refused += 1
        path.write_bytes(whole)
    assert refused


@pytest.mark.parametrize("gone", [False, True])
async def test_a_damaged_file_keeps_no_other_run_from_being_archived(
    there: Deployment, gone: bool
) -> None:
    run, *others = stored_family(there.store)
    assert await there.archive([run]) == ["archived"]
    (segment,) = there.path.glob("segments/*")
    if gone:
        segment.unlink()
    else:
        segment.write_bytes(segment.read_bytes()[:-100])
    await there.live.post(run, encode(Label(run=run, key="k", value=1, by="a")))
    (looked, *_) = await there.archiver().look([run, *others])
    first, *rest = await there.archiver().archive([run, *others])
    for each in (looked, first):
        assert each.done == "skipped"
        assert segment.name in each.why
        assert each.error is not None
        assert "podium archive --check" in each.error.hint
    assert [each.done for each in rest] == ["archived"] * len(others)


async def test_a_fault_of_the_disk_is_told_as_that(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    await there.archive([run])

    class Failing(RawIOBase):
        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            return 9_999

        def readinto(self, _buffer: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    class Disk(Folder):
        def open(self, name: str) -> BufferedReader:
            return BufferedReader(Failing())

    shelf = ArchiveShelf(Disk(os.fspath(there.path)))
    shelf.refresh()
    (segment,) = there.path.glob("segments/*")
    for read in (lambda: shelf.get(run), lambda: shelf.blob(blob_ref(BLOB))):
        with pytest.raises(DiskFault, match=r"Input/output error \(EIO\)") as caught:
            read()
        assert "damaged" not in caught.value.message
    with pytest.raises(DiskFault, match=segment.name):
        shelf.get(run)
    assert any("Input/output error" in line for line in shelf.check())


async def test_a_manifest_that_is_missing_between_others_is_found(there: Deployment) -> None:
    run, *_ = stored_family(there.store)
    await there.archive([run])
    await there.live.post(run, encode(Label(run=run, key="k", value=1, by="a")))
    await there.archive([run])
    first = min(os.listdir(there.path / MANIFESTS))
    (there.path / MANIFESTS / first).unlink()
    wrong = ArchiveShelf(Folder(os.fspath(there.path))).check()
    assert f"manifest {first} is missing" in wrong


@pytest.mark.parametrize("of", ["segments", "blobs", MANIFESTS])
async def test_a_disk_that_stores_something_else_loses_nothing(there: Deployment, of: str) -> None:
    runs = stored_family(there.store)
    before = await everything(there.live, runs)

    class Lying(Folder):
        def put(self, name: str, source: Path) -> None:
            if name.startswith(of):
                source.write_bytes(source.read_bytes()[:-9] + b"forgetful")
            Folder.put(self, name, source)

    archiver = there.archiver(shelf=ArchiveShelf(Lying(os.fspath(there.path))))
    with pytest.raises(InvalidData, match="damaged"):
        await archiver.archive(runs)
    assert await everything(there.live, runs) == before
