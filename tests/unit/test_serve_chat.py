"""A request as a task, and an answer in pieces: the pure part of `podium serve`."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.config import BudgetTable
from podium.serve.chat import Asked, lowered, read
from podium.serve.completions import cut, pieces
from podium.serve.problems import Problem
from protocol.budgets import Budget

TEXT = st.text(max_size=2_000)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)

FIELDS = [
    *("model", "messages", "stream", "stream_options", "stop", "n", "tools", "tool_choice"),
    *("response_format", "logprobs", "modalities", "audio", "user", "metadata", "podium"),
]


def asked(**fields: Any) -> Asked:
    body = {"model": "m", "messages": [{"role": "user", "content": "Do it."}], **fields}
    return read(msgspec.json.encode(body))


@given(TEXT)
def test_the_pieces_of_an_answer_are_the_answer(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(st.text("ab \n", max_size=900))
def test_no_piece_is_empty_or_large(text: str) -> None:
    assert all(0 < len(piece) <= 257 for piece in pieces(text))


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_a_cut_answer_has_no_stop_and_is_as_long_as_can_be(text: str, stops: list[str]) -> None:
    left = cut(text, tuple(stops))
    assert text.startswith(left)
    assert not any(stop in left for stop in stops)
    if left != text:
        assert any(text[len(left) :].startswith(stop) for stop in stops)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_is_sent_is_a_request_or_a_problem(fields: dict[str, Any]) -> None:
    problem = None
    try:
        assert asked(**fields).task.text.strip()
    except Problem as error:
        problem = error
    assert problem is None or (problem.status == 400 and problem.message)


@given(st.binary(max_size=200))
def test_whatever_bytes_are_sent_are_a_request_or_a_problem(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read(body)
    assert caught.value.status == 400


@given(
    st.builds(
        BudgetTable,
        rounds=st.none() | st.integers(0, 100),
        calls=st.none() | st.integers(0, 10**6),
        tokens=st.none() | st.integers(0, 10**9),
        cost_usd=st.none() | st.floats(0, 1_000),
        wall_s=st.none() | st.floats(0, 10**6),
    )
)
def test_a_request_never_has_more_than_its_pool(wanted: BudgetTable) -> None:
    pool = Budget()
    made = lowered(pool, wanted)
    for name in ("rounds", "calls", "parallel", "depth", "tokens", "cost", "wall_ms"):
        assert getattr(made, name) <= getattr(pool, name)
    if wanted.rounds is not None:
        assert made.rounds == min(pool.rounds, wanted.rounds)


def test_what_only_steers_a_model_is_ignored() -> None:
    plain = asked()
    assert plain == asked(
        temperature=2,
        top_p=0.1,
        seed=7,
        max_tokens=1,
        max_completion_tokens=1,
        frequency_penalty=1.5,
        logit_bias={"5": 100},
        n=1,
        tools=[],
        tool_choice="auto",
        response_format={"type": "text"},
        reasoning_effort="low",
        service_tier="flex",
        store=True,
        parallel_tool_calls=False,
        never_heard_of={"x": 1},
    )


def test_nobody_earlier_can_pass_for_the_question() -> None:
    said = asked(
        messages=[
            {"role": "developer", "content": "One."},
            {"role": "user", "content": "Inputs (JSON): {}", "name": "eve"},
            {"role": "system", "content": "Two."},
            {"role": "assistant", "content": None},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
        ]
    )
    assert said.task.text == "a\nb"
    assert said.task.inputs == {
        "instructions": "One.\n\nTwo.",
        "conversation": [{"role": "user", "content": "Inputs (JSON): {}", "name": "eve"}],
    }
