"""A real run of a real deployment in a real backend: one tree, with everything where it belongs.

Three rounds of calls in parallel, a time-out, a child run; a model as the policy, over HTTP; a tool
whose own span and HTTP request hang under its call. Live, and exported later, to the same ids.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from podium.host import Host
from podium.policyfile import policy_spec
from podium.tracing.otlp import Sender
from protocol import semconv, subjects
from protocol.actions import Pool
from protocol.budgets import Budget
from protocol.traces import parse
from replay.chain import RunLog
from replay.spans import Span
from replay.trace import spans
from tests.collector import Collector
from tests.endpoint import Endpoint
from tests.integration import tracing_pool
from tests.integration.chaos import Deployment
from tests.phoenix import Phoenix
from tests.serving import Serving

pytestmark = pytest.mark.slow

POOL: Final = tracing_pool.pool()
NUMBER: Final = 17

TREE: Final = """\
invoke_workflow openai:m
  plan conductor
    chat m
  execute_tool fetch
    GET /number
  execute_tool fetch
    GET /number
  plan conductor
    chat m
  execute_tool fetch
    GET /number
  execute_tool slow !
  plan conductor
    chat m
  invoke_agent band
    invoke_workflow openai:m
      plan conductor
        chat m
      execute_tool fetch
        GET /number
      plan conductor
        chat m
  plan conductor
    chat m"""


class Numbers(Serving):
    """An HTTP server that remembers under which span it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.headers.get("traceparent", ""))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(str(NUMBER).encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), Handler))


@pytest.fixture
def numbers() -> Iterator[Numbers]:
    with Numbers() as found:
        yield found


def script(endpoint: Endpoint) -> None:
    """What the model says, in the order in which it is asked."""
    fetch = '{"n": 1}'
    endpoint.say(None, calls=[("a", "fetch", fetch), ("b", "fetch", fetch)], usage=(100, 10))
    endpoint.say(None, calls=[("c", "slow", "{}"), ("d", "fetch", fetch)], usage=(200, 20))
    endpoint.say(None, calls=[("e", "band", '{"task": "below"}')], usage=(300, 30))
    endpoint.say(None, calls=[("f", "fetch", fetch)], usage=(11, 1))
    endpoint.say("of the child", usage=(12, 2))
    endpoint.say("of the root", usage=(400, 40))


async def ran(deployment: Deployment, endpoint: Endpoint) -> tuple[list[RunLog], list[Span]]:
    """One run of a standing deployment, and its child: logs and spans."""
    script(endpoint)
    async with deployment.connected() as there:
        run = await there.client.submit("a task", POOL, policy_spec("openai:m"), Budget(depth=2))
        async with asyncio.timeout(60):
            result = await there.client.result(run)
        assert (result.answer, endpoint.errors) == ("of the root", [])
        logs = await logs_of(there, run)
    return logs, spans(logs)


async def logs_of(there: Host, run: str) -> list[RunLog]:
    return [await there.client.log(each) for each in (run, subjects.child_id(run, "3-0", 1))]


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, numbers: Numbers) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
    monkeypatch.setenv(tracing_pool.SERVER, numbers.root)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as found:
        yield found


def drawn(rows: list[tuple[str, str, str, Any, bool]]) -> str:
    """The tree of (id, parent, name, start, failed)."""
    known = {own for own, *_ in rows}
    below: dict[str, list[tuple[str, str, str, Any, bool]]] = {}
    for row in sorted(rows, key=lambda row: (row[3], row[2])):
        below.setdefault(row[1] if row[1] in known else "", []).append(row)

    def lines(of: str, depth: int) -> list[str]:
        return [
            line
            for own, _, name, _, failed in below.get(of, ())
            for line in ["  " * depth + name + (" !" if failed else ""), *lines(own, depth + 1)]
        ]

    return "\n".join(lines("", 0))


