"""What versions of a model do for those who use them: figures of runs, by version. Pure.

A run is of the version that made its replies (`Sampled.version`). Whether it was right is what was
said of it: its last label `RIGHT_LABEL`, else its last reward of the channel `RIGHT_CHANNEL`; of a
run of which nobody said anything, it isn't known.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.inbox import Label, Reward
from replay.chain import RunLog
from replay.tokens import sampled
from trainer.gym.scores import Figure, Scores
from trainer.intervals import Interval, mean, share

LIVE: Final = "live"
"""The name of the set."""

RIGHT_LABEL: Final = "right"
"""The label (true or false) by which a person says whether a run's answer is right."""

RIGHT_CHANNEL: Final = "accuracy"
"""The reward that says so; half of it, or more, is right."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One run, and what it was with its model."""

    run: str
    folder: str
    """Of the model, as its policy names it."""
    versions: tuple[str, ...]
    """Which made its replies, in their order, each once."""
    ended: bool
    answered: bool
    right: bool | None
    """None where nobody has said it."""
    cost: int
    """Micro-dollars."""
    tokens: int
    rounds: int
    seconds: float
    """From its start to its end."""


def use(log: RunLog) -> Use | None:
    """How a run has used a model of ours; None if it has used none.

    What a fork shares with its origin is its origin's.
    """
    events = (event for commit in log.commits for event in commit.events)
    versions = tuple(dict.fromkeys(each.version for _, each in sampled(events)))
    if not versions:
        return None
    state = log.state()
    return Use(
        run=log.run,
        folder=str(state.policy.options.get("folder", "")),
        versions=versions,
        ended=state.phase == "ended" and bool(state.outcome),
        answered=state.outcome == "finished",
        right=_right(log),
        cost=state.spent.cost,
        tokens=state.spent.tokens,
        rounds=state.round,
        seconds=max(0, state.ended_at - state.started_at) / 1_000,
    )


def _right(log: RunLog) -> bool | None:
    said: bool | None = None
    rewarded: bool | None = None
    for each in log.inbox:
        match each.message:
            case Label(key=key, value=bool(value)) if key == RIGHT_LABEL:
                said = value
            case Reward(channel=channel, value=value) if channel == RIGHT_CHANNEL:
                rewarded = value >= 0.5
    return rewarded if said is None else said


def runs_of(uses: Iterable[Use]) -> dict[str, int]:
    """How many runs each version has taken part in."""
    counts: dict[str, int] = {}
    for each in uses:
        for version in each.versions:
            counts[version] = counts.get(version, 0) + 1
    return counts


def figures(uses: Iterable[Use], version: str, policy: str = "") -> Scores:
    """What one version does: over the runs that have ended, and that were of it alone."""
    ended = [each for each in uses if each.ended and each.versions == (version,)]
    judged = [each.right for each in ended if each.right is not None]
    found: list[Figure] = []
    if judged:
        found.append(_figure("accuracy", share(sum(judged), len(judged)), len(judged)))
    if ended:
        answered = share(sum(each.answered for each in ended), len(ended))
        found.append(_figure("answered", answered, len(ended)))
    values: Mapping[str, Sequence[float]] = {
        "cost": [each.cost for each in ended],
        "rounds": [each.rounds for each in ended],
        "tokens": [each.tokens for each in ended],
        "seconds": [each.seconds for each in ended],
    }
    units = {"cost": "micro-dollars", "seconds": "s"}
    for name, some in values.items():
        if len(some) > 1:
            found.append(_figure(name, mean(some), len(some), units.get(name, "")))
    return Scores(policy=policy, version=version, set=LIVE, figures=tuple(found))


def _figure(name: str, of: Interval, n: int, unit: str = "") -> Figure:
    return Figure(name=name, value=of.value, low=of.low, high=of.high, n=n, unit=unit)
