"""Export, import and archive as people type them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from podium.config import Config
from podium.shelved import no_deployment
from protocol.errors import NotFound, Unreachable
from protocol.subjects import is_run
from replay.archive.folder import Folder
from replay.archive.shelf import ArchiveShelf
from tests.e2e.memory_host import MemoryDeployments, Shell
from tests.stored import stored_family

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


def test_a_run_is_exported_imported_and_read_elsewhere(shell: Shell, tmp_path: Path) -> None:
    run = shell.begin()
    said = shell("export", run[:5])
    assert said.code == 0
    path = tmp_path / f"{run}.podium"
    assert path.is_file()
    assert f"{path.stat().st_size:,} bytes" in said.out
    assert "look who may read it" in said.err
    assert "others" not in said.out
    shown = shell("runs", "show", run, "--content").out
    assert shell("runs", "show", f"{run}.podium", "--content").out == shown

    there = tmp_path / "elsewhere"
    there.mkdir()
    other = Shell(there, USER="tester")
    assert other("runs", "show", run).code == 4
    assert "imported from" in other("import", f"../{run}.podium", "--dry-run").out
    assert other("runs", "show", run).code == 4, "nothing was done"
    assert other("import", f"../{run}.podium").code == 0
    assert "here already" in other("import", f"../{run}.podium").out
    assert other("runs", "show", run[:4], "--content").out == shown
    assert other("runs", "--json").json()["rows"][0]["run"] == run
    again = there / "again.podium"
    assert other("export", run, "--out", "again.podium").code == 0
    assert again.read_bytes() == path.read_bytes(), "the same run is the same file"
    cancelled = other("runs", "cancel", run, "--json")
    assert cancelled.code == 1
    assert cancelled.json()["error"]["kind"] == "conflict"


@pytest.mark.parametrize("more", [[], ["--format", "atif"]])
def test_no_folder_is_made_for_an_export(shell: Shell, tmp_path: Path, more: list[str]) -> None:
    said = shell("export", shell.begin(), "--out", "nowhere/a.podium", *more)
    assert said.code == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in said.err
    assert not (tmp_path / "nowhere").exists()


def test_nothing_was_run_here_yet(tmp_path: Path) -> None:
    shell = Shell(tmp_path, USER="tester")
    shell.deployments.failure = no_deployment(Config(folder=str(tmp_path)))
    said = shell("verify", "--all")
    assert (said.code, said.out, said.err) == (0, "", shell("runs").err)
    assert shell("verify", "--all", "--json").json()["counts"]["runs"] == 0
    said = shell("doctor")
    assert said.code == 0
    assert "none has been started yet" in said.out
    shell.deployments.failure = Unreachable("nobody answers")
    assert shell("doctor").code == 1


def python(*code: str, cwd: Path) -> Any:
    """What a fresh interpreter prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_file_is_read_without_ray_and_without_any_server(shell: Shell, tmp_path: Path) -> None:
    run = shell.begin()
    shell("export", run, "--out", "a.podium")
    (tmp_path / "empty").mkdir()
    read = [
        "import json, sys",
        "for name in ('ray', 'actors.embedded'): sys.modules[name] = None",
        "from podium.cli import main",
        "assert main(['import', '../a.podium']) == 0",
        "assert main(['runs']) == 0",
        f"assert main(['runs', 'show', {run!r}, '--content']) == 0",
        "assert main(['runs', 'show', '../a.podium', '--json']) == 0",
    ]
    rows = python(*read, cwd=tmp_path / "empty")["rows"]
    assert rows[0]["run"] == run


def test_other_formats_are_json_and_go_to_stdout_if_they_are_asked_to(shell: Shell) -> None:
    run = shell.begin("How large is Chad?")
    for name in ("atif", "orchestration"):
        without = shell("export", run, "--format", name, "--out", "-")
        assert without.code == 0
        assert "Chad" not in without.out
        whole = json.loads(shell("export", run, "--format", name, "--out", "-", "--content").out)
        assert "Chad" in json.dumps(whole)
    said = shell("export", run, "--format", "atif")
    assert "--content" in said.err
    found = json.loads((shell.folder / f"{run}.atif.json").read_text())
    assert found["trajectory_id"] == run


