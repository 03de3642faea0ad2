"""What scores the rollouts of a data set: a preset of `trainer.rewards`, or one channel."""

from protocol.errors import Usage
from trainer.datasets.facts import Score, Scored
from trainer.records import Rollout
from trainer.rewards import PRESETS, preset, score, value


def scorer(name: str) -> Score:
    """What scores by a preset of that name, or by a channel.

    Raises:
        Usage: The preset compares the rollouts of a batch with one another.
    """
    if name not in PRESETS:
        return lambda rollout: _channel(rollout, name)
    recipe = preset(name)
    if any(term.batch for term in recipe.terms):
        raise Usage(
            f"the reward {name} compares the rollouts of a training batch with one another, and a "
            "data set has none",
            hint="use another reward here, and score again when batches are made",
        )

    def by_recipe(rollout: Rollout) -> Scored:
        found = score([rollout], recipe)[0]
        return Scored(found.reward, _accuracy(rollout), dict(sorted(found.parts.items())))

    return by_recipe


def _channel(rollout: Rollout, name: str) -> Scored:
    found = value(rollout, name)
    return Scored(found, _accuracy(rollout), {} if found is None else {name: found})


def _accuracy(rollout: Rollout) -> float | None:
    return value(rollout, "accuracy")
