"""Questions as a person types them to the shipped pool, without marks: when may a model decide?

The policy `actors.policies.conductor` marks them itself, asks the model where it knows the wording
and the model is sure, and the rules else. How sure it has to be is measured here.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from actors.policies.conductor.marking import in_a_row
from actors.policies.conductor.policy import ConductorPolicy, Said, offered
from protocol.actions import Pool
from protocol.decisions import PolicySpec, Reply, View
from trainer.gym.episodes import Episode, draw
from trainer.gym.evaluate import RIGHT
from trainer.gym.kinds import SHIPPED, shipped
from trainer.gym.play import run
from trainer.gym.pools import fits_shipped
from trainer.rewards.channels import accuracy

FAMILIES: Final = ("lookup", "wide", "chain", "arithmetic")
"""Those of which the functions of the shipped pool can do some tasks."""

WORKERS: Final = SHIPPED
"""What the model is shown of that pool, in this order."""

SETS: Final = ("seen", "held-out-questions")
"""What typed questions are drawn from: nothing else of a task is a person's to choose."""

TARGET: Final = 0.995
"""Of what the model decides, so much has to be right: beside the rules, which don't guess."""

THRESHOLDS: Final = (-0.1, -0.07, -0.05, -0.03, -0.02)
"""Those that are tried, the laxest first: natural logarithms. Laxer ones are as right in the gym,
whose questions it knows, and let through what it doesn't: at -0.15 the larger of two populations
for "the total population"."""


class Played(NamedTuple):
    """A typed question, as the policy answered it with whatever sureness."""

    family: str
    mine: bool
    """Whether the model made every decision."""
    sure: float
    """The least log-probability of any token of them."""
    right: bool


def pool_text() -> str:
    """How the model is shown the shipped pool."""
    return offered(Pool(shipped()))


def typed(seeds: Iterable[int], of: str) -> list[Episode]:
    """Episodes of a set that the shipped pool can do; their entities are not marked."""
    found = []
    for seed in seeds:
        episode = draw(seed, of, FAMILIES, shipped=True)
        if fits_shipped([need.role for need in episode.plan.needs]):
            bare = msgspec.structs.replace(episode.task, inputs={})
            found.append(msgspec.structs.replace(episode, task=bare))
    return found


def wordings(seeds: Iterable[int]) -> list[str]:
    """Each three words in a row of the questions that training asks and the shipped pool can do."""
    found: set[str] = set()
    for seed in seeds:
        episode = draw(seed, "train", FAMILIES, shipped=True)
        if fits_shipped([need.role for need in episode.plan.needs]):
            found |= in_a_row(episode.task.text, episode.entities)
    return sorted(found)


class Watched:
    """A policy that notes how sure it was, and who decided."""

    def __init__(self, policy: ConductorPolicy) -> None:
        self._policy = policy
        self.spec: PolicySpec = policy.spec
        self.sure: dict[str, float] = {}
        """By run; minus infinity where the rules decided."""

    async def ask(self, view: View) -> Reply:
        """See `EndpointPolicy`."""
        said = self._policy.said(view)
        least = said.least if isinstance(said, Said) else -float("inf")
        self.sure[view.run] = min(self.sure.get(view.run, 0.0), least)
        return self._policy.reply(view, plain=True)


def play(folder: Path, episodes: Sequence[Episode]) -> list[Played]:
    """How the model in a folder does on typed questions, however unsure it is."""
    watched = Watched(ConductorPolicy(folder, threshold=-float("inf")))
    rollouts = run(episodes, watched)
    return [
        Played(
            family=episode.family,
            mine=watched.sure[rollout.run] > -float("inf"),
            sure=watched.sure[rollout.run],
            right=(accuracy(rollout) or 0.0) >= RIGHT,
        )
        for episode, rollout in zip(episodes, rollouts, strict=True)
    ]


def threshold(played: Sequence[Played], target: float = TARGET) -> float | None:
    """The laxest of `THRESHOLDS` at which what the model decides is right often enough.

    The strictest if it decides nothing at that one; None if it is wrong too often even there: once,
    where it decides fewer than two hundred.
    """
    taken: list[bool] = []
    for each in THRESHOLDS:
        taken = [one.right for one in played if one.mine and one.sure >= each]
        if taken and sum(taken) / len(taken) >= target:
            return each
    return None if taken else THRESHOLDS[-1]


def summary(played: Sequence[Played], least: float) -> Mapping[str, Mapping[str, int]]:
    """By family: questions, how many the model decides at a threshold, and how many rightly."""
    found: dict[str, dict[str, int]] = {}
    for one in played:
        row = found.setdefault(one.family, {"asked": 0, "taken": 0, "right": 0})
        taken = one.mine and one.sure >= least
        row["asked"] += 1
        row["taken"] += taken
        row["right"] += taken and one.right
    return found
