"""The rules policy: what it asks, what it answers, what it refuses, and that it always ends."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.policies.rules import CANNOT_PARSE, FAMILIES, VERSION, RulesPolicy, names
from protocol.actions import Call, Pool, WorkerSpec
from protocol.decisions import Observation, PlannedCall, Reply, Turn
from protocol.limits import MAX_ROUND_CALLS
from tests.offline_questions import (
    COUNTRIES,
    FRANCE,
    MAX_TURNS,
    NORDIC,
    QUESTIONS,
    Rounds,
    looked_up,
    observe,
    play,
    view,
)


def test_the_policy_knows_the_names_of_all_countries_of_some_size() -> None:
    known = set(names.COUNTRIES)
    missing = [
        name
        for name, raw in COUNTRIES.items()
        if raw["population"] > 30_000
        and tuple(names.fold(name).replace("-", " ").split()) not in known
        and raw["iso"] not in {"AN", "AX", "CS", "GG", "MO", "MP", "PS", "VI"}
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "calls", "said"), QUESTIONS, ids=[text for text, _, _ in QUESTIONS]
)
def test_a_question_is_planned_and_answered(text: str, calls: Rounds, said: list[str]) -> None:
    answer, rounds, _ = play(text)
    assert rounds == calls
    for part in said:
        assert part in answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "Hello!",
        "What is the meaning of life?",
        "Who is the president of France?",
        "Tell me about France",
        "What is the GDP of France?",
        "What is the population of France in 1990?",
        "What was the population of France?",
        "What is not the capital of France?",
        "Which country has the largest population in Europe?",
        "What is the largest city of France?",
        "How many people use the currency of Peru?",
        "Is France richer than Spain?",
        "Which is larger?",
        "What is the area of France in acres?",
        "France Spain",
        "What is the capital of France used for?",
        "How many people live in cities in France?",
        "How many capitals does France have?",
        "What country has the currency Sol?",
        "Which country uses the currency of Peru?",
        "Which countries use the euro?",
        "In what country is Timbuktu and what is its capital?",
        "What is the total area and population of France and Spain?",
        "Which city has the time zone of Lyon?",
        "What is the population of France without Paris?",
        "Is the capital of France in Italy?",
        "Compare France and the weather",
        "Which is larger and smaller, Chad or Niger?",
        "What is the average currency of France and Spain?",
        "Write a poem about the capital of France",
        "What is the population of France and who is its king?",
        "What is the tallest mountain of Nepal?",
        "run python",
        "Search the documents",
        "population of " + "the capital of " * 400 + "France",
        "(" * 900 + "1" + ")" * 900 + " plus the area of Chad",
        "word " * 5_000,
    ],
    ids=lambda text: text[:40],
)
def test_what_it_cannot_read_it_refuses_and_says_what_it_can(text: str) -> None:
    answer, rounds, _ = play(text)
    assert rounds == []
    assert answer.startswith(CANNOT_PARSE)
    assert "--policy openai:" in answer
    assert all(example in answer for _, example in FAMILIES)


@pytest.mark.parametrize("example", [example for _, example in FAMILIES])
def test_what_it_says_it_can_it_can(example: str) -> None:
    reply = RulesPolicy().decide(view(example))
    assert reply.decision is not None
    assert reply.decision.calls


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Run this Python: print(2**10)", "print(2**10)"),
        ("Execute the following Python code:\n```python\nx = 1\nprint(x)\n```", "x = 1\nprint(x)"),
        ("Run `print(1)`", "print(1)"),
        ("python: 1 + 1", "1 + 1"),
        ("What does this Python code print: print('a')", "print('a')"),
    ],
)
def test_code_goes_to_the_sandbox(text: str, code: str) -> None:
    def sandbox(call: PlannedCall, turn: int, index: int) -> Observation:
        made = Call(id=f"{turn}-{index}", worker=call.worker, arguments=call.arguments)
        return Observation(call=made, status="OK", value={"stdout": "1024\n", "result": None})

    answer, rounds, _ = play(text, sandbox)
    assert rounds == [{("python", code)}]
    assert answer == "The code gave: 1024"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"stdout": "", "stderr": "", "result": "1024"}, "The code gave: 1024"),
        ({"stdout": "a\nb\n", "stderr": "", "result": None}, "The code gave:\na\nb"),
        (
            {"stdout": "a", "stderr": "bad", "result": "1"},
            "The code gave:\na\nstderr: bad\nresult: 1",
        ),
        ({"stdout": "", "stderr": "", "result": None}, "The code ran and printed nothing."),
    ],
)
def test_what_code_gave_is_told(value: dict[str, Any], said: str) -> None:
    def sandbox(call: PlannedCall, turn: int, index: int) -> Observation:
        made = Call(id=f"{turn}-{index}", worker=call.worker, arguments=call.arguments)
        return Observation(call=made, status="OK", value=value)

    assert play("Run this Python: x", sandbox)[0] == said


def test_of_several_cities_it_says_which() -> None:
    answer, _, _ = play("What is the population of Birmingham?")
    assert "(Note: Birmingham in United Kingdom is the largest of 3 cities" in answer


def test_one_close_name_is_taken_and_said() -> None:
    answer, rounds, _ = play("What is the currency of Frnace?")
    assert rounds[-1] == looked_up("currency", "France")
    assert "Euro (EUR)" in answer
    assert 'I read "Frnace" as France.' in answer


def test_of_several_close_names_none_is_taken() -> None:
    answer, _, _ = play("Which has more people, France or Lyonn?")
    assert '"Lyonn" is not known' in answer
    assert 'Did you mean "Lyon" or "Lynn"?' in answer
    assert f"What was found: The population of France is {FRANCE:,} people." in answer


def test_a_name_that_two_countries_share_is_asked_back() -> None:
    answer, _, _ = play("What is the area of Congo?")
    assert '"Democratic Republic of the Congo" or "Republic of the Congo"' in answer


def test_an_error_of_the_calculator_is_reported_with_the_figures() -> None:
    answer, _, _ = play("Divide the population of France by 0")
    assert "divides by zero" in answer
    assert f"{FRANCE:,}" in answer


def failing(**failure: Any) -> Callable[[PlannedCall, int, int], Observation]:
    def answer_call(call: PlannedCall, turn: int, index: int) -> Observation:
        made = Call(id=f"{turn}-{index}", worker=call.worker, arguments=call.arguments)
        return Observation(call=made, value="it broke", **failure)

    return answer_call


@pytest.mark.parametrize(
    ("failure", "tries", "said"),
    [
        ({"status": "TIMEOUT", "fault": "worker"}, 2, "did not answer in time"),
        ({"status": "EXEC_ERR", "fault": "infrastructure"}, 2, "could not be reached"),
        ({"status": "EXEC_ERR", "fault": "worker"}, 1, "it broke"),
        ({"status": "PARSE_ERR", "fault": "policy"}, 1, "it broke"),
    ],
)
def test_only_what_may_pass_is_tried_again_and_once(
    failure: dict[str, Any], tries: int, said: str
) -> None:
    answer, rounds, _ = play("What is the population of France?", failing(**failure))
    assert rounds == [looked_up("population", "France")] * tries
    assert said in answer


def test_a_second_try_that_succeeds_gives_the_answer() -> None:
    def answer_call(call: PlannedCall, turn: int, index: int) -> Observation:
        return (
            failing(status="TIMEOUT")(call, turn, index)
            if turn == 1
            else observe(call, turn, index)
        )

    answer, rounds, _ = play("What is the population of France?", answer_call)
    assert len(rounds) == 2
    assert f"{FRANCE:,}" in answer


@pytest.mark.parametrize("value", ["", "many", None, True, [], {}, "9" * 9_000, "٣", 1e308])
@pytest.mark.parametrize("fact", ["area", "population", "neighbours", "coordinates", "currency"])
def test_a_value_of_another_kind_is_worded_too(fact: str, value: Any) -> None:
    def answer_call(call: PlannedCall, turn: int, index: int) -> Observation:
        made = Call(id=f"{turn}-{index}", worker=call.worker, arguments=call.arguments)
        return Observation(call=made, status="OK", value={"value": value})

    answer, _, _ = play(f"What is the {fact} of Lyonesse?", answer_call)
    assert answer
    assert len(answer) < 1_500


def test_a_worker_that_the_pool_has_not_is_named() -> None:
    pool = Pool((WorkerSpec(name="city"),))
    reply = RulesPolicy().decide(view("What is the population of France?", pool=pool))
    assert reply.decision is not None
    assert reply.decision.answer is not None
    assert "The pool has no worker called country." in reply.decision.answer


def test_when_only_an_answer_is_accepted_it_gives_what_there_is() -> None:
    text = "What is the total population of Norway, Sweden and Denmark?"
    _, _, turns = play(text)
    reply = RulesPolicy().decide(view(text, turns[:1], final=True, limited_by="rounds"))
    assert reply.decision is not None
    answer = reply.decision.answer or ""
    assert "incomplete, because the run's budget is used up (rounds)" in answer
    assert all(f"{number:,}" in answer for number in NORDIC)


def test_a_reply_carries_the_version_of_the_rules() -> None:
    assert RulesPolicy().decide(view("Hello")).version == VERSION


def test_a_round_has_no_more_calls_than_the_protocol_allows() -> None:
    names = [name for name in COUNTRIES if name.isalpha() and name not in {"Macao"}][:75]
    text = f"Sum the areas of {', '.join(names)}"
    reply = RulesPolicy().decide(view(text))
    assert reply.decision is not None
    assert len(reply.decision.calls) <= MAX_ROUND_CALLS


WORDS_LISTED = """
what which is are of in the and or than larger largest more most population area capital capitals
country city whose where France Spain Lyon Paris Tokyo Kenya Wakanda Africa how many people live
per square kilometre total average difference between by rank percentage divided plus times 17
3.5 ( ) , ? : + - * / 's same compare both currency continent with as its has double squared sum
search documents for that
"""
WORDS = WORDS_LISTED.split()

sentences = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    st.sampled_from([text for text, _, _ in QUESTIONS]),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "country", "city", "code", "note", "passages", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
results = st.one_of(
    json_values,
    json_values.map(lambda value: {"value": value}),
    st.integers(0, 10**9).map(lambda value: {"value": value}),
    st.just('ValueError: No city is called "x". Did you mean "Lyon"?'),
    st.just('No country is called "x". Did you mean "Chad" or "Mali"?'),
)
outcomes = st.tuples(
    st.sampled_from(["OK", "OK", "PARSE_ERR", "EXEC_ERR", "TIMEOUT"]),
    st.sampled_from(["none", "policy", "worker", "infrastructure"]),
    results,
)


@settings(max_examples=300, deadline=None)
@given(text=sentences, data=st.data())
def test_any_text_and_any_results_end_in_an_answer(text: str, data: st.DataObject) -> None:
    """Total, deterministic, six turns at most, and no failing call made more than twice."""

    def answer_call(call: PlannedCall, turn: int, index: int) -> Observation:
        status, fault, value = data.draw(outcomes)
        made = Call(id=f"{turn}-{index}", worker=call.worker, arguments=call.arguments)
        ended: dict[str, Any] = {"status": status, "fault": fault, "value": value}
        return Observation(call=made, **ended)

    answer, _, turns = play(text, answer_call)
    assert answer
    made = [o.call for turn in turns for o in turn.observations]
    for call in made:
        same = [c for c in made if (c.worker, c.arguments) == (call.worker, call.arguments)]
        assert len(same) <= 2


@settings(max_examples=200, deadline=None)
@given(text=sentences, final=st.booleans(), data=st.data())
def test_a_view_that_no_run_of_ours_gave_is_answered_too(
    text: str, final: bool, data: st.DataObject
) -> None:
    calls = st.builds(
        Call,
        id=st.text(max_size=5),
        worker=st.sampled_from(["country", "city", "calculator", "other"]),
        arguments=st.dictionaries(st.sampled_from(["name", "fact", "x"]), json_values, max_size=3),
    )
    observations = st.builds(
        Observation,
        call=calls,
        status=st.sampled_from(["OK", "EXEC_ERR", "TIMEOUT", "PARSE_ERR"]),
        value=json_values,
    )
    turn = st.builds(Turn, observations=st.lists(observations, max_size=3).map(tuple))
    turns = tuple(data.draw(st.lists(turn, max_size=8)))
    reply: Reply = RulesPolicy().decide(view(text, turns, final=final))
    assert reply.decision is not None
    assert bool(reply.decision.calls) != (reply.decision.answer is not None)
    if final or len(turns) >= MAX_TURNS - 1:
        assert reply.decision.answer
