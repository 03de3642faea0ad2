"""Options of `podium dataset build`, and the spec that they make."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from trainer.datasets.spec import Spec

WHICH: Final = Group("Which runs", sort_key=1)
WHAT: Final = Group("What is made of them", sort_key=2)


@Parameter(name="*", group=WHICH)
@dataclass(frozen=True)
class Which:
    """Which runs are looked at."""

    since: Annotated[str | None, Parameter(help="Began then or later: 2026-11-01.")] = None
    until: Annotated[str | None, Parameter(help="Began before.")] = None
    label: Annotated[list[str] | None, Parameter(help="Have this: KEY or KEY=VALUE.")] = None
    policy_version: Annotated[
        list[str] | None, Parameter(help="Of this version: 000002, conductor/000002.")
    ] = None
    policy: Annotated[list[str] | None, Parameter(help="Of this policy: openai:gpt-5.")] = None
    in_pool: Annotated[
        list[str] | None, Parameter(help="With this pool: its hash, or a worker's name.")
    ] = None
    outcome: Annotated[
        list[Literal["finished", "failed", "cancelled"]] | None, Parameter(help="Ended so.")
    ] = None
    run: Annotated[list[str] | None, Parameter(help="Have ids that begin so.")] = None

    def flags(self) -> dict[str, Any]:
        """By their path in the spec."""
        return {
            "select.since": self.since,
            "select.until": self.until,
            "select.labels": self.label,
            "select.versions": self.policy_version,
            "select.policies": self.policy,
            "select.pools": self.in_pool,
            "select.outcomes": self.outcome,
            "select.runs": self.run,
        }


@Parameter(name="*", group=WHAT)
@dataclass(frozen=True)
class What:
    """What is made of them."""

    format: Annotated[
        Literal["parquet", "trl", "verl", "prime-rl", "verifiers", "openai", "atif"] | None,
        Parameter(help="Of the files (parquet)."),
    ] = None
    layout: Annotated[
        Literal["auto", "tokens", "prompt", "chat"] | None, Parameter(help="Of TRL's SFT rows.")
    ] = None
    reward: Annotated[
        str | None, Parameter(help="A channel or a preset: accuracy, paramanager, conductor.")
    ] = None
    dialect: Annotated[
        str | None, Parameter(help="How the policy to be trained speaks; else as the run's did.")
    ] = None
    tokenizer: Annotated[
        str | None, Parameter(help="Folder with a tokenizer and its chat template.")
    ] = None
    max_tokens: Annotated[
        int | None, Parameter(help="Leave longer rows out, for a model's context.")
    ] = None
    recovery: Annotated[
        float | None, Parameter(help="sft: the most that may be recoveries (0.3).")
    ] = None
    views: Annotated[
        Literal["full", "clean", "both"] | None,
        Parameter(help="sft: recoveries with what went wrong, without it, or both."),
    ] = None
    unchecked: Annotated[bool, Parameter(help="sft: take answers that nobody has checked.")] = False
    slips: Annotated[
        list[str] | None, Parameter(help="sft: versions of replies that are read, not imitated.")
    ] = None
    min_std: Annotated[float | None, Parameter(help="rl: a group's rewards must spread more.")] = (
        None
    )
    advantages: Annotated[
        str | None, Parameter(help="rl: how rewards become advantages (grpo).")
    ] = None
    stale: Annotated[
        Literal["drop", "error", "keep"] | None,
        Parameter(help="rl: what becomes of rollouts of old weights (drop)."),
    ] = None
    lag: Annotated[int | None, Parameter(help="rl: versions that weights may lie behind (0).")] = (
        None
    )
    margin: Annotated[
        float | None, Parameter(help="preference: the least difference of rewards (0.1).")
    ] = None

    def flags(self, here: Path) -> dict[str, Any]:
        """By their path in the spec."""
        return {
            "format": self.format,
            "layout": self.layout,
            "reward": self.reward,
            "dialect": self.dialect,
            "tokenizer": str(here / self.tokenizer) if self.tokenizer else None,
            "max_tokens": self.max_tokens,
            "sft.recovery": self.recovery,
            "sft.views": self.views,
            "sft.unchecked": self.unchecked or None,
            "sft.slips": self.slips,
            "rl.min_std": self.min_std,
            "rl.advantages": self.advantages,
            "rl.stale": self.stale,
            "rl.lag": self.lag,
            "preference.margin": self.margin,
        }


ALL: Final = Which()
PLAIN: Final = What()
"""What the command takes that is given no options."""


def spec_of(kind: str, file: str | None, which: Which, what: What, here: Path) -> "Spec":
    """The spec of a file, with flags over it. Raises `Usage`."""
    from trainer.datasets.spec import load

    return load(here / file if file else None, {**which.flags(), **what.flags(here)}, kind)
