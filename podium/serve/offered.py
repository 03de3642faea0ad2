"""What a server offers beside completions, as far as its packages are there: MCP and A2A."""

from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import msgspec

from podium.serve import mcp
from podium.serve.mcp import Service
from podium.serve.runs import Runs

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

A2A_PATH: Final = "/a2a"


def offered(runs: Runs, url: str, *, tokens: bool) -> "tuple[list[BaseRoute], list[Service]]":
    """Further routes, and what has to run beside the server until ``runs`` stops.

    Args:
        runs: What is done with runs. Of several models, the first is the A2A agent: an address has
            one card.
        url: Where clients reach the server, without a path.
        tokens: Whether they need one; else this machine's own names are answered only.
    """
    routes: list[BaseRoute] = []
    services: list[Service] = []
    if mcp.installed():
        tools, sessions = mcp.over_http(runs, own_names=not tokens)
        routes += tools
        services.append(sessions)
    if find_spec("a2a") is not None:
        routes += _agent(runs, url, tokens)
    return routes, services


def places(url: str) -> dict[str, str]:
    """Where that is, by what it is: ``mcp``, ``a2a`` and ``card``.

    Args:
        url: Where clients reach the server, without a path.
    """
    found = {"mcp": f"{url}{mcp.PATH}"} if mcp.installed() else {}
    if find_spec("a2a") is not None:
        from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH

        found |= {"a2a": f"{url}{A2A_PATH}", "card": f"{url}{AGENT_CARD_WELL_KNOWN_PATH}"}
    return found


def _agent(runs: Runs, url: str, tokens: bool) -> "list[BaseRoute]":
    from starlette.routing import Mount

    from podium.serve.a2a import Tasks, routes
    from podium.serve.a2a_tasks import card_of

    model = next(iter(runs.models.values()))
    written = msgspec.json.encode(model.pool, order="deterministic")
    card = card_of(
        model.pool,
        name=model.name,
        url=f"{url}{A2A_PATH}",
        version=sha256(written).hexdigest()[:12],
        bearer=tokens,
    )
    tasks = Tasks(
        runs.client,
        lambda: runs.models[model.name].pool,
        model.policy,
        model.budget,
        runs.waits,
    )
    # The SDK's mount for tenants, which we have none of, would take every other path.
    return [each for each in routes(tasks, card, A2A_PATH) if not isinstance(each, Mount)]
