"""The learner takes what a data set holds: from runs to weights that moved where they should."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from actors.models.loading import load
from actors.models.serving import Batching
from protocol.decisions import PolicySpec
from protocol.model_versions import BASE
from replay.model_folder import Version
from tests.datasets import RIGHT, SERIAL, WRONG, Runs, run_of
from tests.learners import learner
from tests.models import tiny
from trainer.datasets.build import build
from trainer.datasets.chat import Chat
from trainer.datasets.reader import examples
from trainer.datasets.spec import Rl, Spec
from trainer.learner.options import Steps

SHORT = PolicySpec(name="local:tiny", dialect="hermes", system="Break it up.")
"""So that a conversation fits into a tiny model's context."""


REFUSED: list[dict[str, Any]] = [{"temperature": 0.0}, {"top_p": 0.5}, {"top_k": 4}]
"""How tokens may be drawn of which a learner refuses all of the batch."""


def test_imitation_from_a_data_set_lowers_its_loss(tmp_path: Path) -> None:
    spec = Spec(kind="sft", tokenizer=str(tiny(tmp_path / "model")), text=False)
    runs = [run_of(1, RIGHT, policy=SHORT), run_of(2, SERIAL, policy=SHORT, task="again", at=60)]
    asyncio.run(build(Runs(*runs), tmp_path / "data", spec))
    batch = list(examples(tmp_path / "data"))
    mine = learner(steps=Steps(rate=0.01, clip=0))
    losses = [mine.step(batch).values["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]


def test_reinforcement_from_a_data_set_has_a_ratio(tmp_path: Path) -> None:
    """The recorded bytes are below the size of the vocabulary, so they are tokens to it, too."""
    spec = Spec(kind="rl", text=False, rl=Rl(advantages="dr_grpo"))
    runs = [run_of(1, RIGHT, policy=SHORT), run_of(2, WRONG, policy=SHORT, at=60)]
    for number, changed in enumerate(REFUSED, 3):
        runs.append(run_of(number, policy=SHORT, at=60, drawn=partial(replace, **changed)))
    asyncio.run(build(Runs(*runs), tmp_path, spec))
    batch = list(examples(tmp_path))
    assert len(batch) == 2
    values = learner().step(batch).values
    assert np.isfinite(values["loss"])
    assert values["grad_norm"] > 0


def test_hashes_are_those_that_a_server_of_the_model_records(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    served = load(Version(BASE, folder, None), Batching())
    chat = Chat.load(folder, {"enable_thinking": False})
    assert chat.tokenizer_hash == served.tokenizer_hash
    assert chat.template_hash == served.template_hash({"enable_thinking": False})
    messages = [{"role": "user", "content": "Hi <|im_end|>"}]
    ids, _ = served.prompt(messages, {}, ())
    assert chat.decode(ids) == chat._text(messages, [], ask=True)
    assert [ids] == chat._ids([chat._text(messages, [], ask=True)])
