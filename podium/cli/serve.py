"""`podium serve`: pools as models, for whoever speaks to OpenAI's API."""

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from cyclopts import Group, Parameter

from podium.cli.interrupts import Interrupts
from podium.cli.options import RUN_LIMITS, WHERE, Common, RunLimits, budget_of, load_pool, policy_of
from podium.cli.output import Output
from podium.cli.world import current
from podium.render_text import count
from podium.serve.server import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    GRACE_S,
    TOKEN_ENV,
    check_open,
    installed,
    listen,
    local,
    root_of,
    tokens_from,
    url_of,
)
from podium.serve.server import (
    serve as answer,
)
from protocol.errors import PodiumError, Usage

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from podium.cli.world import Hosted
    from podium.client import Client
    from podium.config import Loaded
    from podium.poolfile import LoadedPool
    from podium.serve.models import Model

SERVER = Group("Server", sort_key=5)

logger = logging.getLogger("podium.serve")

FOLLOW_S: Final = 2.0
"""Seconds in which a model of a deployment's own pool gets the workers that this has by now."""


@Parameter(name="*")
@dataclass(frozen=True)
class Serving(Common):
    """Which pools are served, and on what."""

    pool: Annotated[
        tuple[str, ...], Parameter(help="A pool file (TOML); once for each model.")
    ] = ()
    policy: Annotated[
        str | None, Parameter(help="rules, openai:MODEL or python:MODULE:NAME, for all pools.")
    ] = None
    ray: Annotated[str | None, Parameter(help="Address of a running Ray cluster.", group=WHERE)] = (
        None
    )
    durability: Annotated[
        Literal["process", "power", "site"] | None,
        Parameter(help="What stored data survive.", group=WHERE),
    ] = None

    def flags(self) -> dict[str, Any]:
        """The flags, by their path in the configuration."""
        return {
            **super().flags(),
            "ray.address": self.ray,
            "durability": self.durability,
            "policy": self.policy,
        }


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True)
class Listening:
    """Where the server listens, and to whom."""

    host: Annotated[str, Parameter(help=f"Address to listen on ({DEFAULT_HOST}).")] = DEFAULT_HOST
    port: Annotated[int, Parameter(help=f"Port ({DEFAULT_PORT}); 0 takes a free one.")] = (
        DEFAULT_PORT
    )
    token_env: Annotated[
        str, Parameter(help=f"Variable with the tokens that are let in ({TOKEN_ENV}).")
    ] = ""
    token_file: Annotated[str, Parameter(help="File with such tokens, one a line.")] = ""
    url: Annotated[
        str, Parameter(help="Address by which clients reach the server, for its A2A card.")
    ] = ""
    timeout: Annotated[
        float, Parameter(help="Seconds that a request may take (as its run's budget says).")
    ] = 0.0


SERVING = Serving()
LISTENING = Listening()


def serve(
    *,
    dry_run: Annotated[bool, Parameter(help="Check everything and begin nothing.")] = False,
    listening: Listening = LISTENING,
    serving: Serving = SERVING,
    limits: RunLimits = RUN_LIMITS,
) -> int:
    """Serve pools as models of an OpenAI-compatible endpoint."""
    installed()
    log_to_stderr()
    output = Output(serving.json)
    tokens = tokens_from(current().environment, listening.token_env, listening.token_file)
    os.environ.pop(listening.token_env or TOKEN_ENV, None)  # no worker has to know them
    check_open(listening.host, tokens)
    if listening.timeout < 0:
        raise Usage("--timeout is less than nothing.", hint="0 is as long as a run's budget says")
    command = _Serve(output, listening, tokens, Orchestras(serving, limits))
    with listen(listening.host, listening.port) as there:
        return asyncio.run(command.run(there, dry_run))


