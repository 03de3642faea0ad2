"""What a learner is told: what it minimises, how it steps, how its numbers are kept.

What systems of this kind decide differently has no default here: how tokens are weighted against
each other (`Objective.per`). All of it is written into every checkpoint.
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from protocol.errors import Usage

EXTRA: Final = "pip install 'podium[train]'"

MAX_EXPONENT: Final = 20.0
"""Nats that a log-ratio is cut to before it is an exponent: e^20 is 5e8, and no float overflows."""

DEFAULT_TOKENS: Final = 8_192
"""Tokens of one forward pass, padding included: what is kept for the gradient grows with them."""

Per: TypeAlias = Literal["token", "rollout", "group", "constant"]
"""What counts alike: each trained token of the batch (DAPO), each rollout (GRPO), each group of
rollouts, or each rollout with its tokens divided by a constant (Dr. GRPO)."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is minimised: ``ce + pg + ref_kl``, each a sum over tokens with explicit weights."""

    per: Per
    tokens: NotNegative = 0.0
    """Tokens that each rollout's sum is divided by; with ``per="constant"`` only."""
    ce: NotNegative = 1.0
    """What the whole cross-entropy is multiplied by."""
    pg: NotNegative = 1.0
    """What the whole policy gradient is multiplied by."""
    ref_kl: NotNegative = 1.0
    """What the whole divergence from the reference model is multiplied by."""
    entropy: float = 0.0
    """Of the bonus for the entropy of each token with a policy gradient, in loss a nat."""
    ratio: Literal["bypass", "decoupled"] = "bypass"
    """What a clipped ratio is of: these weights over the behaviour's, or over the weights that the
    update began with, times a correction for the behaviour's."""
    clip_low: NotNegative = 0.2
    clip_high: NotNegative = 0.2
    """The ratio is cut to ``1 - clip_low .. 1 + clip_high`` (PPO)."""
    correction: Literal["none", "truncate", "mask"] = "none"
    """What becomes of an importance weight above ``cap``: nothing, it is cut to it (TIS), or what
    it weighs is left out (MIS). With ``ratio="decoupled"`` only."""
    level: Literal["token", "sequence"] = "token"
    """What one importance weight is of, in the correction and in the effective sample size."""
    cap: Positive = 2.0
    gate: Positive | None = None
    """Nats a token: an example whose advantage is negative is left out where its tokens are on
    average that much less likely than they were to the behaviour (OPSM of DeepSeek-V3.2)."""
    min_ess_frac: Share = 0.0
    """A step whose effective sample size is a smaller share of its samples is refused."""
    missing: Literal["refuse", "one"] = "refuse"
    """What becomes of a token whose log-probability is not known: the batch is refused, or its
    ratio is 1 and it is counted."""
    truncated: Literal["refuse", "apply"] = "refuse"
    """What becomes of tokens that were drawn with ``top_p`` or ``top_k``: the batch is refused, or
    log-probabilities are taken over what these leave of the vocabulary. That part is found with
    the weights being trained, so it is exact only for tokens that these weights drew."""
    unbiased_kl: bool = False
    """Whether the divergence from the reference is weighted by the ratio to the behaviour, which
    makes its estimate unbiased for tokens of older weights."""

    def __post_init__(self) -> None:
        if (self.per == "constant") != (self.tokens > 0):
            raise Usage("per = 'constant' and tokens go together", hint="give both, or neither")
        if self.ratio == "bypass" and self.correction != "none":
            raise Usage(
                f"correction = {self.correction!r} has nothing to correct with ratio = 'bypass'",
                hint="choose ratio = 'decoupled'",
            )
        if self.clip_low >= 1:
            raise Usage("clip_low is below 1: a ratio is never negative", hint="such as 0.2")


class Steps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How weights move: AdamW, or Muon for the matrices within the layers and AdamW for the rest.

    Muon (Jordan et al., 2024) is `trainer.learner.muon`'s. Embeddings, heads, norms and biases go
    to AdamW.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    rate: Positive = 1e-3
    """AdamW's learning rate."""
    matrix_rate: Positive = 0.02
    """Muon's."""
    weight_decay: NotNegative = 0.0
    """Of matrices; vectors and embeddings are never decayed."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Positive = 1e-8
    momentum: Share = 0.95
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """From the rate to ``floor`` times it, over ``total`` updates."""
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Updates over which rates grow from almost nothing."""
    total: Annotated[int, msgspec.Meta(ge=0)] = 0
    floor: Share = 0.0
    clip: NotNegative = 1.0
    """The greatest norm of a step's gradient; 0 for none."""
    ema: Share = 0.0
    """Decay of an average of the weights, kept beside them; 0 keeps none."""

    def __post_init__(self) -> None:
        if self.schedule != "constant" and self.total <= self.warmup:
            raise Usage(
                f"a {self.schedule} schedule needs total updates beyond its {self.warmup} of "
                "warm-up",
                hint="give total",
            )


class Lora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Small matrices beside frozen ones, by ``peft``; without them the model is its reference."""

    rank: Annotated[int, msgspec.Meta(ge=1)] = 16
    alpha: Annotated[int, msgspec.Meta(ge=1)] = 32
    dropout: Share = 0.0
    modules: tuple[str, ...] = ("all-linear",)
    """Names of the modules that get some; ``all-linear`` for all but the head."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a learner is told."""

    objective: Objective
    steps: Steps = Steps()
    lora: Lora | None = None
    reference: bool = False
    """Whether a copy of the model, as it begins, is kept to measure ``ref_kl`` from. With an
    adapter there is no need of one."""
    tokens: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_TOKENS
    """Tokens of one forward pass; a batch is as many passes as it takes, with one update."""
    packing: Literal["auto", "own", "model", "padded"] = "auto"
    """How examples share a pass: behind one another, with an attention of ours or with the
    model's own, or padded below one another. Automatic: the first that gives what the model gives
    for each alone."""
    autocast: Literal["auto", "off", "bfloat16"] = "auto"
    """Activations: bfloat16 on a GPU, float32 on a CPU. Weights, their moments, log-probabilities
    and losses are float32 in any case."""
    recompute: bool = False
    """Whether activations are computed again for the gradient instead of kept."""
    seed: int = 0
