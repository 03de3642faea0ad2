"""A run whose log can't be read hides no other: the lists show those, and say which one and why."""

from pathlib import Path

import pytest

from tests.e2e.memory_host import Said, Shell
from tests.model_folders import model_in

LISTS = (["runs", "list"], ["model", "list", "m"], ["model", "compare", "m", "1", "2"])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    model_in(tmp_path / "m")
    return Shell(tmp_path, USER="tester")


@pytest.fixture(params=["cut", "gone"])
def lost(shell: Shell, request: pytest.FixtureRequest) -> str:
    """A run that was archived in a file that is damaged, or gone."""
    run = shell.begin()
    assert shell("archive", run).code == 0
    (file,) = shell.folder.rglob("segments/*")
    if request.param == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    return run


def says(said: Said, run: str) -> bool:
    """Whether one line says which run could not be read, why, and what to do."""
    (line,) = (line for line in said.err.splitlines() if "can't be read" in line)
    return line.startswith(f"run {run} can't be read: ") and "`podium archive --check`" in line


def test_lists_show_the_others(shell: Shell, lost: str) -> None:
    other = shell.begin("How large is Niger?")
    for words in LISTS:
        said = shell(*words)
        assert (said.code, says(said, lost)) == (1, True), said
        assert "error" not in said.err
    assert other in shell("runs", "list").out
    assert "000004" in shell("model", "list", "m").out
    assert "+10.0%" in shell("model", "compare", "m", "1", "2").out


def test_programs_are_told_too(shell: Shell, lost: str) -> None:
    other = shell.begin("How large is Niger?")
    for words in LISTS:
        said = shell(*words, "--json")
        assert (said.code, said.err) == (1, "")
        (unread,) = said.json()["unread"]
        assert unread["run"] == lost
        assert unread["error"]["code"] in ("invalid_data", "not_found")
        assert unread["error"]["next"] == "podium archive --check"
    assert [row["run"] for row in shell("runs", "list", "--json").json()["rows"]] == [other]


def test_where_no_other_is(shell: Shell, lost: str) -> None:
    said = shell("runs", "list")
    assert (said.code, said.out, says(said, lost)) == (1, "", True)
    assert "no runs yet" not in said.err


def test_nobody_else_is_held_up(shell: Shell, lost: str) -> None:
    assert shell("answer").code == 0
    (failed,) = (
        row for row in shell("doctor", "--json").json()["rows"] if row["state"] == "failed"
    )
    assert f"run {lost} can't be read" in failed["found"]
