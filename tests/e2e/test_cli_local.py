"""`podium run --policy local:FOLDER` as a person types it: real Ray, NATS, model and log."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from podium import poolfile
from podium.policyfile import policy_spec
from protocol.decisions import Task, View
from protocol.dialects import request
from replay import model_versions
from replay.bundle import BundleShelf
from replay.chain import assemble
from replay.memory_log import MemoryLog
from replay.tokens import Tokens, tokens
from tests.e2e.test_cli_real import Typist
from tests.models import CONTEXT, model, save, taught, tiny, tokenizer

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
    served = served_by(typist)
    assert (served["version"], served["counts"]["asked"]) == ("base", 1)

    words = tokenizer()
    model_versions.publish(folder, lambda path: save(path, model(words), words))
    while served_by(typist)["version"] != "000001":
        pass
    run = typist.json("run", ASKED)["done"]["run_id"]
    sampled = sampled_of(typist, run)
    assert sampled.sampled.version == "000001"
    assert {*sampled.output_logprobs} == {0.0}, "nothing was left to chance"
    typist("verify", run)

    typist("model", "rollback", "model", "--why", "it talks nonsense")
    typist("model", "canary", "model", "1", "--share", "1")
    while "canary" not in served_by(typist):
        pass
    assert served_by(typist)["version"] == "base"
    run = typist.json("run", ASKED)["done"]["run_id"]
    assert sampled_of(typist, run).sampled.version == "000001"
    typist("model", "canary", "model", "--end")
    while "canary" in served_by(typist):
        pass
    assert typist("run", ASKED)[0].strip() == "It is 42."
    error = typist.json("model", "promote", "model", "1", code=2)["error"]
    assert "nothing is known of what the folder itself does" in error["message"]
    listed = typist.json("model", "list", "model")["rows"]
    assert [(row["version"], row["runs"], row["current"]) for row in listed] == [
        ("base", 2, True),
        ("000001", 2, False),
    ]
    typist("label", run, "--reward", "accuracy=0")
    live = {
        row["figure"]: row
        for row in typist.json("model", "compare", "model", "base", "1")["rows"]
        if row.get("set") == "live"
    }
    assert live["answered"]["current"]["value"] == 1.0
    assert live["accuracy"]["candidate"]["value"] == 0.0
    assert (live["rounds"]["current"]["n"], live["rounds"]["candidate"]["n"]) == (2, 2)
    said = [row["what"] for row in typist.json("model", "show", "model")["rows"]]
    assert said == [
        "000001 published",
        "000001 promoted without a gate",
        "back to base from 000001",
        "000001 answers 1 of the runs that begin",
        "000001 is no canary any more",
    ]


def served_by(typist: Typist) -> Any:
    """What the model's server says of itself."""
    (row,) = [row for row in typist.json("status")["rows"] if row["kind"] == "model"]
    return row


def sampled_of(typist: Typist, run: str) -> Tokens:
    """The only reply of a run, token by token."""
    typist("export", run)
    log = assemble(run, *BundleShelf(typist.folder / f"{run}.podium").get(run))
    (sampled,) = asyncio.run(tokens(log.events(), MemoryLog().get_blob))
    return sampled


def test_a_model_without_any_training_ends_a_run_clearly(typist: Typist) -> None:
    tiny(typist.folder / "model")
    out, _ = typist("run", "--pool", "pool.toml", "--policy", "local:model", ASKED)
    assert out
    _, err = typist("run", "--policy", "local:nowhere", ASKED, code=4)
    assert "no config.json" in err


def endless(folder: Path) -> None:
    """Publish a version that never ends its reply, and takes long for each token of it."""
    words = tokenizer()
    made = model(words, width=512, layers=8)
    made.config.max_position_embeddings = 8 * CONTEXT
    with torch.no_grad():
        made.model.norm.weight.zero_()  # every token is as likely: the first is taken each time
    assert words.eos_token_id
    model_versions.publish(folder, lambda path: save(path, made, words))


def test_a_model_that_is_killed_in_the_middle_of_a_reply_comes_back_and_is_asked_again(
    typist: Typist,
) -> None:
    pool = poolfile.load(typist.folder / "pool.toml").pool
    folder = typist.folder / "model"
    view = View(run="r", task=Task(text=ASKED), pool=pool)
    taught(folder, [(request(policy_spec(f"local:{folder}"), view), "It is 42.")])
    endless(folder)
    (typist.folder / "pool.toml").write_text(
        POOL + '[policy]\nname = "local:model"\ntemperature = 0\nmax_tokens = 1900\n'
    )
    typist("up", "--pool", "pool.toml")
    run = typist.json("run", "--detach", ASKED)["launch"]["run_id"]
    while not (served := served_by(typist))["asked"]:
        assert "OK" not in served["counts"]
    assert served["version"] == "000001"
    typist("model", "rollback", "model")
    os.kill(served["pid"], signal.SIGKILL)
    typist("runs", "watch", run)
    (shown,) = typist.json("runs", "show", run, "--content")["rows"]
    assert shown["answer"] == "It is 42."
    again = served_by(typist)
    assert (again["pid"] != served["pid"], again["version"]) == (True, "base")
    assert sampled_of(typist, run).sampled.version == "base"
    typist("verify", run)
