"""What a version of a small model does in the gym, for the gate that it has to pass.

``podium model promote FOLDER VERSION --evaluator trainer.gym.gate:scores``
"""

from pathlib import Path
from typing import Final

from protocol.decisions import PolicySpec
from replay import model_folder
from trainer.gym.episodes import draws
from trainer.gym.evaluate import evaluate
from trainer.gym.play import run
from trainer.gym.scores import Scores

SETS: Final = ("seen", "held-out-questions", "unseen-pools")
"""What is known, other questions, and workers that it never saw."""

EPISODES: Final = 300
"""Of each set: accuracies of two versions in the same ones can be told apart at some four points,
and a small model on two cores takes a few minutes for all."""


def player(folder: Path) -> PolicySpec:
    """A small model in the compact dialect, which says what it holds most likely.

    Args:
        folder: A Transformers folder, or a version's.
    """
    from trainer.gym.practice import student  # loads torch, which only a model needs

    return student(str(folder.expanduser().absolute()), temperature=0.0)


def scores(folder: Path, version: str) -> list[Scores]:
    """The scores of a version of the model in ``folder``, one for each set.

    Raises:
        NotFound, InvalidData: There is no such version, or it can't be loaded.
    """
    policy = player(model_folder.find(folder, version).path)
    return [
        evaluate(list(draws(range(EPISODES), name)), policy, run, version=version).total
        for name in SETS
    ]
