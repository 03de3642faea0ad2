"""What a version of a small model does in the gym, for the gate that it has to pass.

``podium model promote FOLDER VERSION`` asks it, for a model that is made for the gym, and
``--evaluator trainer.gym.gate:scores`` for any other in the dialect of slots.
"""

from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from actors.models.serving import Batching
from protocol.decisions import PolicySpec
from replay import model_folder
from trainer.gym import small
from trainer.gym.episodes import draws
from trainer.gym.evaluate import evaluate
from trainer.gym.play import run
from trainer.gym.scores import Scores
from trainer.small import CARD

GYM: Final = "gym"
"""In a model's card: which of `GYMS` it is made for."""

WHOLE: Final = "train"
"""The gym's training set."""

GYMS: Final = (WHOLE, small.NAME)
"""What of the gym may be trained on: the training set, and the gym in small."""

SETS: Final = ("seen", "held-out-questions", "unseen-pools")
"""What is known, other questions, and workers that it never saw."""

SMALL_SETS: Final = SETS[:2]
"""Of the gym in small, whose workers are always the same."""

EPISODES: Final = 300
"""Of each set: accuracies of two versions in the same ones can be told apart at some four points,
and a small model on two cores takes a few minutes for all."""


SAMPLED: Final = Batching(rows=128, threads=1)
"""How: the steps of a small model are so short that threads wait for each other, ten times as long
where cores are busy."""


def gym_of(folder: Path) -> str:
    """Which of `GYMS` a model is made for, as its card says; "" for none."""
    try:
        said = msgspec.json.decode((folder / CARD).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return ""
    found = said.get(GYM)
    return found if isinstance(found, str) and found in GYMS else ""


def player(folder: Path) -> PolicySpec:
    """A small model in the dialect of slots, which says what it holds most likely.

    Args:
        folder: A Transformers folder, or a version's.
    """
    from trainer.gym.practice import student  # loads torch, which only a model needs

    return student(str(folder.expanduser().absolute()), temperature=0.0)


def scores(folder: Path, version: str) -> list[Scores]:
    """The scores of a version of the model in ``folder``, one for each set of its gym.

    Raises:
        NotFound, InvalidData: There is no such version, or it can't be loaded.
    """
    policy = player(model_folder.find(folder, version).path)
    played = partial(run, batching=SAMPLED)
    little = gym_of(folder) == small.NAME
    drawn, sets = (small.draws, SMALL_SETS) if little else (draws, SETS)
    return [
        evaluate(list(drawn(range(EPISODES), name)), policy, played, version=version).total
        for name in sets
    ]