def same_lines(tree: str) -> list[str]:
    """Calls that run side by side may begin in either order: sorted within their round."""
    return sorted(tree.splitlines())


async def test_live_one_tree_with_the_users_own_spans(
    tmp_path: Path,
    variables: None,
    endpoint: Endpoint,
    numbers: Numbers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        deployment = Deployment(tmp_path / "podium", Pool(POOL.workers))
        try:
            await deployment.up()
            _, made = await ran(deployment, endpoint)
            whole = len(made) + 4
            await asyncio.to_thread(collector.wait, lambda some: len(some) >= whole)
            await deployment.down()
        finally:
            await deployment.clear()
        found = collector.spans
    assert len(found) == whole, "each came once"
    rows = [(s.id, s.parent, s.name, s.start_ns, s.error) for s in found]
    assert same_lines(drawn(rows)) == same_lines(TREE)
    by_id = {span.id: span for span in found}
    for span in made:
        got = by_id[span.id]
        assert (got.parent, got.start_ns, got.end_ns) == (span.parent, span.start_ns, span.end_ns)
        assert got.attributes == span.attributes
    own = {span.id for span in found if span.name == "GET /number"}
    assert {by_id[by_id[each].parent].name for each in own} == {"execute_tool fetch"}
    contexts = [parse(each) for each in numbers.asked]
    assert {each.span for each in contexts if each is not None} == own
    assert {span.trace for span in found} == {made[0].trace}


async def test_a_backend_has_one_tree_however_often_it_is_exported(
    tmp_path: Path,
    variables: None,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Phoenix(tmp_path_factory.mktemp("phoenix")) as phoenix:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", phoenix.url)
        deployment = Deployment(tmp_path / "podium", Pool(POOL.workers))
        try:
            await deployment.up()
            _, made = await ran(deployment, endpoint)
            trace, whole = made[0].trace, len(made) + 4
            await asyncio.to_thread(phoenix.wait, trace, whole)
            await deployment.down()
        finally:
            await deployment.clear()
        sender = Sender(phoenix.url)
        assert await asyncio.to_thread(sender.send, made), "once more, later"
        sender.close()
        found = await asyncio.to_thread(phoenix.wait, trace, whole)
    check(found, made, whole)


def check(found: list[dict[str, Any]], made: list[Span], whole: int) -> None:
    """Parents, durations, token counts and errors, as Phoenix has them."""
    assert len(found) == whole, "nothing doubles"
    by_id = {each["context"]["span_id"]: each for each in found}
    rows = [
        (
            own,
            each["parent_id"] or "",
            each["name"],
            each["start_time"],
            each["status_code"] == "ERROR",
        )
        for own, each in by_id.items()
    ]
    assert same_lines(drawn(rows)) == same_lines(TREE)
    for span in made:
        got = by_id[span.id]
        took = datetime.fromisoformat(got["end_time"]) - datetime.fromisoformat(got["start_time"])
        assert took.total_seconds() * 1_000 == pytest.approx(span.ms, abs=0.01)
        assert (got["status_code"] == "ERROR") is bool(span.error)
        assert got["status_message"] == span.message
    counts = sorted(
        (each["attributes"]["llm.token_count.prompt"],
         each["attributes"]["llm.token_count.completion"])
        for each in found
        if each["name"] == "chat m"
    )  # fmt: skip
    assert counts == [(11, 1), (12, 2), (100, 10), (200, 20), (300, 30), (400, 40)]
    (timed_out,) = [each for each in found if each["name"] == "execute_tool slow"]
    assert timed_out["status_message"] == "TIMEOUT (fault: worker)"
    assert timed_out["attributes"][semconv.ERROR_TYPE] == "TIMEOUT"
    kinds = {each["name"]: each["span_kind"] for each in found}
    assert kinds["chat m"] == "LLM"
    assert kinds["execute_tool fetch"] == "TOOL"
    assert kinds["invoke_agent band"] == "AGENT"
