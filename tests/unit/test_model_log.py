"""The log of a model's versions: a crash at any point, any number of writers, folders of others."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from protocol import model_versions as rules
from protocol.errors import Conflict, InvalidData, TimedOut, TooLarge
from protocol.model_versions import BASE, VersionEvent, Versions, VersionScored
from replay.model_folder import CURRENT, FOLDER, Manifest, place
from replay.model_versions import LOG, ModelLog, point, publish
from tests.model_folders import written

SCORED: Final = VersionScored(version=BASE, scores=({"set": "seen"},))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written("base")(tmp_path)
    return tmp_path


def current(folder: Path) -> str:
    return (folder / FOLDER / CURRENT).read_text()


def kinds(folder: Path) -> list[str]:
    return [type(event).__name__ for said in ModelLog(folder).history() for event in said.events]


def canary(versions: Versions) -> list[VersionEvent]:
    return rules.canary(versions, "000002", 0.25, weights="")


def test_all_that_is_done_is_said_by_whom_and_why(folder: Path) -> None:
    publish(folder, written("1"), current=False, by="ada", why="SFT")
    point(folder, "000001", by="ben", why="it is better")
    first, second = ModelLog(folder, lambda: 7).history()
    assert [first.n, second.n] == [1, 2]
    (published,) = first.events
    assert isinstance(published, rules.VersionPublished)
    assert (published.by, published.why) == ("ada", "SFT")
    (promoted,) = second.events
    assert isinstance(promoted, rules.VersionPromoted)
    assert (second.by, second.why, promoted.gate) == ("ben", "it is better", "none")
    assert promoted.weights == published.weights != ""
    assert ModelLog(folder).read().since == second.at > 1_600_000_000_000


def test_a_folder_that_nobody_has_published_in_is_left_alone(folder: Path) -> None:
    assert ModelLog(folder).read() == rules.EMPTY
    assert not (folder / FOLDER).exists()


def test_who_dies_before_the_pointer_is_written_is_finished_by_the_next_reader(
    folder: Path,
) -> None:
    publish(folder, written("1"))
    before = current(folder)
    publish(folder, written("2"))
    ModelLog(folder).say(lambda versions: rules.rolled_back(versions, weights=""))
    ModelLog(folder).say(canary)
    wanted = current(folder)
    assert wanted == "000001\ncanary 000002 0.25\n"
    for left in (before, "", None, "../../etc"):
        path = folder / FOLDER / CURRENT
        path.unlink() if left is None else path.write_text(left)
        versions = ModelLog(folder).read()
        assert (versions.current, versions.canary and versions.canary.share) == ("000001", 0.25)
        assert current(folder) == wanted


def test_who_dies_before_it_is_said_that_a_version_is_there(folder: Path) -> None:
    place(folder, written("1"), Manifest(version="", files={}, by="ada", at=5, why="SFT"))
    assert not (folder / FOLDER / LOG).exists()
    assert ModelLog(folder).read().known["000001"][1:] == ("ada", 5)
    assert kinds(folder) == ["VersionPublished"]


def test_who_dies_in_the_middle_of_a_line_has_said_nothing(folder: Path) -> None:
    publish(folder, written("1"))
    path = folder / FOLDER / LOG
    whole = path.read_bytes()
    reader = ModelLog(folder)
    before = reader.read()
    publish(folder, written("2"))
    said = path.read_bytes()
    for cut in range(len(whole), len(said)):
        path.write_bytes(said[:cut])
        lines = said[:cut].count(b"\n")
        assert ModelLog(folder)._path.read_bytes() == said[:cut]
        log = ModelLog(folder)
        log._follow()
        assert log._versions.n == lines
    path.write_bytes(said[:-1])
    shutil.rmtree(folder / FOLDER / "000002")
    point(folder, BASE)
    assert reader.read().current == ModelLog(folder).read().current == BASE
    assert before.current == "000001"
    assert [said.n for said in ModelLog(folder).history()] == list(range(1, 5))


def test_what_was_current_before_there_was_a_log_stays_so(folder: Path) -> None:
    publish(folder, written("1"))
    publish(folder, written("2"))
    (folder / FOLDER / LOG).unlink()
    (folder / FOLDER / CURRENT).write_text("000001\n")
    assert ModelLog(folder).read().current == "000001"
    assert kinds(folder) == ["VersionPublished", "VersionPublished", "VersionPromoted"]
    assert rules.back(ModelLog(folder).read()) == BASE


def as_nobody(read: Callable[[], str]) -> str:
    """What a process reads that has no rights over this one's files."""
    if os.geteuid():
        return read()
    come, go = os.pipe()
    if not (child := os.fork()):
        try:
            os.setuid(65_534)
            os.write(go, read().encode())
        finally:
            os._exit(0)
    os.close(go)
    with open(come, encoding="utf-8") as said:
        found = said.read()
    os.waitpid(child, 0)
    return found


