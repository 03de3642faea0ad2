"""The adapters that the suite of `tests/contract/test_adapters.py` is run over, one module each."""

import atexit
import functools
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Final

import pytest

from tests.a2a_agent import A2AServer
from tests.adapters.a2a import A2ACase
from tests.adapters.agent import AgentCase, ToolAgentCase
from tests.adapters.case import Case, attempt
from tests.adapters.function import FunctionCase, async_tool, sync_tool
from tests.adapters.mcp import STDIO, McpCase
from tests.adapters.openapi import OperationCase
from tests.adapters.own import OwnCase
from tests.adapters.sandbox import SandboxCase, SessionCase
from tests.adapters.shell import ShellCase
from tests.endpoint import Endpoint
from tests.mcp_server import over_http
from tests.sandboxes import warm

Hosted = Callable[[pytest.MonkeyPatch], AbstractAsyncContextManager[Case]]


@asynccontextmanager
async def _sync(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield FunctionCase(sync_tool)


@asynccontextmanager
async def _async(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield FunctionCase(async_tool)


@asynccontextmanager
async def _own(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    yield OwnCase()


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
async def _mcp(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    case = McpCase(STDIO)
    await case.adapter.run(attempt(case.ask("ok")))  # no deadline passes while its server starts
    yield case
    await case.other.close()


@asynccontextmanager
async def _mcp_http(_: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    case = McpCase({"url": _url()})
    yield case
    await case.other.close()


@functools.cache
def _url() -> str:
    """Of a server for all tests: it takes seconds to start, and keeps nothing of one."""
    living = ExitStack()
    atexit.register(living.close)
    return living.enter_context(over_http())


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
        "class": _own,
        "function sync": _sync,
        "function async": _async,
        "mcp stdio": _mcp,
        "mcp http": _mcp_http,
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

SLOW: Final = frozenset({"mcp stdio"})
"""Those of which every test starts a program that takes seconds to load."""


@asynccontextmanager
async def hosted(kind: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    """The case of that name; its adapter is closed in the end."""
    async with KINDS[kind](monkeypatch) as case:
        try:
            yield case
        finally:
            await case.adapter.close()
