"""The trace as a projection of the log: one tree, the same every time, whatever the log holds."""

import msgspec

from protocol import semconv
from protocol.actions import BlobRef, Usage
from protocol.decisions import Reply
from protocol.events import AttemptStarted
from protocol.traces import attempt_context, span_id, trace_id
from replay.history import entries
from replay.redecide import redecide
from replay.spans import Link, Span
from replay.trace import Projector, of_run, spans
from replay.trace_root import MAX_HAPPENINGS
from tests.runs import AT, RUN, Driver, answer, begin, failure, inbox, plan, planned, started
from tests.traces import ABOVE, MODEL, log_of, named, reported, shape, story
from tests.unit.test_forks import forked

ROOT = "invoke_workflow script"

TREE = """\
invoke_workflow script
  plan conductor
  execute_tool tool
  execute_tool tool !EXEC_ERR
  execute_tool tool
  plan conductor
  execute_tool tool
  invoke_agent agent !TIMEOUT
  plan conductor
  invoke_agent child
    invoke_workflow script
      plan conductor
      execute_tool tool
      plan conductor
  plan conductor"""


def test_a_run_and_its_child_are_one_tree() -> None:
    above, below = story()
    found = spans([log_of(below), log_of(above)])
    assert "\n".join(shape(found)) == TREE
    assert {span.trace for span in found} == {"a" * 32}
    assert found[0].parent == "b" * 16, "the caller's own span is the parent"
    assert spans([log_of(above), log_of(below)]) == found


def test_what_starts_together_stands_in_the_order_of_the_run() -> None:
    driver = started()
    slow = msgspec.structs.replace(driver.report_of("1-0"), latency_ms=20)
    driver.give(inbox(slow), after_ms=20)
    driver.reply(answer())
    found = of_run(log_of(driver))
    assert {span.start_ns for span in found[:3]} == {AT * 1_000_000}
    assert shape(found) == [
        ROOT,
        "  plan conductor",
        "  execute_tool tool",
        "  plan conductor",
    ]


def test_durations_are_those_of_the_reports_and_waiting_is_told() -> None:
    found = of_run(log_of(story()[0]))
    tools = [(span.ms, span.attributes.get(semconv.QUEUE_WAIT_MS)) for span in named_tools(found)]
    assert tools == [(100, 5), (50, 110), (70, 5), (30, 5)]
    (agent,) = named(found, "invoke_agent agent")
    assert (agent.ms, agent.error, agent.message) == (400, "TIMEOUT", "TIMEOUT (fault: worker)")
    assert agent.attributes[semconv.INPUT_TOKENS] == 7
    assert agent.attributes[semconv.OUTPUT_TOKENS] == 3
    assert [span.ms for span in named(found, "plan conductor")] == [10, 20, 20, 20]


def named_tools(found: list[Span]) -> list[Span]:
    return named(found, "execute_tool tool")


def test_an_attempts_id_is_what_a_worker_derives_and_a_retry_is_linked() -> None:
    found = named_tools(of_run(log_of(story()[0])))
    first, lost, again, _ = found
    assert first.id == attempt_context(RUN, "1-0", 1).span
    assert lost.id == attempt_context(RUN, "1-1", 1).span
    (link,) = again.links
    assert (link.span, link.kind) == (lost.id, semconv.RETRIES)
    assert again.attributes[semconv.ATTEMPT] == 2
    assert again.attributes[semconv.CAUSATION_ID] != first.attributes[semconv.CAUSATION_ID]


