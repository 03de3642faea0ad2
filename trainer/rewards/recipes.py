"""One function that makes a reward of channels: weights, annealing, bounds, gates, a batch's range.

::

    v      = channel / per                    -> into the batch's range, 0…1, if ``batch``
    part   = weight(progress) * clip(v)       -> 0 where the gate ``only_if`` is below a half
    reward = clip(base + sum of parts)        -> 0 where a gate of it all is; then the steps' cost

What each of them added, as `Scored.parts` has it, adds up to the reward. Everything is a function
of rollouts: a reward can be made again at any time, without a new run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from protocol.actions import MICRO, Spend
from protocol.errors import Usage
from trainer.records import Rollout, Step
from trainer.rewards.channels import known, value, values

GATE: Final = 0.5
"""The value of a channel from which on what it guards counts."""


class Term(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What one channel adds."""

    channel: str
    weight: float = 1.0
    final: float | None = None
    """The weight at the end of the training, to which it goes in a straight line; None for the
    same."""
    until: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """The part of the training after which the final weight is reached."""
    per: float = 1.0
    """What the value is divided by: its scale, below 0 for what is better when it is less."""
    batch: bool = False
    """Whether it is then put into the range of its batch: 0 for the least, 1 for the most, 0 for
    all where they are alike (ToolOrchestra, equation 2)."""
    low: float | None = None
    high: float | None = None
    """Bounds of what is weighted."""
    only_if: str = ""
    """A channel that has to be at least a half, else this adds nothing."""

    def __post_init__(self) -> None:
        if not self.per:
            raise ValueError("per can't be 0")

    def weight_at(self, progress: float) -> float:
        """The weight at a part of the training, 0 to 1."""
        if self.final is None:
            return self.weight
        done = min(progress / self.until, 1.0)
        return self.weight + (self.final - self.weight) * done


