"""Exported files: whole, the same each time, and read with distrust."""

import errno
import io
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from protocol.actions import BlobRef
from protocol.codec import blob_ref, encode
from protocol.commands import Activate, Fork
from protocol.errors import Conflict, DiskFault, InvalidData, NotFound
from protocol.inbox import Reward, Signal
from protocol.run import RULES, fold
from protocol.state import RunState
from replay import bundle
from replay.bundle import BundleShelf
from replay.chain import Messages, Stored, assemble
from replay.forks import origin_at
from replay.imported import FolderShelf, check_import, export, keep
from replay.layered import LayeredLog
from replay.memory_log import MemoryLog, MemoryStore
from tests.runs import AT, Driver, answer, begin, planned, started
from tests.stored import BLOB, MANY, RECORD, datas, family_of, put, stored_family, stored_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def log(store: MemoryStore) -> MemoryLog:
    return MemoryLog(store)


async def exported(log: MemoryLog, run: str, path: Path, **more: bool) -> BundleShelf:
    await export(log, run, path, podium="0.0", **more)
    return BundleShelf(path)


async def test_a_run_comes_back_with_its_children_and_blobs(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *children = stored_family(store, rounds=2)
    assert len(children) == 2
    shelf = await exported(log, root, tmp_path / "a.podium")
    assert shelf.runs() == sorted([root, *children])
    for run in (root, *children):
        assert shelf.get(run) == await log.stored(run)
        assert assemble(run, *shelf.get(run)) == await log.read(run)
    for data in (BLOB, RECORD):
        assert shelf.blob(blob_ref(data)) == data
    assert next(shelf.read_all()).run == root
    assert shelf.manifest.missing == ()


async def test_children_can_be_left_out(store: MemoryStore, log: MemoryLog, tmp_path: Path) -> None:
    root, *_ = stored_family(store)
    shelf = await exported(log, root, tmp_path / "a.podium", children=False)
    assert shelf.runs() == [root]


async def test_the_same_run_is_the_same_file(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    await exported(log, root, tmp_path / "a.podium")
    await exported(log, root, tmp_path / "b.podium")
    assert (tmp_path / "a.podium").read_bytes() == (tmp_path / "b.podium").read_bytes()
    again = LayeredLog(None, [BundleShelf(tmp_path / "a.podium")])
    await export(again, root, tmp_path / "c.podium", podium="0.0")
    assert (tmp_path / "a.podium").read_bytes() == (tmp_path / "c.podium").read_bytes()


async def test_strangers_messages_are_kept_byte_for_byte(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    noise = [b"", b"\xff\x00\n", b'"quoted"', b"{\n}", b"{no json", b'{"a":1}\r', b"\n\n"]
    for data in noise:
        await log.post(root, data)
        store.messages[root, "c"].append(store.messages[root, "i"][-1])
    shelf = await exported(log, root, tmp_path / "a.podium")
    assert shelf.get(root) == await log.stored(root)
    assert next(shelf.read_all()).set_aside == {"commits": len(noise), "inbox": len(noise)}


async def test_memory_holds_one_run_at_a_time(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *children = stored_family(store, rounds=8)
    assert len(children) == 8
    for child in children:
        for _ in range(10):
            await log.post(child, os.urandom(100_000))
    await export(log, root, tmp_path / "a.podium", podium="0.0")
    elsewhere = LayeredLog(None, [BundleShelf(tmp_path / "a.podium")])
    tracemalloc.start()
    try:
        await export(elsewhere, root, tmp_path / "b.podium", podium="0.0")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.podium").read_bytes() == (tmp_path / "b.podium").read_bytes()
    assert peak < 7_500_000, "some copies of 1 MB, as text and as bytes; all together is 13 MB"


async def test_a_lost_blob_is_said_and_the_rest_goes(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    store.blobs.clear()
    shelf = await exported(log, root, tmp_path / "a.podium")
    lost = sorted(blob_ref(data).sha256 for data in (BLOB, RECORD))
    assert shelf.manifest.missing == tuple(lost)
    assert list(shelf.read_all())
    with pytest.raises(NotFound, match="no blob"):
        shelf.blob(blob_ref(BLOB))


async def test_an_unknown_run_leaves_no_file(log: MemoryLog, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await export(log, "0" * 13, tmp_path / "a.podium", podium="0.0")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------ hostile input

Change = Callable[[dict[str, bytes]], object]


def rewritten(path: Path, change: Change, method: int = zipfile.ZIP_STORED) -> None:
    """The file again, with other entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def manifest(**changes: object) -> Change:
    def change(entries: dict[str, bytes]) -> None:
        found = json.loads(entries["manifest.json"])
        entries["manifest.json"] = json.dumps({**found, **changes}).encode()

    return change


def flipped(suffix: str) -> Change:
    def change(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if name.endswith(suffix))
        data = bytearray(entries[name])
        data[len(data) // 2] ^= 1
        entries[name] = bytes(data)

    return change


def renamed(entries: dict[str, bytes]) -> None:
    name = next(name for name in entries if name.endswith("commits.jsonl"))
    entries["../../etc/passwd"] = entries.pop(name)


def escaping(entries: dict[str, bytes]) -> None:
    """A manifest that agrees with its entries and names a run that is a path."""
    found = json.loads(entries["manifest.json"])
    run = found["run"]
    text = json.dumps(found).replace(run, "../../../ssh")
    for name in [name for name in entries if run in name]:
        entries[name.replace(run, "../../../ssh")] = entries.pop(name)
    entries["manifest.json"] = text.encode()


HOSTILE: list[tuple[str, Change]] = [
    ("hash that the manifest says", flipped("commits.jsonl")),
    ("hash that the manifest says", flipped("inbox.jsonl")),
    ("hash that the manifest says", flipped("seqs.json")),
    ("hash that the manifest says", lambda e: e.update({n: b"x" for n in e if n[:5] == "blobs"})),
    ("no entry manifest.json", lambda e: e.pop("manifest.json")),
    ("can't be read", lambda e: e.update({"manifest.json": b"{"})),
    ("can't be read", lambda e: e.update({"manifest.json": b"[" * 100_000})),
    ("entries are not those", lambda e: e.update({"more": b""})),
    ("entries are not those", renamed),
    ("is no run's id", escaping),
    ("has format 'other'", manifest(format="other")),
    ("version 2", manifest(version=2)),
    ("doesn't hold the run", manifest(run="0" * 13)),
]


@pytest.mark.parametrize(("message", "change"), HOSTILE)
async def test_what_is_not_as_it_was_written_is_refused(
    store: MemoryStore, log: MemoryLog, tmp_path: Path, message: str, change: Change
) -> None:
    root, *_ = stored_family(store)
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    rewritten(path, change)
    with pytest.raises(InvalidData, match=message) as caught:
        await check_import(MemoryLog(), path)
    assert caught.value.hint


async def test_every_cut_and_every_flipped_byte_is_refused_or_changes_nothing(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    store.blobs.clear()
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    whole = path.read_bytes()
    before = list(BundleShelf(path).read_all())
    for at in range(0, len(whole), 37):
        flipped = bytearray(whole)
        flipped[at] ^= 0x41
        for data in (whole[:at], bytes(flipped)):
            path.write_bytes(data)
            try:
                found = list(BundleShelf(path).read_all())
            except InvalidData:
                continue
            assert found == before


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.podium"
    for data in (b"", b"PK", b"x" * 100_000, b"PK\x05\x06" + b"\xff" * 18):
        path.write_bytes(data)
        with pytest.raises(InvalidData, match=r"a\.podium can't be used"):
            BundleShelf(path)
    with pytest.raises(InvalidData, match="can't be used"):
        BundleShelf(tmp_path / "a.podium")
    with pytest.raises(NotFound):
        BundleShelf(tmp_path / "nowhere.podium")


async def test_what_would_unpack_to_too_much_is_not_unpacked(
    store: MemoryStore, log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, *_ = stored_family(store)
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    monkeypatch.setattr(bundle, "MAX_RUN_BYTES", 100)
    with pytest.raises(InvalidData, match="at most 100"):
        BundleShelf(path).get(root)
    monkeypatch.setattr(bundle, "MAX_TOTAL_BYTES", 1_000)
    monkeypatch.setattr(bundle, "MAX_MANIFEST_BYTES", 1_000)
    with pytest.raises(InvalidData, match="would unpack to more"):
        BundleShelf(path)


def peak(work: Callable[[], object]) -> int:
    """Bytes of Python's memory that it took at the most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_a_run_of_many_empty_lines_costs_no_more_than_its_bytes(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    size = 4_000_000

    def empty_lines(entries: dict[str, bytes]) -> None:
        name = f"runs/{root}/commits.jsonl"
        entries[name] = b"\n" * size
        found = json.loads(entries["manifest.json"])
        found["entries"][name] = sha256(entries[name]).hexdigest()
        entries["manifest.json"] = json.dumps(found).encode()

    rewritten(path, empty_lines)

    def get() -> None:
        with pytest.raises(InvalidData, match="a line for each of its messages"):
            BundleShelf(path).get(root)

    assert peak(get) < 4 * size


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_what_is_packed_otherwise_is_refused(
    store: MemoryStore, log: MemoryLog, tmp_path: Path, method: int
) -> None:
    root, *_ = stored_family(store)
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    rewritten(path, lambda _: None, method)
    with pytest.raises(InvalidData, match="a method that Podium doesn't use"):
        BundleShelf(path)


def test_a_run_that_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    run = "0" * 13
    messages = Messages([], [Stored(1, b"{}" * 60)])
    packed = bundle.pack(run, messages, assemble(run, *messages))
    for limit in ("MAX_RUN_BYTES", "MAX_SEQS_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(bundle, limit, 5)
            with pytest.raises(InvalidData, match="at most 5 are read"):
                bundle.write(io.BytesIO(), run, [packed], [], podium="0.0")


def test_a_file_that_is_too_large_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_TOTAL_BYTES", 50)
    with pytest.raises(InvalidData, match="doesn't fit into one file"):
        bundle.write(io.BytesIO(), "0" * 13, [], [("0" * 64, b"x" * 99)], podium="0.0")


# ------------------------------------------------------------------------------------- import


async def test_importing_twice_changes_nothing(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *children = stored_family(store)
    path, folder = tmp_path / "a.podium", tmp_path / "imported"
    await export(log, root, path, podium="0.0")
    here = LayeredLog(None, [FolderShelf(folder)])
    first = await check_import(here, path)
    assert first.fresh
    kept = keep(first, folder)
    assert sorted(await here.runs()) == sorted([root, *children])
    second = await check_import(here, path)
    assert not second.fresh
    assert keep(second, folder) == kept
    assert list(folder.iterdir()) == [kept]
    state = (await here.read(root)).state()
    assert state == (await log.read(root)).state()
    assert await here.get_blob(blob_ref(BLOB)) == BLOB


async def test_a_run_that_went_another_way_is_a_conflict(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    other = MemoryStore()
    driver = Driver(begin(task="Something else?"))
    driver.reply(answer())
    put(other, root, stored_of(driver))
    with pytest.raises(Conflict, match=f"run {root} is here already and went another way"):
        await check_import(MemoryLog(other), path)


async def test_a_live_run_that_is_behind_is_a_conflict(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    path = tmp_path / "a.podium"
    await export(log, root, path, podium="0.0")
    del store.messages[root, "c"][-1]
    with pytest.raises(Conflict, match="this deployment's own"):
        await check_import(log, path)


async def test_a_file_tells_nothing_to_a_run_that_goes_on(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    """What stands in an imported inbox is read as if it had been sent."""
    driver = started()
    run, path = driver.state.run, tmp_path / "a.podium"
    put(store, run, stored_of(driver))
    await export(log, run, path, podium="0.0")
    assert not (await check_import(log, path)).fresh
    forged = MemoryStore()
    put(forged, run, stored_of(driver))
    forged.put((run, "i"), encode(Signal(id="1", run=run, kind="cancel", by="a stranger")))
    await export(MemoryLog(forged), run, path, podium="0.0")
    with pytest.raises(Conflict, match="goes on, and the file has messages for it"):
        await check_import(log, path)
    assert (await check_import(MemoryLog(), path)).fresh
    driver.signal("cancel")
    put(store, run, stored_of(driver))
    assert (await check_import(log, path)).fresh


async def test_a_later_export_adds_to_an_earlier_one(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    whole = await log.stored(root)
    store.messages[root, "c"] = whole.commits[:-1]
    folder = tmp_path / "imported"
    here = LayeredLog(None, [FolderShelf(folder)])
    await export(log, root, tmp_path / "a.podium", podium="0.0")
    keep(await check_import(here, tmp_path / "a.podium"), folder)
    assert (await here.read(root)).state().phase != "ended"
    store.messages[root, "c"] = list(whole.commits)
    await log.post(root, encode(Reward(run=root, channel="late", value=2.0, by="a test")))
    await export(log, root, tmp_path / "b.podium", podium="0.0")
    later = await check_import(here, tmp_path / "b.podium")
    assert later.fresh
    keep(later, folder)
    assert root in await here.runs()  # which looks into the folder again
    found = await here.read(root)
    assert datas((await here.stored(root)).commits) == datas(whole.commits)
    assert len(found.inbox) == len((await log.read(root)).inbox)
    assert found.state().phase == "ended"
    assert not (await check_import(here, tmp_path / "a.podium")).fresh


async def test_a_damaged_file_in_the_folder_hides_no_other(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    root, *_ = stored_family(store)
    await export(log, root, tmp_path / "a.podium", podium="0.0")
    (tmp_path / "b.podium").write_bytes(b"noise")
    shelf = FolderShelf(tmp_path)
    assert root in shelf.runs()
    assert shelf.get(root) == await log.stored(root)
    with pytest.raises(NotFound):
        shelf.blob(BlobRef("0" * 64, 1))
    (tmp_path / "a.podium").unlink()
    shelf.refresh()
    assert shelf.runs() == []


def test_the_family_of_this_test_is_one() -> None:
    *children, root = family_of(2)
    assert root.state.outcome == "finished"
    assert [child.state.parent.run for child in children if child.state.parent] == [
        root.state.run
    ] * 2
    for driver in (*children, root):
        messages = stored_of(driver)
        log = assemble(driver.state.run, *messages)
        assert log.aside == []
        assert log.state() == fold(RunState(), driver.events) == driver.state


async def test_a_fork_goes_with_what_it_shares(
    store: MemoryStore, log: MemoryLog, tmp_path: Path
) -> None:
    origin = started(planned(n=1), planned(n=2))
    origin.report("1-0", value=7)
    run = origin.state.run
    put(store, run, stored_of(origin))
    whole = await log.read(run)
    fork = Driver(at=AT + 10**6)
    fork.state = whole.state()
    fork.give(
        Fork(run=MANY, origin=origin_at(whole, len(origin.events))), Activate("conductor", RULES)
    )
    fork.report("1-1", value=8)
    fork.reply(answer("15"))
    put(store, MANY, stored_of(fork))
    shelf = await exported(log, MANY, tmp_path / "a.podium")
    assert shelf.runs() == [MANY], "what it shares is no run by itself"
    assert shelf.manifest.runs[run].part
    assert list(shelf.read_all())
    here = LayeredLog(None, [shelf])
    assert (await here.read(MANY)).state() == (await log.read(MANY)).state()
    assert (await check_import(here, tmp_path / "a.podium")).fresh is False
    assert (await check_import(MemoryLog(), tmp_path / "a.podium")).fresh is True


@pytest.mark.parametrize("reads", [0, 1, 2])
async def test_a_disk_that_fails_is_no_damage(
    store: MemoryStore,
    log: MemoryLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reads: int,
) -> None:
    """Whether the disk fails at once, or the second or third time that the file is opened."""
    root, *_ = stored_family(store, rounds=1)
    shelf = await exported(log, root, tmp_path / "a.podium")
    assert shelf.get(root)
    left, opened = [reads], io.open

    def failing(file: object, *more: object, **named: object) -> object:
        if str(file).endswith("a.podium"):
            if not left[0]:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
            left[0] -= 1
        return opened(file, *more, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(io, "open", failing)
    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(DiskFault, match=r"a.podium can't be read: Input/output error \(EIO\)"):
        BundleShelf(tmp_path / "a.podium").get(root)
