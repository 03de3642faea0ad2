"""What versions of a model do for those who use them: figures of runs, by version. Pure.

A run is of the version that made its replies (`Sampled.version`). Whether it was right is what its
channel ``accuracy`` says: what somebody has said of it (`podium label`), else its task's check; of
a run with neither it isn't known.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.errors import InvalidData
from trainer.gym.scores import Figure, Scores
from trainer.intervals import Interval, mean, share
from trainer.records import Rollout
from trainer.rewards import value

LIVE: Final = "live"
"""The name of the set."""

HALF: Final = 0.5
"""An accuracy from which on a run was right."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One run, and what it was with its model."""

    rollout: Rollout
    versions: tuple[str, ...]
    """Which made its replies, in their order, each once."""
    right: bool | None
    """None where nobody knows."""


def use(rollout: Rollout) -> Use | None:
    """How a run has used a model of ours; None if it has used none.

    What a fork shares with its origin is its origin's.
    """
    made = [step.sampled.version for step in rollout.steps if step.own and step.sampled]
    if not made:
        return None
    try:
        accuracy = value(rollout, "accuracy")
    except InvalidData:  # its check is none
        accuracy = None
    right = None if accuracy is None else accuracy >= HALF
    return Use(rollout=rollout, versions=tuple(dict.fromkeys(made)), right=right)


def runs_of(uses: Iterable[Use]) -> dict[str, int]:
    """How many runs each version has taken part in."""
    counts: dict[str, int] = {}
    for each in uses:
        for version in each.versions:
            counts[version] = counts.get(version, 0) + 1
    return counts


def figures(uses: Iterable[Use], version: str, policy: str = "") -> Scores:
    """What one version does: over the runs that can be scored, and that were of it alone."""
    mine = [each for each in uses if not each.rollout.unscorable and each.versions == (version,)]
    judged = [each.right for each in mine if each.right is not None]
    found: list[Figure] = []
    if judged:
        found.append(_figure("accuracy", share(sum(judged), len(judged)), len(judged)))
    if mine:
        answered = share(sum(each.rollout.answered for each in mine), len(mine))
        found.append(_figure("answered", answered, len(mine)))
    values: Mapping[str, Sequence[float]] = {
        "cost": [each.rollout.spend.cost for each in mine],
        "rounds": [each.rollout.rounds for each in mine],
        "critical_steps": [each.rollout.critical_steps for each in mine],
        "tokens": [each.rollout.spend.tokens for each in mine],
        "seconds": [each.rollout.elapsed_ms / 1_000 for each in mine],
    }
    units = {"cost": "microdollars", "seconds": "s"}
    for name, some in values.items():
        if len(some) > 1:
            found.append(_figure(name, mean(some), len(some), units.get(name, "")))
    return Scores(policy=policy, version=version, set=LIVE, figures=tuple(found))


def _figure(name: str, of: Interval, n: int, unit: str = "") -> Figure:
    return Figure(name=name, value=of.value, low=of.low, high=of.high, n=n, unit=unit)
