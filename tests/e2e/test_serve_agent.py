"""The A2A agent of `podium serve`, under the official client: the token says whose a task is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx
import pytest
from a2a.client import ClientConfig, create_client
from a2a.client.client import Client
from a2a.helpers import new_text_part
from a2a.types import GetTaskRequest, Message, Role, SendMessageRequest, TaskState
from a2a.utils.errors import TaskNotFoundError

from tests.served import ANSWER, TOKEN, WITHIN_S, Served, served

OTHER: Final = "another-token-of-these"


@asynccontextmanager
async def agent(server: Served, token: str = TOKEN) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=WITHIN_S) as http:
        root = server.url.removesuffix("/v1")
        client = await create_client(root, ClientConfig(httpx_client=http, streaming=False))
        async with client:
            yield client


async def test_an_orchestra_is_an_agent() -> None:
    async with served(tokens=(TOKEN, OTHER)) as server:
        async with agent(server) as client:
            said = Message(message_id="m1", role=Role.ROLE_USER, parts=[new_text_part("Do it.")])
            (sent,) = [each async for each in client.send_message(SendMessageRequest(message=said))]
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
