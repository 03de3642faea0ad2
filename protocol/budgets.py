"""Budgets: what a run may spend, checked by the rules and by nothing else."""

from typing import Literal, TypeAlias

import msgspec

from protocol.actions import MAX_COUNT, NOTHING, Count, Spend

Limit: TypeAlias = Literal["", "rounds", "calls", "tokens", "cost", "wall", "rejections", "signal"]
"""Why only an answer is accepted now: a budget that is used up, a policy that is lost, somebody's
wish."""

OnLimit: TypeAlias = Literal["answer", "pause"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one run.

    A child's is carved out of its parent's; only a root run's can be extended.
    """

    rounds: Count = 8
    calls: Count = 64
    """Attempts, those of child runs included."""
    parallel: Count = 16
    """Attempts at one time."""
    depth: Count = 2
    """Levels of child runs below this one."""
    tokens: Count = 1_000_000
    cost: Count = 1_000_000
    """Micro-dollars."""
    wall_ms: Count = 600_000
    """Milliseconds from the start to the last call; the final answer may take
    ``limits.FINAL_GRACE_MS`` more."""
    on_limit: OnLimit = "answer"
    """What a root run does at a limit: answer with what it has, or pause for an extension."""


class Extension(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody adds to a root run's budget."""

    rounds: Count = 0
    calls: Count = 0
    tokens: Count = 0
    cost: Count = 0
    wall_ms: Count = 0

    def __post_init__(self) -> None:
        if min(self.rounds, self.calls, self.tokens, self.cost, self.wall_ms) < 0:
            raise ValueError("an extension only adds: every field is 0 or more")


def extended(budget: Budget, by: Extension) -> Budget:
    """The budget with the extension added, as far as a message can say it."""
    return msgspec.structs.replace(
        budget,
        rounds=min(budget.rounds + by.rounds, MAX_COUNT),
        calls=min(budget.calls + by.calls, MAX_COUNT),
        tokens=min(budget.tokens + by.tokens, MAX_COUNT),
        cost=min(budget.cost + by.cost, MAX_COUNT),
        wall_ms=min(budget.wall_ms + by.wall_ms, MAX_COUNT),
    )


def short_of(budget: Budget, committed: Spend, need: Spend, kept: Spend = NOTHING) -> Limit:
    """The first limit that ``need`` would overrun on top of ``committed``, or "".

    Args:
        budget: The limits.
        committed: Spent and reserved so far.
        need: What is about to be reserved.
        kept: What has to stay available afterwards: the price of asking for a final answer.
    """
    if committed.calls + need.calls > budget.calls:
        return "calls"
    if committed.tokens + need.tokens + kept.tokens > budget.tokens:
        return "tokens"
    if committed.cost + need.cost + kept.cost > budget.cost:
        return "cost"
    return ""
