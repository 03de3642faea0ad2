"""What a learner is given: tokens, and how much each counts in which part of the loss."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from trainer.rows import Floats, Ids, Mask, Row


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A row with its weights, all arrays of shape ``[n]``.

    A weight at place ``i`` is that of predicting ``ids[i]`` from what stands before it. All weights
    are 0 on what the policy did not write.
    """

    ids: Ids
    ce: Floats
    """Weights of the cross-entropy: 1 on tokens to be imitated."""
    pg: Floats
    """Weights of the policy gradient: 1 on tokens to be reinforced."""
    advantages: Floats
    """One value a rollout, stamped on all its tokens."""
    logprobs: Floats
    """Of the behaviour policy, see `trainer.rows.Row.logprobs`."""
    ref_kl: Floats
    """Weights of the divergence from the reference model."""
    temperature: float = 1.0
    """At which the tokens were drawn."""
    rollout: str = ""
    """Rows of one rollout are weighted together; "" for one of its own."""
    group: str = ""
    """Rollouts of one group are weighted together; "" for one of its own."""
    top_p: float = 1.0
    """With which the tokens were drawn; below 1, or with ``top_k`` above 0, they came from a part
    of the vocabulary only."""
    top_k: int = 0


def imitated(row: Row, *, turns: Collection[int] | None = None, weight: float = 1.0) -> Example:
    """A row to be imitated.

    Args:
        row: What was said.
        turns: Which of its replies, by their questions; None for all. The others are context, such
            as those that failed.
        weight: Of each token.
    """
    trained = _trained(row, turns)
    none = np.zeros(len(row.ids), dtype=np.float32)
    return _example(row, ce=trained * np.float32(weight), pg=none, advantages=none, ref_kl=none)


def reinforced(
    row: Row, advantage: float, *, ref_kl: float = 0.0, ce: float = 0.0, weight: float = 1.0
) -> Example:
    """A row to be reinforced.

    Args:
        row: What was drawn.
        advantage: Of its rollout.
        ref_kl: Weight of the divergence from the reference model, for each token.
        ce: Weight of imitating it besides.
        weight: Of the policy gradient of each token.
    """
    trained = _trained(row, None)
    return _example(
        row,
        ce=trained * np.float32(ce),
        pg=trained * np.float32(weight),
        advantages=trained * np.float32(advantage),
        ref_kl=trained * np.float32(ref_kl),
    )


def _trained(row: Row, turns: Collection[int] | None) -> Mask:
    """The tokens that the policy drew in these turns."""
    if turns is None:
        return row.sampled
    kept = np.zeros(len(row.ids), dtype=np.bool_)
    ends = (*row.starts[1:], len(row.ids))
    for turn, begin, end in zip(row.turns, row.starts, ends, strict=True):
        kept[begin:end] = turn in turns
    return kept & row.sampled


def _example(row: Row, *, ce: Floats, pg: Floats, advantages: Floats, ref_kl: Floats) -> Example:
    return Example(
        ids=row.ids,
        ce=ce,
        pg=pg,
        advantages=advantages,
        logprobs=row.logprobs,
        ref_kl=ref_kl,
        temperature=row.temperature,
        rollout=row.rollout,
        group=row.group,
        top_p=row.top_p,
        top_k=row.top_k,
    )
