"""What the freight desk reaches over the network, in one program: a carrier's agent and a bank.

::

    .venv/bin/python examples/freight/servers.py     # Ctrl-C ends it

The carrier speaks A2A, with the official SDK; the bank has an HTTP interface that
``bank.openapi.yaml`` describes. Two failures are planted for the desk to recover from: haggling
for the best price takes the carrier far too long, and the bank knows currencies only by code.
"""

import argparse
import asyncio
import socket
from typing import Final

import uvicorn
from a2a.helpers import new_data_part, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PRICES: Final = {"Bergen": 0.25, "Esbjerg": 0.2, "Malmö": 0.22}
"""Euros per kilogram, by port."""

HAGGLING_S: Final = 60
"""Seconds in which a carrier asks all its captains for a better price."""

RATES: Final = {"DKK": 7.46, "NOK": 11.8, "SEK": 11.2}
"""What one euro costs."""


class Carrier(AgentExecutor):
    """Says what it costs to bring a kilogram to the port that a question names."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Take a task on, work on it, and complete it."""
        task = Task(
            id=context.task_id,
            context_id=context.context_id,
            status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
        )
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        question = context.get_user_input().splitlines()[-1]
        if "best price" in question:
            await asyncio.sleep(HAGGLING_S)
        for port, price in PRICES.items():
            if port in question:
                await updater.add_artifact([new_data_part({"eur_per_kg": price})])
                await updater.complete()
                return
        await updater.failed(new_text_message(f"We sail to {', '.join(PRICES)}."))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Stop haggling: nobody waits for the price any more."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


def card(url: str) -> AgentCard:
    """What the carrier says of itself."""
    return AgentCard(
        name="carrier",
        description="A carrier between Valencia and the ports of the north.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["application/json"],
        skills=[
            AgentSkill(
                id="price",
                name="Price",
                description="The list price per kilogram to a port, or the best price.",
                tags=["freight"],
            )
        ],
    )


async def rate(request: Request) -> Response:
    """``GET /bank/rates/{currency}``."""
    currency = request.path_params["currency"]
    if currency not in RATES:
        known = ", ".join(RATES)
        return JSONResponse({"detail": f"{currency} is no code: {known}"}, status_code=422)
    return JSONResponse({"currency": currency, "rate": RATES[currency]})


def app(url: str) -> Starlette:
    """Both, below one address."""
    mine = card(f"{url}/carrier")
    handler = DefaultRequestHandler(Carrier(), InMemoryTaskStore(), mine)
    return Starlette(
        routes=[
            *create_agent_card_routes(mine),
            *create_jsonrpc_routes(handler, "/carrier"),
            Route("/bank/rates/{currency}", rate),
        ]
    )


def main() -> None:
    """Serve until it is interrupted."""
    parser = argparse.ArgumentParser(description="The carrier and the bank.")
    parser.add_argument("--port", type=int, default=8717, help="0 for any that is free")
    with socket.create_server(("127.0.0.1", parser.parse_args().port)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        print(f"the carrier and the bank are at {url}", flush=True)
        uvicorn.run(app(url), fd=listening.fileno(), log_level="warning")


if __name__ == "__main__":
    main()
