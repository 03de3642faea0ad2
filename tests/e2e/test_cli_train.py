"""`podium train`, as a person types it: from runs of an oracle's kin to a version of a model."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from replay.model_folder import find
from tests.e2e.memory_host import Shell
from tests.logs import messages_of
from trainer.gym import small
from trainer.gym.play import starts
from trainer.gym.workers import Host
from trainer.rollouts import FastLane
from trainer.training.job import held

RUNS = 24

SIZE = ("--layers", "1", "--width", "32", "--heads", "2", "--kv-heads", "1")
MADE = ("train", "new", "m", "--gym", "small", "--episodes", "40", "--vocabulary", "400", *SIZE)
BUILT = ("dataset", "build", "sft", "--dialect", "slots", "--tokenizer", "m")
TAUGHT = ("train", "sft", "datasets/sft", "--model", "m", "--device", "cpu", "--rate", "0.001")


@pytest.fixture(scope="module")
def logs() -> list[Any]:
    """Runs of the teacher of the gym in small, which decides and does not write."""
    episodes = list(small.draws(range(RUNS)))
    teacher = small.SmallTeacher(episodes)
    with FastLane(workers=Host(episodes, 0), policies=lambda *_: teacher) as lane:
        return [each.log for each in lane.run(starts(episodes, teacher.spec))]


@pytest.fixture
def shell(tmp_path: Path, logs: list[Any]) -> Shell:
    found = Shell(tmp_path, USER="ada")
    for log in logs:
        commits, inbox = messages_of(log)
        store = found.deployments.store
        store.messages[log.run, "c"] += commits
        store.messages[log.run, "i"] += inbox
    return found


def test_from_an_oracles_runs_to_a_version_of_a_model(shell: Shell) -> None:
    made = shell(*MADE)
    assert made.code == 0, made.err
    assert "an untrained model of" in made.out
    built = shell(*BUILT)
    assert built.code == 0, built.err
    (row,) = shell("dataset", "preview", "datasets/sft", "--rows", "1", "--json").json()["rows"]
    said = [(span["role"], span["loss"]) for span in row["spans"]]
    assert said[-3:] == [("assistant", "trained"), ("user", "context"), ("assistant", "trained")]
    texts = [span["text"] for span in row["spans"] if span["role"] == "assistant"]
    assert texts[0] in ("@1 $1", "@2 $1", "@3 $1", "@4 $1"), "by slot, and by reference"
    assert texts[-1] == f"= #{len(texts) - 1}"
    done = shell(*TAUGHT, "--epochs", "2", "--batch", "8", "--why", "to see")
    assert done.code == 0, done.err
    assert "version 000001 after 6 steps (nll" in done.out
    assert "podium model promote" in done.err
    note = find(shell.folder / "m", "000001").manifest
    assert note is not None
    assert (note.by, note.why, note.note["steps"], note.note["from"]) == (
        "ada",
        "to see",
        6,
        "base",
    )
    manifest = shell("dataset", "show", "datasets/sft").out
    assert note.note["data"]["digest"] in manifest
    again = shell(*TAUGHT, "--epochs", "2", "--batch", "8", "--json").json()
    assert (again["event_id"], "6 of them before" in again["detail"]) == ("000001", True)
    listed = shell("model", "list", "m", "--json").json()["rows"]
    assert [(row["version"], row["current"]) for row in listed] == [
        ("base", True),
        ("000001", False),
    ]
    drawn = shell("train", "report", "trainings/sft", "--out", "curves.html", "--title", "Mine")
    assert drawn.code == 0, drawn.err
    assert "<h1>Mine</h1>" in (shell.folder / "curves.html").read_text()
    with held(shell.folder / "trainings" / "sft"):
        other = shell(*TAUGHT, "--fresh")
        assert (other.code, "somebody else trains in" in other.err) == (1, True), other.err
    lost = shell(*TAUGHT, "--fresh", "--from", "7")
    assert lost.code == 4
    assert (shell.folder / "trainings" / "sft" / "metrics.jsonl").exists()
    texts_only = shell(*BUILT[:5], "--out", "texts")
    assert texts_only.code == 0, texts_only.err
    other = shell("train", "new", "n", "--dataset", "texts", "--vocabulary", "400", *SIZE)
    assert other.code == 0, other.err
    tight = shell("train", "new", "tight", *MADE[3:], "--context", "16")
    assert tight.code == 0, tight.err
    for asked, what in [
        (("train", "sft", "datasets/sft", "--model", "tight"), "and the model has room for 16"),
        (("train", "sft", "texts", "--model", "m"), "has no tokens"),
        (("train", "sft", "datasets/sft", "--model", "n"), "tokens of another tokenizer"),
        (("train", "rl", "datasets/sft", "--model", "m"), "a data set of kind sft, and rl is"),
        ((*TAUGHT, "--seed", "4"), "holds another training: spec"),
        ((*TAUGHT, "--out", "curves.html"), "can't be a training's folder: there is a file"),
        ((*TAUGHT, "--from", "7", "--out", "t"), "is no folder of a model"),
    ]:
        other = shell(*asked, *(() if "--out" in asked or "--seed" in asked else ("--out", "x")))
        assert other.code != 0
        assert what in other.err, other.err


@pytest.mark.parametrize(
    ("asked", "code", "what"),
    [
        (("rl", "--model", "m"), 2, "Say what is learned from"),
        (("rl", "d", "--gym", "small", "--model", "m"), 2, "Say what is learned from"),
        (("rl", "d", "--groups", "2", "--model", "m"), 2, "options of live rollouts mean nothing"),
        (("rl", "--gym", "small", "--model", "m"), 2, "played by a standing deployment"),
        (("rl", "--gym", "small", "--no-publish", "--model", "m"), 2, "are published"),
        (("rl", "--gym", "small", "--epochs", "2", "--model", "m"), 2, "of a data set's rows"),
        (("rl", "--gym", "small", "--batch", "8", "--model", "m"), 2, "of a data set's rows"),
        (("sft", "d", "--average", "--model", "m"), 2, "no average of the weights is kept"),
        (("sft", "nowhere", "--model", "m"), 4, "nowhere"),
        (("sft", "d", "--model", "m", "--spec", "s.toml"), 2, "`$.live`"),
        (("sft", "d", "--device", "cupu", "--model", "m"), 2, "no device 'cupu' here"),
        (("sft", "d", "--epochs", "inf", "--model", "m"), 2, "`$.epochs`"),
        (("sft", "d", "--epochs", "nan", "--model", "m"), 2, "`$.epochs`"),
        (("new", "m"), 2, "of which texts"),
        (("new", "s.toml/m", "--gym", "small", "--episodes", "3"), 2, "s.toml is a file"),
        (("report",), 2, "No training is named"),
        (("report", "nowhere"), 4, "no metrics"),
        (
            ("report", "a", "b", "--together", "--name", "A", "--name", "B"),
            2,
            "2 names for what is drawn together",
        ),
        (("report", "a/x.jsonl", "b/x.jsonl"), 2, "have one name"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, asked: tuple[str, ...], code: int, what: str
) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "s.toml").write_text("[live]\ngroup = 1\n")
    said = shell("train", *asked)
    assert (said.code, what in said.err) == (code, True), said.err
    error = shell("train", *asked, "--json").json()["error"]
    assert msgspec.json.encode(error)
    assert error["hint"]
    assert not (tmp_path / "trainings").exists()
