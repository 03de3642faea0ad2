"""What takes long to load is loaded beside the event loop, which gives signs of life meanwhile."""

import asyncio
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from actors.ports import Attempt, Outcome
from actors.workers import draft, host
from actors.workers.trust import trusted
from protocol.actions import WorkerSpec
from tests.a2a_agent import A2AServer
from tests.endpoint import Endpoint
from tests.services import Answer, Service
from tests.unit.test_agent_worker import _keys, endpoint
from tests.unit.test_openapi_document import described, put

__all__ = ["_keys", "endpoint"]

LIMIT_S: Final = 20.0

MODULE: Final = "a_slow_tool"

SOURCE: Final = """
from tests.unit.test_beside_the_loop import LOOPS, LIMIT_S
import threading

for loop in LOOPS:
    turned = threading.Event()
    loop.call_soon_threadsafe(turned.set)
    assert turned.wait(LIMIT_S), "the event loop stands still"

def greet() -> str:
    "Greets."
    return "hello"
"""

LOOPS: Final[list[asyncio.AbstractEventLoop]] = []
"""Those that have to go on while the module is imported."""


def worked(spec: WorkerSpec, **arguments: Any) -> Outcome:
    one = Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=LIMIT_S)

    async def work() -> Outcome:
        LOOPS[:] = [asyncio.get_running_loop()]
        adapter = host(spec)
        try:
            return await adapter.run(one)
        finally:
            await adapter.close()
            LOOPS.clear()

    return asyncio.run(work())


def test_an_agents_tool_is_imported_beside_the_loop(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    fields = {"model": "m", "base_url": endpoint.url, "api_key_env": "TEAM_KEY"}
    spec = draft("openai", {**fields, "tools": [f"function:{MODULE}:greet"]})
    monkeypatch.delitem(sys.modules, MODULE)  # as in the process that hosts the agent
    endpoint.say(None, calls=[("a", "greet", "{}"), ("b", "greet", "{}")])
    endpoint.say("It says hello.")
    assert worked(spec, subtask="Greet.").value == "It says hello."
    shown = [each["content"] for each in endpoint.requests[1].body["messages"]]
    assert sum("hello" in text for text in shown if text) == 2


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Thread]]:
    """The threads that read whom connections trust."""
    found: list[threading.Thread] = []
    load = ssl.SSLContext.load_verify_locations

    def noted(*args: Any, **given: Any) -> None:
        found.append(threading.current_thread())
        load(*args, **given)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", noted)
    trusted.cache_clear()
    yield found
    trusted.cache_clear()


def test_an_agent_reads_whom_it_trusts_beside_the_loop(
    endpoint: Endpoint, readers: list[threading.Thread]
) -> None:
    endpoint.say("Lima")
    fields = {"model": "m", "base_url": endpoint.url, "api_key_env": "TEAM_KEY"}
    assert worked(draft("openai", fields), subtask="?").value == "Lima"
    assert readers
    assert threading.main_thread() not in readers


def test_an_operation_reads_whom_it_trusts_beside_the_loop(
    tmp_path: Path, readers: list[threading.Thread]
) -> None:
    api = put(tmp_path, described(("/a", "get", {"operationId": "op"})))
    with Service(lambda _: Answer(200, "yes")) as service:
        spec = draft("openapi:op", {"document": api, "base_url": service.root})
        trusted.cache_clear()
        readers.clear()
        assert worked(spec).value == "yes"
    assert readers
    assert threading.main_thread() not in readers


def test_another_agents_client_reads_whom_it_trusts_beside_the_loop(
    readers: list[threading.Thread],
) -> None:
    with A2AServer() as server:
        spec = draft("a2a", {"url": server.url})
        trusted.cache_clear()
        readers.clear()
        assert worked(spec, subtask="ok").status == "OK"
    assert readers
    assert threading.main_thread() not in readers
