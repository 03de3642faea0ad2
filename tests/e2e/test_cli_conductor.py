"""The shipped pool under the shipped conductor: asked as a person asks, and who decided is said."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from actors.policies.conductor import ConductorPolicy
from actors.policies.conductor.card import FOLDER, told
from tests.e2e.memory_host import Shell
from tests.offline_questions import FRANCE

ROOT = Path(__file__).resolve().parents[2]
LEARNED = "What is the population of France?"
OTHER = "How big is Peru?"
ANSWER = f"The population of France is {FRANCE:,} people."
VERSION = ConductorPolicy().version
MAX_BYTES = 10_000_000


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


@pytest.mark.parametrize(
    ("asked", "more", "told_of", "versions"),
    [
        (LEARNED, [], "decided by the conductor\n", [VERSION]),
        (OTHER, [], "decided by the rules (nothing that was learned is worded so: ", ["rules-1"]),
        (LEARNED, ["--policy", "rules"], "", ["rules-1"]),
        (LEARNED, ["--policy", "conductor"], "decided by the conductor\n", [VERSION]),
    ],
)
def test_it_is_said_who_decided(
    shell: Shell, asked: str, more: list[str], told_of: str, versions: list[str]
) -> None:
    said = shell("run", *more, asked)
    assert said.code == 0, said
    assert asked != LEARNED or said.out.strip() == ANSWER
    assert told_of in said.err
    assert told_of or "decided by" not in said.err
    [row] = shell("runs", "--json").json()["rows"]
    run = row["run"]
    assert told_of.strip() in shell("runs", "show", run).err
    [tree] = shell("runs", "show", run, "--json").json()["rows"]
    assert tree["decided_by"] == versions
    assert {turn["version"] for turn in tree["turns"]} == set(versions)
    assert shell("verify", run).code == 0


def test_a_run_of_it_can_be_forked_and_decided_anew(shell: Shell) -> None:
    run = shell("run", "--json", LEARNED).lines()[0]["launch"]["run_id"]
    forked = shell("fork", run, "--at", "2", "--policy", "rules", "--json")
    again = shell("fork", run, "--at", "2", "--json")
    assert (forked.code, again.code) == (0, 0), (forked, again)
    assert forked.lines()[-1]["done"]["answer"] == ANSWER
    assert forked.lines()[-1]["done"]["decided_by"] == ["rules-1"]
    assert again.lines()[-1]["done"]["answer"] == ANSWER
    assert again.lines()[-1]["done"]["decided_by"] == [VERSION]
    assert shell("verify", "--all").code == 0


def test_the_doctor_says_which_it_is(shell: Shell) -> None:
    said = shell("doctor", "--json")
    [check] = [row for row in said.json()["rows"] if row["check"] == "conductor"]
    assert check["state"] == "ok"
    assert check["found"].startswith(f"{VERSION}, ")


def test_its_card_says_what_it_is_and_what_it_cannot() -> None:
    card = told(FOLDER)
    for key in ("weights", "plan", "data", "exam", "typed", "threshold", "limits", "curves"):
        assert key in card
    assert sum(each.stat().st_size for each in FOLDER.iterdir()) <= MAX_BYTES


def test_wheel_and_sdist_have_the_model(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    names = {each.name for each in FOLDER.iterdir()}
    place = FOLDER.relative_to(ROOT).as_posix()
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as there:
        packed = there.read(f"{place}/model.safetensors")
        assert {f"{place}/{name}" for name in names} <= set(there.namelist())
    assert packed == (FOLDER / "model.safetensors").read_bytes()
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"{place}/{name}" for name in names} <= inside
