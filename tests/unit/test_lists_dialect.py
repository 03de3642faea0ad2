"""The Conductor's lists: literals without evaluation, access lists as a graph, acceptance."""

import pytest

from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, PlannedCall, Rejection, Reply, Turn
from protocol.dialects import parse as parse_as
from protocol.dialects import request
from protocol.dialects.lists import messages, parse, text_parameter
from protocol.dialects.literals import named_lists
from protocol.dialects.shared import UNREADABLE
from tests.words import EXPERT, FREE, LOOKUP, POOL, TABLE, policy, seen, view

PLAN = """<think>model_id = [9] would be wrong.</think>
Two looks, then a judge.
```python
model_id = ["lookup", 'gpt-5_expert', "gpt-5_expert"]
subtasks = ["Peru", "Say \\"hi\\".\\nThen: [1, 2], it's", '''Compare
both''']
access_list = [[], [0], ["all"]]
```"""


def lists(workers: str, subtasks: str, access: str) -> str:
    return f"model_id = {workers}\nsubtasks = {subtasks}\naccess_list = {access}"


def decided(text: str) -> Decision:
    parsed = parse(Reply(text=text), POOL)
    assert isinstance(parsed, Decision), parsed
    return parsed


def test_a_plan_is_calls_that_see_each_other_and_the_last_answers() -> None:
    assert decided(PLAN) == Decision(
        calls=(
            PlannedCall("lookup", {"name": "Peru"}),
            PlannedCall("gpt-5_expert", {"subtask": 'Say "hi".\nThen: [1, 2], it\'s'}, sees=(0,)),
            PlannedCall("gpt-5_expert", {"subtask": "Compare\nboth"}, sees=(0, 1)),
        ),
        last_answers=True,
    )


def test_three_empty_lists_accept() -> None:
    assert decided(lists("[]", "[]", "[]")) == Decision(last_answers=True)


def test_workers_by_number() -> None:
    parsed = parse_as(
        policy("lists", "numbers"),
        Reply(text=lists("[2, 1, 9]", '["a", "b", "c"]', "[[], [], []]")),
        POOL,
    )
    assert isinstance(parsed, Decision)
    assert [call.worker for call in parsed.calls] == ["gpt-5_expert", "lookup", "9"]


def test_the_last_lists_count() -> None:
    text = lists('["table"]', '["draft"]', "[[]]") + "\nNo: " + lists('["free"]', '["x"]', "[[]]")
    assert decided(text).calls == (PlannedCall("free", {"subtask": "x"}),)


def test_lists_as_json() -> None:
    text = '{"model_id": ["free"], "subtasks": ["x"], "access_list": [["all"]]}'
    assert decided(text).calls == (PlannedCall("free", {"subtask": "x"}),)


def test_lists_within_a_subtask_are_its_text() -> None:
    inner = "model_id = [1]\\nsubtasks = []"
    text = lists('["free"]', f'["{inner}"]', "[[]]")
    assert decided(text).calls[0].arguments == {"subtask": inner.replace("\\n", "\n")}


def test_a_subtask_that_is_a_json_object_is_the_arguments() -> None:
    text = lists('["table"]', """['{"row": 3, "column": "b"}']""", "[[]]")
    assert decided(text).calls[0].arguments == {"row": 3, "column": "b"}


def test_a_worker_that_takes_no_text_settles_as_unreadable() -> None:
    text = lists('["table"]', '["the third row"]', "[[]]")
    assert decided(text).calls[0].arguments == {UNREADABLE: "the third row"}