def test_archived_runs_are_listed_and_shown_as_before(shell: Shell, tmp_path: Path) -> None:
    first, second = shell.begin(), shell.begin("How large is Niger?")
    before = {run: shell("runs", "show", run, "--content").out for run in (first, second)}
    would = shell("archive", "--all-ended", "--dry-run")
    assert would.out.startswith("would be: 2 runs archived to ")
    assert not (tmp_path / ".podium" / "archive").exists()
    assert shell("archive", first[:6]).out.startswith("1 run archived to ")
    assert shell("archive", "--all-ended", "--json").json()["applied"] is True
    assert shell("archive", "--all-ended", "--json").json()["applied"] is False
    for run, shown in before.items():
        assert shell("runs", "show", run, "--content").out == shown
    rows = shell("runs", "--json").json()["rows"]
    assert {row["run"]: row["status"] for row in rows} == {first: "finished", second: "finished"}
    stored = {
        run: messages
        for (run, where), messages in shell.deployments.store.messages.items()
        if where == "c"
    }
    assert {run: len(messages) for run, messages in stored.items()} == {first: 1, second: 1}
    assert "is sound: runs 2" in shell("archive", "--check").out
    assert shell("doctor").code == 0
    assert shell("export", first, "--out", "b.podium").code == 0


def test_where_there_is_no_archive_none_is_sound(shell: Shell, tmp_path: Path) -> None:
    shell.begin()
    shell("archive", "--all-ended")
    assert "is sound: runs 1" in shell("archive", "--check").out
    said = shell("archive", "--check", "--to", str(tmp_path / "archiv"), "--json")
    assert said.code == 4
    assert "there is no archive at" in said.json()["error"]["message"]


def test_a_file_that_is_not_there_is_what_is_missing(shell: Shell) -> None:
    shell.deployments.failure = NotFound("there is no deployment")
    assert "error: there is no file " in shell("import", "nowhere.podium").err


