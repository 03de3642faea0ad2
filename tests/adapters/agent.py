"""An agent behind an OpenAI-compatible endpoint."""

import asyncio

from actors.ports import Outcome
from actors.workers import draft, host
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, together
from tests.endpoint import Endpoint


class AgentCase:
    """An agent behind an endpoint that follows a script."""

    value: Json = "Lima"
    spend = Spend(tokens=15, cost=40)
    parties = 5

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        options = {"model": "m", "base_url": endpoint.url, "price_in": 2, "price_out": 4}
        self.adapter = host(draft("openai", {**options, "api_key_env": "PODIUM_TEST_KEY"}))

    def ask(self, what: str) -> dict[str, Json]:
        match what:
            case "ok" | "span":
                self.endpoint.say("Lima")
            case "fail":
                self.endpoint.refuse(400, "no such thing")
            case "wait":
                self.held = self.endpoint.hold()
            case "large":
                self.endpoint.say("x" * LARGE)
            case "not text":
                self.endpoint.send(b'{"choices":[{"message":{"content":"\xff\xfe"}}]}')
        return {"subtask": what}

    def span(self, outcome: Outcome) -> str:
        return self.endpoint.requests[-1].headers["traceparent"]

    async def started(self) -> None:
        assert await asyncio.to_thread(self.held.arrived.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(self.held.gone.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        self.endpoint.meet(self.parties)
        return await together(self)
