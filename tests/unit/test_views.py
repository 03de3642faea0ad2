"""What others are shown of a run: policies, the composer's readers, child runs, parents."""

from typing import Any

import msgspec
import pytest

from protocol.actions import MAX_COUNT, Report, Spend
from protocol.budgets import Budget, Limit
from protocol.codec import decode_message, decode_task, encode
from protocol.commands import Start
from protocol.decisions import PlannedCall, Reply, Task
from protocol.limits import MAX_REPLY_BYTES
from protocol.replies import as_recorded
from protocol.state import RunState
from protocol.subjects import child_id
from protocol.views import (
    COMPOSER,
    LIMIT_TEXTS,
    child_report,
    child_start,
    compose,
    observation,
    view,
)
from tests.runs import RUN, Driver, answer, begin, plan, planned


def worked() -> Driver:
    """A run with a rejected reply, and a round of which two calls have settled."""
    driver = Driver(begin(task="Sum?"))
    driver.reply(Reply(text="thinking"))
    driver.reply(plan(planned(n=1), planned("nobody"), planned(n=3), text="first"))
    driver.report("1-0", value={"found": 7})
    return driver


def test_a_view_joins_calls_with_their_values() -> None:
    driver = worked()
    shown = view(driver.state, driver.values)
    rejected, round_one = shown.turns
    assert rejected.rejection is not None
    assert rejected.rejection.reason == "not_a_decision"
    assert round_one.text == "first"
    assert [(item.call.id, item.status) for item in round_one.observations] == [
        ("1-0", "OK"),
        ("1-1", "PARSE_ERR"),
    ]
    assert round_one.observations[0].value == {"found": 7}
    assert "no worker 'nobody'" in round_one.observations[1].value
    assert observation(driver.state, "1-2", driver.values) is None


def test_a_value_that_is_gone_is_said_to_be_gone() -> None:
    driver = worked()
    seen = observation(driver.state, "1-0", {})
    assert seen is not None
    assert seen.status == "OK"
    assert "not in the log any more" in seen.value


def test_how_an_answer_is_checked_is_shown_to_nobody() -> None:
    start = begin()
    start = msgspec.structs.replace(start, task=Task(text="Sum?", inputs={"a": 1}, check={"is": 8}))
    driver = Driver(start)
    assert view(driver.state, {}).task == Task(text="Sum?", inputs={"a": 1})
    driver.reply(plan(PlannedCall("child", {"task": "Below?"})))
    assert child_start(driver.state, "1-0", {}).task.check is None


def test_a_final_view_says_why() -> None:
    shown = view(worked().state, {}, "tokens")
    assert (shown.final, shown.limited_by) == (True, "tokens")
    assert not view(worked().state, {}).final


# -------------------------------------------------------------------------------- the composer


@pytest.mark.parametrize("limit", sorted(LIMIT_TEXTS))
def test_a_composed_answer_says_that_it_is_incomplete_and_why(limit: Limit) -> None:
    driver = worked()
    reply = compose(view(driver.state, driver.values, limit))
    assert reply.version == COMPOSER
    assert reply.decision is not None
    assert reply.decision.answer == (
        f"This is incomplete: {LIMIT_TEXTS[limit]}. What was found:\n"
        '- tool({"n":1}): {"found":7}'
    )


@pytest.mark.parametrize("value", ["x" * 100_000, "\x01" * 1_000, ["ä"] * 10_000])
def test_a_composed_answer_always_fits_into_a_reply(value: Any) -> None:
    driver = Driver(begin(budget=Budget(calls=1_000)))
    for round_ in range(1, 6):
        driver.reply(plan(*[planned(n=number) for number in range(60)]))
        for number in range(60):
            driver.report(f"{round_}-{number}", value=value)
    reply = compose(view(driver.state, driver.values, "wall"))
    recorded, size, problem = as_recorded(reply, Spend())
    assert recorded == reply
    assert problem is None
    assert size < MAX_REPLY_BYTES
    assert reply.decision is not None
    assert 'tool({"n":59})' in str(reply.decision.answer)
    assert "earlier results are not shown" in str(reply.decision.answer)


# -------------------------------------------------------------------------------- child runs


def below(**arguments: Any) -> tuple[Driver, Start]:
    driver = Driver(begin(task="Above?"))
    driver.reply(plan(PlannedCall("child", arguments)))
    return driver, child_start(driver.state, "1-0", {})


def test_a_child_run_is_the_same_however_often_it_is_begun() -> None:
    driver, start = below(task="Below?", inputs={"a": 1})
    assert start.run == child_id(RUN, "1-0", 1)
    assert start.task == Task(text="Below?", inputs={"a": 1})
    assert start.parent is not None
    assert (start.parent.run, start.parent.call, start.parent.attempt) == (RUN, "1-0", 1)
    driver.activate(after_ms=60_000)
    assert encode(child_start(driver.state, "1-0", {})) == encode(start)


@pytest.mark.parametrize(
    ("arguments", "text", "inputs"),
    [
        ({"task": "Below?"}, "Below?", {}),
        ({"task": "Below?", "inputs": [1]}, "Below?", {}),
        ({"task": 3}, '{"task":3}', {}),
        ({"question": "q" * 500}, '{"question":"' + "q" * 500 + '"}', {}),
    ],
)
def test_a_child_run_can_be_begun_whatever_its_arguments(
    arguments: dict[str, Any], text: str, inputs: dict[str, Any]
) -> None:
    _, start = below(**arguments)
    assert start.task == Task(text=text, inputs=inputs)
    assert decode_task(encode(start)) == start


def ended(kind: str) -> RunState:
    _, start = below(task="Below?")
    child = Driver(start)
    if kind == "finished":
        child.reply(answer("below", spend=Spend(tokens=4)))
    else:
        child.signal("cancel")
    return child.state


def test_a_child_tells_its_answer() -> None:
    report = child_report(ended("finished"))
    assert report == Report(
        run=RUN,
        call="1-0",
        attempt=1,
        status="OK",
        value={"answer": "below", "run": child_id(RUN, "1-0", 1)},
        spend=Spend(tokens=4),
        by=f"run:{child_id(RUN, '1-0', 1)}",
    )
    assert decode_message(encode(report)) == report


def test_a_child_that_was_cancelled_tells_that_and_what_it_may_have_spent() -> None:
    state = ended("cancelled")
    report = child_report(state)
    assert (report.status, report.fault) == ("EXEC_ERR", "worker")
    assert report.value == f"run {state.run} cancelled: by ada"
    assert report.spend == state.policy.reserve  # its question never got a reply


def test_a_bill_beyond_all_bounds_can_still_be_told() -> None:
    state = ended("finished").copy()
    state.spent = Spend(tokens=3 * MAX_COUNT)
    assert decode_message(encode(child_report(state))) == child_report(state)


def test_a_root_run_has_nobody_to_tell() -> None:
    driver = Driver(begin())
    with pytest.raises(ValueError, match=f"run {RUN} has no parent"):
        child_report(driver.state)
