"""The learning benchmark: what is kept of each seed, and which seeds it is asked for."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import learning, report
from benchmarks.errors import BenchmarkError
from trainer.conductor.plan import Plan
from trainer.conductor.results import SFT, Lengths, Result, Study


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
