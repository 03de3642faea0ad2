"""What a learner is given: tokens, and how much each counts in which part of the loss."""

from dataclasses import dataclass

from trainer.rows import Floats, Ids


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
    """Rows of one rollout are weighted together."""
