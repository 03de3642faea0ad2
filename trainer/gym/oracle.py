"""The oracle: knows each episode's plan and what is behind its workers, and does it well.

It asks all that can be asked at once, of the cheapest worker that is not said to fail often, goes
to another where one has failed, and answers as soon as it can. Whom to trust it takes from what
every policy is shown: with ``foresight`` it knows which workers really fail, and so does what
nobody could learn from it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from actors.ports import InstantPolicy
from protocol.actions import WorkerSpec
from protocol.decisions import PolicySpec, Reply, View
from protocol.dialects import referable, render, to_prompt
from trainer.gym.episodes import Episode, key_of
from trainer.gym.planners import Planner, Progress, Reading

ORACLE: Final = "gym-oracle"
SERIAL: Final = "gym-serial"
STRONGEST: Final = "gym-strongest"


class Oracle(Planner):
    """The oracle of some episodes.

    Args:
        episodes: Those that it knows. It answers ``unknown`` to all else.
        foresight: Whether it knows which workers fail often, said or not.
        refer: See `Planner`.
        ahead: See `Planner`.
        parallel: Calls of one round, at most.
        name: How it is known.
    """

    def __init__(
        self,
        episodes: Iterable[Episode],
        *,
        foresight: bool = False,
        refer: bool = False,
        ahead: bool = False,
        parallel: int = 16,
        name: str = ORACLE,
    ) -> None:
        super().__init__(name, refer=refer, ahead=ahead, parallel=parallel)
        self._foresight = foresight
        self._episodes = {episode.key: episode for episode in episodes}

    def episode(self, view: View) -> Episode | None:
        """The episode that is shown; None if it is none that it knows."""
        return self._episodes.get(key_of(view.task, view.pool))

    def reading(self, view: View) -> Reading | None:
        """The truth."""
        episode = self.episode(view)
        if episode is None:
            return None
        doubted = (each.flaky if self._foresight else each.warned for each in episode.members)
        kinds = tuple(each.kind for each in episode.members)
        return Reading(episode.plan, episode.entities, kinds, tuple(doubted))


def serial(episodes: Iterable[Episode]) -> Oracle:
    """The oracle, one call a round."""
    return Oracle(episodes, parallel=1, name=SERIAL)


class Strongest(Oracle):
    """Has everything done by the worker that can do most, and costs most; the oracle's plan."""

    def __init__(self, episodes: Iterable[Episode]) -> None:
        super().__init__(episodes, name=STRONGEST)

    def choose(self, progress: Progress, number: int) -> tuple[WorkerSpec, str] | None:
        """Who can do most."""
        return progress.strongest(number)


class Spoken:
    """A policy's decisions as another would say them, in its dialect. An `InstantPolicy`.

    So the oracle teaches a model of any dialect: its replies are texts, as the model's would be.
    Who teaches one of slots should ``refer``.

    Args:
        policy: Who decides.
        spec: Of the policy that is taught; its dialect says how.
    """

    def __init__(self, policy: InstantPolicy, spec: PolicySpec) -> None:
        self.spec, self._policy = spec, policy

    def decide(self, view: View) -> Reply:
        """See `actors.ports.InstantPolicy`."""
        reply = self._policy.decide(view)
        if reply.decision is None:
            return reply
        spoken = render(self.spec, reply.decision, view.pool, referable(view))
        said = msgspec.structs.replace(spoken, version=reply.version)
        return said if self.spec.dialect == "decision" else to_prompt(said, self.spec, view)