def test_a_folder_that_can_t_be_written_is_read_all_the_same(folder: Path) -> None:
    publish(folder, written("1"))
    (folder / FOLDER / LOG).unlink()
    with tempfile.TemporaryDirectory() as other:
        theirs = Path(shutil.copytree(folder, other, dirs_exist_ok=True))
        for path in (theirs, theirs / FOLDER):
            path.chmod(0o555)
        assert as_nobody(lambda: ModelLog(theirs).read().current) == "000001"
        assert not (theirs / FOLDER / LOG).exists()
        for path in (theirs, theirs / FOLDER):
            path.chmod(0o755)


def test_writers_at_the_same_time_say_one_thing_after_the_other(folder: Path) -> None:
    together = threading.Barrier(4)

    def one(text: str) -> None:
        log = ModelLog(folder)
        together.wait()
        for _ in range(5):
            log.say(lambda _: [VersionScored(version=BASE, scores=({"set": text},))], by=text)

    threads = [threading.Thread(target=one, args=(str(count),)) for count in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = ModelLog(folder).history()
    assert [each.n for each in said] == list(range(1, 21))
    assert sorted(each.by for each in said) == sorted("0123" * 5)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Somebody has the lock and does nothing, as one who was stopped in the middle."""
    with (folder / FOLDER / LOG).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_writer_who_has_stopped_in_the_middle_is_not_waited_for_forever(folder: Path) -> None:
    publish(folder, written("1"))
    log, before = ModelLog(folder, wait_s=0.0), kinds(folder)
    with held(folder), pytest.raises(TimedOut) as raised:
        log.say(lambda _: pytest.fail("not while somebody else may say something"))
    assert str(folder / FOLDER / LOG) in raised.value.message
    assert "has the lock" in raised.value.message
    assert f"fuser {folder / FOLDER / LOG}" in raised.value.hint
    assert kinds(folder) == before
    log.say(lambda _: [SCORED])
    assert len(kinds(folder)) == len(before) + 1


def test_a_writer_who_is_done_soon_is_waited_for(folder: Path) -> None:
    publish(folder, written("1"))
    before = kinds(folder)
    writer = threading.Thread(target=lambda: ModelLog(folder).say(lambda _: [SCORED]))
    with held(folder):
        writer.start()
    writer.join()
    assert len(kinds(folder)) == len(before) + 1


def test_what_is_locked_is_read_all_the_same(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(folder, written("1"))
    place(folder, written("2"), Manifest(version="", files={}, by="ada", at=5))
    with held(folder):
        found = ModelLog(folder, wait_s=0.0).read()
    assert [*found.known] == ["000001", "000002"]
    assert "has the lock" in caplog.text
    assert kinds(folder)[-1] == "VersionPublished", "whoever reads next says it"


def test_the_number_of_a_version_that_was_removed_is_not_given_again(folder: Path) -> None:
    for text in "12":
        publish(folder, written(text), current=False)
    shutil.rmtree(folder / FOLDER / "000002")
    assert publish(folder, written("3"), current=False).name == "000003"
    assert [*ModelLog(folder).read().known] == ["000001", "000002", "000003"]


def test_who_is_refused_has_said_nothing(folder: Path) -> None:
    publish(folder, written("1"))
    before = kinds(folder)

    def refuse(_: Versions) -> list[VersionEvent]:
        raise Conflict("no")

    with pytest.raises(Conflict):
        ModelLog(folder).say(refuse)
    large = VersionScored(version=BASE, scores=({"x": 2**20 * "x"},))
    with pytest.raises(TooLarge, match="a line holds"):
        ModelLog(folder).say(lambda _: [large])
    assert kinds(folder) == before


def test_damage_is_named(folder: Path) -> None:
    publish(folder, written("1"))
    path = folder / FOLDER / LOG
    whole, reader = path.read_bytes(), ModelLog(folder)
    reader.read()
    for harmed, why in (
        (whole + b'{"n": 3, "at": 1, "events": [{"type": "Danced"}]}\n', "can't be read"),
        (whole + b"[]\n", "can't be read"),
        (whole + whole.splitlines(keepends=True)[0], "line 3 has the number 1"),
    ):
        path.write_bytes(harmed)
        with pytest.raises(InvalidData, match=why):
            ModelLog(folder).read()
    path.write_bytes(whole[:5])
    with pytest.raises(InvalidData, match="it was longer before"):
        reader.read()
    path.unlink()
    with pytest.raises(InvalidData, match="it is gone"):
        reader.read()
