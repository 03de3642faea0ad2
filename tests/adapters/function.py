"""Python functions, in a thread and on the loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from actors import tracing
from actors.ports import Outcome
from actors.workers import cancelled, draft, host, tool
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, together

BARRIER = threading.Barrier(3)
STARTED = threading.Event()
STOPPED = threading.Event()


@tool(cost_usd=0.5, concurrency=3)
def sync_tool(what: str) -> object:
    """Does what the suite asks for, in a thread."""
    match what:
        case "fail":
            raise ValueError("no such thing")
        case "wait":
            STARTED.set()
            while not cancelled():
                pass
            STOPPED.set()
        case "large":
            return "x" * LARGE
        case "not text":
            return b"\xff\xfe"
        case "span":
            return tracing.caller()
        case "meet":
            BARRIER.wait(LIMIT_S)
    return what


@tool(cost_usd=0.5)
async def async_tool(what: str) -> object:
    """Does what the suite asks for, on the loop."""
    match what:
        case "fail":
            raise ValueError("no such thing")
        case "wait":
            STARTED.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                STOPPED.set()
        case "large":
            return "x" * LARGE
        case "not text":
            return b"\xff\xfe"
        case "span":
            return tracing.caller()
        case "meet":
            await asyncio.to_thread(BARRIER.wait, LIMIT_S)
    return what


class FunctionCase:
    """A Python function."""

    value: Json = "ok"
    spend = Spend(cost=500_000)
    parties = 3

    def __init__(self, function: Callable[..., Any]) -> None:
        self.adapter = host(draft(f"function:{__name__}:{function.__name__}"))
        STARTED.clear()
        STOPPED.clear()
        BARRIER.reset()

    def ask(self, what: str) -> dict[str, Json]:
        return {"what": what}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value)

    async def started(self) -> None:
        assert await asyncio.to_thread(STARTED.wait, LIMIT_S)

    async def stopped(self) -> bool:
        return await asyncio.to_thread(STOPPED.wait, LIMIT_S)

    async def meet(self) -> list[Outcome]:
        return await together(self)
