"""An operation of an HTTP service that an OpenAPI document describes."""

import asyncio
import threading
from typing import Final

from actors.ports import Outcome
from actors.workers import draft, host
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, together
from tests.endpoint import Held
from tests.services import Answer, Asked, Service

DOCUMENT: Final = {
    "openapi": "3.1.0",
    "info": {"title": "What the suite asks for", "version": "1"},
    "paths": {
        "/things/{what}": {
            "post": {
                "operationId": "do",
                "summary": "Does what the suite asks for.",
                "parameters": [{"name": "what", "in": "path", "schema": {"type": "string"}}],
            }
        }
    },
}


class OperationCase:
    """One operation of a real service."""

    spend = Spend(cost=1_500)
    parties = 5
    held: Held
    """What waits."""

    def __init__(self) -> None:
        self.value: Json = {"done": True}
        self.barrier = threading.Barrier(self.parties)
        self.service = Service(self.answer)

    def host(self) -> None:
        """Host the operation once the service is there."""
        options = {"document": f"{self.service.root}/openapi.json", "price_usd": 0.0015}
        self.adapter = host(draft("openapi:do", options))

    def answer(self, asked: Asked) -> Answer | None:
        """What the path says."""
        match asked.path.rpartition("/")[2]:
            case "openapi.json":
                return Answer(200, DOCUMENT)
            case "fail":
                return Answer(404, {"detail": "no such thing"})
            case "wait":
                self.held.wait(asked.connection)
                return None
            case "large":
                return Answer(200, "x" * LARGE)
            case "not%20text":
                json = {"content-type": "application/json"}
                return Answer(200, b'{"name": "\xff\xfe"}', json)
            case "span":
                return Answer(200, asked.headers["traceparent"])
            case "meet":
                self.barrier.wait(LIMIT_S)
        return Answer(200, {"done": True})

    def ask(self, what: str) -> dict[str, Json]:
        if what == "wait":
            self.held = Held()
        return {"what": what}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value)

    async def started(self) -> None:
        assert await asyncio.to_thread(self.held.arrived.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(self.held.gone.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        return await together(self)
