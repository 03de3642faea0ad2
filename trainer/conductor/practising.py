"""Practice: groups of the model's own rollouts, rewarded, as examples.

What a step practises on is a pure function of the plan and the step; what comes of it depends on
the weights as they are then.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from protocol.actions import Json
from trainer.advantages import advantages, scheme
from trainer.conductor.plan import Plan
from trainer.gym.episodes import draw
from trainer.gym.practice import Practice
from trainer.learner.example import Example, reinforced
from trainer.learner.observed import observed
from trainer.learner.order import Fed
from trainer.records import Rollout
from trainer.rewards import score
from trainer.rows import rows

FROM: Final = 2 * 10**9
"""The first seed of the episodes that are practised on: none of a lesson's."""

SEEDS: Final = 10**7
"""Episodes between those of two plans' seeds."""


class Practising:
    """Gives the batch of a step; a source, as `trainer.learner.fit` takes one.

    Args:
        plan: See `Plan`.
        model: Whose rollouts they are: the one that learns.
        words: Its tokenizer.
        name: Of the weights, see `Practice`.
    """

    def __init__(
        self, plan: Plan, model: Any, words: Any, name: Callable[[], str] = lambda: "living"
    ) -> None:
        self._plan = plan
        self._practice = Practice(model, words, name, seed=plan.seed, tokens=plan.reply_tokens)

    def __call__(self, step: int) -> Fed:
        """The batch of a step, counted from 0."""
        plan = self._plan
        begin = FROM + (plan.seed % 100) * SEEDS + step * plan.rl.groups
        seeds = range(begin, begin + plan.rl.groups)
        episodes = [draw(seed, "train", plan.families) for seed in seeds]
        job = f"practice/{plan.seed}/{step}"
        groups = self._practice.groups(episodes, plan.rl.members, job, plan.rl.temperature)
        rollouts = [each for group in groups for each in group]
        return batch(plan, rollouts, step / max(1, plan.rl.steps))


def batch(plan: Plan, rollouts: Sequence[Rollout], progress: float = 1.0) -> Fed:
    """What is to be learned from some rollouts, and what they were like.

    Args:
        plan: Says what they are worth.
        rollouts: Whole groups of them.
        progress: See `score`.
    """
    scored = score(rollouts, plan.rl.reward, progress)
    worth = advantages(scored, scheme(plan.rl.scheme))
    made: list[Example] = [
        reinforced(row, each.value)
        for rollout, each in zip(rollouts, worth, strict=True)
        if each.trains and each.value is not None
        for row in rows(rollout)
    ]
    known = [
        (rollout, each)
        for rollout, each in zip(rollouts, scored, strict=True)
        if each.reward is not None
    ]
    parts = {
        name: [each.parts.get(name, 0.0) for _, each in known]
        for name in sorted({name for _, each in known for name in each.parts})
    }
    values: dict[str, Json] = observed(
        [rollout for rollout, _ in known],
        [each.reward or 0.0 for _, each in known],
        parts,
        worker=lambda rollout, made: "worker",
    )
    values["accuracy"] = _mean([each.channels.get("accuracy", 0.0) for _, each in known])
    values["flat"] = sum(each.flat for each in worth) / max(1, len(worth))
    return Fed(examples=made, values=values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def described(plan: Plan) -> Json:
    """The plan as JSON, for a model's card."""
    found: Json = msgspec.to_builtins(plan)
    return found
