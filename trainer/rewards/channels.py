"""Channels: what a rollout is scored by, each a pure function with a formula, a range and a unit.

===================  =========  ==========  ======================================================
channel              range      unit        is
===================  =========  ==========  ======================================================
``accuracy``         0…1                    what the task's check says of the policy's answer
``answered``         0, 1                   the policy gave an answer, or made an output it
``parsed``           0, 1                   every reply of it could be followed
``format``           0…1                    replies without a fault of the policy's, of all
``diversity``        0…1                    workers called, of as many as could have been
``completion``       0…1                    calls that came back OK, of those that came back
``parallelism``      0…1                    calls that waited for no other, of those that could
``width``            0…1        10 calls    calls, at most 10: what OpenPARL calls spawning
``efficiency``       0…1                    rounds that were left of the budget, of its rounds
``rounds``           0…         rounds
``calls``            0…         calls       without their second attempts
``critical_steps``   0…         calls       that had to wait for each other (`replay.critical`)
``tokens``           0…         tokens      of models, those of runs below included
``cost``             0…         US dollars  likewise
``time``             0…         seconds     from start to end, pauses not counted
``calls.WORKER``     0…         calls       of that worker
``reward.CHANNEL``   any                    what somebody gave the run, the last of that channel
===================  =========  ==========  ======================================================

What is shared with another run counts for ``rounds``, ``calls`` and their like, since it was done;
``parsed`` and ``format`` look at a fork's own replies alone. A reward given from outside takes the
place of the channel of its name.
"""

from collections.abc import Callable, Iterator
from typing import Final

from protocol.actions import MICRO
from protocol.errors import Usage
from trainer.records import Made, Rollout, Step
from trainer.rewards.checks import PURE, right
from trainer.rewards.judging import ACCURACY, check_in, external

Of = Callable[[Rollout], float | None]
"""A channel's value; None where there is none to be had."""

MAX_WIDTH: Final = 10
"""Calls from which on more of them are worth no more (OpenPARL)."""

REWARD: Final = "reward."
CALLS: Final = "calls."


def accuracy(rollout: Rollout) -> float | None:
    """1 if the answer is right, 0 if it is not or there is none of the policy's own.

    None without a check, and where a program or a judge has to be asked first.

    Raises:
        InvalidData: The task's check is none.
    """
    check = check_in(rollout)
    if check is None:
        return None
    if not rollout.answered:
        return 0.0
    return float(right(check, rollout.answer)) if isinstance(check, PURE) else None


def answered(rollout: Rollout) -> float:
    """1 if there is an answer of the policy's own."""
    return float(rollout.answered)


def parsed(rollout: Rollout) -> float | None:
    """1 if no reply was rejected, else 0. None for a policy that said nothing."""
    own = _own(rollout)
    return float(all(step.rejection is None for step in own)) if own else None


def format_(rollout: Rollout) -> float | None:
    """``good / replies``; None for a policy that said nothing.

    Good are those that were not rejected and none of whose calls was a fault of the policy's: an
    unknown worker, arguments that don't fit.
    """
    own = _own(rollout)
    return sum(not step.failed for step in own) / len(own) if own else None


def diversity(rollout: Rollout) -> float:
    """``workers / min(calls, workers of the pool)``; 0 without calls."""
    made = [each.call.worker for each in _calls(rollout) if each.attempts]
    possible = min(len(made), len(rollout.pool.workers))
    return len(set(made)) / possible if possible else 0.0


def completion(rollout: Rollout) -> float:
    """``OK / settled``; 0 without any.

    Calls that failed by a fault of the infrastructure's are not counted. PARL's r_finish is such a
    share of subtasks; its closed form is not published.
    """
    settled = [
        each
        for each in _calls(rollout)
        if each.status is not None and each.fault != "infrastructure"
    ]
    return sum(each.status == "OK" for each in settled) / len(settled) if settled else 0.0


def parallelism(rollout: Rollout) -> float:
    """``(calls - critical steps) / (calls - 1)``; 0 for less than two calls.

    0 is one after the other, 1 all at once. More calls alone don't raise it.
    """
    made = sum(each.attempts > 0 for each in _calls(rollout))
    saved = made - rollout.critical_steps
    return min(max(saved / (made - 1), 0.0), 1.0) if made > 1 else 0.0


def width(rollout: Rollout) -> float:
    """``min(calls, 10) / 10``, r_parallel as OpenPARL has it."""
    return min(calls(rollout), MAX_WIDTH) / MAX_WIDTH


def efficiency(rollout: Rollout) -> float:
    """``1 - rounds / rounds of the budget``, not below 0."""
    return max(0.0, 1.0 - rollout.rounds / max(1, rollout.budget.rounds))


def calls(rollout: Rollout) -> float:
    """Calls that were asked for."""
    return float(sum(1 for _ in _calls(rollout)))


CHANNELS: Final[dict[str, Of]] = {
    ACCURACY: accuracy,
    "answered": answered,
    "parsed": parsed,
    "format": format_,
    "diversity": diversity,
    "completion": completion,
    "parallelism": parallelism,
    "width": width,
    "efficiency": efficiency,
    "rounds": lambda rollout: float(rollout.rounds),
    "calls": calls,
    "critical_steps": lambda rollout: float(rollout.critical_steps),
    "tokens": lambda rollout: float(rollout.spend.tokens),
    "cost": lambda rollout: rollout.spend.cost / MICRO,
    "time": lambda rollout: rollout.elapsed_ms / 1_000,
}
"""By name. Those of workers and of rewards from outside are made as they are asked for."""


def known(channel: str) -> None:
    """Raise `Usage` unless there is such a channel."""
    if channel not in CHANNELS and not channel.startswith((REWARD, CALLS)):
        raise Usage(
            f"there is no channel {channel!r}",
            hint=f"one of: {', '.join(CHANNELS)}, calls.WORKER, reward.CHANNEL",
        )


def value(rollout: Rollout, channel: str) -> float | None:
    """A rollout's value of a channel; None where there is none.

    Raises:
        Usage: There is no such channel.
        InvalidData: The task's check is none.
    """
    if channel.startswith(REWARD):
        return external(rollout, channel.removeprefix(REWARD))
    if channel.startswith(CALLS):
        worker = channel.removeprefix(CALLS)
        return float(sum(each.call.worker == worker for each in _calls(rollout)))
    known(channel)
    given = external(rollout, channel)
    return CHANNELS[channel](rollout) if given is None else given


def values(rollout: Rollout) -> dict[str, float]:
    """All channels of a rollout that have a value, those of rewards from outside included."""
    names = [*CHANNELS, *(f"{REWARD}{each.channel}" for each in rollout.rewards)]
    found = ((name, value(rollout, name)) for name in dict.fromkeys(names))
    return {name: known for name, known in found if known is not None}


def _own(rollout: Rollout) -> list[Step]:
    return [step for step in rollout.steps if step.own]


def _calls(rollout: Rollout) -> Iterator[Made]:
    return (each for step in rollout.steps for each in step.calls)
