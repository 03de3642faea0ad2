"""What scores the rollouts of a data set: a preset of `trainer.rewards`, or one channel."""

from protocol.errors import Usage
from trainer.datasets.facts import Score, Scored
from trainer.records import Rollout
from trainer.rewards import PRESETS, preset, score, value


def scorer(name: str, progress: float | None = None) -> Score:
    """What scores by a preset of that name, or by a channel.

    Args:
        name: Of either.
        progress: The part of a training that is done, 0 to 1, of a preset that is annealed.

    Raises:
        Usage: The preset compares the rollouts of a batch with one another; it is annealed, and no
            progress is given; or one is given, and nothing depends on it.
    """
    recipe = preset(name) if name in PRESETS else None
    annealed = recipe is not None and recipe.annealed
    if annealed and progress is None:
        raise Usage(
            f"the reward {name} is annealed over a training, and a data set has none",
            hint="say in a file for --spec how much of one is done: progress = 0.0, up to 1.0",
        )
    if progress is not None and not annealed:
        raise Usage(
            f"progress is of rewards that are annealed, and {name} is not annealed",
            hint="leave progress out",
        )
    if recipe is None:
        return lambda rollout: _channel(rollout, name)
    if any(term.batch for term in recipe.terms):
        raise Usage(
            f"the reward {name} compares the rollouts of a training batch with one another, and a "
            "data set has none",
            hint="use another reward here, and score again when batches are made",
        )
    at = 1.0 if progress is None else progress

    def by_recipe(rollout: Rollout) -> Scored:
        found = score([rollout], recipe, at)[0]
        return Scored(found.reward, _accuracy(rollout), dict(sorted(found.parts.items())))

    return by_recipe


def _channel(rollout: Rollout, name: str) -> Scored:
    found = value(rollout, name)
    return Scored(found, _accuracy(rollout), {} if found is None else {name: found})


def _accuracy(rollout: Rollout) -> float | None:
    return value(rollout, "accuracy")
