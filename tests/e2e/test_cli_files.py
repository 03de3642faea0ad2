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


@pytest.mark.parametrize(
    ("arguments", "works"),
    [
        (["rerun", FILE], "rerun RUN"),
        (["rerun", FILE, "--from", "1-0"], "rerun RUN --from 1-0"),
        (["fork", FILE, "--at", "3"], "fork RUN --at 3"),
        (["fork", f"{FILE}@3"], "fork RUN --at 3"),
        (["runs", "watch", FILE], "runs show RUN"),
        (["runs", "cancel", FILE], "fork RUN --at end"),
        (["run", "--continue", FILE], "fork RUN --at end"),
    ],
)
def test_a_file_is_only_read_and_imported_for_more(
    tmp_path: Path, shell: Shell, run: str, arguments: list[str], works: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = Shell(tmp_path / "elsewhere", USER="tester")
    (tmp_path / FILE).rename(other.folder / FILE)
    said = other(*arguments)
    assert said.code == 2
    assert f"{FILE} is a file, which is only read" in said.err
    works = works.replace("RUN", run)
    assert f"podium import {QUOTED} && podium {works}" in " ".join(said.err.split())
    assert other("import", FILE).code == 0
    tried = [] if works.startswith("runs") else ["--dry-run"]
    assert other(*works.split(), *tried).code == shell(*works.split(), *tried).code


def test_a_file_that_is_nowhere_is_4(shell: Shell) -> None:
    assert shell("rerun", "nowhere.podium").code == 4


def test_an_event_is_named_with_its_run_everywhere(shell: Shell, run: str) -> None:
    for command in ("state", "replay"):
        by_option = shell(command, run, "--at", "9")
        for name in (run, FILE):
            assert shell(command, f"{name}@9").out == by_option.out
            assert shell(command, f"{name}@9", "--at", "9").code == 0
            said = shell(command, f"{name}@9", "--at", "8")
            assert said.code == 2
            assert "are two events" in said.err
    assert f"podium state {run}@9" in shell("runs", "show", f"{run}@9").err
    assert shell("runs", "show", f"{run}@9").code == 2


@pytest.mark.parametrize("command", ["causes", "effects"])
def test_an_event_without_a_number_is_told_how_to_be_named(
    shell: Shell, run: str, command: str
) -> None:
    said = shell(command, run, "--at", "9", "--json")
    assert said.code == 2
    assert said.json()["error"]["next"] == f"podium {command} {run}@9"
    assert "--at" not in shell(command, "--help").out
    assert shell(command, FILE, "--json").json()["error"]["next"] == f"podium timeline {QUOTED}"
