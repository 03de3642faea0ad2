"""`podium run --policy local:FOLDER` as a person types it: real Ray, NATS, model and log."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from podium import poolfile
from podium.policyfile import policy_spec
from protocol.decisions import Task, View
from protocol.dialects import request
from replay import model_versions
from replay.bundle import BundleShelf
from replay.chain import assemble
from replay.memory_log import MemoryLog
from replay.tokens import tokens
from tests.e2e.test_cli_real import Typist
from tests.models import model, save, taught, tiny, tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

POOL = '[pool]\nname = "few"\n[[worker]]\nname = "python"\nadapter = "python"\n'
ASKED = "What is six times seven?"


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    typist = Typist(tmp_path)
    (tmp_path / "pool.toml").write_text(POOL)
    yield typist
    typist("down")


def test_a_model_decides_a_run_and_a_new_version_the_next(typist: Typist) -> None:
    pool = poolfile.load(typist.folder / "pool.toml").pool
    folder = typist.folder / "model"
    view = View(run="r", task=Task(text=ASKED), pool=pool)
    taught(folder, [(request(policy_spec(f"local:{folder}"), view), "It is 42.")])
    (typist.folder / "pool.toml").write_text(
        POOL + '[policy]\nname = "local:model"\ntemperature = 0\nmax_tokens = 20\n'
    )
    (found,) = [
        row
        for row in typist.json("worker", "check", "pool.toml")["rows"]
        if row["worker"] == "(policy)"
    ]
    assert found["found"] == "version base is there"
    typist("up", "--pool", "pool.toml")
    assert typist("run", ASKED)[0].strip() == "It is 42."
    rows = typist.json("status")["rows"]
    (served,) = [row for row in rows if row["kind"] == "model"]
    assert (served["version"], served["counts"]["asked"]) == ("base", 1)

    words = tokenizer()
    model_versions.publish(folder, lambda path: save(path, model(words), words))
    while "000001" not in str(typist.json("status")["rows"]):
        pass
    run = typist.json("run", ASKED)["done"]["run_id"]
    typist("export", run)
    log = assemble(run, *BundleShelf(typist.folder / f"{run}.podium").get(run))
    (sampled,) = asyncio.run(tokens(log.events(), MemoryLog().get_blob))
    assert sampled.sampled.version == "000001"
    assert {*sampled.output_logprobs} == {0.0}, "nothing was left to chance"
    typist("verify", run)


def test_a_model_without_any_training_ends_a_run_clearly(typist: Typist) -> None:
    tiny(typist.folder / "model")
    out, _ = typist("run", "--pool", "pool.toml", "--policy", "local:model", ASKED)
    assert out
    _, err = typist("run", "--policy", "local:nowhere", ASKED, code=4)
    assert "no config.json" in err
