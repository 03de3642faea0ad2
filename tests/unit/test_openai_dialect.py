"""Native tool calls: parsing is total, rendering is canonical, and one is the other's inverse."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import Call, Json, Pool, WorkerSpec
from protocol.decisions import (
    Decision,
    Observation,
    PlannedCall,
    PolicySpec,
    Rejection,
    Reply,
    Task,
    ToolCall,
    Turn,
    View,
)
from protocol.dialects import UNREADABLE, parse, prompt, prompt_hash
from protocol.dialects.openai import messages, render, request, tools
from protocol.dialects.shared import ROUND_CHARS, STILL_OPEN, UNREADABLE_CHARS, VALUE_CHARS
from protocol.limits import MAX_REPLY_BYTES

LOOKUP = WorkerSpec(
    name="lookup",
    description="Finds a country.",
    parameters={"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
)
POOL = Pool((LOOKUP, WorkerSpec(name="sum")))
NATIVE = PolicySpec(name="p", dialect="openai")
AS_IT_IS = PolicySpec(name="p")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(
    PlannedCall, worker=TEXT, arguments=st.dictionaries(TEXT, JSON, max_size=3), ref=TEXT
)
DECISIONS = st.one_of(
    st.builds(Decision, calls=st.lists(CALLS, min_size=1, max_size=4).map(tuple)),
    st.builds(Decision, answer=TEXT.filter(lambda text: bool(text.strip()))),
)
ANY_TEXT = st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))
REPLIES = st.builds(
    Reply,
    text=ANY_TEXT,
    tool_calls=st.lists(
        st.builds(ToolCall, id=ANY_TEXT, name=ANY_TEXT, arguments=ANY_TEXT), max_size=4
    ).map(tuple),
)


def calls(*arguments: str) -> Reply:
    return Reply(
        tool_calls=tuple(
            ToolCall(id=f"c{n}", name="lookup", arguments=text) for n, text in enumerate(arguments)
        )
    )


def seen(call: str, value: Json, *, ref: str = "", worker: str = "lookup") -> Observation:
    return Observation(
        call=Call(id=call, worker=worker, arguments={"b": 1, "a": 2}, ref=ref),
        status="OK",
        value=value,
    )


def view(*turns: Turn, **fields: Json) -> View:
    return View(run="r1", task=Task(text="How many?"), pool=POOL, turns=turns, **fields)


@given(DECISIONS)
def test_parse_is_the_inverse_of_render(decision: Decision) -> None:
    assert parse(NATIVE, render(decision), POOL) == decision


@given(REPLIES)
def test_parse_takes_any_reply_and_gives_what_the_log_can_hold(reply: Reply) -> None:
    parsed = parse(NATIVE, reply, POOL)
    assert isinstance(parsed, Decision | Rejection)
    if isinstance(parsed, Decision):
        assert bool(parsed.calls) != (parsed.answer is not None)
        for call in parsed.calls:
            assert isinstance(msgspec.json.encode(call.arguments), bytes)


@pytest.mark.parametrize(
    "text",
    [
        "{not json",
        "[1, 2]",
        "7",
        '"text"',
        "null",
        '{"a": NaN}',
        '{"a": 1} trailing',
        '{"a": "\ud800"}',
        "[" * 30_000,
        '{"a": 1e999}',
        '{"a": ' + "9" * 5_000 + "}",
    ],
)
def test_unreadable_arguments_cost_that_call_only(text: str) -> None:
    parsed = parse(NATIVE, calls('{"name": "Peru"}', text), POOL)
    assert isinstance(parsed, Decision)
    good, bad = parsed.calls
    assert good.arguments == {"name": "Peru"}
    assert list(bad.arguments) == [UNREADABLE]
    assert len(bad.arguments[UNREADABLE]) < UNREADABLE_CHARS + 50
    assert msgspec.json.decode(msgspec.json.encode(bad)) is not None


def test_no_arguments_at_all_are_no_arguments() -> None:
    parsed = parse(NATIVE, calls("", "  "), POOL)
    assert isinstance(parsed, Decision)
    assert [call.arguments for call in parsed.calls] == [{}, {}]


def test_an_unknown_worker_is_left_to_the_rules() -> None:
    reply = Reply(tool_calls=(ToolCall(id="c", name="nobody", arguments="{}"),))
    assert parse(NATIVE, reply, POOL) == Decision(
        calls=(PlannedCall(worker="nobody", arguments={}, ref="c"),)
    )


def test_text_beside_calls_is_no_answer() -> None:
    reply = msgspec.structs.replace(calls("{}"), text="I look it up.")
    parsed = parse(NATIVE, reply, POOL)
    assert isinstance(parsed, Decision)
    assert parsed.answer is None
    assert len(parsed.calls) == 1


@pytest.mark.parametrize("text", ["", " \n", "<think>so much to say</think>\n"])
def test_nothing_said_is_empty(text: str) -> None:
    parsed = parse(NATIVE, Reply(text=text), POOL)
    assert isinstance(parsed, Rejection)
    assert parsed.reason == "empty"


def test_a_reasoning_block_is_not_part_of_the_answer() -> None:
    reply = Reply(text="<think>7, or 8?\n8.</think>\n\nEight.")
    assert parse(NATIVE, reply, POOL) == Decision(answer="Eight.")


def test_a_reply_beyond_the_limit_is_rejected_with_the_cure() -> None:
    parsed = parse(NATIVE, Reply(text="x" * (MAX_REPLY_BYTES + 1)), POOL)
    assert isinstance(parsed, Rejection)
    assert parsed.reason == "too_large"
    assert "Make fewer calls" in parsed.detail


def test_the_decision_dialect_takes_decisions_as_they_are() -> None:
    decision = Decision(answer="8")
    assert parse(AS_IT_IS, Reply(decision=decision), POOL) is decision
    refused = parse(AS_IT_IS, Reply(text="I can't plan this question."), POOL)
    assert refused == Rejection("not_a_decision", "I can't plan this question.")
    assert isinstance(parse(AS_IT_IS, Reply(), POOL), Rejection)


def test_tools_are_the_pool_in_its_order() -> None:
    first, second = tools(POOL)
    assert first["function"] == {
        "name": "lookup",
        "description": "Finds a country.",
        "parameters": LOOKUP.parameters,
    }
    assert second["function"]["name"] == "sum"


def test_a_round_is_shown_as_calls_and_their_results() -> None:
    turn = Turn(text="Both.", observations=(seen("1-0", 3, ref="call_a"), seen("1-1", {"n": 1})))
    assistant, first, second = messages(view(turn))[2:]
    assert assistant["content"] == "Both."
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_a", "1-1"]
    assert assistant["tool_calls"][0]["function"] == {
        "name": "lookup",
        "arguments": '{"a":2,"b":1}',
    }
    assert first == {
        "role": "tool",
        "tool_call_id": "call_a",
        "content": '{"status":"OK","value":3}',
    }
    assert json.loads(second["content"]) == {"status": "OK", "value": {"n": 1}}


def test_a_call_that_goes_on_stands_where_it_was_asked_for() -> None:
    turn = Turn(observations=(seen("1-1", 3, ref="b"),), open=(seen("1-0", 0, ref="a").call,))
    assistant, first, second = messages(view(turn))[2:]
    assert [call["id"] for call in assistant["tool_calls"]] == ["a", "b"]
    assert (first["tool_call_id"], first["content"]) == ("a", STILL_OPEN)
    assert (second["tool_call_id"], json.loads(second["content"])["value"]) == ("b", 3)


def test_ids_given_twice_are_told_apart() -> None:
    turn = Turn(observations=(seen("1-0", 1, ref="call_0"), seen("1-1", 2, ref="call_0")))
    assistant, *results = messages(view(turn))[2:]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert ids == ["call_0", "1-1"]
    assert [result["tool_call_id"] for result in results] == ids


def test_an_invented_name_is_shown_as_endpoints_accept_it() -> None:
    turn = Turn(observations=(seen("1-0", "no such worker", worker="a b!" + "c" * 80),))
    name = messages(view(turn))[2]["tool_calls"][0]["function"]["name"]
    assert name == "a_b_" + "c" * 60


def test_a_rejection_is_shown_with_what_was_said() -> None:
    turn = Turn(text="hm", rejection=Rejection("empty", "Call workers, or answer."))
    said, refused = messages(view(turn))[2:]
    assert said == {"role": "assistant", "content": "hm"}
    assert refused["role"] == "user"
    assert "Call workers, or answer." in refused["content"]


def test_large_values_share_the_space_of_their_round() -> None:
    alone = messages(view(Turn(observations=(seen("1-0", "x" * 200_000),))))[-1]["content"]
    assert ROUND_CHARS < len(alone) < ROUND_CHARS + 200
    assert "of 200000 characters" in alone
    many = tuple(seen(f"1-{n}", ["x" * 5_000]) for n in range(64))
    for result in messages(view(Turn(observations=many)))[3:]:
        assert VALUE_CHARS < len(result["content"]) < VALUE_CHARS + 200


def test_inputs_are_shown_and_the_check_is_not() -> None:
    task = Task(text="Sum them.", inputs={"b": [1, 2], "a": "é"}, check={"answer": "SECRET"})
    shown = prompt(NATIVE, View(run="r1", task=task, pool=POOL)).decode()
    assert '{\\"a\\":\\"é\\",\\"b\\":[1,2]}' in shown
    assert "SECRET" not in shown


def test_the_final_turn_forbids_calls_and_names_the_limit() -> None:
    body = request(view(final=True, limited_by="rounds"))
    assert body["tool_choice"] == "none"
    assert "limit of rounds" in body["messages"][-1]["content"]
    assert request(view())["tool_choice"] == "auto"
    assert "tools" not in request(View(run="r1", task=Task(text="?"), pool=Pool(())))


def test_the_prompt_is_canonical() -> None:
    one = view(Turn(observations=(seen("1-0", {"b": 1, "a": 2}),)))
    same = msgspec.json.decode(msgspec.json.encode(one), type=View)
    assert prompt(NATIVE, one) == prompt(NATIVE, same)
    assert prompt_hash(NATIVE, one) == prompt_hash(NATIVE, same)
    assert prompt_hash(NATIVE, one) != prompt_hash(NATIVE, view())
    assert prompt_hash(AS_IT_IS, one) == prompt_hash(AS_IT_IS, same)