def log_to_stderr() -> None:
    """Have what goes wrong in a server told there, in plain lines."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


class Orchestras:
    """The pools that are served, as models, and the deployment that hosts them.

    Args:
        serving: Which pools.
        limits: What their runs may spend.
    """

    def __init__(self, serving: Serving, limits: RunLimits) -> None:
        from podium.serve.models import by_name, together

        pools = []
        for path in serving.pool or ("",):
            loaded = serving.load(**limits.flags(), pool=path or None)
            there = current().deployments.standing(loaded.config)
            pools.append((loaded, load_pool(loaded, there)))
        self.config = pools[0][0].config
        self._pools = [
            msgspec.structs.replace(pool, policy=policy_of(loaded, pool)) for loaded, pool in pools
        ]
        self._hosted = together(self._pools)
        self.models = by_name([_model(loaded, pool) for loaded, pool in pools])
        self._following = [
            pool.name
            for loaded, pool in pools
            if not loaded.config.pool and current().deployments.standing(loaded.config) is not None
        ]

    async def preflight(self) -> None:
        """Look for keys and endpoints where the workers will run in processes of this one."""
        from podium.poolcheck import preflight

        if current().deployments.standing(self.config) is None and not self.config.ray.address:
            for pool in self._pools:
                await preflight(pool, pool.policy, self.config.secrets.place())

    @asynccontextmanager
    async def open(self) -> "AsyncIterator[Hosted]":
        """A deployment that works. A model that is its own pool changes as that does."""
        async with current().deployments.open(self.config, self._hosted) as host:
            following = asyncio.create_task(self._follow(host.client))
            try:
                yield host
            finally:
                following.cancel()

    async def _follow(self, client: "Client") -> None:
        while self._following:
            await asyncio.sleep(FOLLOW_S)
            try:
                pool = await client.offered()
            except PodiumError as error:
                logger.warning("the deployment's workers can't be looked up: %s", error.message)
                continue
            for name in self._following if pool.workers else ():
                self.models[name] = self.models[name].changed(pool)

    def would(self) -> str:
        """What would be served, in words."""
        return f"{count(len(self.models), 'model')} served: {', '.join(self.models)}"


class _Serve:
    """One `podium serve`, with what it was told."""

    def __init__(
        self,
        output: Output,
        listening: Listening,
        tokens: tuple[str, ...],
        orchestras: Orchestras,
    ) -> None:
        self.output, self.listening, self.tokens = output, listening, tokens
        self.orchestras = orchestras

    async def run(self, there: "socket.socket", dry_run: bool) -> int:
        """Serve until interrupted."""
        with Interrupts(
            self.output, lambda: f"stopping; requests have {GRACE_S:g} s to end"
        ) as interrupts:
            await self.orchestras.preflight()
            if dry_run:
                self.output.mutation(url_of(there), self.orchestras.would(), dry_run=True)
                return 0
            await self._serve(there, interrupts)
        return 0

    async def _serve(self, there: "socket.socket", interrupts: Interrupts) -> None:
        from podium.serve.app import make
        from podium.serve.offered import offered, places
        from podium.serve.runs import Runs

        only_here = local(self.listening.host)
        async with self.orchestras.open() as host:
            models = self.orchestras.models
            runs = Runs(host.client, models, timeout_s=self.listening.timeout)
            url = self.listening.url or root_of(there)
            routes, beside = offered(runs, url, tokens=bool(self.tokens))
            app = make(runs, tokens=self.tokens, only_here=only_here, routes=routes)
            self._announce(url_of(there), places(url))
            await answer(app, runs, there, interrupts.asked, beside=beside)

    def _announce(self, url: str, places: dict[str, str]) -> None:
        models = list(self.orchestras.models)
        if self.output.as_json:
            self.output.json({"serving": {"url": url, "models": models, **places}})
            return
        self.output.text(f"serving {', '.join(models)} at {url}")
        if "mcp" in places:
            self.output.hint(f"as tools of MCP: {places['mcp']}")
        if "a2a" in places:
            self.output.hint(
                f"{models[0]} as an A2A agent: {places['a2a']} (its card: {places['card']})"
            )
        if not self.tokens:
            self.output.hint("whoever is on this machine may ask; any api_key will do")
        self.output.hint("stop it: Ctrl-C")


def _model(loaded: "Loaded", pool: "LoadedPool") -> "Model":
    """The model that a pool is, checked as each of its runs would be."""
    from podium.checks import check_start
    from podium.policyfile import chosen
    from podium.serve.models import Model
    from protocol.commands import Start
    from protocol.decisions import Task
    from protocol.subjects import run_id

    policy = chosen(policy_of(loaded, pool), pool.policy, pool.spec)
    budget = budget_of(loaded, pool)
    check_start(
        Start(
            run=run_id(bytes(8)), task=Task(text="?"), pool=pool.pool, policy=policy, budget=budget
        )
    )
    return Model(pool.name, pool.pool, policy, budget)
