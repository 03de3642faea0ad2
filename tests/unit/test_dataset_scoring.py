"""What rollouts of a data set are worth: rewards that need a batch, or a training, say so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Conflict, Usage
from tests.datasets import Runs, fixed
from tests.trees import made, rollout, step
from trainer.datasets.build import build
from trainer.datasets.manifest import Manifest
from trainer.datasets.reader import samples
from trainer.datasets.scoring import scorer
from trainer.datasets.spec import Sft, Spec, load

RIGHT = {"kind": "exact", "answer": "42"}


def built(folder: Path, **more: Any) -> Manifest:
    spec = Spec(kind="sft", sft=Sft(recovery=1), **more)
    return asyncio.run(build(Runs(*fixed()), folder, spec, podium="test")).manifest


def test_a_reward_that_compares_a_batch_is_refused() -> None:
    with pytest.raises(Usage, match="toolorchestra compares the rollouts of a training batch"):
        scorer("toolorchestra")


def test_an_annealed_reward_is_scored_where_it_is_said_and_nowhere_else(tmp_path: Path) -> None:
    calls = (made("tool"), made("tool"), made("agent", "EXEC_ERR", "worker"))
    found = rollout(step(calls=calls), check=RIGHT, critical_steps=1)
    with pytest.raises(Usage, match="parl is annealed over a training") as caught:
        scorer("parl")
    assert "progress = 0.0" in caught.value.hint
    assert scorer("parl", 0.0)(found).reward == pytest.approx(1.0 + 0.3 + 0.2 * 2 / 3)
    assert scorer("parl", 0.5)(found).reward == pytest.approx(1.0 + 0.15 + 0.1 * 2 / 3)
    assert scorer("parl", 1.0)(found).reward == 1.0
    for name in ("accuracy", "paramanager"):
        with pytest.raises(Usage, match=f"{name} is not annealed"):
            scorer(name, 0.5)
    with pytest.raises(Usage, match="is annealed over a training"):
        built(tmp_path, reward="parl")
    assert not list(tmp_path.glob("manifest*"))


def test_how_much_of_a_training_is_done_stands_in_the_manifest(tmp_path: Path) -> None:
    found = built(tmp_path / "early", reward="parl", progress=0.0)
    assert found.spec.progress == 0.0
    assert {"accuracy", "parallelism", "completion"} == set(next(samples(tmp_path / "early")).parts)
    others: tuple[dict[str, Any], ...] = ({"reward": "parl", "progress": 0.5}, {})
    for other in others:
        with pytest.raises(Conflict, match=r"differs in .*progress"):
            built(tmp_path / "early", **other)


def test_it_is_said_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('reward = "parl"\nprogress = 0\n')
    assert load(file).progress == 0.0
    file.write_text('reward = "parl"\nprogress = 2\n')
    with pytest.raises(Usage, match=r"`\$.progress`"):
        load(file)