def test_a_call_is_linked_to_those_that_it_waited_for() -> None:
    later = planned(n=3, after=(0,), sees=(1,))
    driver = started(planned(n=1), planned(n=2), later)
    reported(driver, "1-1", 10)
    reported(driver, "1-0", 20)
    driver.lost("1-2")
    reported(driver, "1-2", 10)
    links = {
        (span.attributes[semconv.CALL_ID], span.attributes[semconv.ATTEMPT]): [
            (link.span, link.kind) for link in span.links
        ]
        for span in named_tools(of_run(log_of(driver)))
    }
    seen = [(attempt_context(RUN, call, 1).span, semconv.JOINS) for call in ("1-0", "1-1")]
    again = [(attempt_context(RUN, "1-2", 1).span, semconv.RETRIES)]
    assert links == {("1-0", 1): [], ("1-1", 1): [], ("1-2", 1): seen, ("1-2", 2): again}


def test_a_question_that_is_asked_again_is_linked_to_the_one_before() -> None:
    driver = Driver(begin())
    driver.reply(failure())
    driver.wait()
    driver.activate(after_ms=500)
    driver.reply(plan(planned()))
    driver.report("1-0")
    failed, lost, asked = named(of_run(log_of(driver)), "plan conductor")
    assert (failed.error, lost.error, asked.error) == ("EXEC_ERR", semconv.ABANDONED, "")
    assert failed.links == ()
    assert lost.links == (Link(failed.trace, failed.id, semconv.RETRIES),)
    assert asked.links == (Link(lost.trace, lost.id, semconv.REDELIVERS),)
    assert [span.attributes[semconv.ATTEMPT] for span in (failed, lost, asked)] == [1, 2, 3]


def test_content_is_named_by_where_it_stands() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0", value="a result")
    report = driver.report_of("1-1", value=None)
    driver.give(inbox(msgspec.structs.replace(report, blob=BlobRef("a" * 64, 70_000))))
    driver.reply(answer())
    events = [type(event).__name__ for event in driver.events]
    told = [
        (span.name, str(span.attributes.get(semconv.CONTENT_REF, "")))
        for span in of_run(log_of(driver))
    ]
    where = [
        (name, events[int(ref.removeprefix(f"{RUN}@")) - 1] if ref.startswith(RUN) else ref)
        for name, ref in told
    ]
    assert where == [
        (ROOT, "AnswerGiven"),
        ("plan conductor", "PolicyReplied"),
        ("execute_tool tool", "CallSettled"),
        ("execute_tool tool", f"sha256:{'a' * 64}"),
        ("plan conductor", "PolicyReplied"),
    ]
    model = Driver(begin(policy=MODEL))
    model.reply(Reply(text="42"))
    _, asked, chat = of_run(log_of(model))
    assert semconv.CONTENT_REF not in asked.attributes, "its model's span says it"
    assert chat.attributes[semconv.CONTENT_REF] == f"{RUN}@4"


def test_each_span_says_where_it_stands_in_the_log() -> None:
    log = log_of(story()[0])
    events = [event for commit in log.commits for event in commit.events]
    kinds = {
        "plan conductor": "PolicyAsked",
        "execute_tool tool": "AttemptStarted",
        "invoke_agent agent": "AttemptStarted",
        "invoke_agent child": "AttemptStarted",
        "invoke_workflow script": "RunStarted",
    }
    for span in of_run(log):
        number = span.attributes[semconv.EVENT_SEQ]
        assert isinstance(number, int)
        assert type(events[number - 1]).__name__ == kinds[span.name]
        assert span.attributes[semconv.EVENT_ID] == f"{RUN}@{number}"
        assert span.attributes[semconv.RUN_ID] == RUN


def test_a_model_has_a_span_of_its_own_with_its_tokens() -> None:
    driver = Driver(begin(policy=MODEL))
    said = answer(usage=Usage(120, 30), version="gpt-9-0601@fp", finish="stop", latency_ms=40)
    driver.reply(msgspec.structs.replace(said, text="42", decision=None), after_ms=50)
    found = of_run(log_of(driver))
    plan_span, chat = named(found, "plan conductor")[0], named(found, "chat gpt-9")[0]
    assert (chat.parent, chat.kind, chat.ms) == (plan_span.id, "client", 40)
    assert {key: chat.attributes[key] for key in chat.attributes if key.startswith("gen_ai")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-9",
        "gen_ai.response.model": "gpt-9-0601",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
    }
    assert found[0].attributes[semconv.MODEL_CALLS] == 1


