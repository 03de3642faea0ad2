"""Ids of spans, and the W3C context: derived, never zero, and nothing that a stranger can break."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import semconv
from protocol.traces import (
    MAX_CARRIED_CHARS,
    Context,
    attempt_context,
    carried,
    parse,
    run_context,
    span_id,
    trace_id,
)
from tests.runs import RUN
from tests.traces import ABOVE

TRACE, SPAN = "a" * 32, "b" * 16


def test_ids_have_the_size_that_w3c_gives_them_and_never_change() -> None:
    assert (trace_id("a"), span_id("a")) == (
        "27c35e6e9373877f29e562464e46497e",
        "40f89e395b66422f",
    )
    assert attempt_context(RUN, "1-0", 2) == (trace_id(RUN), span_id(f"{RUN}/1-0/2"), True)


@given(st.text(), st.text())
def test_what_differs_has_another_id(one: str, other: str) -> None:
    assert (one == other) == (trace_id(one) == trace_id(other))
    assert (one == other) == (span_id(one) == span_id(other))


def test_a_run_is_in_the_trace_that_its_task_names() -> None:
    assert run_context(RUN) == Context(trace_id(RUN), span_id(RUN))
    assert run_context(RUN, ABOVE) == Context(TRACE, span_id(RUN))
    assert run_context(RUN, ABOVE[:-1] + "0") == Context(TRACE, span_id(RUN), sampled=False)
    assert run_context(RUN, "nonsense") == run_context(RUN)


@given(st.text(alphabet="0123456789abcdef", min_size=48, max_size=48), st.booleans())
def test_a_context_survives_its_header(digits: str, sampled: bool) -> None:
    context = Context(digits[:32], digits[32:], sampled)
    real = bool(context.trace.strip("0") and context.span.strip("0"))
    assert parse(context.traceparent) == (context if real else None)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 300}",
        f"00-{TRACE}-{SPAN}-01\r\nX: y",
    ],
)
def test_what_is_no_context_is_none(text: str | None) -> None:
    assert parse(text) is None


def test_a_later_version_may_say_more() -> None:
    assert parse(f"cc-{TRACE}-{SPAN}-01-what") == Context(TRACE, SPAN)


@given(st.text())
@example("00-" + "é" * 52)
def test_no_text_breaks_it(text: str) -> None:
    parse(text)
    assert run_context(RUN, text).trace


def test_a_call_carries_what_there_is_as_far_as_it_fits() -> None:
    assert carried("r", "") == {semconv.RUN_ID: "r"}
    long = "v" * (MAX_CARRIED_CHARS + 1)
    assert carried("r", long) == {semconv.RUN_ID: "r", semconv.POLICY_VERSION: long[:-1]}
