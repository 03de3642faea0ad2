"""Exported files in the place of runs: what is said of them can be typed where no server is."""

from pathlib import Path

import pytest

from tests.e2e.memory_host import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


@pytest.fixture
def run(shell: Shell) -> str:
    """A run that is here, and in ``a file.podium``."""
    begun = shell.begin()
    assert shell("export", begun, "--out", "a file.podium").code == 0
    return begun


FILE = "a file.podium"
QUOTED = "'a file.podium'"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["runs", "show", FILE], f"podium runs show {QUOTED} --content"),
        (["trace", "export", FILE], f"podium trace export {QUOTED} --otlp"),
        (["causes", f"{FILE}@99"], f"podium timeline {QUOTED}"),
        (["state", FILE, "--at", "99"], f"podium timeline {QUOTED}"),
        (["replay", FILE, "--until", "RunFailed"], f"podium timeline {QUOTED}"),
        (["reproduce", f"{FILE}/1-0/7"], "its attempts are: 1"),
    ],
)
def test_a_hint_names_the_file(shell: Shell, run: str, arguments: list[str], hint: str) -> None:
    said = shell(*arguments)
    assert hint in said.err
    assert run not in said.err.partition("podium ")[2]


def test_a_difference_of_files_names_both(shell: Shell, run: str) -> None:
    other = shell.begin("How large is Niger?")
    assert shell("export", other, "--out", "b.podium").code == 0
    assert f"podium diff {QUOTED} b.podium --content" in shell("diff", FILE, "b.podium").err
    assert f"podium diff {QUOTED} {other} --content" in shell("diff", FILE, other).err


def test_the_next_command_of_an_error_names_the_file(shell: Shell, run: str) -> None:
    error = shell("causes", f"{FILE}@99", "--json").json()["error"]
    assert error["next"] == f"podium timeline {QUOTED}"
    assert run in error["message"]


def test_a_run_that_is_here_is_named_by_its_id(shell: Shell, run: str) -> None:
    assert f"podium runs show {run} --content" in shell("runs", "show", run).err
    out = shell("export", FILE, "--out", f"{run}.podium")
    assert f"podium runs show {shell.folder / run}.podium" in out.err
