"""The loop, end to end and for real: runs → data → SFT → RL → versions swapped under live runs.

Real processes, NATS, Ray, actors and log, in an empty folder; each stage is killed (-9) in its
middle and given again. The gym in small: one kind of question, four workers, a model of 0.1M
parameters. Its teacher answers rightly and asks the dearer worker two times out of three; so SFT
makes a model that is right and dear, and RL one that is right at little more than half the cost.
Greedy replies flip from one worker to the other, a wording at a time. Now and then a model unlearns
to end instead, and goes on asking: so SFT ends at a rate of nearly nothing, and RL is held near the
model that it began with (`ref_kl`).
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import pytest

from replay.model_folder import find, names, number, weights_of
from tests.e2e.test_cli_real import Typist
from trainer.datasets import manifest
from trainer.learner.sinks import lines
from trainer.training.spec import Live
from trainer.versions.promoting import promote

pytestmark = pytest.mark.timeout(900)

TEACHER: Final = "python:trainer.gym.small:SmallTeacher"

POOL: Final = """
[policy]
name = "local:conductor"
dialect = "slots"
max_tokens = 64
batching = { device = "cpu" }
"""

SFT: Final = """
steps = 120
threads = 1
checkpoint_every = 20
[optimizer]
kind = "muon"
rate = 0.003
matrix_rate = 0.02
warmup = 10
schedule = "linear"
"""

PRACTICE: Final = 8
"""Steps of RL."""
GROUPS: Final = 12
"""Of each."""
ROLLOUTS: Final = GROUPS * Live().members
LAST: Final = number(PRACTICE + 1)
"""The version that the last step makes: the first is of SFT."""

RL: Final = f"""
steps = {PRACTICE}
threads = 1
ref_kl = 0.3
[optimizer]
kind = "muon"
rate = 0.001
matrix_rate = 0.0015
[live]
groups = {GROUPS}
[[live.reward.terms]]
channel = "accuracy"
[[live.reward.terms]]
channel = "format"
weight = 0.1
[[live.reward.terms]]
channel = "cost"
weight = -0.2
per = 0.006
"""

CHEAPER: Final = 0.75
"""What an answer costs after practice, beside before it, at most: 0.5 where each wording has
flipped. In sixteen trainings in memory, of eight models, it was 0.48 to 0.59."""

DATA: Final = "part_rows = 50"
"""So that there are parts, between two of which its build is killed."""

LESSONS: Final = 300
UNTAUGHT: Final = 20
"""Episodes of an untrained model: it goes on for as long as it may."""
ASKED: Final = 60
"""Episodes that a version is measured on, and live runs before and after a swap. One model cost
0.69 of what it had on 20 of them, and 0.59 on 60."""
DURING: Final = 50
"""Live runs under which it is swapped."""

LIMIT_S: Final = 120.0
"""Seconds for a stage to get to its middle on a busy machine."""

LOOK_S: Final = 0.02
"""Seconds between two looks at what a stage has written."""

TIMED: Final = {"wait_s", "step_s", "tokens_per_s"}


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    typist = Typist(tmp_path)
    yield typist
    typist("down")


def killed(process: "Popen[str]", middle: Callable[[], object] = lambda: True) -> None:
    """Kill a stage as soon as it is in its middle."""
    until = time.monotonic() + LIMIT_S
    while not middle():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(LOOK_S)
    process.kill()
    process.communicate()
    assert process.returncode == -9


def at_work(process: "Popen[str]", count: int) -> None:
    """Wait until some of a command's runs have ended, and others have not."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.match(rf"(\d+) of {count} runs", line):
            assert 0 < int(found[1]) < count
            return
    raise AssertionError(said)


def measured(typist: Typist, count: int = ASKED, **options: str) -> tuple[dict[str, float], Any]:
    """What the gym says of the current version on held-out questions, and by which it was made."""
    more = [text for name, value in options.items() for text in (f"--{name}", value)]
    asked = ("gym", "live", "--small", "--temperature", "0", "--count", str(count))
    (row,) = typist.json(*asked, *more)["rows"]
    figures = {each["name"]: each["value"] for each in row["total"]["figures"]}
    return figures, row["versions"]


def untimed(path: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in line.keys() - TIMED} for line in lines(path)]


def weights(folder: Path, version: str) -> str:
    return weights_of(find(folder, version))


def said_of(typist: Typist, version: str) -> str:
    """How a reply says which version of the conductor it is of."""
    return f"conductor/{version}@{weights(typist.folder / 'conductor', version)[:12]}"


def lessons(typist: Typist) -> None:
    """Runs of the teacher on the actors; whoever asks for them is killed as they are at work."""
    options = ("--small", "--set", "train", "--count", str(LESSONS), "--job", "lessons")
    asked = ("gym", "live", *options, "--policy", TEACHER)
    first = typist.start(*asked)
    at_work(first, LESSONS)
    killed(first)
    (row,) = typist.json(*asked)["rows"]
    assert row["unscorable"] == 0
    figures = {each["name"]: each for each in row["total"]["figures"]}
    assert figures["accuracy"]["n"] == LESSONS
    assert figures["accuracy"]["value"] > 0.95


