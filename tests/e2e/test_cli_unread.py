"""A run whose log can't be read hides no other: the lists show those, and say which one and why."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from replay.bundle import pack, write
from replay.chain import Messages, assemble
from tests.e2e.memory_host import Said, Shell
from tests.model_folders import model_in

LISTS = (
    ["runs", "list"],
    ["model", "list", "m"],
    ["model", "compare", "m", "1", "2"],
    ["verify", "--all"],
    ["score", "--all"],
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    model_in(tmp_path / "m")
    return Shell(tmp_path, USER="tester")


@pytest.fixture(params=["cut", "gone"])
def damage(shell: Shell, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Has the file of what is archived damaged, or gone."""

    def happens() -> None:
        (file,) = shell.folder.rglob("segments/*")
        if request.param == "cut":
            file.write_bytes(file.read_bytes()[:-100])
        else:
            file.unlink()

    return happens


@pytest.fixture
def lost(shell: Shell, damage: Callable[[], None]) -> str:
    """A run that was archived in such a file."""
    run = shell.begin()
    assert shell("archive", run).code == 0
    damage()
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


def test_all_are_verified_and_counted(shell: Shell, lost: str) -> None:
    shell.begin("How large is Niger?")
    assert "2 runs: 1 sound, 1 unread" in shell("verify", "--all").out
    counts = shell("verify", "--all", "--json").json()["counts"]
    assert (counts["runs"], counts["sound"], counts["unread"]) == (2, 1, 1)


def test_all_are_scored_and_counted(shell: Shell, lost: str) -> None:
    other = shell.begin("How large is Niger?")
    said = shell("score", "--all")
    assert other in said.out
    assert "2 runs: 1 unscorable, 1 unread" in said.out
    found = shell("score", "--all", "--json").json()
    assert [row["rollout"] for row in found["rows"]] == [other]
    assert found["counts"] == {"scored": 0, "unscorable": 1, "unread": 1}


@pytest.mark.parametrize("command", ["verify", "score"])
def test_one_of_several_that_are_named_hides_no_other(
    shell: Shell, lost: str, command: str
) -> None:
    other = shell.begin("How large is Niger?")
    said = shell(command, lost, other)
    assert (said.code, says(said, lost)) == (1, True), said
    assert other in said.out


@pytest.mark.parametrize("command", ["verify", "score"])
def test_the_only_one_that_is_named_is_the_error(shell: Shell, lost: str, command: str) -> None:
    said = shell(command, lost, "--json")
    assert said.json()["error"]["next"] == "podium archive --check"
    assert said.code in (1, 4)
    assert shell(command, "0000000000000").code == 4


def test_a_damaged_run_of_a_file_hides_no_other_of_it(shell: Shell) -> None:
    runs = sorted([shell.begin(), shell.begin("How large is Niger?")])
    there = dict(shell.deployments.store.messages)
    packed = []
    for run in runs:
        messages = Messages(there[run, "c"], there[run, "i"])
        packed.append(pack(run, messages, assemble(run, *messages)))
    whole, damaged = shell.folder / "whole.podium", shell.folder / "damaged.podium"
    with whole.open("wb") as file:
        write(file, runs[0], packed, (), podium="0")
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:-9] if name == f"runs/{runs[1]}/commits.jsonl" else data)
    said = shell("verify", "damaged.podium", "--json")
    assert (said.code, [row["run"] for row in said.json()["rows"]]) == (1, runs[:1])
    assert [each["run"] for each in said.json()["unread"]] == runs[1:]


def test_a_data_set_says_what_it_lacks(shell: Shell, lost: str) -> None:
    shell.begin("How large is Niger?")
    for more, shown in (([], "1 run ("), (["--dry-run"], "of 1 kept")):
        said = shell("dataset", "build", "sft", *more)
        assert (said.code, says(said, lost)) == (1, True), said
        assert shown in said.out
        said = shell("dataset", "build", "sft", *more, "--json")
        (unread,) = said.json()["unread"]
        assert (said.code, said.err, unread["run"]) == (1, "", lost)
        assert unread["error"]["next"] == "podium archive --check"


def test_what_stays_in_the_live_log_is_told(shell: Shell, damage: Callable[[], None]) -> None:
    run = shell.begin()
    assert shell("archive", run, "--keep").code == 0
    damage()
    shell.begin("How large is Niger?")
    for more in (["--dry-run"], []):
        said = shell("archive", "--all-ended", *more)
        assert (said.code, says(said, run)) == (1, True), said
        assert "1 run archived" in said.out
    (unread,) = shell("archive", "--all-ended", "--json").json()["unread"]
    assert unread["run"] == run


def ungiven(shell: Shell, run: str) -> str:
    """A run that was archived in a file that the system does not give."""
    assert shell("archive", run).code == 0
    (file,) = shell.folder.rglob("segments/*")
    file.unlink()
    file.symlink_to(file)
    return run


def test_a_fault_of_the_disk_hides_no_other_and_is_told_as_that(shell: Shell) -> None:
    unreadable = ungiven(shell, shell.begin())
    shell.begin("How large is Niger?")
    for words in (*LISTS, ["dataset", "build", "sft"]):
        said = shell(*words)
        assert said.code == 1, said
        (line,) = (line for line in said.err.splitlines() if "can't be read" in line)
        assert line.startswith(f"run {unreadable} can't be read: ")
        assert "Too many levels of symbolic links (ELOOP)" in line
        assert "damaged" not in line
    (unread,) = shell("verify", "--all", "--json").json()["unread"]
    assert (unread["error"]["code"], unread["error"]["kind"]) == ("disk_fault", "unreachable")


def test_a_fork_of_a_run_that_the_disk_does_not_give_keeps_no_other_from_the_archive(
    shell: Shell,
) -> None:
    origin = shell.begin()
    fork = shell("fork", origin, "--at", "3", "--json").lines()[0]["launch"]["run_id"]
    ungiven(shell, origin)
    shell.begin("How large is Niger?")
    said = shell("archive", "--all-ended")
    assert said.code == 1, said
    assert "1 run archived" in said.out
    assert f"run {fork} can't be read: " in said.err
    assert "(ELOOP)" in said.err
