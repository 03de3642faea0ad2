"""Data sets load in the libraries that they are for, each in an environment of its own."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from atif import Trajectory

from tests.datasets import Runs, fixed
from tests.foreign import TRL, VERIFIERS, VERL, loaded, python_of
from tests.models import tiny
from trainer.datasets.build import build
from trainer.datasets.spec import Format, Kind, Sft, Spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

REPLIES = [
    '<tool_call>\n{"name": "population", "arguments": {"city":"Paris"}}\n</tool_call><|im_end|>',
    "2100000<|im_end|>",
]
"""What is trained of a run that is right at once."""


def made(folder: Path, name: str, kind: Kind, format_: Format, **more: Any) -> Path:
    """A data set's one file, under a plain name."""
    spec = Spec(kind=kind, format=format_, **more)
    found = asyncio.run(build(Runs(*fixed()), folder / f"{name}.d", spec, podium="test")).manifest
    (part,) = found.parts
    assert part.data.rows
    path = folder / f"{name}{Path(part.data.name).suffix}"
    shutil.copy(folder / f"{name}.d" / part.data.name, path)
    return path


def test_trl_trains_on_each_of_its_shapes(tmp_path: Path) -> None:
    model = tiny(tmp_path / "model")
    words = str(model)
    made(tmp_path, "tokens", "sft", "trl", tokenizer=words)
    made(tmp_path, "prompt", "sft", "trl", layout="prompt", dialect="openai")
    made(tmp_path, "chat", "sft", "trl", layout="chat")
    made(tmp_path, "preference", "preference", "trl")
    made(tmp_path, "canonical", "sft", "parquet", tokenizer=words)
    found = loaded(python_of("trl", *TRL), "trl_trains", model, tmp_path)
    assert found["tokens"]["said"] == "".join(REPLIES), "the labels are ours, and nothing is cut"
    assert all(np.isfinite(found[name]["loss"]) for name in ("tokens", "prompt", "chat"))
    assert {"city": "Paris"} in found["calls"]
    assert all(None not in call.values() for call in found["calls"]), "no argument is invented"
    assert found["preference"]["loss"] == pytest.approx(np.log(2), abs=1e-3), "before any step"
    assert found["canonical"]["ids"] > 0


def test_verl_reads_its_shapes(tmp_path: Path) -> None:
    model = tiny(tmp_path / "model")
    sft = made(tmp_path, "sft", "sft", "verl", sft=Sft(views="clean"))
    rl = made(tmp_path, "rl", "rl", "verl")
    found = loaded(python_of("verl", *VERL), "verl_reads", model, sft, rl)
    said = "".join(f"{reply}\n" for reply in REPLIES)
    assert said in found["sft"], "verl trains what its template puts after a reply, too"
    assert found["prompt"] == ["system", "user"]
    assert '"2100000"' in found["ground_truth"]
    assert found["rl"] > 0
    assert found["rollouts"] > 1


def test_verifiers_reads_episodes(tmp_path: Path) -> None:
    path = made(tmp_path, "rl", "rl", "verifiers")
    plain = pq.read_table(made(tmp_path, "plain", "rl", "parquet")).to_pylist()
    rows = {row["run_id"]: row for row in plain}
    python = python_of("verifiers", *VERIFIERS)
    for trace in loaded(python, "verifiers_reads", path):
        row = rows[trace["id"]]
        (branch,) = trace["branches"]
        assert branch["ids"] == row["input_ids"]
        assert [int(bit) for bit in branch["mask"]] == row["loss_mask"]
        assert branch["logprobs"] == row["old_logprobs"], "with all digits"
        worth = {
            value for value, bit in zip(branch["advantages"], branch["mask"], strict=True) if bit
        }
        assert [np.float32(each) for each in worth] == [np.float32(row["advantage"])]
        assert trace["reward"] == row["reward"]
    sft = loaded(python, "verifiers_reads", made(tmp_path, "sft", "sft", "verifiers"))
    assert all(any(weight for weight in each["branches"][0]["ce"]) for each in sft)


def test_an_atif_validator_takes_every_line(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("sft", "rl", "preference")
    for kind in kinds:
        path = made(tmp_path, kind, kind, "atif")
        for line in path.read_text().splitlines():
            Trajectory.model_validate_json(line)
