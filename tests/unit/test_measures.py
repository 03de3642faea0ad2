"""Metrics are measured on the spans: which instrument, how much, by what told apart."""

import msgspec
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from podium.tracing.metrics import Meters
from protocol import semconv, subjects
from protocol.actions import Pool, Spend, Usage
from replay.measures import Measure, divergences, measures
from replay.trace import of_run
from tests.runs import AGENT, Driver, answer, begin, inbox, planned, started
from tests.traces import MODEL, log_of, reported, story


def of(driver: Driver, name: str) -> list[tuple[float, dict[str, object]]]:
    found = [each for span in of_run(log_of(driver)) for each in measures(span)]
    return [(each.value, dict(each.attributes)) for each in found if each.name == name]


def test_attempts_are_timed_by_their_worker_and_outcome() -> None:
    above, _ = story()
    tool = {semconv.TOOL_NAME: "tool", semconv.TOOL_TYPE: "function"}
    assert of(above, semconv.EXECUTE_TOOL_DURATION) == [
        (0.1, tool),
        (0.05, tool | {semconv.ERROR_TYPE: "EXEC_ERR"}),
        (0.07, tool),
        (0.03, tool),
    ]
    assert of(above, semconv.INVOKE_AGENT_DURATION) == [
        (0.4, {semconv.AGENT_NAME: "agent", semconv.ERROR_TYPE: "TIMEOUT"}),
        (0.055, {semconv.AGENT_NAME: "child"}),
    ]
    assert [value for value, _ in of(above, semconv.SENT_MESSAGES)] == [1] * 6
    assert [value for value, _ in of(above, semconv.MAILBOX_AGE)][:2] == [0.005, 0.11]


def test_a_run_is_timed_and_its_calls_are_counted() -> None:
    above, _ = story()
    workflow = {semconv.WORKFLOW_NAME: "script"}
    assert of(above, semconv.INVOKE_WORKFLOW_DURATION) == [(0.8, workflow)]
    assert of(above, semconv.RUN_DURATION) == [(0.8, workflow | {semconv.OUTCOME: "finished"})]
    assert of(above, semconv.TOOL_CALLS) == [(6, {semconv.AGENT_NAME: "script"})]
    assert of(above, semconv.INFERENCE_CALLS) == [(0, {semconv.AGENT_NAME: "script"})]


def test_a_models_tokens_are_told_apart() -> None:
    driver = Driver(begin(policy=MODEL))
    driver.reply(answer(usage=Usage(120, 30), spend=Spend(tokens=150, cost=3)), after_ms=40)
    model = {
        semconv.OPERATION_NAME: "chat",
        semconv.PROVIDER_NAME: "openai",
        semconv.REQUEST_MODEL: "gpt-9",
    }
    assert of(driver, semconv.CLIENT_OPERATION_DURATION) == [(0.04, model)]
    assert of(driver, semconv.CLIENT_TOKEN_USAGE) == [
        (120, model | {semconv.TOKEN_TYPE: "input"}),
        (30, model | {semconv.TOKEN_TYPE: "output"}),
    ]


def test_an_agents_tokens_are_told_by_its_model() -> None:
    spec = msgspec.structs.replace(AGENT, adapter="openai:", options={"model": "gpt-9-mini"})
    driver = started(planned("agent"), pool=Pool((spec,)))
    reported(driver, "1-0", 40, usage=Usage(70, 30))
    model = {
        semconv.OPERATION_NAME: "invoke_agent",
        semconv.PROVIDER_NAME: "openai",
        semconv.REQUEST_MODEL: "gpt-9-mini",
    }
    assert of(driver, semconv.CLIENT_TOKEN_USAGE) == [
        (70, model | {semconv.TOKEN_TYPE: "input"}),
        (30, model | {semconv.TOKEN_TYPE: "output"}),
    ]
    assert of(driver, semconv.INVOKE_AGENT_DURATION) == [
        (0.04, {semconv.AGENT_NAME: "agent", semconv.REQUEST_MODEL: "gpt-9-mini"})
    ]


def test_deliveries_are_counted_each_and_told_of_the_attempt() -> None:
    driver = started()
    report = msgspec.structs.replace(driver.report_of("1-0"), by="worker-2", deliveries=3)
    driver.give(inbox(report))
    (span,) = [each for each in of_run(log_of(driver)) if semconv.CALL_ID in each.attributes]
    assert span.attributes[semconv.DELIVERIES] == 3
    assert [value for value, _ in of(driver, semconv.CONSUMED_MESSAGES)] == [3]
    assert [value for value, _ in of(driver, semconv.SENT_MESSAGES)] == [1]


def test_a_child_run_is_a_message_of_the_task_queue() -> None:
    above, _ = story()
    places = [told[semconv.DESTINATION_TEMPLATE] for _, told in of(above, semconv.SENT_MESSAGES)]
    assert places == [subjects.CALL] * 5 + [subjects.TASK]


def test_places_are_what_their_templates_say() -> None:
    names = {"worker": "w", "priority": "high", "run": "r", "call": "1-0", "attempt": "2"}
    assert subjects.CALL.format(**names) == subjects.call("w", "high", "r", "1-0", 2)
    assert subjects.TASK.format(**names) == subjects.task("high", "r")


def test_a_verification_that_finds_nothing_says_so() -> None:
    assert [(each.value, each.attributes) for each in divergences({"rules": 2})] == [
        (0, {semconv.DIVERGENCE_WHAT: "prompt"}),
        (2, {semconv.DIVERGENCE_WHAT: "rules"}),
        (0, {semconv.DIVERGENCE_WHAT: "state"}),
    ]


def test_pauses_and_takeovers_are_counted_when_the_run_ends() -> None:
    driver = started()
    driver.signal("pause")
    driver.at += 5_000
    driver.signal("resume")
    driver.activate()
    assert of(driver, semconv.APPROVAL_WAIT) == []
    driver.signal("cancel")
    assert of(driver, semconv.APPROVAL_WAIT) == [(5, {semconv.REASON: "signal"})]
    assert of(driver, semconv.ACTOR_RESTARTS) == [(1, {semconv.ACTOR_ROLE: "conductor"})]


def test_a_call_that_was_never_made_is_no_message() -> None:
    (call,) = [span for span in of_run(log_of(story()[0])) if span.name == "invoke_agent child"]
    assert Measure(semconv.SENT_MESSAGES, 1, {}).name in {each.name for each in measures(call)}
    call.attributes[semconv.ATTEMPT] = 0
    assert {each.name for each in measures(call)} == {semconv.INVOKE_AGENT_DURATION}


def test_what_is_counted_together_is_as_much_as_one_by_one() -> None:
    above, below = story()
    found = [*of_run(log_of(above)), *of_run(log_of(below))]
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    together, singly = (Meters(reader) for reader in readers)
    together.count(found)
    for span in found:
        singly.count([span])
    one, other = (exported(reader) for reader in readers)
    assert one == other
    assert sum(value for name, _, value in one if name == semconv.SENT_MESSAGES) == 7
    together.close()
    singly.close()


def exported(reader: InMemoryMetricReader) -> list[tuple[str, str, float]]:
    """Name, attributes, and what was added up, of each series."""
    data = reader.get_metrics_data()
    assert data is not None
    return sorted(
        (metric.name, repr(point.attributes), getattr(point, "sum", getattr(point, "value", 0)))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    )
