"""Changing the workers of a deployment that stands, and waiting for what comes of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from actors.programs import now_ms
from podium.checks import check_pool
from podium.log_reader import within
from podium.poolfile import LoadedPool
from protocol.errors import TimedOut, Unreachable
from protocol.registry import (
    Change,
    Registry,
    WorkerRegistered,
    WorkersOrdered,
    WorkerWithdrawn,
    change,
)
from replay.registry_log import RegistryLog

LOOK_S: Final = 2.0
"""Seconds between two looks by which a lost hint is noticed."""

SETTLE_S: Final = 150.0
"""Seconds in which a deployment says what came of a change: longer than it tries."""

Woken: TypeAlias = Callable[[Callable[[Any], None]], Awaitable[Any]]
"""Has a function called whenever something is said of the workers, until that is closed."""


class Applied(NamedTuple):
    """What a change has changed."""

    change: Change | None
    """None if there was nothing to change."""
    registry: Registry
    """After it; before it, if it was not said."""
    before: Registry


async def applied(
    log: RegistryLog,
    pool: LoadedPool,
    renewed: frozenset[str],
    *,
    by: str,
    woken: Woken,
    dry_run: bool = False,
) -> Applied:
    """See `Host.apply`."""
    check_pool(pool.pool)
    before = await log.read()
    said = change(
        before,
        pool.pool,
        at=now_ms(),
        by=by,
        folder=str(pool.folder),
        tables=pool.tables,
        renewed=renewed,
    )
    if said is None or dry_run:
        return Applied(said, before, before)
    wake = asyncio.Event()
    listening = await woken(lambda _: wake.set())
    try:
        registry = await log.append(said)
        async with asyncio.timeout(SETTLE_S):
            while registry.pending is not None and registry.pending.n == said.n:
                await within(wake.wait(), LOOK_S)
                wake.clear()
                registry = await log.read()
    except TimeoutError:
        raise TimedOut(
            f"change {said.n} of the workers: nobody has said within {SETTLE_S:g} s what came of "
            "it",
            hint="does the deployment stand? `podium status`; `podium worker list` tells the rest",
        ) from None
    finally:
        await listening.close()
    if why := registry.refused.get(said.n):
        raise Unreachable(
            f"change {said.n} of the workers came to nothing: {why}",
            hint="runs get the workers that they got before; mend it, and apply it again",
        )
    return Applied(said, registry, before)


def described(said: Change, before: Registry) -> Iterator[str]:
    """What a change does, a line for each worker."""
    offered = {spec.name for spec in before.offered}
    for event in said.events:
        match event:
            case WorkerRegistered(spec=spec, replaces=replaces) if replaces == spec.name:
                yield f"changed {spec.name}"
            case WorkerRegistered(spec=spec, replaces=replaces) if replaces in offered:
                yield f"renamed {replaces} to {spec.name}"
            case WorkerRegistered(spec=spec):
                yield f"added {spec.name}"
            case WorkerWithdrawn(name=name):
                yield f"withdrawn {name}"
            case WorkersOrdered():
                yield "in another order"
            case _:
                pass
