"""Versions of a model are published whole or not at all, and nothing else is taken for one."""

import threading
from pathlib import Path

import pytest

from protocol.errors import DiskFault, InvalidData, NotFound
from protocol.model_versions import BASE
from replay.model_folder import CURRENT, FOLDER, MANIFEST, check, find, names
from replay.model_versions import LOG, point, pointed, publish
from tests.model_folders import written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written("base")(tmp_path)
    return tmp_path


def test_a_folder_without_versions_answers_itself(folder: Path) -> None:
    assert pointed(folder) == BASE
    assert find(folder, BASE).path == folder
    assert check(find(folder, BASE)) != check(publish(folder, written("other")))


def test_versions_are_counted_and_the_last_one_answers(folder: Path) -> None:
    first = publish(folder, written("1"), note={"steps": 10})
    second = publish(folder, written("2"))
    assert [first.name, second.name] == names(folder) == ["000001", "000002"]
    assert pointed(folder) == "000002"
    found = find(folder, "000001").manifest
    assert found is not None
    assert found.note == {"steps": 10}
    point(folder, "000001")
    assert pointed(folder) == "000001"
    point(folder, BASE)
    assert pointed(folder) == BASE


def test_a_version_can_be_published_for_later(folder: Path) -> None:
    publish(folder, written(), current=False)
    assert pointed(folder) == BASE
    assert names(folder) == ["000001"]


def test_the_same_weights_have_the_same_hash_whatever_is_beside_them(folder: Path) -> None:
    def noted(path: Path) -> None:
        written("base")(path)
        (path / "README.md").write_text("new")

    assert check(publish(folder, noted)) == check(find(folder, BASE))


def test_a_publisher_that_fails_leaves_nothing(folder: Path) -> None:
    def fails(path: Path) -> None:
        written()(path)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        publish(folder, fails)
    with pytest.raises(InvalidData, match="no weights"):
        publish(folder, lambda path: (path / "config.json").write_text("{}"))
    with pytest.raises(InvalidData, match=r"no config\.json"):
        publish(folder, lambda path: (path / "a.safetensors").write_text("w"))
    assert list((folder / FOLDER).iterdir()) == []
    assert pointed(folder) == BASE


def test_what_a_crash_left_half_written_is_no_version(folder: Path) -> None:
    (folder / FOLDER / ".draft-1").mkdir(parents=True)
    (folder / FOLDER / "notes").mkdir()
    assert names(folder) == []
    assert publish(folder, written()).name == "000001"


def test_the_next_publisher_removes_what_a_killed_one_has_left(folder: Path) -> None:
    left = folder / FOLDER / ".draft-1"
    left.mkdir(parents=True)
    written("half of it")(left)

    def at_work(draft: Path) -> None:
        written("first")(draft)
        publish(folder, written("second"))
        assert draft.exists(), "whoever writes it lives"

    publish(folder, at_work)
    assert names(folder) == ["000001", "000002"]
    assert not left.exists()
    found = {each.name for each in (folder / FOLDER).iterdir()}
    assert found == {"000001", "000002", CURRENT, LOG}


def test_publishers_at_the_same_time_get_a_version_each(folder: Path) -> None:
    together = threading.Barrier(4)

    def one(text: str) -> None:
        together.wait()
        publish(folder, written(text))

    threads = [threading.Thread(target=one, args=(str(place),)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(folder) == [f"00000{place}" for place in range(1, 5)]
    assert len({check(find(folder, name)) for name in names(folder)}) == 4
    assert pointed(folder) in names(folder)


def test_damage_is_named(folder: Path) -> None:
    version = publish(folder, written("1"))
    check(version)
    (version.path / "model.safetensors").write_text("2")
    with pytest.raises(InvalidData, match=r"version 000001: .*model\.safetensors is damaged"):
        check(version)
    (version.path / "model.safetensors").unlink()
    with pytest.raises(InvalidData, match=r"model\.safetensors is missing"):
        check(version)
    written("1")(version.path)
    (version.path / "more.safetensors").write_text("x")
    with pytest.raises(InvalidData, match=r"more\.safetensors is not in its manifest"):
        check(version)


def test_what_is_no_version_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no config\.json"):
        find(folder, "000009")
    with pytest.raises(NotFound, match=r"no config\.json"):
        find(tmp_path / "nowhere", BASE)
    with pytest.raises(NotFound):
        point(folder, "000009")
    version = publish(folder, written())
    (version.path / MANIFEST).write_text("[]")
    with pytest.raises(InvalidData, match="no manifest that can be read"):
        find(folder, version.name)
    (version.path / MANIFEST).unlink()
    (version.path / MANIFEST).symlink_to("/proc/self/mem")  # whose first byte is an error of input
    with pytest.raises(DiskFault, match=rf"{MANIFEST} can't be read: Input/output error \(EIO\)"):
        find(folder, version.name)
    (version.path / MANIFEST).unlink()
    (version.path / "model.safetensors").unlink()
    (version.path / "model.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(DiskFault, match=r"model\.safetensors can't be read: .*EIO"):
        check(version)
    (folder / FOLDER / LOG).unlink()
    (folder / FOLDER / LOG).mkdir()
    with pytest.raises(DiskFault, match=rf"{LOG} can't be read: Is a directory"):
        pointed(folder)
    (folder / FOLDER / LOG).rmdir()
    (folder / FOLDER / CURRENT).unlink()
    (folder / FOLDER / CURRENT).symlink_to("/proc/self/mem")
    with pytest.raises(DiskFault, match=rf"{CURRENT} can't be read: .*EIO"):
        pointed(folder)
    (folder / FOLDER / CURRENT).unlink()
    (folder / FOLDER / CURRENT).write_text("../../etc")
    with pytest.raises(InvalidData, match="which is no version"):
        pointed(folder)