def data(typist: Typist) -> None:
    """A data set of them; its build is killed, and what comes of it is as in one go."""
    whose = ("--policy", TEACHER, "--dialect", "slots", "--tokenizer", "conductor")
    asked = ("dataset", "build", "sft", *whose, "--spec", "data.toml")
    out = typist.folder / "datasets" / "sft"
    killed(typist.start(*asked), lambda: any((out / "data").glob("part-*.parquet")))
    begun = manifest.read(out)
    assert begun is None or not begun.complete
    typist(*asked)
    typist(*asked, "--out", "once")
    manifests = [
        (folder / "manifest.json").read_bytes() for folder in (out, typist.folder / "once")
    ]
    assert manifests[0] == manifests[1]
    made = json.loads(manifests[0])
    assert made["complete"]
    assert made["log"]["runs"] == LESSONS + UNTAUGHT, "no lesson was begun twice"
    assert made["rows"] > LESSONS * 0.9


def taught(typist: Typist) -> None:
    """SFT, killed between two checkpoints; the weights are as if it had not been, to the bit."""
    asked = ("train", "sft", "datasets/sft", "--model", "conductor", "--spec", "sft.toml")
    metrics = typist.folder / "trainings" / "sft" / "metrics.jsonl"
    killed(typist.start(*asked), lambda: len(lines(metrics)) > 30)
    out, _ = typist(*asked)
    assert "version 000001 after 120 steps" in out
    typist(*asked, "--out", "once", "--fresh", "--no-publish")
    assert untimed(metrics) == untimed(typist.folder / "once" / "metrics.jsonl")
    last = [
        (typist.folder / folder / "checkpoints" / "00000120" / "model.safetensors").read_bytes()
        for folder in ("trainings/sft", "once")
    ]
    assert last[0] == last[1]
    assert names(typist.folder / "conductor") == ["000001"], "published once"


def practised(typist: Typist) -> str:
    """RL on the actors, killed while a step is played; the version that comes of it."""
    begun = ("--model", "conductor", "--from", "1", "--spec", "rl.toml")
    asked = ("train", "rl", "--gym", "small", *begun)
    metrics = typist.folder / "trainings" / "rl" / "metrics.jsonl"
    killed(typist.start(*asked), lambda: len(lines(metrics)) > 1)
    said = typist.json(*asked)
    told, steps = lines(metrics), range(1, PRACTICE + 1)
    published = [number(each) for each in (*steps, PRACTICE + 1)]
    assert [line["step"] for line in told] == list(steps)
    assert [line["version"] for line in told] == [number(step) for step in steps]
    assert {line["stale"] for line in told} == {0.0}, "each by the version before it"
    assert {line["rollouts"] for line in told} == {ROLLOUTS}
    folder = typist.folder / "conductor"
    assert names(folder) == published
    before = weights(folder, LAST)
    # From the beginning, with nothing but the log: the same runs, the same versions, to the bit.
    again = typist.json(*asked, "--out", "again")
    assert again["event_id"] == said["event_id"] == LAST
    assert untimed(typist.folder / "again" / "metrics.jsonl") == untimed(metrics)
    assert names(folder) == published
    assert weights(folder, LAST) == before
    return LAST


def swapped(typist: Typist, better: str) -> tuple[dict[str, float], dict[str, float]]:
    """Live runs, a version promoted under them; the figures before and after."""
    typist("model", "promote", "conductor", "1", "--force", "to begin with")
    begun = ("--model", "conductor", "--from", "1", "--spec", "rl.toml")
    _, err = typist("train", "rl", "--gym", "small", *begun)
    assert f"version {better} was current; another was chosen since" in err
    before, by = measured(typist)
    assert sum(by.values()) == ASKED
    assert {name.partition("@")[0] for name in by} == {"conductor/000001"}
    asked = ("gym", "live", "--small", "--seed", "100", "--count", str(DURING), "--job", "during")
    during = typist.start(*asked)
    at_work(during, DURING)
    promote(typist.folder / "conductor", better, force="it is cheaper")
    swapped_at = datetime.now(UTC)
    killed(during)
    (row,) = typist.json(*asked)["rows"]
    assert sum(row["versions"].values()) == DURING
    known = {said_of(typist, each) for each in ("000001", better)}
    assert row["versions"].keys() <= known, "each run by one version, from its first reply on"
    runs = typist.json("runs", "--limit", str(DURING))["rows"]
    assert any(datetime.fromisoformat(run["ended"]) > swapped_at for run in runs)
    assert any(datetime.fromisoformat(run["started"]) < swapped_at for run in runs)
    after, by = measured(typist)
    assert {name.partition("@")[0] for name in by} == {f"conductor/{better}"}
    return before, after


def test_the_loop(typist: Typist) -> None:
    typist(
        *("train", "new", "conductor", "--gym", "small", "--episodes", "300"),
        *("--vocabulary", "512", "--layers", "2", "--width", "64", "--feed-forward", "192"),
    )
    (typist.folder / "sft.toml").write_text(SFT)
    (typist.folder / "rl.toml").write_text(RL)
    (typist.folder / "data.toml").write_text(DATA)
    (typist.folder / "gym.toml").write_text(typist("gym", "pool", "--small")[0] + POOL)
    typist("up", "--pool", "gym.toml", "--policy", TEACHER)
    untrained, _ = measured(typist, UNTAUGHT)
    assert untrained["accuracy"] == 0.0
    lessons(typist)
    data(typist)
    taught(typist)
    before, after = swapped(typist, practised(typist))
    assert before["accuracy"] >= 0.8
    assert after["accuracy"] >= 0.8
    assert after["cost"] < CHEAPER * before["cost"]
    runs = typist.json("model", "list", "conductor")["rows"]
    assert {row["version"]: row["current"] for row in runs}[LAST]
    assert all(row["runs"] >= ROLLOUTS for row in runs if row["version"] not in ("base", LAST))
    assert "sound" in typist("verify", "--all")[0]
