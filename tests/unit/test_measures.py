"""Metrics are measured on the spans: which instrument, how much, by what told apart."""

from protocol import semconv
from protocol.actions import Spend, Usage
from replay.measures import Measure, measures
from replay.trace import of_run
from tests.runs import Driver, answer, begin, started
from tests.traces import MODEL, log_of, story


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
