"""The text template of Hermes and Qwen3: tags, JSON within them, and a prompt that only grows."""

import json

import pytest

from protocol.decisions import Decision, PlannedCall, Rejection, Reply, Turn
from protocol.dialects.hermes import messages, parse
from tests.words import POOL, seen, view

PERU = PlannedCall("lookup", {"name": "Peru"})
CHAD = PlannedCall("lookup", {"name": "Chad"})


def block(name: str, country: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"name": "{country}"}}}}\n</tool_call>'


BOTH = f"<think>Two at once.</think>\n\nBoth.\n{block('lookup', 'Peru')}\n{block('lookup', 'Chad')}"


def decided(text: str) -> Decision:
    parsed = parse(Reply(text=text), POOL)
    assert isinstance(parsed, Decision), parsed
    return parsed


def rejected(text: str) -> Rejection:
    parsed = parse(Reply(text=text), POOL)
    assert isinstance(parsed, Rejection), parsed
    return parsed


def test_several_blocks_are_parallel_calls() -> None:
    assert decided(BOTH) == Decision(calls=(PERU, CHAD))


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"lookup","arguments":{"name":"Peru"}}</tool_call>',
        'Wait.<tool_call>\n\n {"arguments": {"name": "Peru"}, "name": "lookup"}\n\n</tool_call> ok',
        '<tool_call>\n{"name": "lookup", "arguments": "{\\"name\\": \\"Peru\\"}"}\n</tool_call>',
        '<tool_call>\n{"name": "lookup", "arguments": {"name": "Peru"}}\n',
        '<think>a <tool_call> is due</think><tool_call>{"name": "lookup", '
        '"arguments": {"name": "Peru"}}</tool_call>',
        'no tag begins it</think>\n<tool_call>{"name": "lookup", "arguments": {"name": "Peru"}}',
    ],
)
def test_ways_in_which_models_write_one_call(text: str) -> None:
    assert decided(text) == Decision(calls=(PERU,))


def test_a_tag_within_a_string_is_text() -> None:
    text = '<tool_call>{"name": "x", "arguments": {"a": "</tool_call> <tool_call>"}}</tool_call>'
    assert decided(text).calls == (PlannedCall("x", {"a": "</tool_call> <tool_call>"}),)


def test_a_call_may_have_no_arguments() -> None:
    assert decided('<tool_call>{"name": "x"}</tool_call>').calls == (PlannedCall("x", {}),)
    text = '<tool_call>{"name": "x", "arguments": " "}</tool_call>'
    assert decided(text).calls == (PlannedCall("x", {}),)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Eight.", "Eight."),
        ("<think>7, or 8?\n8.</think>\n\nEight.", "Eight."),
        ("7, or 8?\n8.\n</think>\n\nEight.", "Eight."),
        ("<think></think>Eight <b>.", "Eight <b>."),
    ],
)
def test_text_without_calls_is_the_answer_and_thought_is_no_part_of_it(
    text: str, answer: str
) -> None:
    assert decided(text) == Decision(answer=answer)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<tool_call>lookup(Peru)</tool_call>", "Call 1 is no JSON object"),
        ("<tool_call></tool_call>", "Call 1 is no JSON object"),
        ("<tool_call>", "Call 1 is no JSON object"),
        ("<tool_call>[1]</tool_call>", "Call 1 is no JSON object"),
        ('<tool_call>{"name": "x", "arguments": {"a": NaN}}</tool_call>', "no JSON object"),
        ("<tool_call>" + '{"a":' * 5_000 + "1" + "}" * 5_000, "no JSON object"),
        ('<tool_call>{"name": "x", "arguments": {"a": "\\ud800"}}', "no JSON object"),
        ('<tool_call>{"arguments": {}}</tool_call>', 'Call 1 has no "name"'),
        ('<tool_call>{"name": 7, "arguments": {}}</tool_call>', 'Call 1 has no "name"'),
        ('<tool_call>{"name": "x", "arguments": [1]}</tool_call>', "arguments"),
        ('<tool_call>{"name": "x", "arguments": "{oops"}</tool_call>', "arguments"),
        (block("lookup", "Peru") + '<tool_call>{"name": "x"', "Call 2 is no JSON object"),
        ('<tool_call>{"name": "x"} and more</tool_call>', "not followed by </tool_call>"),
        ('<tool_call>{"name": "x"}<tool_call>{"name": "y"}</tool_call>', "not followed by"),
        ('{"name": "x", "arguments": {}}</tool_call>', "no <tool_call> before it"),
    ],
)
def test_a_malformed_block_is_rejected_with_the_form(text: str, why: str) -> None:
    rejection = rejected(text)
    assert rejection.reason == "malformed"
    assert why in rejection.detail
    assert '{"name": "…", "arguments": {…}}' in rejection.detail
    assert len(rejection.detail) < 600


