"""Reinforcement of what was played: whole groups of rollouts become one batch."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from protocol.actions import Json
from protocol.errors import InvalidData
from trainer.advantages import Scheme, advantages
from trainer.learner.example import Example, reinforced
from trainer.learner.observed import by_name, observed
from trainer.learner.order import Fed
from trainer.records import Made, Rollout
from trainer.rewards import Recipe, score
from trainer.rows import rows

SHOWN: Final = 3
"""Reasons that are told where no rollout could be scored."""


def batch(
    rollouts: Sequence[Rollout],
    recipe: Recipe,
    scheme: Scheme,
    progress: float = 1.0,
    ref_kl: float = 0.0,
    worker: Callable[[Rollout, Made], str] = by_name,
) -> Fed:
    """Whole groups of rollouts as one batch, with what they were like.

    Args:
        rollouts: What was played.
        recipe: What each is worth.
        scheme: How that becomes an advantage.
        progress: The part of the training that is done, for rewards that are annealed.
        ref_kl: See `reinforced`.
        worker: See `observed`.

    Raises:
        InvalidData: None of them can be scored; the message says why.
    """
    scored = score(rollouts, recipe, progress)
    known = [
        (rollout, each)
        for rollout, each in zip(rollouts, scored, strict=True)
        if each.reward is not None
    ]
    if not known:
        raise InvalidData(_unscorable([each.why for each in scored]), hint="podium runs")
    worth = advantages(scored, scheme)
    made: list[Example] = [
        reinforced(row, each.value, ref_kl=ref_kl)
        for rollout, each in zip(rollouts, worth, strict=True)
        if each.trains and each.value is not None
        for row in rows(rollout)
    ]
    names = sorted({name for _, each in known for name in each.parts})
    values: dict[str, Json] = observed(
        [rollout for rollout, _ in known],
        [each.reward or 0.0 for _, each in known],
        {name: [each.parts.get(name, 0.0) for _, each in known] for name in names},
        worker=worker,
    )
    right = [each.channels["accuracy"] for _, each in known if "accuracy" in each.channels]
    if right:
        values["accuracy"] = sum(right) / len(right)
    values["unscorable"] = len(rollouts) - len(known)
    values["flat"] = sum(each.flat for each in worth) / len(worth)
    return Fed(examples=made, values=values)


def _unscorable(whys: Sequence[str]) -> str:
    if not whys:
        return "no run has ended in time"
    told = ", ".join(f"{why} ({count})" for why, count in Counter(whys).most_common(SHOWN))
    return f"none of {len(whys)} rollouts can be scored: {told}"
