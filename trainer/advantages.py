"""Groups of rollouts to one advantage a rollout.

Whatever number of rows a rollout has, it counts once in its baseline, and its advantage is one
number for all of its tokens. Groups may be of any size. What is unscorable says nothing of the
policy: it is in no baseline and has no advantage. A scheme says all of it, since the defaults of
others differ everywhere; theirs are the presets at the end.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from protocol.errors import Usage

Center: TypeAlias = Literal["group", "batch", "none"]
"""Whose mean is subtracted: that of the rollout's group, that of all that are given, nobody's."""


class Scheme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rewards become advantages: ``(reward - baseline) / (std + eps)``, clipped."""

    center: Center = "group"
    scale: Literal["none", "std"] = "std"
    """Whether to divide by the standard deviation of those over whom the mean is taken; of the
    whole batch where there is no mean."""
    ddof: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    """1 for the unbiased standard deviation, 0 for that of the population. The deviation of a
    single reward is 0."""
    eps: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Added to the standard deviation."""
    clip: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Bound of an advantage on both sides, after all else; None for none."""
    leave_one_out: bool = False
    """Whether the mean is that of the others (RLOO). A rollout without others has none: it is
    flat."""
    min_std: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Groups whose rewards have a smaller standard deviation are flat."""


class Rewarded(Protocol):
    """What an advantage is made of; `rewards.Scored` is one."""

    @property
    def group(self) -> str:
        """Which rollouts are compared."""
        ...

    @property
    def reward(self) -> float | None:
        """None for one that is unscorable."""
        ...


class Advantage(NamedTuple):
    """What one rollout is worth, beside its like."""

    value: float | None
    """None for one that is unscorable; 0 in a flat group."""
    baseline: float
    """What was subtracted."""
    std: float
    """Of its group's rewards, as the scheme counts it."""
    size: int
    """Rollouts of its group that could be scored."""
    flat: bool
    """Whether its group says nothing: all rewards are alike, or it is alone. Not to be trained."""

    @property
    def trains(self) -> bool:
        """Whether there is something to learn from it."""
        return self.value is not None and not self.flat


class _Set(NamedTuple):
    """Rewards that are compared."""

    rewards: tuple[float, ...]
    mean: float
    std: float

    def others(self, reward: float) -> float:
        """The mean without one of them."""
        rest = len(self.rewards) - 1
        return (math.fsum(self.rewards) - reward) / rest if rest else reward


def advantages(scored: Sequence[Rewarded], scheme: Scheme) -> list[Advantage]:
    """The advantage of each rollout, in the order given.

    Args:
        scored: The rollouts of a batch, each once, groups in any order.
        scheme: How.
    """
    groups: dict[str, list[float]] = {}
    for each in scored:
        rewards = groups.setdefault(each.group, [])
        if each.reward is not None:
            rewards.append(each.reward)
    made = {name: _set(rewards, scheme.ddof) for name, rewards in groups.items()}
    batch = _set((reward for each in made.values() for reward in each.rewards), scheme.ddof)
    return [_advantage(each.reward, made[each.group], batch, scheme) for each in scored]


def _set(rewards: Iterable[float], ddof: int) -> _Set:
    """Sums are exact, so the order of the rollouts doesn't matter."""
    known = tuple(rewards)
    if not known:
        return _Set((), 0.0, 0.0)
    mean = math.fsum(known) / len(known)
    if len(known) <= ddof or min(known) == max(known):
        return _Set(known, mean, 0.0)
    squares = math.fsum((reward - mean) ** 2 for reward in known)
    return _Set(known, mean, math.sqrt(squares / (len(known) - ddof)))


def _advantage(reward: float | None, group: _Set, batch: _Set, scheme: Scheme) -> Advantage:
    over = group if scheme.center == "group" else batch
    size = len(group.rewards)
    alone = scheme.leave_one_out and len(over.rewards) < 2
    flat = _flat(group, scheme) or alone
    if reward is None:
        return Advantage(None, over.mean, group.std, size, flat)
    baseline = 0.0
    if scheme.center != "none":
        baseline = over.others(reward) if scheme.leave_one_out else over.mean
    value = reward - baseline
    if scheme.scale == "std":
        spread = over.std + scheme.eps
        value = value / spread if spread else 0.0
    if scheme.clip is not None:
        value = min(max(value, -scheme.clip), scheme.clip)
    return Advantage(0.0 if flat else value, baseline, group.std, size, flat)


def _flat(group: _Set, scheme: Scheme) -> bool:
    if scheme.center != "group" and not scheme.min_std:
        return False  # it is compared with others, which may differ
    return group.std <= 0 or group.std < scheme.min_std


# ------------------------------------------------------------------------------------------ presets

PRESETS: Final[dict[str, Scheme]] = {
    "grpo": Scheme(ddof=1, eps=1e-4),
    "dr_grpo": Scheme(scale="none"),
    "rloo": Scheme(scale="none", leave_one_out=True),
    "async_grpo": Scheme(eps=1e-8),
    "art": Scheme(eps=1e-6),
    "toolorchestra": Scheme(ddof=1, eps=1e-6, clip=3.0, min_std=0.1),
    "reinforce": Scheme(center="none", scale="none"),
}
"""Schemes by name. ``grpo`` and ``async_grpo`` are the defaults of TRL 1.16's two trainers, ``art``
those of ART 0.5; ``dr_grpo`` is of arXiv 2503.20783, ``rloo`` of arXiv 2402.14740;
``toolorchestra`` is of arXiv 2511.21689, with the filter of its paper (groups of a standard
deviation below 0.1 are dropped), the clamp of its public script, and the deviation of verl, on
which that stands."""


def scheme(name: str, min_std: float = 0.0) -> Scheme:
    """The preset of that name.

    Args:
        name: See `PRESETS`.
        min_std: Groups below which are flat, where the preset says less.

    Raises:
        Usage: There is no such one.
    """
    if name not in PRESETS:
        raise Usage(f"there are no advantages {name!r}", hint=f"one of: {', '.join(PRESETS)}")
    found = PRESETS[name]
    return msgspec.structs.replace(found, min_std=max(found.min_std, min_std))