def test_a_damaged_archive_is_told(shell: Shell, tmp_path: Path) -> None:
    shell.begin()
    shell("archive", "--all-ended")
    (segment,) = (tmp_path / ".podium" / "archive" / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    said = shell("archive", "--check", "--json")
    assert said.code == 1
    assert said.json()["error"]["kind"] == "invalid_data"


def test_another_place_has_to_be_named_to_be_read(shell: Shell, tmp_path: Path) -> None:
    run = shell.begin()
    said = shell("archive", run, "--to", str(tmp_path / "far"))
    assert "[archive] url" in said.err
    assert archived(tmp_path / "far") == [run]
    lost = shell("runs", "show", run, "--json")
    assert lost.code == 4
    assert f"archived in file://{tmp_path}/far/manifests/" in lost.json()["error"]["message"]
    assert shell("runs", "--json", "--status", "archived").json()["counts"] == {"archived": 1}
    assert f"in file://{tmp_path}/far" in shell("runs").out
    (tmp_path / "podium.toml").write_text(f'[archive]\nurl = "{tmp_path / "far"}"\n')
    assert shell("runs", "show", run, "--content").code == 0
    assert shell("archive", run, "--json").json()["applied"] is False


def archived(path: Path) -> list[str]:
    shelf = ArchiveShelf(Folder(os.fspath(path)))
    shelf.refresh()
    return shelf.runs()


def test_a_run_that_has_not_ended_is_not_archived(shell: Shell) -> None:
    shell("run", "--rounds", "0", "--on-limit", "pause", "--json", "How large is Chad?")
    run = shell("runs", "--json", "--status", "paused").json()["rows"][0]["run"]
    assert is_run(run)
    said = shell("archive", run)
    assert said.code == 1
    assert "it has not ended" in said.err
    assert shell("archive", "--older-than", "1s").out.startswith("nothing more to archive")


def test_an_imported_run_that_has_not_ended_goes_on_nowhere(shell: Shell, tmp_path: Path) -> None:
    shell("run", "--rounds", "0", "--on-limit", "pause", "--json", "How large is Chad?")
    run = shell("runs", "--json", "--status", "paused").json()["rows"][0]["run"]
    shell("export", run, "--out", "paused.podium")
    (tmp_path / "elsewhere").mkdir()
    other = Shell(tmp_path / "elsewhere", USER="tester")
    assert other("import", "../paused.podium").code == 0
    assert other("runs", "--json").json()["rows"][0]["status"] == "paused"
    for said in (
        other("runs", "extend", run, "--rounds", "2", "--json"),
        other("run", "--continue", run, "--json"),
    ):
        assert said.code == 1
        assert said.json()["error"]["hint"].endswith(f"podium fork {run} --at end")


def test_a_fork_of_a_run_on_a_shelf_is_sound(shell: Shell, tmp_path: Path) -> None:
    run = shell.begin()
    assert shell("fork", run, "--at", "end").code == 0
    assert shell("export", run).code == 0
    assert shell("archive", run).code == 0
    assert shell("doctor").code == 0, "what it shares is in the archive"

    (tmp_path / "elsewhere").mkdir()
    other = Shell(tmp_path / "elsewhere", USER="tester")
    assert other("import", f"../{run}.podium").code == 0
    assert other("fork", run, "--at", "end").code == 0
    said = other("doctor")
    assert said.code == 0, said
    for file in (tmp_path / "elsewhere" / ".podium" / "imported").iterdir():
        file.unlink()
    assert "is broken" in other("doctor").out


@pytest.mark.parametrize("again", [False, True])
def test_a_fork_of_an_imported_run_is_archived_with_what_it_shares(
    shell: Shell, tmp_path: Path, again: bool
) -> None:
    run = shell.begin()
    shell("export", run)
    (tmp_path / "elsewhere").mkdir()
    other = Shell(tmp_path / "elsewhere", USER="tester")
    assert other("import", f"../{run}.podium").code == 0
    fork = other("fork", run, "--at", "end", "--json").lines()[0]["launch"]["run_id"]
    if again:  # a fork of a fork shares with both
        fork = other("fork", fork, "--at", "end", "--json").lines()[0]["launch"]["run_id"]
    shown = other("runs", "show", fork, "--content").out
    assert other("archive", fork).out.startswith("1 run archived to ")
    assert other("archive", fork, "--json").json()["applied"] is False
    assert other("runs", "show", fork, "--content").out == shown
    assert other("verify", fork).code == 0
    assert "is sound: runs 1," in other("archive", "--check").out

    for file in (tmp_path / "elsewhere" / ".podium" / "imported").iterdir():
        file.unlink()
    other.deployments = MemoryDeployments()
    assert other("runs", "show", fork, "--content").out == shown, "the archive alone has all of it"
    assert other("verify", fork).code == 0


def test_blobs_go_when_they_are_in_the_archive_that_everybody_reads(
    shell: Shell, tmp_path: Path
) -> None:
    store = shell.deployments.store
    root, *_ = stored_family(store)
    shown = shell("runs", "show", root, "--content").out
    assert shell("archive", root, "--keep").code == 0
    shell("archive", "--all-ended", "--to", str(tmp_path / "far"), "--keep")
    shell("archive", "--all-ended", "--dry-run")
    assert len(store.blobs) == 2, "other commands remove none"
    assert shell("archive", "--all-ended").out.endswith("; 2 blobs removed from the live store\n")
    assert store.blobs == {}
    assert shell("runs", "show", root, "--content").out == shown
    assert shell("verify", root).code == 0
    assert shell("archive", "--all-ended", "--json").json()["applied"] is False
