"""Plans from a file: rounds of what can be asked, places filled in, what becomes of failures."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policies import make
from actors.policies.plan import filled, lacking, places, stages
from actors.policies.static import StaticPolicy, read, spec_of
from protocol.actions import Call, Json, Pool, Status, WorkerSpec
from protocol.decisions import Decision, Observation, PlannedCall, Task, Turn, View
from protocol.errors import InvalidData
from protocol.references import as_text
from tests.words import TEXT, VALUES

CHAIN: dict[str, Any] = {
    "answer": "{total.output} of {task}",
    "call": [
        {"id": "a", "worker": "look", "arguments": {"name": "{inputs.names.0}"}},
        {"id": "b", "worker": "look", "arguments": {"name": "{inputs.names.1}"}, "after": ["a"]},
        {
            "id": "total",
            "worker": "sum",
            "arguments": {"of": ["{a.output.n}", "{b.output.n}"], "say": "{a.output} {{b.output}}"},
        },
        {"id": "judge", "worker": "ask", "arguments": {"subtask": "{total.output}"}, "sees": ["a"]},
        {"id": "free", "worker": "ask", "sees": ["a", "b"]},
    ],
}
STATUSES: st.SearchStrategy[Status] = st.sampled_from(["OK", "OK", "TIMEOUT"])
TASK = Task(text="both", inputs={"names": ["x", "y"]})


def policy(tree: Json = CHAIN) -> StaticPolicy:
    made = make(spec_of(read(tree), "plan"))
    assert isinstance(made, StaticPolicy)
    return made


def view(*turns: Turn, **fields: Any) -> View:
    return View(run="r", task=TASK, pool=Pool((WorkerSpec(name="look"),)), turns=turns, **fields)


def seen(at: str, ref: str, value: Json, status: Status = "OK") -> Observation:
    return Observation(
        call=Call(id=at, worker="look", arguments={}, ref=ref), status=status, value=value
    )


def decided(shown: View, tree: Json = CHAIN) -> Decision:
    decision = policy(tree).decide(shown).decision
    assert decision is not None
    return decision


FIRST = Turn(
    observations=(seen("1-0", "a", {"n": 1}), seen("1-1", "b", {"n": 2}), seen("1-2", "free", "f"))
)
SECOND = Turn(observations=(seen("2-0", "total", 3),))
THIRD = Turn(observations=(seen("3-0", "judge", "fine"),))


def test_what_needs_no_output_is_one_round_with_what_waits_for_what() -> None:
    assert decided(view()).calls == (
        PlannedCall("look", {"name": "x"}, ref="a"),
        PlannedCall("look", {"name": "y"}, after=(0,), ref="b"),
        PlannedCall("ask", {}, sees=(0, 1), ref="free"),
    )


def test_outputs_are_filled_in_as_values_and_into_texts() -> None:
    (call,) = decided(view(FIRST)).calls
    assert call.arguments == {"of": [1, 2], "say": '{"n":1} {b.output}'}


def test_a_later_round_sees_calls_of_an_earlier_one() -> None:
    (call,) = decided(view(FIRST, SECOND)).calls
    assert (call.arguments, call.earlier) == ({"subtask": 3}, ("1-0",))


def test_the_answer_is_the_template_filled_in() -> None:
    assert decided(view(FIRST, SECOND, THIRD)) == Decision(answer="3 of both")


def test_the_answer_may_be_a_calls_output() -> None:
    tree = {"answer_from": "a", "call": CHAIN["call"][:1]}
    turn = Turn(observations=(seen("1-0", "a", {"n": 1}),))
    assert decided(view(turn), tree) == Decision(answer='{"n":1}')
    assert decided(view(turn), {**tree, "answer": " "}) == Decision(answer='{"n":1}')


def test_what_needs_a_failed_call_is_not_made_and_the_answer_says_why() -> None:
    broken = seen("1-1", "b", "the index is down", "EXEC_ERR")
    turn = Turn(observations=(FIRST.observations[0], broken, FIRST.observations[2]))
    decision = decided(view(turn))
    assert decision.answer == (
        "The plan was not finished: {total.output}: the call total was not made.\n"
        "- b (look) EXEC_ERR: the index is down"
    )


@pytest.mark.parametrize(
    ("failed", "last"), [(8, "- c7 (look)"), (9, "- c8 (look)"), (15, "and 7 more calls failed")]
)
def test_of_many_failures_the_further_ones_are_counted(failed: int, last: str) -> None:
    names = [f"c{number}" for number in range(failed)]
    tree = {"answer": "{c0.output}", "call": [{"id": name, "worker": "look"} for name in names]}
    turn = Turn(observations=tuple(seen(f"1-{n[1:]}", n, "down", "EXEC_ERR") for n in names))
    answer = decided(view(turn), tree).answer
    assert answer is not None
    assert answer.splitlines()[-1].startswith(last)
    assert len(answer.splitlines()) == 1 + min(failed, 9)


def test_a_call_that_goes_on_is_not_made_again() -> None:
    going = Turn(observations=FIRST.observations[:2], open=(Call("1-2", "ask", {}, ref="free"),))
    assert [call.ref for call in decided(view(going)).calls] == ["total"]


def test_what_came_late_counts() -> None:
    going = Turn(observations=FIRST.observations[:1], late=FIRST.observations[1:])
    assert [call.ref for call in decided(view(going)).calls] == ["total"]


def test_at_a_limit_it_answers_with_what_there_is() -> None:
    decision = decided(view(FIRST, final=True, limited_by="calls"))
    assert decision.answer == "The plan was not finished: the budget of calls was used up."


def test_inputs_that_are_not_there() -> None:
    shown = msgspec.structs.replace(view(), task=Task(text="both", inputs={"names": ["x"]}))
    assert decided(shown).answer == (
        "The plan can't be followed: {inputs.names.1}: there is no place 1, of 1."
    )


def test_what_a_plan_lacks_is_known_before_it_begins() -> None:
    assert lacking(read(CHAIN), TASK) == ""
    assert lacking(read(CHAIN), Task(text="both")) == "{inputs.names.0}: there is no 'names'"
    spare = {"id": "d", "worker": "look", "fallback_for": "a", "arguments": {"of": "{inputs.o}"}}
    assert lacking(read({**CHAIN, "call": [*CHAIN["call"], spare]}), TASK) == ""
    told = lacking(read({**CHAIN, "answer": "{inputs.names.7}"}), TASK)
    assert told == "{inputs.names.7}: there is no place 7, of 2"


def test_calls_of_another_policy_are_none_of_the_plans() -> None:
    other = Turn(observations=(seen("1-0", "call_7", 1), seen("1-1", "", 2)))
    assert decided(view(other)) == decided(view())


MENDED: dict[str, Any] = {
    "answer": "{a.output} and {c.output}",
    "call": [
        {"id": "a", "worker": "look"},
        {"id": "a2", "worker": "look", "fallback_for": "a", "arguments": {"not": "{b.output}"}},
        {"id": "a3", "worker": "ask", "fallback_for": "a2"},
        {"id": "b", "worker": "look"},
        {"id": "c", "worker": "sum", "sees": ["a", "b"], "after": ["a"]},
        {"id": "d", "worker": "ask", "arguments": {"subtask": "{a.output}"}},
    ],
}
"""Where one call has a fallback that has a fallback."""

FINE_B = seen("1-1", "b", "B")


def asked_for(*turns: Turn) -> list[str]:
    return [call.ref for call in decided(view(*turns), MENDED).calls]


def test_a_fallback_is_not_made_where_none_is_needed() -> None:
    assert asked_for() == ["a", "b"]
    fine = Turn(observations=(seen("1-0", "a", "A"), FINE_B))
    decision = decided(view(fine), MENDED)
    assert decision.calls == (PlannedCall("sum", {}, earlier=("1-0", "1-1"), ref="c"),)


def test_a_fallback_is_made_in_the_next_round_and_stands_for_what_failed() -> None:
    failed = Turn(observations=(seen("1-0", "a", "no", "TIMEOUT"), FINE_B))
    assert decided(view(failed), MENDED).calls == (PlannedCall("look", {"not": "B"}, ref="a2"),)
    mended = Turn(observations=(seen("2-0", "a2", "A2"),))
    (call,) = decided(view(failed, mended), MENDED).calls
    assert call == PlannedCall("sum", {}, earlier=("2-0", "1-1"), ref="c")
    summed = Turn(observations=(seen("3-0", "c", "C"),))
    (call,) = decided(view(failed, mended, summed), MENDED).calls
    assert call == PlannedCall("ask", {"subtask": "A2"}, ref="d")
    last = Turn(observations=(seen("4-0", "d", "D"),))
    assert decided(view(failed, mended, summed, last), MENDED).answer == "A2 and C"


def test_what_sees_a_call_is_made_in_the_round_of_its_last_fallback_and_waits_for_it() -> None:
    both = Turn(observations=(seen("1-0", "a", "no", "TIMEOUT"), FINE_B))
    again = Turn(observations=(seen("2-0", "a2", "no", "PARSE_ERR"),))
    assert decided(view(both, again), MENDED).calls == (
        PlannedCall("ask", {}, ref="a3"),
        PlannedCall("sum", {}, after=(0,), sees=(0,), earlier=("1-1",), ref="c"),
    )


def test_a_fallback_is_made_also_for_what_could_not_be_made() -> None:
    broken = Turn(observations=(seen("1-0", "a", "no", "EXEC_ERR"), seen("1-1", "b", 0, "TIMEOUT")))
    assert asked_for(broken) == ["a3", "c"]


def test_no_fallback_is_made_while_the_call_goes_on_and_what_came_late_is_preferred() -> None:
    going = Turn(observations=(FINE_B,), open=(Call("1-0", "look", {}, ref="a"),))
    (call,) = decided(view(going), MENDED).calls
    assert call == PlannedCall("sum", {}, earlier=("1-0", "1-1"), ref="c"), (
        "it waits for what it sees"
    )
    given_up = seen("1-0", "a", "no", "TIMEOUT")
    turns = (
        Turn(observations=(given_up, FINE_B), late=(seen("1-0", "a", "A"),)),
        Turn(observations=(seen("2-0", "a2", "A2"),)),
        Turn(observations=(seen("3-0", "c", "C"), seen("3-1", "d", "D"))),
    )
    assert decided(view(*turns), MENDED).answer == "A and C"


def test_where_every_fallback_failed_the_answer_names_them_and_nothing_that_was_mended() -> None:
    plan = {**MENDED, "call": [*MENDED["call"], {"id": "b2", "worker": "w", "fallback_for": "b"}]}
    turns = (
        Turn(observations=(seen("1-0", "a", "no", "EXEC_ERR"), seen("1-1", "b", "-", "TIMEOUT"))),
        Turn(observations=(seen("2-0", "b2", "B"),)),
        Turn(observations=(seen("3-0", "a2", "neither", "TIMEOUT"),)),
        Turn(observations=(seen("4-0", "a3", "nor", "EXEC_ERR"), seen("4-1", "c", "C"))),
    )
    assert decided(view(*turns), plan).answer == (
        "The plan was not finished: {a.output}: the call a ended as EXEC_ERR.\n"
        "- a (look) EXEC_ERR: no\n- a2 (look) TIMEOUT: neither\n- a3 (look) EXEC_ERR: nor"
    )


def test_the_version_is_that_of_the_plan() -> None:
    one, same = policy().decide(view()), policy().decide(view(FIRST))
    other = policy({**CHAIN, "answer": "{task}"}).decide(view())
    assert one.version == same.version != other.version


def test_the_run_records_the_plan() -> None:
    spec = spec_of(read(CHAIN), "chain")
    assert spec.name == "static:chain"
    again = msgspec.json.decode(msgspec.json.encode(spec), type=type(spec))
    assert make(again).spec == spec
    assert policy().decide(view()) == make(again).decide(view())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"call": []}, "no calls"),
        ({"answer": ""}, "needs one of answer and answer_from"),
        ({"answer_from": "a"}, "needs one of answer and answer_from"),
        ({"answer": "{nobody.output}"}, "{nobody.output} names nothing"),
        ({"answer": "{a}"}, "{a} is nothing of a call"),
        ({"answer": "{a.value}"}, "{a.value} is nothing of a call"),
        ({"answer": "{a.status.x}"}, "is nothing of a call"),
        ({"answer": "{task.text}"}, "{task.text} names nothing"),
        ({"answer": "{inputs}"}, "{inputs} names nothing"),
        ({"answer": "", "answer_from": "zz"}, "there is no call 'zz'"),
        ({"anwser": "x"}, "unknown field `anwser`"),
        ({"call": [{"id": "a", "worker": "w"}] * 2}, "two calls have the id 'a'"),
        ({"call": [{"id": "task", "worker": "w"}]}, "'task' is no id"),
        ({"call": [{"id": "a b", "worker": "w"}]}, "'a b' is no id"),
        ({"call": [{"id": "a", "worker": "w", "after": ["q"]}]}, "there is no call 'q'"),
        ({"call": [{"id": "a"}]}, "worker"),
        ({"answer": "{task}", "call": [{"id": "a", "worker": "w", "sees": ["a"]}]}, "in a circle"),
        (
            {
                "answer": "{a.output}",
                "call": [{"id": "a", "worker": "w", "arguments": {"x": [{"y": "{a.output}"}]}}],
            },
            "in a circle",
        ),
        ({"call": [{"id": "a", "worker": "w", "fallback_for": "q"}]}, "there is no call 'q'"),
        (
            {"answer": "{task}", "call": [{"id": "a", "worker": "w", "fallback_for": "a"}]},
            "in a circle",
        ),
        (
            {
                "call": [
                    {"id": "a", "worker": "w"},
                    {"id": "b", "worker": "w", "fallback_for": "a"},
                    {"id": "c", "worker": "w", "fallback_for": "a"},
                ]
            },
            "'b' and 'c' are both the fallback for 'a'",
        ),
        (
            {
                "answer": "{b.output}",
                "call": [
                    {"id": "a", "worker": "w"},
                    {"id": "b", "worker": "w", "fallback_for": "a"},
                ],
            },
            "the answer: 'b' is a fallback",
        ),
        (
            {
                "answer": "{a.output}",
                "call": [
                    {"id": "a", "worker": "w"},
                    {"id": "b", "worker": "w", "fallback_for": "a", "sees": ["a"]},
                ],
            },
            "in a circle",
        ),
        (
            {"answer": "{task}", "call": [{"id": f"c{n}", "worker": "w"} for n in range(65)]},
            "round 1 of the plan",
        ),
    ],
)
def test_a_plan_that_cannot_be_followed(change: dict[str, Any], why: str) -> None:
    tree = {"answer": "{task}", **CHAIN, **change}
    with pytest.raises(InvalidData) as caught:
        read({key: value for key, value in tree.items() if value != ""})
    assert why in caught.value.message
    assert caught.value.hint


@given(VALUES)
def test_a_value_without_places_stays_what_it_is(value: Json) -> None:
    if not list(places(value)) and "{{" not in as_text(value):
        assert filled(value, TASK, {}) == value


@given(name=TEXT)
def test_a_text_that_is_filled_in_is_not_filled_in_again(name: str) -> None:
    task = Task(text=name + "{inputs.names}")
    assert filled("<{task}>", task, {}) == f"<{name}{{inputs.names}}>"


@given(st.data())
def test_any_plan_comes_to_its_end(data: st.DataObject) -> None:
    ids = [f"c{number}" for number in range(data.draw(st.integers(1, 6)))]
    some = st.lists(st.sampled_from(ids), max_size=2, unique=True)
    tree: dict[str, Any] = {
        "answer": "".join(f"{{{name}.status}}" for name in ids),
        "call": [
            {
                "id": name,
                "worker": "w",
                "arguments": {
                    other: f"{{{other}.output}}" for other in data.draw(some) if other < name
                },
                "after": [other for other in data.draw(some) if other < name],
                "sees": [other for other in data.draw(some) if other < name],
            }
            for name in ids
        ],
    }
    for call in tree["call"][1:]:
        without = {**tree, "answer": tree["answer"].replace(f"{{{call['id']}.status}}", "")}
        call["fallback_for"] = data.draw(st.sampled_from(ids))
        try:
            read(without)
        except InvalidData:  # somebody names it, or it would be made for itself
            del call["fallback_for"]
        else:
            tree = without
    turns: list[Turn] = []
    asked: list[str] = []
    for number in range(1, len(stages(read(tree))) + 2):
        decision = decided(view(*turns), tree)
        if decision.answer is not None:
            break
        asked += [call.ref for call in decision.calls]
        came = [
            seen(f"{number}-{place}", call.ref, place, data.draw(STATUSES))
            for place, call in enumerate(decision.calls)
        ]
        turns.append(Turn(observations=tuple(came)))
    assert decided(view(*turns), tree).answer
    assert len(asked) == len(set(asked))
    if all(item.status == "OK" for turn in turns for item in turn.observations):
        assert sorted(asked) == [c["id"] for c in tree["call"] if "fallback_for" not in c]
