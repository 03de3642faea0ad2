"""Podium as an MCP server, under the official client: over HTTP, and over stdio."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from podium.cli.app import version
from podium.serve.mcp import make
from podium.serve.models import Model
from podium.serve.runs import Runs
from protocol.actions import Pool
from protocol.budgets import Budget
from protocol.decisions import Decision, PolicySpec, View
from protocol.errors import Unreachable
from protocol.events import SignalReceived
from tests.served import ANSWER, TOKEN, Gate, Served, served

ROOT: Final = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def session(server: Served, token: str = TOKEN) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {token}"}
    url = server.url.replace("/v1", "/mcp")
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


def text(result: Any) -> str:
    (content,) = result.content
    found: str = content.text
    return found


async def test_an_orchestra_is_a_tool() -> None:
    async with served() as server, session(server) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"ask", "runs", "show"}
        assert client.server_info is not None
        assert client.server_info.version == version()
        assert "'orchestra': tool, sub" in (tools["ask"].description or "")
        said = await client.call_tool("ask", {"task": "Do it.", "inputs": {"year": 2026}})
        assert not said.is_error
        answer: Any = said.structured_content
        assert answer["answer"] == ANSWER
        assert answer["finish_reason"] == "stop"
        run = answer["run"]
        assert (await server.client.state(run)).task.inputs == {"year": 2026}

        listed: Any = (await client.call_tool("runs", {"status": "finished"})).structured_content
        assert [row["run"] for row in listed["runs"]] == [run]
        none: Any = (await client.call_tool("runs", {"status": "failed"})).structured_content
        assert none == {"runs": [], "truncated": False, "unread": []}

        shown = text(await client.call_tool("show", {"run": run[:6]}))
        assert f"run {run}" in shown
        assert "tool  OK" in shown
        assert ANSWER.strip() not in shown, "content has to be asked for"
        assert ANSWER.strip() in text(await client.call_tool("show", {"run": run, "content": True}))


async def test_progress_tells_the_runs_story() -> None:
    told: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async with served() as server, session(server) as client:
        await client.call_tool("ask", {"task": "Do it."}, progress_callback=hear)
    assert any("round 1: 1 call: tool" in (message or "") for _, message in told)
    assert [number for number, _ in told] == sorted({number for number, _ in told})


async def test_what_goes_wrong_is_said_to_the_model() -> None:
    def unable(view: View) -> Decision:
        raise ValueError("it can't be decided")

    async with served(decide=unable) as server, session(server) as client:
        for tool, arguments, says in [
            ("ask", {"task": "Do it.", "model": "choir"}, "there is no model 'choir'"),
            ("ask", {"task": " "}, "no text"),
            ("ask", {"task": "Do it."}, "podium runs resume"),
            ("show", {"run": "zzzz"}, "there is no run 'zzzz'"),
        ]:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert says in text(result)


async def test_a_deployment_that_could_not_be_started_is_said_by_every_tool() -> None:
    async def ready() -> Runs:
        raise Unreachable("there is no broker", hint="podium doctor")

    model = Model("orchestra", Pool(()), PolicySpec(name="rules"), Budget())
    async with Client(make({"orchestra": model}, ready)) as client:
        for tool, arguments in [("ask", {"task": "Do it."}), ("runs", {}), ("show", {"run": "a"})]:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert "there is no broker (podium doctor)" in text(result)


async def test_who_cancels_the_request_has_the_run_cancelled() -> None:
    gate = Gate()
    async with served(gate=gate) as server, session(server) as client:
        asking = asyncio.create_task(client.call_tool("ask", {"task": "Do it."}))
        await gate.at_work.wait()
        asking.cancel()
        log = await server.ended()
    assert log.state().outcome == "cancelled"
    (signal,) = (event for event in log.events() if isinstance(event, SignalReceived))
    assert signal.reason == "its client hung up"


async def test_tools_need_the_token_too() -> None:
    async with served() as server, httpx2.AsyncClient() as http:
        url = server.url.replace("/v1", "/mcp")
        answer = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert answer.status_code == 401


async def test_a_page_from_elsewhere_can_call_no_tool() -> None:
    async with served(tokens=()) as server, httpx2.AsyncClient() as http:
        url = server.url.replace("/v1", "/mcp")
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        answer = await http.post(url, json=ping, headers={"origin": "https://evil.example"})
        assert answer.status_code == 403
        answer = await http.post(url, json=ping, headers={"host": "evil.example"})
        assert answer.status_code == 403


async def test_a_session_that_only_listens_does_not_hold_up_the_end() -> None:
    async with served(grace_s=600) as server, session(server) as client:
        await client.list_tools()
        await server.end()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_stdio_with_a_real_deployment(tmp_path: Path) -> None:
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "podium.cli", "mcp"],
        env={**environment, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
        cwd=tmp_path,
    )
    async with Client(stdio_client(parameters)) as client:
        said = await client.call_tool("ask", {"task": "How large is Chad?"})
        answer: Any = said.structured_content
        assert "Chad" in answer["answer"]
        assert "country  OK" in text(await client.call_tool("show", {"run": answer["run"]}))