def test_which_parameter_takes_the_text() -> None:
    assert [text_parameter(worker) for worker in (LOOKUP, EXPERT, TABLE, FREE, None)] == [
        "name",
        "subtask",
        "",
        "subtask",
        "subtask",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Eight.", "no list model_id and no list subtasks and no list access_list"),
        ("", "no list model_id"),
        (lists("[1]", '["x"]', "[]"), "1, 1 and 0 items"),
        (lists("[[1]]", '["x"]', "[[]]"), "model_id[0]"),
        (lists("[1, 1]", '["x", 7]', "[[], []]"), "subtasks[1]"),
        (lists("[1]", '[["x"]]', "[[]]"), "subtasks[0]"),
        (lists("[1]", '["x"]', "[[0]]"), "access_list[0]"),
        (lists("[1, 1]", '["x", "y"]', "[[], [1]]"), "access_list[1]"),
        (lists("[1, 1]", '["x", "y"]', "[[], [-1]]"), "access_list[1]"),
        (lists("[1, 1]", '["x", "y"]', '[[], ["all", 0]]'), "access_list[1]"),
        (lists("[1, 1]", '["x", "y"]', '[[], "most"]'), "access_list[1]"),
        (lists("[__import__('os')]", '["x"]', "[[]]"), "no list model_id"),
        (lists("[1.5]", '["x"]', "[[]]"), "no list model_id"),
        (lists("[1 1]", '["x"]', "[[]]"), "no list model_id"),
        (lists("[,]", '["x"]', "[[]]"), "no list model_id"),
        (lists("[" + "9" * 5_000 + "]", '["x"]', "[[]]"), "no list model_id"),
        (lists("[" * 30_000, '["x"]', "[[]]"), "no list model_id"),
        (lists("[1]", '["x" * 9]', "[[]]"), "no list subtasks"),
        (lists("[1]", '[f"x"]', "[[]]"), "no list subtasks"),
        (lists("[1]", '["never ends]', "[[]]"), "no list subtasks"),
        (lists("[1]", '["x"]', "[[[]]]"), "no list access_list"),
    ],
)
def test_what_is_no_plan_is_rejected_with_the_form(text: str, why: str) -> None:
    parsed = parse(Reply(text=text), POOL)
    assert isinstance(parsed, Rejection)
    assert parsed.reason == "malformed"
    assert why in parsed.detail
    assert "access_list = [" in parsed.detail


def test_a_text_of_lists_that_never_end_is_given_up() -> None:
    assert named_lists("a = ['" * 20_000, ("a",)) == {}


def test_escapes_are_pythons() -> None:
    text = r"""a = ["\x41\u00e9\U0001F600\101\n\t\\\'\"\q", '\
joined', "\ud800", "\Uffffffff"]"""
    assert named_lists(text, ("a",))["a"] == ["Aé😀A\n\t\\'\"\\q", "joined", "?", "\ufffd"]


def test_how_the_workers_are_offered() -> None:
    system = messages(view())[0]["content"]
    assert "Worker lookup: Lookup finds a country.\n  Its subtask is a text: name\n" in system
    assert "Worker free: says nothing of itself.\n  Its subtask is a text." in system
    assert "Worker table: says nothing of itself.\n  Its subtask is a JSON object, by" in system
    assert '"column":{"type":"string"}' in system


def test_a_plan_is_shown_as_it_was_typed_with_what_came_of_each_step() -> None:
    calls = decided(PLAN).calls
    turn = Turn(
        PLAN,
        tuple(
            seen(
                f"1-{step}",
                call.worker,
                step,
                arguments=call.arguments,
                sees=tuple(f"1-{other}" for other in call.sees),
            )
            for step, call in enumerate(calls)
        ),
    )
    said, came = messages(view(turn))[2:]
    assert said == {"role": "assistant", "content": PLAN}
    assert '{"step":1,"worker":"gpt-5_expert","status":"OK","value":1}' in came["content"]


def test_a_round_of_another_dialect_is_written_in_this_one() -> None:
    turn = Turn(
        "I look.",
        (
            seen("1-0", "lookup", ref="call_1"),
            seen("1-1", "table", arguments={"row": 1, "column": "a"}, sees=("1-0",)),
        ),
    )
    shown = messages(view(turn))[2]["content"]
    assert decided(shown).calls == (
        PlannedCall("lookup", {"name": "Peru"}),
        PlannedCall("table", {"row": 1, "column": "a"}, sees=(0,)),
    )


def test_the_final_turn_asks_to_accept() -> None:
    last = messages(view(final=True, limited_by="calls"))[-1]["content"]
    assert "limit of calls" in last
    assert "three empty lists" in last


def test_a_text_parameter_is_told_as_its_worker_describes_it() -> None:
    name = {"type": "string", "description": "Its name, in English."}
    worker = WorkerSpec(name="x", parameters={"type": "object", "properties": {"name": name}})
    system = messages(view(pool=Pool((worker,))))[0]["content"]
    assert "Its subtask is a text: Its name, in English." in system


def test_calls_that_go_on_and_what_came_late_are_shown_by_number() -> None:
    going = seen("1-1", "table", 7, arguments={"row": 1, "column": "a"})
    turn = Turn("", (seen("1-0", "lookup"),), open=(going.call,), late=(going,))
    body = request(policy("lists", "numbers"), view(turn))
    came, later = (message["content"] for message in body["messages"][3:])
    assert '{"step":0,"worker":1,"status":"OK","value":"x"}' in came
    assert '{"step":1,"worker":3,"value":"(still at work' in came
    assert '{"worker":3,"subtask":{"column":"a","row":1},"status":"OK","value":7}' in later
