"""Options that several commands share, and what is made of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from cyclopts import Group, Parameter

from podium.cli.world import Standing, current

if TYPE_CHECKING:
    from podium.config import Config, Loaded
    from podium.poolfile import LoadedPool
    from protocol.budgets import Budget
    from protocol.secret_forms import Redaction

WHERE = Group("Where", sort_key=20)
"""Options that say which deployment is meant."""

LIMITS = Group("Limits", sort_key=10)
"""Options that bound what a run may spend."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(help="Print JSON on stdout.")] = False
    nats: Annotated[
        str | None, Parameter(help="URL of a running NATS server or cluster.", group=WHERE)
    ] = None
    folder: Annotated[
        str | None, Parameter(help="Folder of the embedded servers (.podium).", group=WHERE)
    ] = None

    def flags(self) -> dict[str, Any]:
        """The flags, by their path in the configuration."""
        return {"nats.url": self.nats, "folder": self.folder}

    def load(self, **more: Any) -> "Loaded":
        """The configuration with these flags."""
        from podium.config import load

        world = current()
        return load(world.folder, world.environment, {**self.flags(), **more})


@Parameter(name="*")
@dataclass(frozen=True)
class Hosting(Common):
    """Options of the commands that start a deployment."""

    ray: Annotated[str | None, Parameter(help="Address of a running Ray cluster.", group=WHERE)] = (
        None
    )
    durability: Annotated[
        Literal["process", "power", "site"] | None,
        Parameter(
            help="What stored data survive: a process's crash, a power cut, the loss of a machine.",
            group=WHERE,
        ),
    ] = None
    pool: Annotated[str | None, Parameter(help="A pool file (TOML).")] = None
    policy: Annotated[
        str | None,
        Parameter(
            help="rules, conductor, openai:MODEL, local:FOLDER, static:FILE, python:MODULE:NAME, "
            "or written:WORKER:POLICY."
        ),
    ] = None

    def flags(self) -> dict[str, Any]:
        """The flags, by their path in the configuration."""
        return {
            **super().flags(),
            "ray.address": self.ray,
            "durability": self.durability,
            "pool": self.pool,
            "policy": self.policy,
        }


@Parameter(name="*", group=LIMITS)
@dataclass(frozen=True)
class Limits:
    """What a run may spend."""

    rounds: Annotated[int | None, Parameter(help="Rounds.")] = None
    calls: Annotated[int | None, Parameter(help="Calls, those of child runs included.")] = None
    tokens: Annotated[int | None, Parameter(help="Tokens.")] = None
    cost: Annotated[float | None, Parameter(help="US dollars.")] = None
    wall: Annotated[float | None, Parameter(help="Seconds.")] = None

    def flags(self) -> dict[str, Any]:
        """The flags, by their path in the configuration."""
        return {
            "budget.rounds": self.rounds,
            "budget.calls": self.calls,
            "budget.tokens": self.tokens,
            "budget.cost_usd": self.cost,
            "budget.wall_s": self.wall,
        }


@Parameter(name="*", group=LIMITS)
@dataclass(frozen=True)
class RunLimits(Limits):
    """What a new run may spend, and how it may go about it."""

    parallel: Annotated[int | None, Parameter(help="Calls at one time.")] = None
    depth: Annotated[int | None, Parameter(help="Levels of child runs.")] = None
    on_limit: Annotated[
        Literal["answer", "pause"] | None,
        Parameter(help="At a limit: answer with what there is, or pause to be extended."),
    ] = None

    def flags(self) -> dict[str, Any]:
        """The flags, by their path in the configuration."""
        return {
            **super().flags(),
            "budget.parallel": self.parallel,
            "budget.depth": self.depth,
            "budget.on_limit": self.on_limit,
        }


PAGE: Final = 50
"""Runs of one page of the list: a screen or two."""

Status: TypeAlias = Literal[
    "queued", "deciding", "working", "paused", "finished", "failed", "cancelled", "archived"
]
"""What a run's status can be: its phase, and its outcome when it has ended."""


@Parameter(name="*")
@dataclass(frozen=True)
class Listing:
    """Which runs are listed."""

    status: Annotated[Status | None, Parameter(help="Only runs of this status.")] = None
    limit: Annotated[int, Parameter(help=f"Runs of one page ({PAGE}).")] = PAGE
    cursor: Annotated[str | None, Parameter(help="Where to go on: a page's cursor.")] = None


LISTING: Final = Listing()
COMMON: Final = Common()
HOSTING: Final = Hosting()
RUN_LIMITS: Final = RunLimits()
ADDED: Final = Limits()
"""What a command takes that is given no options."""


def load_pool(loaded: "Loaded", there: "Standing | None" = None) -> "LoadedPool":
    """The pool that is configured; else that of the standing deployment; else the shipped one.

    With the policy that is configured, where a deployment has to host its model.
    """
    from podium.policyfile import hosted

    pool = _pool(loaded, there)
    return pool.also(hosted(loaded.config.policy, pool.policy, pool.spec))


def _pool(loaded: "Loaded", there: "Standing | None") -> "LoadedPool":
    from podium import poolfile
    from podium.poolmodules import import_from_all
    from podium.pools import OFFLINE

    if loaded.config.pool or there is None:
        return poolfile.load(loaded.config.pool or OFFLINE, loaded.config.secrets.place())
    import_from_all(there.folders)
    return poolfile.LoadedPool(
        path=loaded.config.path(),
        name=there.pool,
        pool=there.workers,
        policy=there.policy or poolfile.RULES,
        budget=there.budget,
        redact=there.redact,
        spec=there.spec,
    )


def redaction(config: "Config") -> "Redaction":
    """What is taken for a secret: as configured, as the pool file says, and the deployment."""
    redact = config.redact
    if config.pool:
        from podium import poolfile

        redact = redact.plus(poolfile.read(Path(config.pool).expanduser()).redact)
    there = current().deployments.standing(config)
    return redact if there is None else redact.plus(there.redact)


def policy_of(loaded: "Loaded", pool: "LoadedPool") -> str:
    """The policy's name: as configured, else as the pool says."""
    return loaded.config.policy or pool.policy


def budget_of(loaded: "Loaded", pool: "LoadedPool") -> "Budget":
    """The budget: the defaults, what the pool says, what is configured."""
    from protocol.budgets import Budget

    return loaded.config.budget.over(pool.budget.over(Budget()))
