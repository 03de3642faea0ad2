"""An agent behind an OpenAI-compatible endpoint, and one with a tool of its own."""

import asyncio
import json

from actors.ports import Outcome
from actors.workers import draft, host
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, attempt, together, worked
from tests.adapters.function import BARRIER, STARTED, STOPPED, async_tool
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


class ToolAgentCase:
    """An agent that uses its tool once in each attempt; what the suite waits for is the tool."""

    value: Json = "Lima"
    spend = Spend(tokens=30, cost=80 + 500_000)
    parties = 3

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        options = {"model": "m", "base_url": endpoint.url, "price_in": 2, "price_out": 4}
        tool = f"function:{async_tool.__module__}:{async_tool.__name__}"
        self.adapter = host(
            draft("openai", {**options, "api_key_env": "PODIUM_TEST_KEY", "tools": [tool]})
        )
        STARTED.clear()
        STOPPED.clear()
        BARRIER.reset()

    def ask(self, what: str) -> dict[str, Json]:
        self._use(what)
        match what:
            case "ok" | "span":
                self.endpoint.say("Lima")
            case "fail":
                self.endpoint.refuse(400, "no such thing")
            case "large":
                self.endpoint.say("x" * LARGE)
            case "not text":
                self.endpoint.send(b'{"choices":[{"message":{"content":"\xff\xfe"}}]}')
        return {"subtask": what}

    def _use(self, what: str) -> None:
        self.endpoint.say(calls=[("a", async_tool.__name__, json.dumps({"what": what}))])

    def span(self, outcome: Outcome) -> str:
        """As the tool had it, and the request after it."""
        last = self.endpoint.requests[-1]
        told = str(json.loads(last.body["messages"][-1]["content"])["value"])
        return told if told == last.headers["traceparent"] else "not the same for both"

    async def started(self) -> None:
        assert await asyncio.to_thread(STARTED.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(STOPPED.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        """The tools meet: no attempt asks again before each has asked once."""
        works = [attempt(self.ask("meet")) for _ in range(self.parties)]
        for _ in works:
            self.endpoint.say("met")
        return list(await asyncio.gather(*(worked(self.adapter, work) for work in works)))
