"""The dialects of slots: workers, entities and outputs by number; each prompt extends the last."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.actions import Call, Pool, Spend, WorkerSpec
from protocol.decisions import (
    Decision,
    Observation,
    Output,
    PlannedCall,
    PolicySpec,
    Referable,
    Rejection,
    Reply,
    Task,
    Turn,
    View,
)
from protocol.dialects import parse, referable, render, request, requests, slots
from protocol.limits import MAX_REPLY_BYTES
from tests.runs import Driver, begin
from tests.words import ANY_TEXT, TEXT, seen

COUNTRY = WorkerSpec(
    name="country",
    description="What is known of a country.\nFrom country's tables.",
    parameters={
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "fact": {"enum": ["capital", "population"]},
            "year": {"type": "integer"},
        },
        "required": ["name", "fact"],
    },
    reserve=Spend(cost=2_000),
    options={"speed": "fast"},
)
SUMS = WorkerSpec(
    name="sums",
    description="Works out an expression.",
    parameters={
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
)
FREE = WorkerSpec(name="free", description="Anything at all.", reserve=Spend(cost=349))
POOL = Pool((COUNTRY, SUMS, FREE))
POLICY = PolicySpec(name="p", dialect="slots")
TASK = Task(
    text="How many people live in Guinea-Bissau and Guinea, times 3? (In 1930?)",
    inputs={"entities": ["Guinea", "Guinea-Bissau", 3, "Fiji"], "lang": "en"},
    sees=(Output("0-0", "country", "a\nb"),),
)
KNOWN = Referable(TASK, ("1-0", "1-1"))


def view(*turns: Turn, **fields: Any) -> View:
    return View(run="r1", task=TASK, pool=POOL, turns=turns, **fields)


def shown(*turns: Turn, **fields: Any) -> list[str]:
    messages: Any = request(POLICY, view(*turns, **fields))["messages"]
    return [f"{each['role']}: {each['content']}" for each in messages]


def decided(text: str, known: Referable = KNOWN) -> Decision | Rejection:
    return parse(POLICY, Reply(text=text), POOL, known)


def call(worker: str, **arguments: Any) -> PlannedCall:
    return PlannedCall(worker, arguments)


def test_a_prompt_is_short_and_calls_nobody_by_name() -> None:
    pool, task = shown()
    assert pool == (
        "system: What is known of a country. From country's tables "
        "(name, fact: capital|population, year?: integer) | 2 fast @1\n"
        "Works out an expression | 0 @2\n"
        "Anything at all | 0.3 @3"
    )
    assert task == (
        "user: How many people live in $2 and $1, times $3? (In 1930?)\n"
        '$4 Fiji\ninputs {"lang":"en"}\nKNOWN OK a b'
    )


def test_descriptions_name_nobody_where_numbers_are_asked_for() -> None:
    numbered = msgspec.structs.replace(POLICY, naming="numbers")
    messages: Any = request(numbered, view())["messages"]
    assert messages[0]["content"].startswith("What is known of a @1. From @1's tables (name")


def test_compact_begins_lines_by_their_slot_and_never_says_a_name() -> None:
    spec = msgspec.structs.replace(POLICY, dialect="compact")
    messages: Any = request(spec, view())["messages"]
    assert messages[0]["content"] == (
        "@1 What is known of a @1. From @1's tables "
        "(name, fact: capital|population, year?: integer) | 2 fast\n"
        "@2 Works out an expression | 0\n"
        "@3 Anything at all | 0.3"
    )
    assert messages[1:] == request(POLICY, view())["messages"][1:]


def test_outputs_say_what_they_are_of_and_in_compact_they_do_not() -> None:
    sums = "$1, $2, $3, #1 and $1 and $4"
    turn = Turn(
        f"@1 name=$2 fact=capital\n@2 {sums}",
        (
            seen(
                "1-0", "country", "Bissau", arguments={"name": "Guinea-Bissau", "fact": "capital"}
            ),
            Observation(
                call=Call(
                    "1-1",
                    "sums",
                    {"expression": "Guinea, Guinea-Bissau, 3, ${output:1-0} and Guinea and Fiji"},
                ),
                status="EXEC_ERR",
                value="That is no sum. " * 20,
            ),
        ),
    )
    *_, came = shown(turn)
    bissau, failed = came.split("\n")
    assert bissau == "user: #1 $2 OK Bissau"
    assert failed.startswith("#2 $1 $2 $3 #1 EXEC_ERR That is no sum.")
    assert len(failed) < slots.FAILURE_CHARS + 30
    compact: Any = request(msgspec.structs.replace(POLICY, dialect="compact"), view(turn))
    *_, said = compact["messages"]
    assert said["content"].startswith("#1 OK Bissau\n#2 EXEC_ERR That")


def test_a_policys_own_job_stands_before_the_workers() -> None:
    spec = PolicySpec(name="p", dialect="slots", system=slots.INSTRUCTIONS)
    messages: Any = request(spec, view())["messages"]
    assert messages[0]["content"].startswith("You lead the workers below.")
    assert "\nWhat is known of a country." in messages[0]["content"]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("@1 name=$1 fact=population", [call("country", name="Guinea", fact="population")]),
        ("@1 name=a = b fact=x y", [call("country", name="a = b", fact="x y")]),
        ("@1 $1", [call("country", name="Guinea")]),
        (
            "@1 name=$1 fact=capital year=$3",
            [call("country", name="Guinea", fact="capital", year=3)],
        ),
        (
            "@1 name=x fact=capital year=soon",
            [call("country", name="x", fact="capital", year="soon")],
        ),
        ("@2 $3 * 2", [call("sums", expression="3 * 2")]),
        ("@2 expression=1", [call("sums", expression="expression=1")]),
        ('@2 {"expression": "$3"}', [call("sums", expression="3")]),
        ("\n @2 1+1 \n\n@2 2", [call("sums", expression="1+1"), call("sums", expression="2")]),
        ("<think>hm</think>\n@2 1", [call("sums", expression="1")]),
        ("@3", [call("free")]),
        ("@9 x", [call("@9", subtask="x")]),
        ("@2 $1000", [call("sums", expression="$1000")]),
    ],
)
def test_calls(text: str, calls: list[PlannedCall]) -> None:
    assert decided(text) == Decision(calls=tuple(calls))


def test_outputs_of_calls_made_and_of_the_same_reply() -> None:
    decision = decided("@2 #1 + 1\n@2 #2/#3")
    assert isinstance(decision, Decision)
    first, second = decision.calls
    assert (first.arguments, first.earlier) == ({"expression": "${output:1-0} + 1"}, ("1-0",))
    assert second.arguments == {"expression": "${output:1-1}/${output:2-0}"}
    assert (second.earlier, second.sees) == (("1-1",), (0,))


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("= Fiji", Decision(answer="Fiji")),
        ("= $1, and\nmore", Decision(answer="Guinea, and\nmore")),
        ("= #2", Decision(answers="${output:1-1}")),
        ("=#1 and $4", Decision(answers="${output:1-0} and Fiji")),
        (
            "@2 1\n= #3",
            Decision((call("sums", expression="1"),), answers="${output:2-0}"),
        ),
    ],
)
def test_answers(text: str, decision: Decision) -> None:
    assert decided(text) == decision


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "empty", "say @SLOT or = ANSWER"),
        (" = ", "empty", "the answer is empty"),
        ("@2 1\nwell", "malformed", "line 2: begin with @ or ="),
        ("@2 #4", "malformed", "there is no #4"),
        ("@2 $5", "malformed", "there is no $5"),
        ("= #0", "malformed", "there is no #0"),
        ("@2 1\n= 2", "malformed", "calls and an answer: give one"),
    ],
)
def test_what_is_no_decision_is_refused_in_few_words(text: str, reason: str, detail: str) -> None:
    assert decided(text) == Rejection(reason, detail)


def test_what_a_reply_points_at_is_not_written_out_without_end() -> None:
    long = Referable(Task(text="?", inputs={"entities": ["x" * 60_000]}))
    tracemalloc.start()
    refused = [decided(f"{said}{'$1 ' * 1_000}", long) for said in ("= ", "@2 ", "@2 a\n@3 ")]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused == [Rejection("malformed", "what it points at is too long")] * 3
    assert peak < 10 * MAX_REPLY_BYTES


def test_without_marked_entities_a_price_is_a_price() -> None:
    assert decided("= $5", Referable()) == Decision(answer="$5")


@given(text=ANY_TEXT | st.lists(st.sampled_from(list('@=#$12 a\n{}"')), max_size=12).map("".join))
@example("@1 year=1e999")
@example("@1 year=" + "9" * 400)
@example('@1 {"a": "#1"}')
def test_any_text_is_a_decision_or_a_refusal_and_is_said_again(text: str) -> None:
    parsed = decided(text)
    assert isinstance(parsed, Decision | Rejection)
    if isinstance(parsed, Decision) and not parsed.answer:
        said = render(POLICY, parsed, POOL, KNOWN)
        assert decided(said.text) == parsed


WORD = st.text(
    st.characters(categories=["L", "Nd", "Zs", "P"], exclude_characters="$#\u2028"), max_size=9
)


@given(
    calls=st.lists(
        st.builds(call, st.just("sums"), expression=WORD | st.sampled_from(["Guinea", 3]))
        | st.builds(call, st.just("country"), name=WORD, fact=WORD, year=st.integers(-5, 5) | WORD)
        | st.builds(call, st.just("free"), a=st.lists(WORD), b=st.none() | st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_calls_survive(calls: list[PlannedCall]) -> None:
    decision = Decision(calls=tuple(calls))
    assert decided(render(POLICY, decision, POOL, KNOWN).text) == decision


# ------------------------------------------------------------------------------------- what came


def test_what_came_of_a_round() -> None:
    text = "@1 name=$1 fact=population\n@2 #1 * 2\n@2 9"
    first = seen("1-0", "country", {"value": 7}, arguments={"name": "Guinea", "fact": "population"})
    second = Observation(
        call=Call("1-1", "sums", {"expression": "${output:1-0} * 2"}),
        status="PARSE_ERR",
        fault="policy",
        value="There is no ${output:1-0}:\n#9 OK 5",
    )
    open_ = Call("1-2", "sums", {"expression": "9"})
    late = Observation(call=open_, status="OK", value="x" * 1_000)
    turns = (
        Turn(text, (first, second), open=(open_,), late=(late,)),
        Turn("@2 #7", rejection=Rejection("malformed", "there is no #7")),
    )
    *_, typed, came, again, refused, final = shown(*turns, final=True)
    assert typed == f"assistant: {text}"
    lines = came.split("\n")
    assert lines[:3] == ["user: #1 $1 OK 7", "#2 #1 PARSE_ERR There is no #1: #9 OK 5", "#3 OPEN"]
    assert lines[3].startswith("#3 OK xxx")
    assert len(lines[3]) <= slots.VALUE_CHARS + 6
    assert (again, refused) == ("assistant: @2 #7", "user: REFUSED there is no #7")
    assert final == "user: FINAL"


def test_a_round_that_was_typed_otherwise_is_written_anew() -> None:
    turn = Turn("I call it.", (seen("1-0", "sums", 2, arguments={"expression": "1+1"}),))
    assert shown(turn)[2] == "assistant: @2 1+1"


def test_what_may_be_referred_to_is_the_same_in_a_view_and_in_a_state() -> None:
    from protocol.replies import referable as of_state
    from protocol.views import view as view_of
    from tests.runs import plan, planned

    driver = Driver(begin())
    driver.reply(plan(planned(), planned(n="x"), planned(n=2)))
    driver.report("1-2")
    driver.report("1-0")
    driver.reply(plan(planned()))
    driver.report("2-0")
    known = referable(view_of(driver.state, driver.values))
    assert known == of_state(driver.state)
    assert (known.calls, known.round) == (("1-0", "1-1", "1-2", "2-0"), 3)


def test_a_run_in_the_dialect() -> None:
    driver = Driver(begin(pool=POOL, policy=POLICY))
    driver.reply(Reply(text="@2 1+1\n@2 #1 * 2\n@9 x"))
    assert "There are: @1, @2, @3." in driver.state.calls["1-2"].value
    driver.report("1-0", value={"value": 2})
    driver.report("1-1", value={"value": 4})
    driver.reply(Reply(text="= #2"))
    driver.composed()
    assert (driver.state.outcome, driver.state.answer) == ("finished", "4")


@given(texts=st.lists(TEXT | st.sampled_from(["@2 1", "@2 #1", "= ", "@3"]), max_size=4))
def test_each_conversation_begins_with_the_one_before(texts: list[str]) -> None:
    from protocol.views import view as view_of

    driver = Driver(begin(pool=POOL, policy=POLICY))
    before: list[Any] = []
    for text in texts:
        if driver.state.asked is None or driver.state.asked.limited_by:
            break
        messages: Any = request(POLICY, view_of(driver.state, driver.values))["messages"]
        assert messages[: len(before)] == before
        before = [*messages, {"role": "assistant", "content": text}]
        driver.reply(Reply(text=text))
        while driver.state.open:
            driver.report(next(iter(driver.state.open)), value={"value": 1})


ROUNDS = st.builds(
    lambda made, text, late: Turn(text, observations=tuple(made), late=tuple(late)),
    st.lists(
        st.builds(
            seen,
            st.sampled_from(["1-0", "1-1", "2-0"]),
            st.sampled_from(["country", "sums", "nobody"]),
            st.sampled_from([1, True, 1.0, "1", {"value": 1}, "#1 ${output:1-0}"]),
            status=st.sampled_from(["OK", "TIMEOUT"]),
            arguments=st.sampled_from(
                [{"name": "Fiji", "fact": "x"}, {"fact": "x", "name": "Fiji"}, {"year": 1}]
            ),
        ),
        max_size=2,
        unique_by=lambda item: item.call.id,
    ),
    st.sampled_from(["", "@2 #1"]),
    st.sampled_from([[], [seen("1-0", "sums", 1)]]),
)
OTHER = Task(text=TASK.text, inputs={"entities": ["people"]})


@given(
    views=st.lists(
        st.builds(
            lambda turns, final, task, pool: View(
                run="r1", task=task, pool=pool, turns=tuple(turns), final=final
            ),
            st.lists(ROUNDS, max_size=4),
            st.booleans(),
            st.sampled_from([TASK, TASK, OTHER]),
            st.sampled_from([POOL, POOL, Pool((SUMS, COUNTRY))]),
        ),
        max_size=4,
    ),
    dialect=st.sampled_from(["slots", "compact", "openai"]),
)
def test_views_asked_one_after_another_read_as_each_alone(views: list[View], dialect: Any) -> None:
    """Also where a turn has changed, of which only the type of a value tells."""
    policy = PolicySpec(name="p", dialect=dialect)
    grown = [msgspec.structs.replace(v, turns=v.turns[:k]) for v in views for k in range(5)]
    assert list(requests(policy, grown)) == [request(policy, each) for each in grown]


def test_of_a_run_that_goes_on_what_stays_is_put_into_words_once() -> None:
    turns = [Turn(observations=(seen(f"{k}-0", "sums", k),)) for k in range(1, 9)]
    prompts: Any = [
        each["messages"] for each in requests(POLICY, (view(*turns[:k]) for k in (7, 8)))
    ]
    assert len(prompts[0]) == 16
    assert all(one is other for one, other in zip(*prompts, strict=False))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("${output:1-0} * 12", "#1 * $2"),
        ("12 - ${output:1-0}", "$2 - #1"),
        ("round(${output:1-0} / 12.5, 1)", "round(#1 / 12.5, 1)"),
        ("112 + 12", "112 + $2"),
    ],
)
def test_an_entity_within_a_text_is_pointed_at(expression: str, said: str) -> None:
    task = Task(text="Times 12", inputs={"entities": ["Fiji", 12]})
    known = Referable(task, ("1-0",))
    decision = Decision(calls=(PlannedCall("sums", {"expression": expression}, earlier=("1-0",)),))
    reply = render(POLICY, decision, POOL, known)
    assert reply.text == f"@2 {said}"
    again = parse(POLICY, reply, POOL, known)
    assert isinstance(again, Decision)
    assert again.calls[0].arguments == {"expression": expression}
