"""TRL as an oracle: the same rollouts give the same norm of the gradient, to float error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from benchmarks.child import Child
from benchmarks.learner import trl
from tests import models
from tests.borrowed import alone
from tests.learners import SIZE, TOKEN, example, learner, ragged
from trainer.learner.options import Objective

pytestmark = pytest.mark.slow

EPS: Final = 1e-4
"""What TRL adds to a standard deviation."""

LONGEST: Final = 12
"""Tokens that a completion may have."""

LENGTHS: Final = (4, 9, 3, 7, 5, 5, 12, 2)
REWARDS: Final = (1.0, 0.0, 0.0, 0.5, 0.0, 1.0, 1.0, 0.25)
PROMPTS: Final = [[5, 6, 7]] * 4 + [[8, 9, 10, 11, 12]] * 4

OBJECTIVES: Final[dict[str, Objective]] = {
    "dapo": Objective(per="token"),
    "grpo": Objective(per="rollout"),
    "dr_grpo": Objective(per="constant", tokens=LONGEST),
}


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, Path]]:
    folder = tmp_path_factory.mktemp("trl")
    models.tiny(folder / "model")
    with alone():
        python = trl()
    child = Child("trl", [python, "-m", "benchmarks.trl_env.peer"], folder / "log")
    try:
        yield child, folder / "model"
    finally:
        child.close()


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_the_norm_of_a_grpo_gradient_is_trls(peer: tuple[Child, Path], loss: str) -> None:
    child, folder = peer
    drawn = np.random.default_rng(0)
    completions = [drawn.integers(5, SIZE, length).tolist() for length in LENGTHS]
    wanted = child.ask(
        {
            "do": "grpo",
            "folder": str(folder),
            "prompts": PROMPTS,
            "completions": completions,
            "rewards": REWARDS,
            "generations": 4,
            "loss_type": loss,
            "longest": LONGEST,
        }
    )
    rewards = np.asarray(REWARDS).reshape(-1, 4)
    deviation = rewards.std(1, ddof=1, keepdims=True)
    advantages = ((rewards - rewards.mean(1, keepdims=True)) / (deviation + EPS)).ravel()
    mine = learner(OBJECTIVES[loss])
    batch: list[Any] = []
    for number, (prompt, output) in enumerate(zip(PROMPTS, completions, strict=True)):
        places = range(len(prompt), len(prompt) + len(output))
        given = {"advantage": advantages[number], "rollout": str(number)}
        batch.append(example([*prompt, *output], pg=places, **given))
    for each, known in zip(batch, mine.known(batch), strict=True):
        each.logprobs[each.pg > 0] = known[each.pg > 0]
    assert mine.step(batch).values["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-5)


def test_the_loss_of_imitation_is_trls(peer: tuple[Child, Path]) -> None:
    child, folder = peer
    batch = ragged((17, 30, 9, 25))
    wanted = child.ask(
        {
            "do": "sft",
            "folder": str(folder),
            "ids": [each.ids.tolist() for each in batch],
            "labels": [np.where(each.ce > 0, each.ids, -100).tolist() for each in batch],
            "steps": 1,
            "threads": 1,
        }
    )
    assert learner(TOKEN).evaluate(batch)["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
