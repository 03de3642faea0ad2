"""The learning benchmark: what is kept of each seed, and which seeds it is asked for."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import learning, learning_gpu, report
from benchmarks.errors import BenchmarkError
from trainer.conductor.plan import Plan
from trainer.conductor.results import (
    CORRECTED,
    LONGER,
    SFT,
    SFT_RL,
    Lengths,
    Result,
    Study,
    ordered,
)
from trainer.gym.evaluate import Report
from trainer.gym.scores import Figure, Scores
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


def measured(variant: str, seed: int, right: list[int], cost: list[int], steps: float) -> Result:
    """A result of three episodes of each set."""

    def told(of: str) -> Report:
        mean = {"accuracy": sum(right) / 3, "valid": 1.0, "recovery": 0.5, "reward": 1.0}
        figures = tuple(Figure(name=n, value=v, low=v, high=v, n=3) for n, v in mean.items())
        outcomes = {"accuracy": right, "cost": cost, "reward": [seed + each for each in right]}
        total = Scores(
            policy=variant,
            set=of,
            figures=figures,
            outcomes={
                name: {f"{of}/{place}": float(each) for place, each in enumerate(values)}
                for name, values in outcomes.items()
            },
        )
        wide = Figure(name="critical_steps", value=steps, low=steps, high=steps, n=3)
        family = Scores(policy=variant, set=of, figures=(wide,))
        return Report(total=total, families={"wide": family}, unscorable=0)

    return Result(variant=variant, seed=seed, reports=tuple(map(told, learning.SETS)))


def lines_of(right: list[int]) -> dict[str, report.Line]:
    """The lines of two seeds that got these right, and spent 10 where the strongest spends 40."""
    strongest = measured("strongest", 0, [1, 1, 1], [40, 40, 80], 2.0)
    serial = measured("serial", 0, [1, 1, 1], [20, 20, 20], 8.0)
    trained = [
        measured(name, seed, right, [10, 10, 1], 2.0)
        for name in (SFT, SFT_RL, LONGER, CORRECTED)
        for seed in (0, 1)
    ]
    found = Study(
        plan=Plan(),
        lengths=Lengths(),
        sets=learning.SETS,
        episodes=3,
        results=ordered([strongest, serial, *trained]),
    )
    return {line.name: line for line in learning.lines(found)}


def test_what_was_promised_is_told_of_each_seed() -> None:
    found = lines_of([1, 1, 0])
    assert found["accuracy, seen"].values == pytest.approx([200 / 3] * 2)
    assert not found["accuracy, seen"].shown()["holds"]
    cost = found["cost beside always the strongest, where both are right"]
    assert cost.values == [0.25, 0.25], "what it got wrong is cheap, and is not counted"
    assert cost.shown()["holds"]
    less = found["right less often than always the strongest"]
    assert less.values == pytest.approx([100 / 3] * 2)
    assert found["critical steps of wide tasks, serially over in parallel"].values == [4.0, 4.0]
    gain = found[f"reward of {SFT_RL} over {SFT}, least of its interval"]
    assert gain.values == [0.0]
    assert not gain.shown()["holds"], "as much is no more"


def test_of_models_that_are_never_right_no_cost_is_compared() -> None:
    found = lines_of([0, 0, 0])
    assert not [name for name in found if name.startswith("cost")]
    assert found["accuracy, seen"].values == [0.0, 0.0]


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
