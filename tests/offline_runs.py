"""Runs of the shipped pool's functions in the fast lane, by any policy."""

from collections.abc import Iterable

from actors.ports import Adapter, Policy
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Start
from protocol.decisions import Task
from trainer.fold import fold
from trainer.gym.kinds import shipped
from trainer.gym.pools import Member
from trainer.gym.workers import ShippedAdapter
from trainer.records import Rollout
from trainer.rollouts.lane import FastLane
from trainer.rollouts.source import Ask

POOL = Pool(shipped())


def _adapter(_start: Start, spec: WorkerSpec) -> Adapter:
    return ShippedAdapter(spec, Member(kind=spec.name))


def run(texts: Iterable[str], policy: Policy) -> list[Rollout]:
    """A rollout of each question, in their order."""
    asks = [
        Ask(
            key=text,
            task=Task(text=text),
            pool=POOL,
            policy=policy.spec,
            budget=Budget(),
            members=1,
        )
        for text in texts
    ]
    with FastLane(workers=_adapter, policies=lambda spec, models: policy) as lane:
        starts = (start for ask in asks for start in ask.starts("offline"))
        return [fold(each.log, each.blobs) for each in lane.run(starts)]
