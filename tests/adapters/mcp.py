"""A tool of an MCP server, over standard input and output and over HTTP."""

import functools
import sys
from pathlib import Path
from typing import Final

import msgspec

from actors.ports import Outcome
from actors.workers import McpAdapter, host
from protocol.actions import Json, Spend, WorkerSpec
from tests.adapters.case import attempt, together, worked

ROOT: Final = Path(__file__).resolve().parent.parent.parent

STDIO: Final[dict[str, Json]] = {
    "command": sys.executable,
    "args": ["-m", "tests.mcp_server"],
    "cwd": str(ROOT),
}
"""The options of the server that does what tests ask for."""


@functools.cache
def _offered(options: bytes) -> list[WorkerSpec]:
    """Asked once: each asking starts a server."""
    return McpAdapter.discover("mcp", msgspec.json.decode(options))


class McpCase:
    """A tool, and another of the same server that says how it is doing."""

    value: Json = "ok"
    spend = Spend()
    parties = 3

    def __init__(self, options: dict[str, Json]) -> None:
        specs = {spec.name: spec for spec in _offered(msgspec.json.encode(options))}
        self.adapter, self.other = host(specs["work"]), host(specs["until"])

    def ask(self, what: str) -> dict[str, Json]:
        return {"what": what}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value)

    async def started(self) -> None:
        assert await self._until("started")

    async def stopped(self) -> bool:
        return await self._until("stopped")

    async def meet(self) -> list[Outcome]:
        return await together(self)

    async def _until(self, what: str) -> bool:
        outcome = await worked(self.other, attempt({"what": what}))
        return bool(outcome.value == {"result": what})
