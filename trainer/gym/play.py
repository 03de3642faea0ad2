"""Episodes run in the fast lane: what `evaluate` takes as its runner, in a line.

::

    report = evaluate(episodes, Oracle(episodes), run)
"""

from collections.abc import Iterator, Sequence

from actors import policies as known
from actors.models.serving import Batching
from actors.ports import Models, Policy
from protocol.commands import Start
from protocol.decisions import PolicySpec
from trainer.gym.episodes import Episode
from trainer.gym.workers import Host
from trainer.records import Rollout
from trainer.rollouts.lane import FastLane
from trainer.rollouts.models import BATCHING
from trainer.rollouts.source import Ask

JOB = "gym"
"""By whom the runs are; their ids follow from it."""


def run(
    episodes: Sequence[Episode],
    policy: Policy | PolicySpec,
    *,
    seed: int = 0,
    job: str = JOB,
    batching: Batching = BATCHING,
) -> list[Rollout]:
    """A rollout of each episode, in their order: the same ones by the same seed and job.

    Args:
        episodes: What is played.
        policy: Who plays: a policy, or the spec of one that is known, such as a model's.
        seed: Of the faults.
        job: Another one has other run ids, and so other faults and other chances.
        batching: How a model of this process is sampled from.

    Raises:
        PodiumError: The policy can't be asked.
    """

    def made(spec: PolicySpec, models: Models) -> Policy:
        return known.make(spec, models) if isinstance(policy, PolicySpec) else policy

    spec = policy if isinstance(policy, PolicySpec) else policy.spec
    wanted = list(starts(episodes, spec, job))
    with FastLane(workers=Host(episodes, seed), policies=made, batching=batching) as lane:
        found = {each.run: each.rollout for each in lane.stream(wanted)}
    return [found[start.run] for start in wanted]


def starts(episodes: Sequence[Episode], policy: PolicySpec, job: str = JOB) -> Iterator[Start]:
    """The runs of some episodes, one each."""
    for episode in episodes:
        ask = Ask(
            key=f"{episode.set}/{episode.seed}",
            task=episode.task,
            pool=episode.pool,
            policy=policy,
            budget=episode.budget,
            members=1,
        )
        yield from ask.starts(job)
