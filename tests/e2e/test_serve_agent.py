"""The A2A agent of `podium serve`, under the official client: the token says whose a task is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from a2a.client import ClientConfig, create_client
from a2a.client.client import Client
from a2a.helpers import new_text_part
from a2a.types import (
    GetTaskRequest,
    Message,
    Role,
    SendMessageRequest,
    StreamResponse,
    TaskState,
)
from a2a.utils.errors import InternalError, TaskNotFoundError

from tests.served import ANSWER, TOKEN, WITHIN_S, Gate, Served, served

OTHER: Final = "another-token-of-these"

BODY: Final[dict[str, Any]] = {
    "model": "orchestra",
    "messages": [{"role": "user", "content": "Do it."}],
}


@asynccontextmanager
async def agent(
    server: Served, token: str = TOKEN, *, streaming: bool = False
) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=WITHIN_S) as http:
        root = server.url.removesuffix("/v1")
        client = await create_client(root, ClientConfig(httpx_client=http, streaming=streaming))
        async with client:
            yield client


async def told(client: Client, text: str = "Do it.") -> list[StreamResponse]:
    """All that is told of a message."""
    said = Message(message_id="m1", role=Role.ROLE_USER, parts=[new_text_part(text)])
    return [each async for each in client.send_message(SendMessageRequest(message=said))]


async def test_an_orchestra_is_an_agent() -> None:
    async with served(tokens=(TOKEN, OTHER)) as server:
        async with agent(server) as client:
            (sent,) = await told(client)
            task = sent.task
            assert task.status.state == TaskState.TASK_STATE_COMPLETED
            assert task.artifacts[0].parts[0].text == ANSWER
            assert (await client.get_task(GetTaskRequest(id=task.id))).id == task.id
            assert (await server.client.state(task.id)).outcome == "finished"
        async with agent(server, OTHER) as client:
            with pytest.raises(TaskNotFoundError):
                await client.get_task(GetTaskRequest(id=task.id))


async def test_the_card_needs_the_token_too() -> None:
    async with served() as server, httpx.AsyncClient() as http:
        url = server.url.replace("/v1", "/.well-known/agent-card.json")
        assert (await http.get(url)).status_code == 401
        there = await http.get(url, headers={"authorization": f"Bearer {TOKEN}"})
    card = there.json()
    assert card["name"] == "orchestra"
    assert [skill["id"] for skill in card["skills"]] == ["tool", "sub"]
    assert card["supportedInterfaces"][0]["url"] == server.url.replace("/v1", "/a2a")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_server_that_stops_says_how_tasks_stand_and_they_go_on(streaming: bool) -> None:
    gate = Gate()
    async with served(gate=gate, grace_s=0.0) as server:
        async with agent(server, streaming=streaming) as client:
            asking = asyncio.create_task(told(client))
            await gate.at_work.wait()
            await server.end()
            first, *_ = await asking
            assert first.task.status.state in (
                TaskState.TASK_STATE_SUBMITTED,
                TaskState.TASK_STATE_WORKING,
            )
        gate.go.set()
        log = await server.ended()
        assert (log.run, log.state().outcome) == (first.task.id, "finished")


async def test_who_waits_for_a_task_has_one_of_the_servers_places() -> None:
    gate = Gate()
    async with served(gate=gate, max_runs=1) as server:
        asking = asyncio.create_task(server.ask().chat.completions.create(**BODY))
        await gate.at_work.wait()
        async with agent(server) as client:
            with pytest.raises(InternalError, match="the limit; it may work later"):
                await told(client)
            await server.only_run()
            gate.go.set()
            await asking
            (sent,) = await told(client)
            assert sent.task.status.state == TaskState.TASK_STATE_COMPLETED
