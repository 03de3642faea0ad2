"""The archive in an object store: a real S3 endpoint, over HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from protocol.codec import blob_ref
from protocol.errors import Denied, NotFound, Unreachable
from replay.archive.folder import Folder
from replay.archive.manifest import MANIFESTS
from replay.archive.shelf import ArchiveShelf
from replay.layered import LayeredLog
from tests.archives import Deployment, everything
from tests.e2e.memory_host import MemoryDeployments, Shell
from tests.object_store import Line, ObjectStore
from tests.stored import BLOB, RECORD, stored_family

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with ObjectStore(tmp_path_factory.mktemp("moto")) as server:
        server.make("bucket")
        yield server


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The variables that lead to it, as a user would set them."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    reach(server.url, monkeypatch)
    yield server
    s3fs.S3FileSystem.clear_instance_cache()


def reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a process that starts now find the store there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()


def shelf_of(name: str) -> ArchiveShelf:
    return ArchiveShelf(Folder(f"s3://bucket/{name}"))


@pytest.mark.usefixtures("store")
async def test_runs_are_archived_read_and_checked_in_a_bucket(tmp_path: Path) -> None:
    there = Deployment(tmp_path)
    runs = stored_family(there.store, 2)
    before = await everything(there.live, runs)
    early = LayeredLog(there.live, [shelf_of("whole")])
    assert await early.runs() == sorted(runs), "who looked before there was anything"
    first = await there.archiver(shelf=shelf_of("whole")).archive(runs[:1])
    second = await there.archiver(shelf=shelf_of("whole")).archive(runs)
    assert [each.done for each in [*first, *second]] == ["archived", "added", *["archived"] * 2]
    alone = LayeredLog(None, [shelf_of("whole")])
    assert await alone.runs() == sorted(runs)
    assert await everything(alone, runs) == before
    for data in (BLOB, RECORD):
        assert await alone.get_blob(blob_ref(data)) == data
    there.store.messages.clear()
    assert await early.runs() == sorted(runs), "sees what came since: no listing is kept"
    assert await everything(early, runs) == before
    assert shelf_of("whole").check() == []
    names = s3fs.S3FileSystem().find("bucket/whole")
    assert {name.split("/")[2] for name in names} == {"manifests", "segments", "blobs"}


@pytest.mark.usefixtures("store")
def test_the_commands_over_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "podium.toml").write_text('[archive]\nurl = "s3://bucket/typed"\n')
    shell = Shell(tmp_path, USER="tester")
    run = shell.begin()
    shown, line = shell("runs", "show", run, "--content").out, shell("timeline", run).out
    assert shell("archive", "--all-ended").out.startswith("1 run archived to s3://bucket/typed: ")
    assert "is sound: runs 1," in shell("archive", "--check").out
    for _ in range(2):
        assert shell("runs", "show", run, "--content").out == shown
        assert shell("timeline", run).out.startswith(line)
        assert shell("verify", run).code == 0
        assert [row["run"] for row in shell("runs", "--json").json()["rows"]] == [run]
        shell.deployments = MemoryDeployments()  # and again without the live log
    assert shell("export", run, "--out", "a.podium").code == 0


@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    shell = Shell(tmp_path, USER="tester")
    shell.begin()
    said = shell("archive", "--all-ended", "--to", "s3://buckett/podium", "--json")
    assert said.code == 4
    assert "make the bucket, or mend the archive's URL" in said.json()["error"]["hint"]
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(NotFound, match="bucket does not exist"):
        Folder("s3://buckett/podium").put("segments/x", file)
    assert s3fs.S3FileSystem().ls("") == ["bucket"]


@pytest.mark.usefixtures("store")
def test_missing_keys_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(Denied) as caught:
        Folder("s3://bucket/podium").names(MANIFESTS)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


async def test_an_upload_that_is_cut_short_counts_for_nothing(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Deployment(tmp_path)
    runs = stored_family(there.store)
    before = await everything(there.live, runs)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(400_000))
    with Line(store.url) as line:
        reach(line.url, monkeypatch)
        archiver = there.archiver(shelf=shelf_of("cut"))
        line.left["up"] = 200_000
        with pytest.raises(Unreachable, match="s3://bucket/cut: segments/x"):
            archiver.shelf.folder.put("segments/x", file)
        assert line.left["up"] == 0, "half of it arrived"
        line.left["up"] = 4_000
        with pytest.raises(Unreachable, match="s3://bucket/cut"):
            await archiver.archive(runs)
        assert await everything(there.live, runs) == before
        line.left.clear()
        assert archiver.shelf.folder.names("segments") == []
        assert archiver.shelf.check() == []
        assert {each.done for each in await archiver.archive(runs)} == {"archived"}
        assert await everything(LayeredLog(None, [shelf_of("cut")]), runs) == before


async def test_a_read_that_is_cut_short_is_no_damage(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Deployment(tmp_path)
    run, *_ = stored_family(there.store)
    before = await there.live.stored(run)
    await there.archiver(shelf=shelf_of("read")).archive([run])
    with Line(store.url) as line:
        reach(line.url, monkeypatch)
        shelf = shelf_of("read")
        shelf.refresh()
        line.left["down"] = 2_000
        with pytest.raises(Unreachable, match=r"s3://bucket/read: segments/\w+.parquet"):
            shelf.get(run)
        assert line.left["down"] == 0, "its beginning arrived"
        line.left.clear()
        assert shelf.get(run) == before