def test_what_goes_wrong_is_an_error_with_its_type() -> None:
    refused = Driver(begin())
    refused.reply(failure(retry=False))
    (asked,) = of_run(log_of(refused))
    assert (asked.name, asked.error) == ("plan conductor", "EXEC_ERR")
    rejected = Driver(begin())
    rejected.reply(Reply(text="hm"))
    (asked,) = of_run(log_of(rejected))
    assert asked.error == asked.attributes[semconv.ERROR_TYPE] == "not_a_decision"
    wrong = started(planned(n="no number"))
    (call,) = named_tools(of_run(log_of(wrong)))
    assert (call.error, call.ms, call.attributes[semconv.FAULT]) == ("PARSE_ERR", 0, "policy")
    late = started()
    late.wait()
    (call,) = named_tools(of_run(log_of(late)))
    assert (call.error, call.attributes[semconv.STATUS]) == ("TIMEOUT", "TIMEOUT")
    assert call.ms > 60_000, "nobody reported: it took until nobody waited any more"


def test_a_cancelled_run_ends_what_is_open() -> None:
    driver = started()
    driver.signal("cancel")
    (root,), (call,) = named(found := of_run(log_of(driver)), ROOT), named_tools(found)
    assert (root.error, root.attributes[semconv.OUTCOME]) == ("cancelled", "cancelled")
    assert call.error == "cancelled"
    assert [each.name for each in root.happenings] == [semconv.SIGNALLED]


def test_pauses_takeovers_and_late_reports_are_told_within_the_run() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.wait()
    driver.report("1-0")
    driver.signal("pause")
    driver.activate(after_ms=10)
    driver.signal("resume")
    driver.reply(answer())
    (root,) = named(of_run(log_of(driver)), ROOT)
    assert [each.name for each in root.happenings] == [
        semconv.LATE_REPORT,
        semconv.SIGNALLED,
        semconv.PAUSED,
        semconv.ACTIVATED,
        semconv.SIGNALLED,
        semconv.RESUMED,
    ]
    assert root.happenings[0].attributes[semconv.CALL_ID] == "1-0"


def test_a_question_whose_asker_is_gone_is_abandoned() -> None:
    driver = Driver(begin())
    driver.activate(after_ms=500)
    driver.reply(answer())
    lost, asked = named(of_run(log_of(driver)), "plan conductor")
    assert (lost.error, lost.ms, asked.error) == (semconv.ABANDONED, 500, "")
    assert lost.id != asked.id


def test_a_run_that_goes_on_has_only_what_has_ended() -> None:
    driver = started(planned(n=1), planned(n=2))
    reported(driver, "1-0", 10)
    assert [span.name for span in of_run(log_of(driver))] == ["plan conductor", "execute_tool tool"]


def test_content_is_told_only_on_request() -> None:
    driver = Driver(begin(task="the secret task"))
    driver.reply(plan(planned(n=77001), text="secret thoughts"))
    driver.report("1-0", value="secret result")
    driver.signal("pause")
    driver.signal("resume")
    driver.reply(answer("secret answer"))
    log = log_of(driver)
    quiet, told = of_run(log), of_run(log, content=True)
    assert not semconv.CONTENT & {key for span in quiet for key in span.attributes}
    assert "secret" not in repr(quiet)
    assert "77001" not in repr(quiet)
    tool = named_tools(told)[0].attributes
    assert tool[semconv.TOOL_CALL_ARGUMENTS] == '{"n":77001}'
    assert tool[semconv.TOOL_CALL_RESULT] == "secret result"
    assert "the secret task" in str(told[0].attributes[semconv.INPUT_MESSAGES])
    assert "secret answer" in str(told[0].attributes[semconv.OUTPUT_MESSAGES])
    assert [span.id for span in quiet] == [span.id for span in told]


