"""Several answers made one: the vote, the comparison, and functions that see others' outputs."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import podium
from actors.attempts import attempt_of, call_message
from actors.ports import Attempt, Outcome
from actors.workers import draft, host
from podium.pools.consolidation import MAX_DISAGREEMENTS, alike, cross_check, essence, majority
from protocol.actions import Json
from protocol.codec import decode_call
from protocol.errors import InvalidData
from tests.runs import Driver, begin, inbox, plan, planned


@podium.tool
def sees(seen: podium.Seen, note: str = "") -> dict[str, Any]:
    """Says what it sees."""
    seen["own"] = note
    return {"seen": dict(seen), "failed": seen.failed}


def worked(name: str, attempt: Attempt) -> Outcome:
    async def work() -> Outcome:
        adapter = host(draft(name))
        try:
            return await adapter.run(attempt)
        finally:
            await adapter.close()

    return asyncio.run(work())


def attempt(arguments: dict[str, Json] | None = None, **more: Any) -> Attempt:
    return Attempt(run="r", call="2-0", attempt=1, arguments=arguments or {}, timeout_s=5, **more)


def test_a_function_is_given_what_its_call_sees_outside_of_its_schema() -> None:
    name = f"function:{__name__}:sees"
    assert list(draft(name).parameters["properties"]) == ["note"]
    shown: dict[str, Json] = {"1-0": {"city": "Lima"}, "1-1": "KeyError"}
    outcome = worked(name, attempt({"note": "n"}, sees=shown, failed={"1-1": "EXEC_ERR"}))
    assert outcome.value == {
        "seen": {"1-0": {"city": "Lima"}, "own": "n"},
        "failed": {"1-1": "KeyError"},
    }
    assert "own" not in shown
    refused = worked(name, attempt({"seen": {}}))
    assert (refused.status, refused.fault) == ("PARSE_ERR", "policy")


def test_two_parameters_for_it_are_refused() -> None:
    def twice(one: podium.Seen, other: podium.Seen) -> None:
        """No tool."""

    from actors.workers.signature import Signature

    with pytest.raises(InvalidData, match="one, other"):
        Signature(twice)


def test_what_failed_travels_with_what_a_call_sees() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(n=1), planned(n=2), planned(n=3, sees=(0, 1))))
    failed = driver.report_of("1-0", status="EXEC_ERR", fault="worker", value="broken")
    fine = driver.report_of("1-1", value=7)
    driver.give(inbox(failed), inbox(fine))
    state = driver.state
    values = {state.calls["1-0"].report: "broken", state.calls["1-1"].report: 7}
    made = attempt_of(decode_call(call_message(state, values, "1-2", 1)))
    assert made.sees == {"1-0": "broken", "1-1": 7}
    assert made.failed == {"1-0": "EXEC_ERR"}
    alone = call_message(state, values, "1-1", 1)
    assert b"failed" not in alone
    state.calls["1-0"] = msgspec.structs.replace(state.calls["1-0"], late="h")
    late = decode_call(call_message(state, values | {"h": 8}, "1-2", 1))
    assert (late.sees, late.failed) == ({"1-0": 8, "1-1": 7}, {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lima", " lima. "),
        ("1,234,567", 1234567),
        ("1 234 567", "1234567.0"),
        ("1e3", 1000),
        (0.1 + 0.2, "0.3"),
        ("“Lima”", "LIMA"),
        ("\N{FULLWIDTH DIGIT FOUR}\N{FULLWIDTH DIGIT TWO}", 42),
        (True, "true"),
        ({"a": "1", "b": [2.0]}, {"b": ["2"], "a": 1}),
        ("-0", 0),
        ("\N{MINUS SIGN}5", -5),
    ],
)
def test_what_is_written_differently_is_the_same_answer(one: Json, other: Json) -> None:
    assert alike(one) == alike(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lima", "Quito"),
        (10**15 + 1, 10**15 + 2),
        ("1,23", "123"),
        ("1.2.3", "123"),
        (1, [1]),
        ("1", "1 km"),
        (None, 0),
    ],
)
def test_what_differs_is_another_answer(one: Json, other: Json) -> None:
    assert alike(one) != alike(other)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("First this.\n\nResult: **42**", "42"),
        ("So:\n**Answer:** Lima", "Lima"),
        ("Result: -5", "-5"),
        ("**Result:** **-5**", "-5"),
        ("Result: .5", ".5"),
        ("Result: [1, 2]", "[1, 2]"),
        ("Result: early\nand more", "Result: early\nand more"),
        ({"answer": "42", "run": "r1"}, "42"),
        ({"answer": "42", "unit": "km"}, {"answer": "42", "unit": "km"}),
        ({"stdout": "42\n", "stderr": "", "result": None}, "42"),
        ({"stdout": "", "stderr": "", "result": "42"}, "42"),
        ({"best": "Result: 42", "name": "1-0", "scores": {}}, "42"),
    ],
)
def test_the_answer_is_found_in_what_workers_say(value: Json, answer: Json) -> None:
    assert essence(value) == answer


def test_the_majority_is_what_most_say() -> None:
    seen = podium.Seen({"1-0": "Lima", "1-1": "Quito", "1-2": "So:\nResult: LIMA."}, {"1-3": "?"})
    assert majority(seen) == {
        "answer": "Lima",
        "votes": 2,
        "of": 3,
        "majority": True,
        "tie": [],
        "groups": [
            {"answer": "Lima", "from": ["1-0", "1-2"]},
            {"answer": "Quito", "from": ["1-1"]},
        ],
        "failed": ["1-3"],
    }


def test_a_result_keeps_its_sign_in_a_vote() -> None:
    voted = majority(podium.Seen({"1-0": "So:\nResult: -5", "1-1": "Result: 5", "1-2": "5"}))
    assert (voted["answer"], voted["votes"]) == ("5", 2)
    assert not cross_check(podium.Seen({"1-0": "Result: -5"}), ("Result: 5",))["agree"]


def test_a_tie_is_said() -> None:
    voted = majority(podium.Seen(), ("7", "8", "8.0", "7.0", "9"))
    assert (voted["answer"], voted["tie"], voted["majority"]) == ("7", ["8"], False)


def test_a_comparison_names_where_answers_disagree() -> None:
    one = {"name": "Peru", "people": "34,000,000", "cities": ["Lima", "Cusco"]}
    other = {"name": "PERU", "people": 34_000_001, "cities": ["Lima", "Tacna"], "area": 1.3}
    assert cross_check(podium.Seen({"1-0": one, "1-1": other})) == {
        "agree": False,
        "of": 2,
        "disagreements": [
            {"at": "$.people", "values": {"1-0": "34,000,000", "1-1": 34_000_001}},
            {"at": "$.cities[1]", "values": {"1-0": "Cusco", "1-1": "Tacna"}},
            {"at": "$.area", "values": {"1-1": 1.3}, "missing": ["1-0"]},
        ],
        "more": 0,
        "failed": [],
    }
    assert cross_check(podium.Seen({"1-0": "42"}), ("Result: 42.0",))["agree"]


def test_no_more_disagreements_are_told_than_anybody_reads() -> None:
    compared = cross_check(podium.Seen({"a": list(range(80)), "b": list(range(1, 81))}))
    assert len(compared["disagreements"]) == MAX_DISAGREEMENTS
    assert compared["more"] == 80 - MAX_DISAGREEMENTS


def test_too_few_answers_are_a_failure_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="1 failed, and 1 are needed"):
        majority(podium.Seen({}, {"1-0": "?"}))
    with pytest.raises(ValueError, match="2 are needed"):
        cross_check(podium.Seen({"1-0": "Lima"}))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, min_size=2, max_size=5))
def test_any_answers_can_be_compared(answers: list[Json]) -> None:
    seen = podium.Seen({f"1-{place}": answer for place, answer in enumerate(answers)})
    voted, compared = majority(seen), cross_check(seen)
    assert sum(len(group["from"]) for group in voted["groups"]) == voted["of"] == len(answers)
    assert compared["agree"] == (voted["votes"] == len(answers))
