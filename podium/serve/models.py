"""The models that are served: pools, each under its name; and a deployment that hosts them all."""

from collections.abc import Sequence
from typing import Final

import msgspec

from podium.poolfile import LoadedPool
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import PolicySpec
from protocol.errors import Usage

MAX_EARLIER: Final = 64
"""Pools that a model is known to have had: a change a day for two months."""


class Model(msgspec.Struct, frozen=True):
    """A pool, its policy and what a run may spend, as one model."""

    name: str
    pool: Pool
    policy: PolicySpec
    budget: Budget
    earlier: tuple[Pool, ...] = ()
    """What its pool was before the deployment's workers were changed."""

    def changed(self, pool: Pool) -> "Model":
        """The same model over another pool."""
        if pool == self.pool:
            return self
        earlier = (*self.earlier, self.pool)[-MAX_EARLIER:]
        return Model(self.name, pool, self.policy, self.budget, earlier)


def by_name(models: Sequence[Model]) -> dict[str, Model]:
    """The models by their names. Raises `Usage` if two have the same."""
    found: dict[str, Model] = {}
    for model in models:
        if model.name in found:
            raise Usage(
                f"two pools have the name {model.name!r}",
                hint='a model is asked for by it: give each its own: [pool] name = "…"',
            )
        found[model.name] = model
    return found


def together(pools: Sequence[LoadedPool]) -> LoadedPool:
    """One pool with the workers of several, for a deployment that hosts them all.

    Raises:
        Usage: Two have different workers of the same name.
    """
    first = pools[0]
    workers: dict[str, WorkerSpec] = {}
    owners: dict[str, LoadedPool] = {}
    redact = first.redact
    for pool in pools:
        redact = redact.plus(pool.redact)
        for spec in pool.pool.workers:
            known = workers.setdefault(spec.name, spec)
            owner = owners.setdefault(spec.name, pool)
            if known != spec:
                raise Usage(
                    f"the pools {owner.name!r} and {pool.name!r} have different workers "
                    f"{spec.name!r}",
                    hint="rename one, or serve them by a deployment each (--folder)",
                )
    return msgspec.structs.replace(
        first,
        name="+".join(pool.name for pool in pools),
        pool=Pool(tuple(workers.values())),
        redact=redact,
        policies=tuple(sorted({pool.policy for pool in pools})),
        endpoints=tuple(
            spec for pool in pools for spec in (pool.spec, *pool.endpoints) if spec is not None
        ),
    )
