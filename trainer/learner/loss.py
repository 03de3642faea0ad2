"""The loss: weighted ``ce + pg + ref_kl + entropy`` over the trained tokens of a pass.

Names: ``mu`` is the behaviour, whose log-probabilities were recorded; ``old`` the weights that the
update began with; ``theta`` those that are trained. ``A`` is the advantage.

::

    ce      − log theta                                    weighted negative log-likelihood
    pg      − min(r A, clip(r, 1 − low, 1 + high) A)       PPO-clip (Schulman et al., 2017)
              bypass:     r = theta / mu
              decoupled:  r = theta / old, times c(old / mu) without a gradient: truncated
                          importance sampling (TIS) or masked (MIS), of a token or an example
    ref_kl  exp(d) − d − 1, d = log ref − log theta        k3 (Schulman, 2020)
    entropy − bonus × entropy                              of the tokens of pg

Log-ratios are cut to ± `MAX_EXPONENT` before they are exponents.
"""

from dataclasses import dataclass, field
from typing import Final

import torch

from trainer.learner.network import Scores
from trainer.learner.options import MAX_EXPONENT, Objective
from trainer.learner.packing import Pass

PARTS: Final = ("loss_ce", "loss_pg", "loss_ref_kl", "loss_entropy")
"""What the loss is the sum of."""

SUMS: Final = (
    *PARTS,
    "nll",
    "imitated",
    "drawn",
    "ratio",
    "clipped_low",
    "clipped_high",
    "kl_behaviour",
    "masked",
    "weights",
    "weights_squared",
    "samples",
    "entropy",
    "ref_kl",
    "anchored",
)
"""What a pass is summed up in, see `Tally`."""


@dataclass(slots=True)
class Tally:
    """Sums over the tokens of passes, from which metrics are made."""

    sums: dict[str, torch.Tensor | float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))

    def add(self, name: str, value: torch.Tensor | float) -> None:
        """Add to a sum."""
        value = value.detach().double() if isinstance(value, torch.Tensor) else value
        self.sums[name] = self.sums[name] + value

    def values(self) -> dict[str, float]:
        """All sums as numbers; waits for the device once."""
        stacked = torch.stack(
            [torch.as_tensor(value, dtype=torch.float64).cpu() for value in self.sums.values()]
        )
        return dict(zip(self.sums, stacked.tolist(), strict=True))


