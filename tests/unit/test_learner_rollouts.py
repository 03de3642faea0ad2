"""The learner and the sampler together: what one draws the other knows, and learns from."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from protocol.errors import InvalidData
from replay.model_versions import publish
from tests import models
from tests.learners import SIZE, TOKEN, engine, example, learner, played, ragged, rolled
from trainer.learner.example import imitated, reinforced
from trainer.learner.learner import Learner
from trainer.learner.options import Objective, Options, Steps
from trainer.rows import Floats, Row

PROMPTS: Final = tuple(
    np.random.default_rng(1).integers(5, SIZE, length).tolist() for length in (4, 11, 7, 20, 3)
)


def opened(folder: Path, objective: Objective = TOKEN, **steps: float) -> Learner:
    options = Options(objective=objective, steps=Steps(**steps))  # type: ignore[arg-type]
    return Learner.open(folder, options, device="cpu")


def ratios(known: list[Floats], batch: list[object]) -> Floats:
    found = []
    for each, one in zip(known, batch, strict=True):
        mine = one.pg > 0  # type: ignore[attr-defined]
        found.append(np.exp(each[mine] - one.logprobs[mine]))  # type: ignore[attr-defined]
    return np.concatenate(found)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 20},
        {"temperature": 0.9, "top_p": 0.8},
        {"temperature": 1.0, "top_p": 0.5, "top_k": 9},
    ],
)
def test_the_ratio_of_fresh_rollouts_is_one(tmp_path: Path, sampling: dict[str, Any]) -> None:
    models.tiny(tmp_path)
    batch = [rolled(row) for row in played(engine(tmp_path), PROMPTS, **sampling)]
    cut = {"top_p", "top_k"} & sampling.keys()
    mine = opened(tmp_path, Objective(per="token", truncated="apply" if cut else "refuse"))
    assert ratios(mine.known(batch), list(batch)) == pytest.approx(1, abs=1e-5)
    assert mine.drift(batch) < 1e-5
    values = mine.step(batch).values
    assert values["ratio"] == pytest.approx(1, abs=1e-5)
    assert values["ess_frac"] == pytest.approx(1, abs=1e-5)
    assert values["clip_frac"] == values["masked_frac"] == 0
    if cut:
        with pytest.raises(InvalidData, match="part of the vocabulary"):
            opened(tmp_path).step(batch)


def test_after_an_update_the_ratio_is_another(tmp_path: Path) -> None:
    models.tiny(tmp_path)
    batch = [rolled(row) for row in played(engine(tmp_path), PROMPTS)]
    mine = opened(tmp_path)
    mine.step(batch)
    assert np.abs(ratios(mine.known(batch), list(batch)) - 1).max() > 1e-3
    assert mine.drift(batch) > 1e-3


def test_rows_become_examples() -> None:
    """Two replies, of which the first is context where only the second is to be imitated."""
    row = Row(
        rollout="run",
        group="group",
        segment=0,
        ids=np.arange(9, dtype=np.int32),
        sampled=np.asarray([0, 0, 1, 1, 0, 0, 1, 1, 0], dtype=np.bool_),
        logprobs=np.full(9, -1.5, dtype=np.float32),
        turns=(1, 2),
        starts=(2, 6),
        temperature=0.7,
        top_p=1.0,
        top_k=0,
        version="000001",
        tokenizer="",
        template="",
    )
    assert imitated(row).ce.tolist() == row.sampled.tolist()
    second = imitated(row, turns={2}, weight=0.5)
    assert np.flatnonzero(second.ce).tolist() == [6, 7]
    assert second.ce.sum() == 1
    assert not second.pg.any()
    one = reinforced(row, -0.5, ref_kl=0.1)
    assert one.advantages.tolist() == pytest.approx((row.sampled * -0.5).tolist())
    assert one.ref_kl.sum() == pytest.approx(0.4)
    assert not one.ce.any()
    assert (one.rollout, one.group, one.temperature) == ("run", "group", 0.7)
    assert learner(reference=True).evaluate([one])["trained"] == 4


def test_a_published_model_is_sampled_as_the_learner_knows_it(tmp_path: Path) -> None:
    models.tiny(tmp_path)
    mine = opened(tmp_path, rate=0.01)
    for _ in range(5):
        mine.step(ragged((9, 14)))
    version = publish(tmp_path, mine.write)
    batch = [rolled(row) for row in played(engine(version.path), PROMPTS)]
    assert ratios(mine.known(batch), list(batch)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(per="rollout"),
        Objective(per="token", ratio="decoupled", correction="truncate"),
    ],
)
def test_a_bandit_is_won(tmp_path: Path, objective: Objective) -> None:
    """Two prompts, each with a token of its own that pays; drawn and learned in turns."""
    paying = {(7, 8): 40, (9, 7): 41}
    models.tiny(tmp_path / "0")
    mine = opened(tmp_path / "0", objective, rate=0.02)
    share = 0.0
    # A token of 291 is seldom drawn by chance: it is shown a little, and no more than that.
    shown = [example([*prompt, token], ce=(2,)) for prompt, token in paying.items()]
    while mine.evaluate(shown)["nll"] > 2.5:
        mine.step(shown)
    for turn in range(1, 25):
        folder = tmp_path / str(turn)
        folder.mkdir()
        mine.write(folder)
        batch, right = [], 0
        for prompt, token in paying.items():
            rows = played(engine(folder), [prompt] * 16, limit=1)
            rewards = np.asarray([float(row.output[0] == token) for row in rows])
            right += int(rewards.sum())
            if rewards.std() > 0:
                advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
                batch += [
                    rolled(row, float(advantage), rollout=f"{token}-{number}")
                    for number, (row, advantage) in enumerate(zip(rows, advantages, strict=True))
                ]
        share = right / 32
        if share > 0.95:
            break
        mine.step(batch)
    assert share > 0.95
