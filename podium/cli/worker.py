"""`podium worker`: try workers out; change and list those of a deployment."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.world import current
from protocol.errors import NotFound, Usage

if TYPE_CHECKING:
    from podium.config import Config
    from podium.poolfile import LoadedPool
    from protocol.registry import Registry

File = Annotated[Path, Parameter(help="A pool file (TOML).")]
Renew = Annotated[
    tuple[str, ...],
    Parameter(
        help="A worker that starts afresh though its definition is the same: its code has changed."
    ),
]
DryRun = Annotated[bool, Parameter(help="Say what would be done, and do nothing.")]


def check(file: File, /, *, common: Common = COMMON) -> int:
    """Try every worker of a pool file: imports, schemas, keys, endpoints, the sandbox.

    Ends with 0 if all of them work, with 2 if one does not.
    """
    import msgspec

    from podium import poolcheck
    from podium.render_rich import table

    output = Output(common.json)
    findings = asyncio.run(poolcheck.check(file, common.load().config.secrets.place()))
    counts = {"ok": 0, "warning": 0, "failed": 0}
    for finding in findings:
        counts[finding.state] += 1
    lines = [[each.worker, each.adapter, each.state, each.found] for each in findings]
    output.read(
        [msgspec.to_builtins(finding) for finding in findings],
        table(["worker", "adapter", "state", "found"], lines, wide="found"),
        counts=counts,
    )
    output.cures((finding.worker, finding.hint) for finding in findings)
    if counts["failed"]:
        return 2
    output.hint(f'use it: podium run --pool {file} "…"')
    return 0


def apply(
    file: File,
    /,
    *,
    renew: Renew = (),
    dry_run: DryRun = False,
    common: Common = COMMON,
) -> int:
    """Have a standing deployment offer the workers of a pool file to runs that begin.

    Runs that are going keep the workers that they have. What is added or changed is tried first; if
    it doesn't work, nothing changes.
    """
    from podium import poolfile
    from podium.applying import described

    output = Output(common.json)
    config = common.load().config
    there = current().deployments.standing(config)
    if there is None and not config.nats.url:
        raise NotFound("No deployment stands here.", hint=f"start one: podium up --pool {file}")
    loaded = poolfile.load(file, config.secrets.place())
    if there is not None and there.redact.plus(loaded.redact) != there.redact:
        raise Usage(
            f"{file} has forms of secrets that the deployment does not look for",
            hint="podium down, then podium up: its processes learn them when they start",
        )
    if not dry_run and not config.ray.address:
        asyncio.run(_preflight(loaded, config))

    async def changed() -> "Any":
        async with current().deployments.connect(config) as host:
            return await host.apply(loaded, frozenset(renew), dry_run=dry_run)

    if output.lively():
        with output.console(err=True).status("trying what is new …"):
            done = asyncio.run(changed())
    else:
        done = asyncio.run(changed())
    target = str(config.path())
    if done.change is None:
        output.mutation(target, "nothing has changed", applied=False, dry_run=dry_run)
        return 0
    lines = list(described(done.change, done.before))
    output.mutation(target, "; ".join(lines), dry_run=dry_run, event_id=str(done.change.n))
    output.hint("runs that are going keep the workers that they have: podium worker list")
    return 0


async def _preflight(loaded: "LoadedPool", config: "Config") -> None:
    from podium.poolcheck import preflight

    await preflight(loaded, "", config.secrets.place())


def list_(*, common: Common = COMMON) -> int:
    """The workers of a deployment: those that runs get, those that are tried, and earlier ones."""
    from podium.render_rich import table

    output = Output(common.json)
    config = common.load().config

    async def read() -> "Registry":
        async with current().deployments.connect(config) as host:
            return await host.registry()

    registry = asyncio.run(read())
    rows = list(_rows(registry))
    heads = ["worker", "adapter", "state", "queue", "since"]
    lines = [[str(row[head]) for head in heads] for row in rows]
    output.read(rows, table(heads, lines, wide="adapter"), counts={"workers": len(rows)})
    tried = registry.n - 1  # before what was said of it
    if (why := registry.refused.get(tried)) and not output.as_json:
        output.cures([(f"change {tried}", f"came to nothing: {why}")])
    output.hint("change them: podium worker apply FILE")
    return 0


def _rows(registry: "Registry") -> "Iterator[dict[str, Any]]":
    from protocol.actions import UNHOSTED

    tried = [spec for spec in registry.tried if spec not in registry.offered]
    earlier = reversed([each.spec for each in registry.earlier.values()])
    states = (
        *((spec, "offered") for spec in registry.offered),
        *((spec, "tried") for spec in tried),
        *((spec, "earlier") for spec in earlier),
    )
    registered = registry.registered
    for spec, state in states:
        known = registered.get(spec.place) if spec.kind not in UNHOSTED else None
        yield {
            "worker": spec.name,
            "adapter": spec.adapter or spec.kind,
            "state": state,
            "queue": spec.place if known else "",
            "since": iso(known.at) if known else "",
        }