def test_messages_have_spans_on_request_and_the_ids_of_the_work_stay() -> None:
    log = log_of(story()[0])
    plain, full = of_run(log), of_run(log, messages=True)
    there = {span.id: span for span in full}
    assert {span.id for span in plain} < set(there)
    for span in plain:
        if semconv.CALL_ID in span.attributes:
            process = there[there[span.id].parent]
            publish = there[process.parent]
            assert (publish.kind, process.kind) == ("producer", "consumer")
            assert publish.parent == span.parent
            assert process.attributes[semconv.MESSAGING_SYSTEM] == "nats"


def test_a_trace_that_its_beginner_does_not_keep_says_so() -> None:
    driver = started(traceparent=ABOVE[:-1] + "0")
    assert [span.sampled for span in of_run(log_of(driver))] == [False]


def test_happenings_are_limited_and_counted() -> None:
    driver = started()
    for _ in range(MAX_HAPPENINGS):
        driver.signal("pause")
        driver.signal("resume")
    driver.report("1-0")
    driver.reply(answer())
    (root,) = named(of_run(log_of(driver)), ROOT)
    assert len(root.happenings) == MAX_HAPPENINGS
    assert root.attributes[semconv.DROPPED] == 3 * MAX_HAPPENINGS


def test_a_fork_has_a_trace_of_its_own_linked_to_its_origins() -> None:
    driver, _ = story()
    log = log_of(driver)
    begun = {
        each.event.call: each.number
        for each in entries(log)
        if isinstance(each.event, AttemptStarted)
    }
    at = begun["2-1"]
    fork = forked(log, at, policy=msgspec.structs.replace(driver.state.policy, name="other"))
    own = log_of(fork)
    own.origin = log
    assert [span.name for span in of_run(own)] == []
    for call in ("2-0", "2-1"):
        reported(fork, call, 30)
    fork.reply(answer("otherwise"), after_ms=10)
    own = log_of(fork)
    own.origin = log
    found = of_run(own)
    root = found[0]
    assert shape(found) == [
        "invoke_workflow other",
        "  invoke_agent agent",
        "  execute_tool tool",
        "  plan conductor",
    ]
    (link,) = root.links
    assert (link.trace, link.span, link.kind) == ("a" * 32, span_id(RUN), semconv.FORKED_FROM)
    assert {span.trace for span in found} == {trace_id(own.run)}
    assert root.attributes[semconv.EVENT_ID] == f"{own.run}@{at + 1}"
    assert root.attributes[semconv.TURNS] == 1
    assert not {span.id for span in found} & {span.id for span in of_run(log)}
    assert found[1].id == attempt_context(own.run, "2-0", 1).span
    assert (fork.state.traceparent, fork.state.policy_version) == ("", "")
    own.origin = None  # it can't be had
    assert [span.name for span in of_run(own)][-1] == "plan conductor"


def test_strangers_cannot_fill_a_projectors_memory() -> None:
    driver = started()
    log = log_of(driver)
    projector = Projector(RUN)
    for commit in log.commits:
        projector.commit(commit)
    for number in range(1_000):
        projector.report(str(number), driver.report_of("1-0"))
        projector.report(str(number), driver.report_of("9-9"))
    (waiting,) = projector._open.values()
    assert len(waiting.reports) == 32


def test_what_a_trace_needs_of_the_log_is_decided_again_as_it_was() -> None:
    driver = Driver(begin(policy=MODEL, traceparent=ABOVE))
    driver.reply(answer(usage=Usage(120, 30), finish="stop", text="42"))
    above, below = story()
    for log in (log_of(driver), log_of(above), log_of(below)):
        for decided in redecide(log):
            assert decided.events == decided.commit.events


def test_a_run_without_a_context_is_written_as_ever() -> None:
    assert b"traceparent" not in msgspec.json.encode(started().events[0])
    assert b"usage" not in msgspec.json.encode(started().report_of("1-0"))
