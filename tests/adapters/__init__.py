"""The adapters that the suite of `tests/contract/test_adapters.py` is run over, one module each."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Final

import pytest

from tests.a2a_agent import A2AServer
from tests.adapters.a2a import A2ACase
from tests.adapters.agent import AgentCase, ToolAgentCase
from tests.adapters.case import Case, attempt
from tests.adapters.function import FunctionCase, async_tool, sync_tool
from tests.adapters.openapi import OperationCase
from tests.adapters.sandbox import SandboxCase, SessionCase
from tests.adapters.shell import ShellCase
from tests.endpoint import Endpoint
from tests.sandboxes import warm

Hosted = Callable[[pytest.MonkeyPatch], AbstractAsyncContextManager[Case]]


@asynccontextmanager
async def _sync(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield FunctionCase(sync_tool)


@asynccontextmanager
async def _async(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield FunctionCase(async_tool)


@asynccontextmanager
async def _agent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    monkeypatch.setenv("PODIUM_TEST_KEY", "sk-test")
    with Endpoint() as endpoint:
        yield AgentCase(endpoint)


@asynccontextmanager
async def _operation(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    case = OperationCase()
    with case.service:
        case.host()
        yield case


@asynccontextmanager
async def _agent_with_tools(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    monkeypatch.setenv("PODIUM_TEST_KEY", "sk-test")
    with Endpoint() as endpoint:
        yield ToolAgentCase(endpoint)


@asynccontextmanager
async def _sandbox(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield SandboxCase(warm=0)


@asynccontextmanager
async def _warm(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    case = SandboxCase(warm=3)
    await case.adapter.run(attempt(case.ask("ok")))
    await warm(case.python, 3)
    yield case


@asynccontextmanager
async def _session(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield SessionCase()


@asynccontextmanager
async def _shell(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        yield ShellCase(folder)


@asynccontextmanager
async def _a2a_streaming(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    with A2AServer() as server:
        yield A2ACase(server, "streaming")


@asynccontextmanager
async def _a2a_polling(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    with A2AServer(streaming=False) as server:
        yield A2ACase(server, "streaming")


KINDS: Final = MappingProxyType[str, Hosted](
    {
        "a2a streaming": _a2a_streaming,
        "a2a polling": _a2a_polling,
        "function sync": _sync,
        "function async": _async,
        "openai": _agent,
        "openapi": _operation,
        "openai with tools": _agent_with_tools,
        "python cold": _sandbox,
        "python warm": _warm,
        "python session": _session,
        "shell": _shell,
    }
)
"""Each adapter by its kind, and a word where a kind has several."""


@asynccontextmanager
async def hosted(kind: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    """The case of that name; its adapter is closed in the end."""
    async with KINDS[kind](monkeypatch) as case:
        try:
            yield case
        finally:
            await case.adapter.close()
