"""Inside a worker the current span is the call's, so that a user's own code hangs under it."""

import asyncio
import contextvars
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors import tracing, workers
from actors.jetstream_queue import consumers_of
from actors.ports import Attempt, Outcome
from actors.queues import Delivery
from actors.workers.agent.chat import Endpoint
from actors.workers.function import tool
from podium.client import Client
from protocol import semconv, subjects
from protocol.actions import Json, Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, View
from protocol.traces import (
    TRACEPARENT,
    Context,
    attempt_context,
    parse,
    run_context,
    trace_id,
)
from replay.chain import RunLog
from replay.trace import of_run, spans
from tests.collector import Collector
from tests.runs import RUN
from tests.traces import ABOVE, named, segments
from tests.world import World, calls

SPEC = WorkerSpec(name="probe")
CONTEXT = attempt_context(RUN, "1-0", 1)
MINE = {semconv.RUN_ID: RUN, semconv.POLICY_VERSION: "v1"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


def injected() -> str:
    """What an instrumented client would send along."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


@tool
def in_a_thread() -> str:
    """What an instrumented client would send along, asked in a thread."""
    return injected()


@tool
async def on_the_loop() -> str:
    """What an instrumented client would send along, asked on the loop."""
    return injected()


@pytest.mark.parametrize("function", ["in_a_thread", "on_the_loop"])
async def test_a_tool_is_under_its_calls_span(world: World, function: str) -> None:
    adapter = workers.host(WorkerSpec(name="probe", adapter=f"function:{__name__}:{function}"))

    def decide(view: View) -> Decision:
        return Decision(answer=str(view.turns[0].observations[0].value)) if view.turns else plan

    plan = calls(("probe", {}))
    world.policy(decide)
    await world.worker(SPEC, adapter.run)
    await world.conductor()
    log = await world.ended(await world.submit(world.start()))
    await adapter.close()
    told = parse(log.state().answer)
    assert told == attempt_context(log.run, "1-0", 1)
    (span,) = named(of_run(log), "execute_tool probe")
    assert (span.trace, span.id) == told[:2]


async def test_in_another_segment_a_call_is_under_its_span_and_its_child_too(world: World) -> None:
    seen: list[str] = []

    async def probe(_: Attempt) -> Outcome:
        seen.append(injected())
        return Outcome(value=1)

    def decide(view: View) -> Decision:
        if view.task.text == "below":
            return Decision(answer="done") if view.turns else calls(SEEN)
        again = [calls(SEEN), calls(SEEN), calls(SEEN, ("child", {"task": "below"}))]
        return [*again, Decision(answer="done")][len(view.turns)]

    world.policy(decide)
    world.pool = type(world.pool)((WorkerSpec(name="child", kind="conductor", attempts=1),))
    await world.worker(SPEC, probe)
    await world.conductor()
    with segments(4, 600_000):
        run = await world.submit(replaced(world.start(budget=Budget(depth=2)), ABOVE))
        log = await world.ended(run)
        child = await world.log.read(subjects.child_id(run, "3-1", 1))
        found = spans([log, child])
    probes = named(found, "execute_tool probe")
    assert {Context(span.trace, span.id).traceparent for span in probes} == set(seen)
    places = {
        (each.attributes[semconv.RUN_ID], each.attributes[semconv.ROUND]): each.trace
        for each in probes
    }
    second = trace_id(run, 1)
    assert places == {
        (run, 1): "a" * 32,
        (run, 2): "a" * 32,
        (run, 3): second,
        (child.run, 1): second,
    }
    (agent,) = named(found, "invoke_agent child")
    (below,) = [span for span in found if span.parent == agent.id]
    assert {span.trace for span in found if span.parent == below.id} == {agent.trace}


async def test_an_attempt_that_was_delivered_twice_says_so(world: World) -> None:
    begun = asyncio.Event()

    async def hang(_: Attempt) -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody wakes it")

    async def work(_: Attempt) -> Outcome:
        return Outcome(value=1)

    world.policy(lambda view: Decision(answer="done") if view.turns else calls(("probe", {})))
    first = await world.worker(SPEC, hang)
    await world.conductor()
    run = await world.submit(world.start())
    await begun.wait()
    await first.stop()
    world.workers.remove(first)
    await world.worker(SPEC, work, replica="w2")
    (span,) = named(of_run(await world.ended(run)), "execute_tool probe")
    assert (span.attributes[semconv.ACTOR_ID], span.attributes[semconv.DELIVERIES]) == ("w2", 2)


@pytest.mark.parametrize("traced", [True, False])
async def test_a_call_carries_its_run_and_the_policys_version(world: World, traced: bool) -> None:
    seen: list[dict[str, object]] = []

    async def probe(_: Attempt) -> Outcome:
        with tracing.outside():
            seen.append(dict(baggage.get_all()))
        seen.append(dict(baggage.get_all()))
        return Outcome(value=1)

    world.policy(lambda view: Decision(answer="done") if view.turns else calls(SEEN))
    await world.worker(SPEC, probe)
    await world.conductor(traced=traced)
    log = await world.ended(await world.submit(world.start()))
    assert seen == [{}, {semconv.RUN_ID: log.run, semconv.POLICY_VERSION: "test"}]
    assert baggage.get_all() == {}


def test_what_others_carry_is_theirs() -> None:
    token = context.attach(baggage.set_baggage("tenant", "t"))
    try:
        with tracing.under(lambda: (CONTEXT, MINE)):
            assert baggage.get_all() == {"tenant": "t", **MINE}
            with tracing.outside():
                assert baggage.get_all() == {"tenant": "t"}
                assert parse(injected()) == attempt_context(RUN, "1-0", 1)
    finally:
        context.detach(token)


async def test_a_models_endpoint_is_sent_none_of_it() -> None:
    carried: list[dict[str, object]] = []

    async def create(**_: Any) -> None:
        carried.append(dict(baggage.get_all()))
        raise ValueError("no completion")

    endpoint = Endpoint("gpt-9", base_url="http://localhost:1", api_key="k")
    client: Any = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    endpoint._client = client
    with tracing.under(lambda: (CONTEXT, MINE)):
        await endpoint.ask([], timeout_s=5)
    assert carried == [{}]


def test_a_workers_own_spans_say_whose_call_they_are_of() -> None:
    code = f"""if 1:
        from actors import tracing
        from protocol.traces import attempt_context
        flush = tracing.set_up("worker-x-1")
        from opentelemetry import trace
        with tracing.under(lambda: (attempt_context({RUN!r}, "1-0", 1), {MINE!r})):
            with trace.get_tracer("mine").start_as_current_span("a query") as span:
                print(sorted(span.attributes.items()))
        with trace.get_tracer("mine").start_as_current_span("elsewhere") as span:
            print(dict(span.attributes))
        trace.get_tracer_provider().shutdown()
    """
    with Collector() as collector:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        query = next(span for span in collector.spans if span.name == "a query")
    mine = {semconv.RUN_ID: RUN, semconv.POLICY_VERSION: "v1"}
    assert done.stdout.splitlines() == [str(sorted(mine.items())), "{}"]
    assert query.attributes == mine
    assert (query.trace, query.parent) == attempt_context(RUN, "1-0", 1)[:2]


async def run_below(
    world: World, traceparent: str, traced: bool
) -> tuple[RunLog, RunLog, list[str]]:
    """A run that has a child, whose tool says what it sees."""
    seen: list[str] = []

    async def probe(_: Attempt) -> Outcome:
        seen.append(injected())
        return Outcome(value=1)

    def decide(view: View) -> Decision:
        if view.turns:
            return Decision(answer="done")
        return calls(("child", {"task": "below"})) if "test" in view.task.text else calls(SEEN)

    world.policy(decide)
    world.pool = type(world.pool)((WorkerSpec(name="child", kind="conductor", attempts=1),))
    await world.worker(SPEC, probe)
    await world.conductor(traced=traced)
    start = world.start(budget=Budget(depth=2))
    run = await world.submit(start if not traceparent else replaced(start, traceparent))
    log = await world.ended(run)
    return log, await world.log.read(subjects.child_id(run, "1-0", 1)), seen


SEEN: tuple[str, dict[str, Json]] = ("probe", {})


def replaced(start: Any, traceparent: str) -> Any:
    import msgspec

    return msgspec.structs.replace(start, traceparent=traceparent)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("above", ["", ABOVE, ABOVE[:-1] + "0", "00-nonsense", "x" * 9_999])
async def test_one_trace_across_runs_whatever_a_stranger_says(
    world: World, above: str, traced: bool
) -> None:
    parent, child, seen = await run_below(world, above, traced)
    root = run_context(parent.run, above)
    found = spans([parent, child])
    assert {span.trace for span in found} == {root.trace}
    (agent,), (below,) = named(found, "invoke_agent child"), named(found, "execute_tool probe")
    runs = named(found, "invoke_workflow script")
    assert [span.parent for span in runs] == [ABOVE[36:52] if above[:4] == "00-a" else "", agent.id]
    assert seen == [Context(root.trace, below.id, root.sampled).traceparent]


async def test_a_client_hangs_the_run_under_its_own_span(world: World) -> None:
    world.policy(lambda _: Decision(answer="done"))
    await world.worker(SPEC, never)
    await world.conductor()
    client = Client(world.log, world.tasks, look_s=0.1)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("the caller's") as mine:
        run = await client.submit("a test", world.pool, world.policies["script"].spec)
    log = await world.ended(run)
    root = of_run(log)[0]
    assert root.parent == trace.format_span_id(mine.get_span_context().span_id)
    assert root.trace == trace.format_trace_id(mine.get_span_context().trace_id)
    outside = await client.submit("a test", world.pool, world.policies["script"].spec)
    assert of_run(await world.ended(outside))[0].parent == ""


async def never(_: Attempt) -> Outcome:
    raise AssertionError("nobody calls it")


@pytest.mark.parametrize(
    ("above", "traced", "says"),
    [("", False, False), ("", True, True), (ABOVE, False, True), (ABOVE, True, True)],
)
async def test_a_call_says_its_span_where_traces_are_on_or_nobody_could_derive_it(
    world: World, above: str, traced: bool, says: bool
) -> None:
    found: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
    names = consumers_of(SPEC.name)
    world.calls.filters.update(names)
    world.pool = Pool((SPEC,))
    world.policy(lambda _: calls(SEEN))
    puller = await world.calls.pull(names, lambda _: 1, found.set_result)
    await world.conductor(traced=traced)
    run = await world.submit(replaced(world.start(), above))
    call = await found
    await puller.close()
    said = attempt_context(run, "1-0", 1, above).traceparent
    assert call.header(TRACEPARENT) == (said if says else "")


def test_the_context_ends_with_the_call() -> None:
    with tracing.under(lambda: (CONTEXT, MINE)):
        assert parse(injected()) == CONTEXT
        assert tracing.caller() == injected()
    assert injected() == tracing.caller() == ""


def test_a_call_that_traces_nothing_has_nothing_worked_out() -> None:
    with tracing.under(unasked):
        copied = contextvars.copy_context()
    with pytest.raises(AssertionError, match="nobody"):
        copied.run(trace.get_current_span)


def unasked() -> tracing.Trace:
    raise AssertionError("nobody has asked")


def test_whoever_reads_a_calls_context_finds_what_another_has() -> None:
    """In each way that a context can be read: it is worked out at the first."""
    plain = trace.set_span_in_context(trace.INVALID_SPAN, context.Context({"theirs": 1}))
    token = context.attach(plain)
    try:
        with tracing.under(lambda: (CONTEXT, MINE)):
            found = context.get_current()
            assert context.get_value("theirs") == found["theirs"] == found.get("theirs") == 1
            assert ("theirs" in found, "mine" in found, found.get("mine", 2)) == (True, False, 2)
            assert (
                set(found)
                == set(found.keys())
                == {*plain, *baggage.set_baggage("a", 1, context.Context())}
            )
            assert dict(found) == dict(found.items()) == found.copy() == found
            assert len(found) == len(found.values()) == len(plain) + 1
            more = context.set_value("more", 3)
            assert {**found, "more": 3} == more
            assert trace.get_current_span(more).get_span_context().is_remote
            assert repr(found) == repr(dict(found))
    finally:
        context.detach(token)


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_SERVICE_NAME": "x"}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False, False),
    ],
)
def test_the_standard_variables_decide(
    variables: dict[str, str], traces: bool, metrics: bool
) -> None:
    assert tracing.wanted(variables) is traces
    assert tracing.wanted(variables, "metrics") is metrics


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("", False),
        ("true", True),
        ("SPAN_ONLY", True),
        ("NO_CONTENT", False),
        ("EVENT_ONLY", False),
    ],
)
def test_content_is_asked_for_by_the_standard_variable(said: str, asked: bool) -> None:
    assert tracing.content({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": said}) is asked
    assert tracing.content({}) is False


def test_nothing_of_opentelemetry_is_loaded_unless_it_is_asked_for() -> None:
    code = """if 1:
        import sys
        import actors.programs, actors.tracing, podium.client, podium.cli.app, replay.trace
        actors.tracing.set_up("worker-x-1")()
        with actors.tracing.under(lambda: 1 / 0): pass
        assert actors.tracing.caller() == ""
        print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
    """
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_a_backend_that_hangs_does_not_keep_a_worker_from_ending() -> None:
    code = """if 1:
        import logging, os, sys
        from actors import tracing
        from tests.collector import Collector

        logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
        with Collector() as backend:
            backend.hangs = True
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = backend.url
            tracing.FLUSH_S = 0.1
            flush = tracing.set_up("worker-x-1")
            from opentelemetry import trace
            trace.get_tracer("a user's").start_span("theirs").end()
            flush()
            backend.until(lambda: backend.hung)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "spans of worker-x-1 are lost: no answer within 0.1 s" in done.stdout
