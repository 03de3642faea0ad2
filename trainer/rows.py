"""Rows: a rollout's tokens as a learner takes them.

A rollout becomes one row where each prompt begins with all that came before it, and a further one
wherever it does not: a token may only be trained in a row whose prefix is the one that it was drawn
under, and each sampled token is trained once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A series of tokens, all arrays of shape ``[n]``."""

    rollout: str
    """The run."""
    group: str
    segment: int
    """Its place among the rollout's rows, from 0."""
    ids: Ids
    sampled: Mask
    """True where the policy drew the token and this is the row that trains it."""
    logprobs: Floats
    """Natural, of what was drawn, under the distribution that it was drawn from; 0 elsewhere, NaN
    where it is not known."""
    turns: tuple[int, ...]
    """The questions whose replies it trains."""
    starts: tuple[int, ...]
    """Where each of those replies begins."""
    temperature: float
    top_p: float
    top_k: int
    version: str
    """Of the weights that drew it."""
    tokenizer: str
    template: str
