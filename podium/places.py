"""Where a deployment hosts the workers of a pool, as its registry says."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from protocol import registry as rules
from protocol.actions import Pool, WorkerSpec
from protocol.registry import EMPTY, Registry
from replay.registry_log import RegistryLog

FRESH_S: Final = 1.0
"""Seconds for which what was read of the registry is good: the time that a change takes to be
noticed anyway."""


class Places:
    """The registry, as who begins runs sees it.

    Args:
        log: Its log; None where there is none, and each worker is where its name says.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self, log: RegistryLog | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._monotonic = log, monotonic
        self._registry, self._read_at = EMPTY, -FRESH_S
        self._begun: tuple[Registry, Pool, Pool] | None = None
        """Where the pool of the run before was: most runs have the same."""

    async def _read(self) -> Registry:
        now = self._monotonic()
        if self._log is not None and now - self._read_at >= FRESH_S:
            self._registry, self._read_at = await self._log.read(), now
        return self._registry

    async def offered(self) -> Pool:
        """What runs that begin get."""
        return (await self._read()).pool

    async def begun(self, pool: Pool) -> Pool:
        """See `registry.begun`."""
        registry, before = await self._read(), self._begun
        if before is None or before[0] is not registry or before[1] is not pool:
            found = _in_order(pool, rules.begun(registry, pool))
            before = registry, pool, pool if found == pool.workers else Pool(found)
            self._begun = before
        return before[2]

    async def moved(self, pool: Pool) -> tuple[WorkerSpec, ...]:
        """Those of a fork's workers that are elsewhere than its pool has it, see `forked`."""
        found = _in_order(pool, rules.forked(await self._read(), pool))
        return tuple(
            there for there, spec in zip(found, pool.workers, strict=True) if there != spec
        )


def _in_order(pool: Pool, found: Iterable[WorkerSpec]) -> tuple[WorkerSpec, ...]:
    by_name = {spec.name: spec for spec in found}
    return tuple(by_name[spec.name] for spec in pool.workers)


def renamed(spec: WorkerSpec, name: str) -> WorkerSpec:
    """A worker under another name, hosted where it is."""
    if name == spec.name:
        return spec
    return msgspec.structs.replace(spec, name=name, queue=spec.place)
