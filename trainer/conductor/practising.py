"""Practice: groups of the model's own rollouts, rewarded, as examples.

The rollouts of a group meet the same faults, wherever they make the same calls (common random
numbers): else most of what tells them apart would be luck. What a step practises on is a pure
function of the plan and the step; what comes of it depends on the weights as they are then.
"""

from collections.abc import Callable
from typing import Any, Final

from trainer.advantages import scheme
from trainer.conductor.plan import Plan
from trainer.conductor.teaching import SEEDS, drawn
from trainer.gym.practice import Practice
from trainer.learner.order import Fed
from trainer.reinforcing import batch

FROM: Final = 2 * 10**9
"""The first seed of the episodes that are practised on: none of a lesson's."""


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
        episodes = drawn(plan, range(begin, begin + plan.rl.groups))
        job = f"practice/{plan.seed}/{step}"
        groups = self._practice.groups(
            episodes, plan.rl.members, job, plan.rl.temperature, alike=True
        )
        rollouts = [each for group in groups for each in group]
        return batch(
            rollouts,
            plan.rl.reward,
            scheme(plan.rl.scheme, plan.rl.min_std),
            step / max(1, plan.rl.steps),
            worker=lambda *_: "worker",  # each episode has a pool of its own
        )
