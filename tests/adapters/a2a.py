"""An agent that speaks A2A, of the official SDK."""

import asyncio

from actors.ports import Outcome
from actors.workers import draft, host
from protocol.actions import Json, Spend
from tests.a2a_agent import A2AServer, answer
from tests.adapters.case import LIMIT_S, together


class A2ACase:
    """An agent of the official SDK, behind a real server."""

    value: Json = "Lima"
    spend = Spend(tokens=15, cost=250_040)
    parties = 3

    def __init__(self, server: A2AServer, updates: str) -> None:
        self.server = server
        prices = {"cost_usd": 0.25, "price_in": 2, "price_out": 4}
        self.adapter = host(draft("a2a", {"url": server.url, "updates": updates, **prices}))

    def ask(self, what: str) -> dict[str, Json]:
        if what == "not text":
            for method in ("SendMessage", "SendStreamingMessage"):
                self.server.faults[method] = answer(b'{"result": "\xff\xfe"}')
        return {"subtask": what}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value)

    async def started(self) -> None:
        assert await asyncio.to_thread(self.server.agent.started.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(self.server.agent.stopped.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        return await together(self)
