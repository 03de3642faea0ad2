"""`podium up`, `down`, `status`: the standing deployment."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from podium.cli.options import COMMON, HOSTING, Common, Hosting, load_pool
from podium.cli.output import STARTING, Output, iso
from podium.cli.world import Standing, current
from podium.render_text import count, duration
from protocol.errors import Conflict
from replay.address import shown

if TYPE_CHECKING:
    from podium.config import Config

DryRun = Annotated[bool, Parameter(help="Say what would be done, and do nothing.")]


def up(*, dry_run: DryRun = False, hosting: Hosting = HOSTING) -> int:
    """Keep a deployment standing: broker, Ray, conductor, workers. `run` attaches to it."""
    output = Output(hosting.json)
    loaded = hosting.load()
    pool = load_pool(loaded)
    deployments = current().deployments
    there = deployments.standing(loaded.config)
    if there is not None:
        raise Conflict(
            f"a deployment stands already (process {there.pid}, pool {there.pool})",
            hint="look at it: podium status",
        )
    workers = len(pool.pool.workers)
    target = str(loaded.config.path())
    if dry_run:
        output.mutation(target, f"a deployment of {count(workers, 'worker')}", dry_run=True)
        return 0

    async def start() -> Standing:
        from podium.poolcheck import preflight

        await preflight(pool, loaded.config.policy or pool.policy, loaded.config.secrets.place())
        return await deployments.up(loaded.config, pool)

    stopping = output.working(STARTING, takes=True)
    try:
        standing = asyncio.run(start())
    finally:
        stopping()
    detail = (
        f"a deployment of {count(workers, 'worker')} stands "
        f"(process {standing.pid}, {shown(standing.url)})"
    )
    output.mutation(target, detail)
    output.hint('use it: podium run "…"   stop it: podium down')
    return 0


def down(*, dry_run: DryRun = False, common: Common = COMMON) -> int:
    """Stop the standing deployment. Runs that have not ended go on with the next one."""
    output = Output(common.json)
    config = common.load().config
    deployments = current().deployments
    target = str(config.path())
    if dry_run:
        there = deployments.standing(config)
        what = f"process {there.pid} stopped" if there else "nothing: no deployment stands"
        output.mutation(target, what, dry_run=True)
        return 0
    stopped = asyncio.run(deployments.down(config))
    output.mutation(
        target,
        "the deployment has stopped; nothing is lost" if stopped else "no deployment stands here",
        applied=stopped,
    )
    return 0


def status(*, common: Common = COMMON) -> int:
    """What the standing deployment does: its actors, and what they are at."""
    output = Output(common.json)
    config = common.load().config
    standing = current().deployments.standing(config)
    if standing is None and not config.nats.url:
        output.read([], counts={"actors": 0}) if output.as_json else output.text(
            "no deployment stands here"
        )
        output.hint("start one: podium up")
        return 0
    rows = asyncio.run(_stats(config))
    from podium.render_rich import table
    from podium.status_words import busy, did

    lines = [
        [str(row.get("kind", "")), str(row.get("actor", "")), busy(row), did(row)] for row in rows
    ]
    counts = {"actors": len(rows)}
    output.read(
        rows, table(["kind", "actor", "now", "so far"], lines, wide="so far"), counts=counts
    )
    output.hint("a run that is paused is with no actor: podium runs --status paused")
    if standing is not None:
        stands = duration(output.world.now() - standing.since)
        output.hint(
            f"pool {standing.pool}, broker {shown(standing.url)}, process {standing.pid}, "
            f"stands since {iso(standing.since)} ({stands})"
        )
    return 0


async def _stats(config: "Config") -> list[dict[str, Any]]:
    async with current().deployments.connect(config) as host:
        rows = await host.stats()
    return sorted(rows, key=lambda row: (str(row.get("kind")), str(row.get("actor"))))
