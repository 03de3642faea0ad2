"""The learning benchmark: what is kept of each seed, and which seeds it is asked for."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import learning, learning_gpu, report
from benchmarks.errors import BenchmarkError
from trainer.conductor.plan import Plan
from trainer.conductor.results import SFT, Lengths, Result, Study
from trainer.small.model import Shape


def study_of(seed: int, plan: Plan | None = None) -> Study:
    return Study(
        plan=plan or Plan(),
        lengths=Lengths(),
        sets=("seen",),
        episodes=2,
        results=(Result(variant="oracle", seed=0), Result(variant=SFT, seed=seed, seconds=60.0)),
    )


def test_seeds_are_counted_or_named() -> None:
    asked = report.Options(command="", repeats=3)
    assert learning.seeds(asked) == [0, 1, 2]
    assert learning.seeds(msgspec.structs.replace(asked, only=("seed-1", "seed-12"))) == [1, 12]
    with pytest.raises(BenchmarkError, match="name seeds"):
        learning.seeds(msgspec.structs.replace(asked, only=("trl",)))


def test_a_seed_is_kept_with_the_conditions_that_it_was_measured_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learning.store(tmp_path, study_of(0), {"cpu": "first"})
    learning.store(tmp_path, study_of(1), {"cpu": "second"})
    # Shown again elsewhere, it is still what was measured there.
    learning.store(tmp_path, study_of(0), {"cpu": "third"})
    found = list(learning.stored(tmp_path, study_of(7)))
    assert [each.conditions["cpu"] for each in found] == ["first", "second"]
    assert [each.study.seeds for each in found] == [[0], [1]]
    other = msgspec.structs.replace(Plan(), tokens=17)
    assert not list(learning.stored(tmp_path, study_of(0, other)))
    assert "seed-0.json is of another plan" in capsys.readouterr().err


@pytest.mark.slow
def test_a_larger_one_is_made_and_measured_in_processes_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = Shape(layers=1, width=32, heads=2, kv_heads=1, feed_forward=64)
    monkeypatch.setattr(learning_gpu, "SHAPE", shape)
    monkeypatch.setattr(learning_gpu, "SETS", ("seen",))
    few = {"steps": 2, "practice": 1, "correction": 1, "as-long": 2, "episodes": 2, "processes": 1}
    said = [text for name, count in few.items() for text in (f"--{name}", str(count))]
    asked = ["--out", str(tmp_path), "--device", "cpu", "--seeds", "0", "1", *said]
    monkeypatch.setattr(sys, "argv", ["learning_gpu", *asked])
    assert learning_gpu.main() == 0
    made = json.loads((tmp_path / "learning-gpu.json").read_bytes())
    found = msgspec.convert(made["study"], Study)
    assert (made["conditions"]["device"], found.plan.shape, found.seeds) == ("cpu", shape, [0, 1])
    assert found.variants == list(learning_gpu.VARIANTS)
    assert all(each.scores("seen") and each.seconds for each in found.results)
    table = (tmp_path / "learning-gpu.md").read_text()
    assert table in capsys.readouterr().out
    assert learning_gpu.main() == 0, "what is done stays done"
    assert (tmp_path / "learning-gpu.md").read_text() == table