def loss(
    read: Pass,
    scores: Scores,
    objective: Objective,
    tally: Tally,
    reference: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of a pass, a scalar: its share of the batch's.

    Args:
        read: The pass.
        scores: What the trained weights say of it.
        objective: What is minimised.
        tally: Is added to.
        reference: Log-probabilities of the reference model, ``[k]``; None if no token has a
            divergence from it.
    """
    total = scores.plain.new_zeros(())
    if read.imitates:
        part = -(read.ce * scores.plain).sum()
        total = total + part
        with torch.no_grad():
            imitated = read.ce != 0
            tally.add("loss_ce", part)
            tally.add("nll", -(scores.plain * imitated).sum())
            tally.add("imitated", imitated.sum())
    if not read.reinforces:
        return total
    ratios = _Ratios(read, scores.drawn, objective)
    ratios.count(tally)
    part = (read.pg * ratios.surrogate()).sum()
    tally.add("loss_pg", part)
    total = total + part
    if reference is not None and read.anchored:
        part, divergence = _divergence(read, scores.drawn, reference, ratios, objective)
        tally.add("loss_ref_kl", part)
        tally.add("ref_kl", divergence)
        tally.add("anchored", (read.ref_kl != 0).sum())
        total = total + part
    if scores.entropy is not None:
        tally.add("entropy", (scores.entropy * ratios.mine).sum())
        if objective.entropy:
            part = -objective.entropy * (read.pg * scores.entropy).sum()
            tally.add("loss_entropy", part)
            total = total + part
    return total


def _exp(logs: torch.Tensor) -> torch.Tensor:
    return logs.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()


def _divergence(
    read: Pass,
    theta: torch.Tensor,
    reference: torch.Tensor,
    ratios: "_Ratios",
    objective: Objective,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted divergence from the reference, and its plain sum."""
    gap = (reference - theta).clamp(-MAX_EXPONENT, MAX_EXPONENT)
    each = gap.exp() - gap - 1
    if objective.unbiased_kl:
        each = each * ratios.of_behaviour
    return (read.ref_kl * each).sum(), (each * (read.ref_kl != 0)).sum()


class _Ratios:
    """The ratios of a pass's tokens, and what becomes of them."""

    def __init__(self, read: Pass, theta: torch.Tensor, objective: Objective) -> None:
        self._read, self._objective = read, objective
        known = theta.detach()
        self.mine = read.pg != 0
        """Tokens with a policy gradient."""
        missing = torch.isnan(read.logprobs)
        mu = torch.where(missing, known, read.logprobs)
        self.of_behaviour = _exp(theta - mu)
        """theta / mu; 1 where mu is not known."""
        self._gap = (known - mu) * self.mine
        """log theta − log mu."""
        self.weights = self._weights(self._gap)
        """Importance weights of the level, at each token."""
        if objective.ratio == "bypass":
            self.ratio, self._scale = self.of_behaviour, torch.ones_like(known)
        else:
            began = torch.where(torch.isnan(read.old) | missing, known, read.old)
            self.ratio = _exp(theta - began)
            self._scale = self._corrected(self._weights((began - mu) * self.mine))
        self._kept = self._gated() & (self._scale != 0)

    def surrogate(self) -> torch.Tensor:
        """What is minimised of each token, its weight apart."""
        objective, advantages = self._objective, self._read.advantages
        cut = self.ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
        least = torch.minimum(self.ratio * advantages, cut * advantages)
        return -least * self._scale * self._kept

    def count(self, tally: Tally) -> None:
        """Sum up what these tokens' ratios are."""
        with torch.no_grad():
            mine, ratio, advantages = self.mine, self.ratio, self._read.advantages
            low, high = 1 - self._objective.clip_low, 1 + self._objective.clip_high
            tally.add("drawn", mine.sum())
            tally.add("ratio", (ratio * mine).sum())
            tally.add("clipped_low", (mine & (ratio < low) & (advantages < 0)).sum())
            tally.add("clipped_high", (mine & (ratio > high) & (advantages > 0)).sum())
            gap = self._gap.clamp(-MAX_EXPONENT, MAX_EXPONENT)
            tally.add("kl_behaviour", ((gap.exp() - gap - 1) * mine).sum())
            tally.add("masked", (mine & ~self._kept).sum())
            samples = mine if self._objective.level == "token" else self._firsts()
            weights = self.weights.double()
            tally.add("weights", (weights * samples).sum())
            tally.add("weights_squared", (weights.square() * samples).sum())
            tally.add("samples", samples.sum())

    def _firsts(self) -> torch.Tensor:
        """The first token of each example among those with a policy gradient."""
        places = torch.nonzero(self.mine)[:, 0]
        own = self._read.owners[places]
        begins = torch.ones_like(own, dtype=torch.bool)
        begins[1:] = own[1:] != own[:-1]
        return torch.zeros_like(self.mine).index_fill_(0, places[begins], value=True)

    def _weights(self, gaps: torch.Tensor) -> torch.Tensor:
        """Importance weights, of each token or of its whole example."""
        if self._objective.level == "token":
            return _exp(gaps)
        return _exp(self._summed(gaps))[self._read.owners]

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        """Over the tokens of each example."""
        count = len(self._read.examples)
        return values.new_zeros(count).index_add_(0, self._read.owners, values)

    def _corrected(self, weights: torch.Tensor) -> torch.Tensor:
        """What the policy gradient is multiplied by for the behaviour's being another one."""
        cap = self._objective.cap
        match self._objective.correction:
            case "none":
                return torch.ones_like(weights)
            case "truncate":
                return weights.clamp(max=cap)
            case "mask":
                return weights * (weights <= cap)

    def _gated(self) -> torch.Tensor:
        """Which tokens stay in, by how likely their example still is."""
        gate = self._objective.gate
        if gate is None:
            return torch.ones_like(self.mine)
        drift = -self._summed(self._gap) / self._summed(self.mine.float()).clamp(min=1)
        return ~((drift[self._read.owners] > gate) & (self._read.advantages < 0))
