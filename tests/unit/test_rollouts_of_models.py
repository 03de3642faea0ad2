"""Real runs of a tiny model of ours: its log makes rows whose log-probabilities it gives again."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from protocol.decisions import Task
from tests.models import tiny
from tests.unit.test_local_policy import Place, opened, spec
from trainer.advantages import advantages, scheme
from trainer.datasets.facts import left_out
from trainer.datasets.spec import Select, Spec
from trainer.fold import read
from trainer.records import Rollout
from trainer.rewards import preset, score
from trainer.rows import Row, rows

CHECK = {"kind": "exact", "answer": "42"}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with opened() as place:
        yield place


async def group(place: Place, folder: Path, count: int, **more: object) -> list[Rollout]:
    """Rollouts of one task."""
    asked = spec(folder, **more)  # type: ignore[arg-type]
    name = await place.policy(asked)
    found = []
    for _ in range(count):
        start = place.world.start(policy=name)
        start = msgspec.structs.replace(start, task=Task(text="Double 21.", check=CHECK))
        run = await place.world.submit(start)
        await place.world.ended(run, 60.0)
        found.append(await read(place.world.log, run))
    return found


def recomputed(folder: Path, row: Row) -> np.ndarray:
    """The log-probabilities of a row's tokens, by one forward pass over it."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, :-1].float() / row.temperature
    wanted = torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None])[:, 0]
    return np.concatenate([[0.0], wanted.numpy()])


@pytest.mark.parametrize("dialect", ["lists", "hermes"])
async def test_rows_of_real_runs_have_the_log_probabilities_of_their_model(
    place: Place, tmp_path: Path, dialect: str
) -> None:
    folder = tiny(tmp_path / "tiny")
    found = await group(place, folder, 3, dialect=dialect, temperature=0.8, max_tokens=20)
    assert len({each.group for each in found}) == 1
    for each in found:
        made = rows(each)
        assert sum(int(row.sampled.sum()) for row in made) == sum(
            len(step.output) // 4 for step in each.steps
        )
        assert sum(len(step.output) for step in each.steps) > 0
        for row in made:
            assert (row.temperature, row.top_p, row.top_k) == (0.8, 1.0, 0)
            assert len({row.version, row.tokenizer, row.template}) == 3
            wanted = recomputed(folder, row)
            assert row.logprobs[row.sampled] == pytest.approx(wanted[row.sampled], abs=1e-4)
    if dialect == "lists":
        assert any(len(each.steps) > len(rows(each)) for each in found), "some prompts go on"
        assert all(step.rejection for each in found for step in each.steps[:2])


async def test_another_version_is_another_group(place: Place, tmp_path: Path) -> None:
    folder = tiny(tmp_path / "tiny")
    (first,) = await group(place, folder, 1, temperature=1.0, max_tokens=8)
    assert first.steps[0].version.startswith("tiny/base@")
    for wanted in ("base", "tiny/base", first.steps[0].version):
        assert not left_out(first, Spec(kind="rl", select=Select(versions=(wanted,))))
    assert left_out(first, Spec(kind="rl", select=Select(versions=("tiny",)))) == "version"
    (again,) = await group(place, folder, 1, temperature=1.0, max_tokens=8)
    assert again.group == first.group
    (other,) = await group(place, tiny(tmp_path / "other", 1), 1, temperature=1.0, max_tokens=8)
    assert other.group != first.group


async def test_a_log_to_advantages_in_three_lines(place: Place, tmp_path: Path) -> None:
    found = await group(place, tiny(tmp_path / "tiny"), 2, temperature=1.0, max_tokens=8)
    scored = score(found, preset("conductor"))
    worth = advantages(scored, scheme("grpo"))
    assert [each.reward for each in scored] == [0.5, 0.5], "it speaks, and knows nothing"
    assert [(each.value, each.flat) for each in worth] == [(0.0, True)] * 2
