"""Archiving from time to time: what is due and nothing else, whatever the archive does."""

import os
import tempfile
from pathlib import Path

import pytest

from actors.archiving import Archiving
from podium.config import Config, age_ms, load
from podium.shelved import shelves_of
from protocol.errors import Unreachable, Usage
from replay.archive.folder import Folder
from replay.archive.shelf import ArchiveShelf
from tests.archives import Deployment
from tests.stored import stored_family


async def test_a_round_archives_what_ended_long_ago(tmp_path: Path) -> None:
    there = Deployment(tmp_path / "archive")
    runs = stored_family(there.store, 2)
    ended = (await there.live.read(runs[0])).state().ended_at
    now = ended + 5_000
    archiving = Archiving(there.archiver(), 10_000, lambda: now)
    assert await archiving.round() == {}
    now = ended + 10_001
    there.keeper.fresh = set(there.store.blobs)
    assert await archiving.round() == {"archived": len(runs)}
    assert await archiving.round() == {}
    there.keeper.fresh.clear()
    assert await archiving.round() == {"blobs freed": 2}
    assert await archiving.round() == {}
    assert await there.archive_only().runs() == sorted(runs)


async def test_an_archive_that_does_not_answer_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = Deployment(tmp_path / "archive")
    runs = stored_family(there.store)

    class Away(Folder):
        def put(self, name: str, source: Path) -> None:
            raise Unreachable("the archive is away", hint="wait")

    shelf = ArchiveShelf(Away(os.fspath(there.path)))
    before = dict(there.store.messages)
    archiving = Archiving(there.archiver(shelf=shelf), 0, lambda: 2 * 10**12)
    assert await archiving.round() == {}
    assert "the archive is away" in caplog.text
    assert there.store.messages == before
    archiving.archiver = there.archiver()
    assert (await archiving.round())["archived"] == len(runs)


async def test_whatever_goes_wrong_the_rounds_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Deployment(tmp_path / "archive")
    runs = stored_family(there.store)
    archiving = Archiving(there.archiver(), 0, lambda: 2 * 10**12)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", os.fspath(tmp_path / "no disk"))
        assert await archiving.round() == {}
    assert "runs were not archived" in caplog.text
    assert (await archiving.round())["archived"] == len(runs)


@pytest.mark.parametrize(
    ("text", "ms"), [("90s", 90_000), ("15m", 900_000), ("12h", 43_200_000), ("30d", 2_592_000_000)]
)
def test_lengths_of_time(text: str, ms: int) -> None:
    assert age_ms(text) == ms


@pytest.mark.parametrize("text", ["", "30", "d", "3 d", "-1d", "1y", "٣d", "1" * 9 + "d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(Usage):
        age_ms(text)


def test_the_configuration_says_where_and_when(tmp_path: Path) -> None:
    (tmp_path / "podium.toml").write_text('[archive]\nurl = "s3://b/p"\nafter = "30d"\n')
    config = load(tmp_path, {}).config
    assert (config.archive.url, config.archive.after) == ("s3://b/p", "30d")
    assert shelves_of(config).archive == "s3://b/p"
    assert shelves_of(Config(folder=str(tmp_path))).perhaps == str(tmp_path / "archive")
    (tmp_path / "podium.toml").write_text('[archive]\nafter = "a month"\n')
    with pytest.raises(Usage, match=r"archive\.after"):
        load(tmp_path, {})
