"""A run that grows long goes on in another trace, linked both ways."""

from collections import Counter

from protocol import semconv
from protocol.budgets import Budget
from protocol.traces import Context, Segment, trace_id
from protocol.views import child_start
from replay.spans import Link
from replay.trace import of_run
from tests.runs import AT, RUN, Driver, answer, begin, plan, planned, started
from tests.traces import ABOVE, assert_series, log_of, named, reported, shape
from tests.unit.test_forks import forked

ROOT = "invoke_workflow script"


def linked_origin(driver: Driver) -> str:
    """The trace to which a fork of this run is linked."""
    log = log_of(driver)
    fork = forked(log, len(driver.events))
    fork.signal("cancel")
    own = log_of(fork)
    own.origin = log
    return named(of_run(own), ROOT)[0].links[0].trace


HOUR = 3_600_000


def test_a_long_pause_goes_on_in_another_trace() -> None:
    driver = started(planned(n=1), planned(n=2), traceparent=ABOVE)
    reported(driver, "1-0", 10)
    driver.signal("pause")
    paused = driver.at
    driver.at += HOUR
    driver.signal("resume")
    resumed = driver.at
    reported(driver, "1-1", 20)
    driver.reply(plan(planned("child")), after_ms=5)
    below = child_start(driver.state, "2-0", {})
    driver.report("2-0")
    driver.reply(answer())
    found = of_run(log_of(driver))
    assert shape(found) == [
        ROOT,
        "  plan conductor",
        "  execute_tool tool",
        "  execute_tool tool",
        ROOT,
        "  plan conductor",
        "  invoke_agent child",
        "  plan conductor",
    ]
    first, second = named(found, ROOT)
    assert (first.trace, first.parent) == ("a" * 32, "b" * 16)
    assert (second.trace, second.parent) == (trace_id(RUN, 1), "")
    assert first.links == (Link(second.trace, second.id, semconv.CONTINUED_IN),)
    assert second.links == (Link(first.trace, first.id, semconv.RESUMES),)
    assert first.end_ns == paused * 1_000_000, "the pause is in neither"
    assert second.start_ns == resumed * 1_000_000
    assert [each.name for each in first.happenings] == [semconv.SIGNALLED, semconv.PAUSED]
    assert [each.name for each in second.happenings] == [semconv.SIGNALLED, semconv.RESUMED]
    assert second.happenings[1].attributes[semconv.PAUSE_MS] == HOUR
    assert second.attributes[semconv.RUN_MS] == driver.at - AT
    (agent,) = named(found, "invoke_agent child")
    assert below.traceparent == Context(second.trace, agent.id).traceparent
    assert of_run(log_of(Driver(below))) == []


def test_a_run_that_is_cancelled_after_a_long_pause_ends_in_another_trace() -> None:
    driver = started()
    driver.signal("pause")
    driver.at += HOUR
    driver.signal("cancel")
    found = of_run(log_of(driver))
    first, last = named(found, ROOT)
    assert (first.ms, first.error, last.ms, last.error) == (0, "", 0, semconv.CANCELLED)
    (call,) = named(found, "execute_tool tool")
    assert (call.parent, call.ms) == (first.id, HOUR)
    assert_series([first, last])


def test_a_trace_that_is_not_kept_goes_on_in_one_that_is_not_kept() -> None:
    driver = started(traceparent=ABOVE[:-1] + "0")
    driver.signal("pause")
    driver.at += HOUR
    driver.signal("cancel")
    assert {span.sampled for span in of_run(log_of(driver))} == {False}


def test_a_question_after_many_spans_begins_another_trace() -> None:
    driver = Driver(begin(budget=Budget(rounds=1_000, calls=2_000, wall_ms=10**9)))
    while driver.state.round < 200:
        driver.reply(plan(planned(n=1), planned(n=2)), after_ms=1)
        reported(driver, f"{driver.state.round}-0", 1)
        reported(driver, f"{driver.state.round}-1", 1)
    driver.reply(answer())
    found = of_run(log_of(driver))
    counts = Counter(span.trace for span in found)
    assert counts == {trace_id(RUN): 376, trace_id(RUN, 1): 227}
    for root in named(found, ROOT):
        below = [span for span in found if span.parent == root.id]
        assert {span.trace for span in below} == {root.trace}
        assert len(below) == counts[root.trace] - 1
    assert_series(named(found, ROOT))


def test_a_fork_is_linked_to_the_trace_in_which_its_origin_was() -> None:
    driver = started()
    assert linked_origin(driver) == trace_id(RUN)
    driver.signal("pause")
    driver.at += HOUR
    driver.signal("resume")
    assert linked_origin(driver) == trace_id(RUN, 1)
    fork = forked(log_of(driver), len(driver.events))
    assert fork.state.segment == Segment()
    assert {call.segment for call in fork.state.calls.values()} == {0}
