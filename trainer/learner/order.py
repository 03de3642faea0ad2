"""Which examples come when: a pure function of ``(seed, step)``, so there is no state to lose."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.actions import Json
from protocol.errors import Usage
from trainer.learner.example import Example


class Fed(msgspec.Struct, frozen=True, kw_only=True):
    """What a learner is fed in one step."""

    examples: Sequence[Example]
    values: dict[str, Json] = {}
    """What else is to be written down of the step: rewards, turns, shares of workers."""
    position: Json = None
    """Where whoever feeds is after this; kept in checkpoints."""


def permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of so many things in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def places(count: int, size: int, seed: int, step: int) -> list[int]:
    """Which of so many things a step takes, by place: each once an epoch, in another order each.

    Args:
        count: How many there are, at least 1.
        size: How many a step takes. The last of an epoch is filled with the first of the next.
        seed: Of the order.
        step: Counted from 0.
    """
    found: list[int] = []
    while len(found) < size:
        epoch, at = divmod(step * size + len(found), count)
        found += permutation(count, seed, epoch)[at : at + size - len(found)].tolist()
    return found


class Shuffled:
    """Batches of a fixed set of examples: each once an epoch, in another order each time.

    Args:
        examples: The set; not empty.
        size: Examples of a batch. The last of an epoch is filled with the first of the next.
        seed: Of the order.
    """

    def __init__(self, examples: Sequence[Example], size: int, seed: int) -> None:
        if not examples or size < 1:
            raise Usage("batches need examples and a size above 0", hint="give both")
        self._examples, self._size, self._seed = examples, size, seed

    def __call__(self, step: int) -> Fed:
        """The batch of a step, counted from 0."""
        chosen = places(len(self._examples), self._size, self._seed, step)
        return Fed(examples=[self._examples[place] for place in chosen])
