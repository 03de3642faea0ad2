"""A training that is killed and begun again is the one that was not, to the bit."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file

from protocol.errors import Conflict, InvalidData
from tests import models
from tests.borrowed import ROOT
from tests.learners import TOKEN, learner, ragged, weights
from tests.trained import ADAPTED, OPTIONS, train
from trainer.learner.checkpoints import AVERAGE, OPTIMIZER, STATE, WEIGHTS, checkpoints, last
from trainer.learner.learner import Learner
from trainer.learner.options import Options, Steps
from trainer.learner.sinks import lines

STEPS: Final = 14
EVERY: Final = 3
KILLED_AFTER: Final = 8
"""A step with no checkpoint behind it: two steps are made again."""

TIMED: Final = {"wait_s", "step_s", "tokens_per_s"}


def untimed(path: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in line.keys() - TIMED} for line in lines(path)]


@pytest.mark.parametrize("named", ["whole", "adapted"])
def test_a_training_that_is_killed_goes_on_to_the_bit(tmp_path: Path, named: str) -> None:
    options: Options = ADAPTED if named == "adapted" else OPTIONS
    once, killed = tmp_path / "once", tmp_path / "killed"
    for folder in (once, killed):
        models.tiny(folder / "model")
    wanted = train(once, STEPS, EVERY, options)
    command = [sys.executable, "-m", "tests.trained", str(killed), str(STEPS), str(EVERY), named]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while int(process.stdout.readline()) != KILLED_AFTER:
            process.stdin.write(b"\n")
        process.kill()
    assert process.returncode == -9
    left = last(killed / "checkpoints")
    assert left is not None
    assert left.name == f"{KILLED_AFTER // EVERY * EVERY:08}"
    assert len(lines(killed / "metrics.jsonl")) == KILLED_AFTER
    found = train(killed, STEPS, EVERY, options)
    assert (found.steps, found.updates) == (wanted.steps, wanted.updates) == (STEPS, STEPS)
    ends = [last(folder / "checkpoints") for folder in (once, killed)]
    for file in (WEIGHTS, AVERAGE):
        if named == "adapted" and file == AVERAGE:
            continue
        one, other = (load_file(end / file) for end in ends if end is not None)
        assert one.keys() == other.keys()
        assert all(torch.equal(each, other[name]) for name, each in one.items()), file
    first, second = (end / STATE for end in ends if end is not None)
    assert first.read_bytes() == second.read_bytes()  # the hashes of all files, too
    assert untimed(once / "metrics.jsonl") == untimed(killed / "metrics.jsonl")


def test_only_the_last_checkpoints_stay_and_drafts_go(tmp_path: Path) -> None:
    mine = learner()
    (tmp_path / ".draft-of-one-that-was-killed").mkdir()
    for _ in range(5):
        mine.step(ragged([9]))
        mine.save(tmp_path, keep=2)
    assert [each.name for each in sorted(tmp_path.iterdir())] == ["00000004", "00000005"]
    assert [each.name for each in checkpoints(tmp_path)] == ["00000004", "00000005"]


def test_a_checkpoint_holds_where_its_feeder_was(tmp_path: Path) -> None:
    mine = learner(steps=Steps())
    mine.step(ragged([9]))
    mine.position, mine.version = {"log": 17, "run": "a"}, "000003"
    mine.save(tmp_path)
    other = learner(seed=1, steps=Steps())
    assert other.resume(tmp_path)
    assert (other.position, other.version, other.steps) == ({"log": 17, "run": "a"}, "000003", 1)
    found = weights(other)
    assert all(torch.equal(each, found[name]) for name, each in weights(mine).items())
    assert not learner().resume(tmp_path / "nothing")


def test_a_damaged_checkpoint_is_refused_by_its_file(tmp_path: Path) -> None:
    mine = learner()
    mine.step(ragged([9]))
    path = mine.save(tmp_path)
    for file in (WEIGHTS, OPTIMIZER):
        whole = (path / file).read_bytes()
        (path / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(InvalidData, match=f"{file} is missing or damaged"):
            learner().resume(tmp_path)
        (path / file).write_bytes(whole)
    (path / STATE).write_text("{")
    with pytest.raises(InvalidData, match="can't be read"):
        learner().resume(tmp_path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    mine = learner()
    mine.step(ragged([9]))
    mine.save(tmp_path)
    with pytest.raises(InvalidData, match="another model, optimiser or adapter"):
        learner(steps=Steps(kind="muon")).resume(tmp_path)
    other = learner(seed=1)
    other.step(ragged([9]))
    with pytest.raises(Conflict, match="another training"):
        other.save(tmp_path)
    assert mine.save(tmp_path).is_dir()  # the same one again is no conflict


def test_a_training_goes_on_with_the_options_that_are_given(tmp_path: Path) -> None:
    mine = learner(steps=Steps(rate=0.01, weight_decay=0.1))
    mine.step(ragged([9]))
    mine.save(tmp_path)
    other = learner(steps=Steps(rate=0.001, ema=0.5))
    assert other.resume(tmp_path)
    before = weights(other)
    assert all(torch.equal(each, before[name]) for name, each in other.stepper.average.items())
    assert other.step(ragged([9])).values["rate_adamw"] == pytest.approx(0.001)
    groups = other.stepper.optimizers["adamw"].param_groups
    assert {group["weight_decay"] for group in groups} == {0.0}


def test_a_checkpoint_of_weights_of_another_shape_is_refused(tmp_path: Path) -> None:
    words = models.tokenizer()
    wide, narrow = models.model(words), models.model(words)
    narrow.resize_token_embeddings(len(words) - 1)
    mine = Learner(wide, words, Options(objective=TOKEN))
    mine.step(ragged([9]))
    mine.save(tmp_path)
    with pytest.raises(InvalidData, match="another model"):
        Learner(narrow, words, Options(objective=TOKEN)).resume(tmp_path)
