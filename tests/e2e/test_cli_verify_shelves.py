"""`podium verify` of what is in a file or in the archive."""

from pathlib import Path

import pytest

from tests.e2e.memory_host import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


def test_an_exported_file_is_verified_where_there_is_nothing_else(
    shell: Shell, tmp_path: Path
) -> None:
    run = shell.begin()
    said = shell("export", run, "--out", str(tmp_path / "run.podium"))
    assert said.code == 0
    said = shell("verify", "run.podium", "--json")
    assert said.code == 0
    (row,) = said.json()["rows"]
    assert (row["run"], row["outcome"], row["decided"] > 1) == (run, "sound", True)
    file = tmp_path / "run.podium"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    said = shell("verify", "run.podium")
    assert said.code == 1


def test_archived_runs_are_verified_with_their_past(shell: Shell, tmp_path: Path) -> None:
    run = shell.begin()
    (tmp_path / "podium.toml").write_text(f'[archive]\nurl = "{tmp_path}/archive"\n')
    said = shell("archive", run)
    assert said.code == 0
    said = shell("verify", run, "--json")
    (row,) = said.json()["rows"]
    assert (row["outcome"], row["problems"], row["decided"] > 2) == ("sound", [], True)
    (tmp_path / "podium.toml").write_text("")
    said = shell("verify", run)
    assert said.code == 0
    assert "in the archive" in said.out