class StepCost(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What each step takes off, and how later ones are discounted (Puppeteer, arXiv 2505.19591).

    ``R_T = r - weight * C_T``, ``R_t = discount * R_(t+1) - weight * C_t``,
    ``C_t = F * log(1 + t / phi)`` with t from 1. The reward of the rollout is ``R_1``.
    """

    weight: float = 0.1
    discount: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    factor: float = 1.0
    """``F``, for each unit of ``of``."""
    of: Literal["step", "tokens", "cost"] = "step"
    """What F counts: each step alike; the tokens, or the US dollars, of its reply and calls."""
    phi: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Steps; 0 for the rounds of the run's budget, the most that are possible."""


class Recipe(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How channels become a reward."""

    terms: tuple[Term, ...]
    base: float = 0.0
    """What is there before any term."""
    only_if: tuple[str, ...] = ()
    """Channels each of which has to be at least a half, else the reward is 0."""
    limits: dict[str, float] = {}
    """The most of a channel, beyond which the reward is 0: an episode's budget."""
    low: float | None = None
    high: float | None = None
    """Bounds of the sum."""
    steps: StepCost | None = None

    @property
    def annealed(self) -> bool:
        """Whether it depends on how much of a training is done."""
        return any(term.final not in (None, term.weight) for term in self.terms)

    def check(self) -> None:
        """Raise `Usage` if it names a channel that there is not."""
        gates = (term.only_if for term in self.terms if term.only_if)
        channels = (term.channel for term in self.terms)
        for channel in (*channels, *gates, *self.only_if, *self.limits):
            known(channel)


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout is worth by a recipe."""

    rollout: str
    """The run."""
    group: str
    reward: float | None
    """None where it can't be scored; ``why`` says why."""
    why: str = ""
    """As `Unscorable` has it, or the channel that has no value: ``no accuracy``."""
    channels: dict[str, float] = {}
    """All that have a value, as they are."""
    parts: dict[str, float] = {}
    """What each term added to the reward, by its channel: 0 where a gate of it all is closed. Then
    ``base``; ``bounds`` for what they cut off or filled up; ``steps`` for what they took off."""


def score(rollouts: Sequence[Rollout], recipe: Recipe, progress: float = 1.0) -> list[Scored]:
    """What each rollout is worth.

    Args:
        rollouts: Of one batch: terms with ``batch`` compare them. Those that are unscorable are in
            no comparison.
        recipe: How.
        progress: The part of the training that is done, 0 to 1; by default the end of it.

    Raises:
        Usage: It names a channel that there is not, or a progress that is none.
        InvalidData: A task's check is none.
    """
    if not 0.0 <= progress <= 1.0:
        raise Usage(f"{progress} is no part of a training", hint="give a number from 0 to 1")
    batch = [_Read(each, recipe) for each in rollouts]
    ranges = _ranges(batch, recipe)
    return [_scored(each, recipe, ranges, progress) for each in batch]


class _Read:
    """A rollout with the channels that a recipe looks at."""

    def __init__(self, rollout: Rollout, recipe: Recipe) -> None:
        self.rollout = rollout
        self.channels = values(rollout)
        wanted = [term.channel for term in recipe.terms]
        wanted += [term.only_if for term in recipe.terms if term.only_if]
        wanted += [*recipe.only_if, *recipe.limits]
        self.why: str = rollout.unscorable
        for name in wanted:
            if name in self.channels:
                continue
            known = value(rollout, name)
            if known is not None:
                self.channels[name] = known
            elif not self.why:
                self.why = f"no {name}"


_Ranges = Mapping[int, tuple[float, float]]
"""The least and the most of a batch, by the place of the term."""


def _ranges(batch: Sequence[_Read], recipe: Recipe) -> _Ranges:
    found: dict[int, tuple[float, float]] = {}
    for place, term in enumerate(recipe.terms):
        if term.batch:
            known = [each.channels[term.channel] / term.per for each in batch if not each.why]
            found[place] = (min(known, default=0.0), max(known, default=0.0))
    return found


def _scored(read: _Read, recipe: Recipe, ranges: _Ranges, progress: float) -> Scored:
    rollout, channels = read.rollout, read.channels
    if read.why:
        return Scored(
            rollout=rollout.run,
            group=rollout.group,
            reward=None,
            why=read.why,
            channels=channels,
        )
    parts: dict[str, float] = {}
    for place, term in enumerate(recipe.terms):
        part = _part(term, channels, ranges.get(place), progress)
        parts[term.channel] = parts.get(term.channel, 0.0) + part
    whole = recipe.base + math.fsum(parts.values())
    reward = _clipped(whole, recipe.low, recipe.high)
    if recipe.base:
        parts["base"] = recipe.base
    if recipe.low is not None or recipe.high is not None:
        parts["bounds"] = reward - whole
    open_ = all(channels[name] >= GATE for name in recipe.only_if)
    within = all(channels[name] <= most for name, most in recipe.limits.items())
    if not (open_ and within):
        parts, reward = dict.fromkeys(parts, 0.0), 0.0
    if recipe.steps is not None:
        later = returns(rollout, reward, recipe.steps)
        first = later[0] if later else reward
        parts["steps"] = first - reward
        reward = first
    return Scored(
        rollout=rollout.run, group=rollout.group, reward=reward, channels=channels, parts=parts
    )


def _part(
    term: Term, channels: Mapping[str, float], span: tuple[float, float] | None, progress: float
) -> float:
    if term.only_if and channels[term.only_if] < GATE:
        return 0.0
    found = channels[term.channel] / term.per
    if span is not None:
        least, most = span
        found = (found - least) / (most - least) if most > least else 0.0
    return term.weight_at(progress) * _clipped(found, term.low, term.high)


def _clipped(number: float, low: float | None, high: float | None) -> float:
    if low is not None and number < low:
        return low
    return high if high is not None and number > high else number


def returns(rollout: Rollout, reward: float, cost: StepCost) -> tuple[float, ...]:
    """The return of each of a rollout's own steps, the first one first, see `StepCost`.

    Args:
        rollout: Its steps.
        reward: What its end is worth.
        cost: What its steps cost.
    """
    own = [step for step in rollout.steps if step.own]
    phi = cost.phi or max(1, rollout.budget.rounds)
    found: list[float] = []
    later = reward
    for t in range(len(own), 0, -1):
        charged = cost.weight * _units(own[t - 1], cost) * math.log(1.0 + t / phi)
        later = (later if t == len(own) else cost.discount * later) - charged
        found.append(later)
    return tuple(reversed(found))


def _units(step: Step, cost: StepCost) -> float:
    if cost.of == "step":
        return cost.factor
    spent = sum((each.spend for each in step.calls), Spend()) + step.spend
    return cost.factor * (spent.tokens if cost.of == "tokens" else spent.cost / MICRO)