@pytest.mark.parametrize("text", ["", " \n", "<think>so much to say</think>\n", "<think>and so"])
def test_nothing_said_is_empty(text: str) -> None:
    assert rejected(text).reason == "empty"


def test_native_calls_are_not_asked_for_and_do_not_count() -> None:
    from protocol.decisions import ToolCall

    reply = Reply(text="Eight.", tool_calls=(ToolCall("a", "lookup", "{}"),))
    assert parse(reply, POOL) == Decision(answer="Eight.")


def test_tools_are_listed_in_the_system_message() -> None:
    system, task = messages(view())
    listed = system["content"].partition("<tools>\n")[2].partition("\n</tools>")[0]
    tools = [json.loads(line) for line in listed.splitlines()]
    assert [tool["function"]["name"] for tool in tools] == [worker.name for worker in POOL.workers]
    assert tools[0]["type"] == "function"
    assert task == {"role": "user", "content": "How many?"}


def test_results_are_one_message_that_is_nothing_but_responses() -> None:
    turn = Turn(BOTH, (seen("1-0", "lookup", 3), seen("1-1", "lookup", 4)))
    shown = messages(view(turn))[-1]
    assert shown["role"] == "user"
    assert shown["content"] == (
        '<tool_response>\n{"name":"lookup","status":"OK","value":3}\n</tool_response>\n'
        '<tool_response>\n{"name":"lookup","status":"OK","value":4}\n</tool_response>'
    )


def test_a_prompt_begins_with_the_one_before_and_its_reply() -> None:
    peru = seen("1-0", "lookup", arguments=dict(PERU.arguments))
    chad = seen("1-1", "lookup", arguments=dict(CHAD.arguments))
    first = messages(view())
    second = messages(view(Turn(BOTH, (peru, chad))))
    assert second[:2] == first
    assert second[2] == {"role": "assistant", "content": BOTH}


def test_what_the_model_typed_and_was_not_done_is_not_shown_as_done() -> None:
    turn = Turn(BOTH, (seen("1-0", "lookup", arguments={"name": "Mali"}),))
    shown = messages(view(turn))[2]["content"]
    assert shown.startswith("<think>Two at once.</think>\n\nBoth.\n<tool_call>")
    assert decided(shown).calls == (PlannedCall("lookup", {"name": "Mali"}),)


def test_a_round_of_another_dialect_is_written_in_this_one() -> None:
    observed = seen("1-0", "lookup", ref="call_7", sees=("0-0",), arguments={"name": "Peru"})
    for text in ("", "I look it up."):
        shown = messages(view(Turn(text, (observed,))))[2]["content"]
        assert shown.startswith(text)
        assert decided(shown).calls == (PERU,)


def test_a_rejection_is_shown_with_what_was_said() -> None:
    said, refused = messages(view(Turn("hm", rejection=Rejection("malformed", "Mend it."))))[2:]
    assert said == {"role": "assistant", "content": "hm"}
    assert "Mend it." in refused["content"]


def test_the_final_turn_asks_for_the_answer() -> None:
    last = messages(view(final=True, limited_by="rounds"))[-1]
    assert last["role"] == "user"
    assert "limit of rounds" in last["content"]


def test_calls_that_go_on_and_what_came_late_are_responses_too() -> None:
    late = seen("1-0", "lookup", 7, arguments=dict(PERU.arguments))
    chad = seen("1-1", "lookup", arguments=dict(CHAD.arguments))
    shown = messages(view(Turn(BOTH, (chad,), open=(late.call,), late=(late,))))
    assert shown[2]["content"] == BOTH, "both were asked for, in that order"
    first, second = shown[3]["content"].split("\n</tool_response>\n")
    assert "still at work" in first
    assert '"status":"OK"' in second
    assert shown[4]["content"] == (
        '<tool_response>\n{"name":"lookup","arguments":{"name":"Peru"},"status":"OK","value":7}\n'
        "</tool_response>"
    )
