"""Episodes of the gym run by the real conductor and workers over memory, one after the other."""

import asyncio
import hashlib
from collections.abc import Sequence

from actors.ports import Adapter, InstantPolicy
from protocol.actions import NOTHING, Spend
from protocol.commands import Start
from protocol.decisions import View
from protocol.events import PolicyReplied
from protocol.subjects import run_id
from protocol.views import COMPOSER
from replay.chain import RunLog
from replay.critical import critical_steps
from replay.history import reports
from tests.world import World
from trainer.gym.episodes import Episode
from trainer.gym.workers import adapters
from trainer.records import Made, Rollout, Step


def run(
    episodes: Sequence[Episode], policy: InstantPolicy, *, seed: int = 0, tag: str = ""
) -> list[Rollout]:
    """A rollout of each episode, in their order."""
    return asyncio.run(_run(episodes, policy, seed, tag))


async def _run(
    episodes: Sequence[Episode], policy: InstantPolicy, seed: int, tag: str
) -> list[Rollout]:
    return [await _one(episode, policy, seed, tag) for episode in episodes]


async def no_time(_: float) -> None:
    """Latencies pass at once."""
    await asyncio.sleep(0)


async def _one(episode: Episode, policy: InstantPolicy, seed: int, tag: str) -> Rollout:
    return await ended(episode, policy, adapters(episode, seed, no_time), tag)


async def ended(
    episode: Episode, policy: InstantPolicy, there: Sequence[Adapter], tag: str = ""
) -> Rollout:
    """The rollout of an episode whose workers are these."""
    world = World(lease_s=1e6, look_s=1e6)
    world.policies[policy.spec.name] = policy
    await world.conductor()
    for adapter in there:
        await world.worker(adapter.spec, adapter.run)
    digest = hashlib.sha256(f"{tag}/{episode.set}/{episode.seed}".encode()).digest()
    start = Start(
        run=run_id(digest[:8]),
        task=episode.task,
        pool=episode.pool,
        policy=policy.spec,
        budget=episode.budget,
    )
    try:
        await world.submit(start)
        log = await world.until(
            start.run, lambda log: log.state().phase in ("ended", "paused"), 30.0
        )
    finally:
        await world.close()
    return projected(log)


def projected(log: RunLog) -> Rollout:
    """What the scores look at, of a run."""
    state, known = log.state(), reports(log)
    said = [event for event in log.events() if isinstance(event, PolicyReplied)]
    replies = [event for event in said if event.version != COMPOSER]
    steps = []
    for number, (turn, reply) in enumerate(zip(state.turns, replies, strict=False), 1):
        made = []
        for call in turn.calls:
            there, report = state.calls[call], known.get(state.calls[call].report)
            made.append(
                Made(
                    call=there.call,
                    status=there.status,
                    fault=there.fault,
                    value=report.value if report else there.value,
                    spend=report.spend if report else NOTHING,
                    attempts=there.attempt,
                )
            )
        steps.append(
            Step(
                turn=number,
                view=View(run=log.run, task=state.task, pool=state.pool),
                text=reply.text,
                rejection=turn.rejection,
                calls=tuple(made),
                version=reply.version,
            )
        )
    for reply in replies[len(steps) :]:
        view = View(run=log.run, task=state.task, pool=state.pool)
        steps.append(
            Step(
                turn=len(steps) + 1,
                view=view,
                text=reply.text,
                decision=reply.decision,
                version=reply.version,
            )
        )
    return Rollout(
        run=log.run,
        group="",
        task=state.task,
        pool=state.pool,
        policy=state.policy,
        steps=tuple(steps),
        outcome=state.outcome,
        answer=state.answer,
        limited_by=state.limited_by,
        rounds=state.round,
        critical_steps=critical_steps(log.events()),
        spend=sum((report.spend for report in known.values()), Spend()),
    )
