"""What a batch of rollouts was like, for the metrics of the step that learns from it."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from protocol.actions import MICRO, Json
from trainer.records import Made, Rollout


def by_name(_: Rollout, made: Made) -> str:
    """The worker that was called, by its name."""
    return made.call.worker


def observed(
    rollouts: Sequence[Rollout],
    rewards: Sequence[float] = (),
    parts: Mapping[str, Sequence[float]] | None = None,
    *,
    worker: Callable[[Rollout, Made], str] = by_name,
) -> dict[str, Json]:
    """Means over rollouts, for `Fed.values`.

    Args:
        rollouts: Those of the step.
        rewards: The reward of each, in their order.
        parts: The same of each of its channels, by name.
        worker: What a call counts as: its worker's name, or its role where each rollout has a pool
            of its own.

    Returns:
        ``reward`` and ``reward/CHANNEL``; ``turns`` (questions to the policy), ``calls`` and
        ``parallel`` (calls of a round that has any); ``valid`` (share of replies that were no
        mistake of the policy's, see `Step.failed`); ``critical_steps``; ``cost_usd``; ``workers``
        (share of the calls of each) and ``diversity`` (how many workers as evenly used would be as
        diverse: e to the entropy of these shares, in nats).
    """
    if not rollouts:
        return {}
    steps = [step for rollout in rollouts for step in rollout.steps]
    rounds = [len(step.calls) for step in steps if step.calls]
    counted = Counter(
        worker(rollout, made)
        for rollout in rollouts
        for step in rollout.steps
        for made in step.calls
    )
    calls, count = counted.total(), len(rollouts)
    shares = {name: number / calls for name, number in sorted(counted.items())}
    values: dict[str, Json] = {
        "rollouts": count,
        "turns": len(steps) / count,
        "calls": calls / count,
        "critical_steps": sum(each.critical_steps for each in rollouts) / count,
        "cost_usd": sum(each.spend.cost for each in rollouts) / MICRO / count,
        "workers": shares,
    }
    if steps:
        values["valid"] = sum(not step.failed for step in steps) / len(steps)
    if rounds:
        values["parallel"] = sum(rounds) / len(rounds)
        values["diversity"] = math.exp(-sum(share * math.log(share) for share in shares.values()))
    if len(rewards):
        values["reward"] = math.fsum(rewards) / len(rewards)
    for name, each in (parts or {}).items():
        values[f"reward/{name}"] = math.fsum(each) / len(each)
    return values
