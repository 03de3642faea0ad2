"""Roles that are shipped, and the reviewer that gives back the best of several answers."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.workers import draft
from actors.workers.agent import DESCRIPTION, JUDGE_PARAMETERS, PARAMETERS, roles
from actors.workers.agent.judging import Judged, best
from actors.workers.agent.roles import ROLES
from protocol.actions import Pool
from protocol.errors import InvalidData
from tests.endpoint import Endpoint
from tests.runs import Driver, begin
from tests.unit.test_agent_worker import _keys, asked, attempt, endpoint

__all__ = ["_keys", "endpoint"]


@pytest.mark.parametrize("name", list(ROLES))
def test_a_role_is_asked_for_by_name_and_recorded_as_text(name: str) -> None:
    spec = draft("openai", {"model": "m", "role": f"@{name}"})
    assert spec.options["role"] == ROLES[name].prompt
    assert spec.description == ROLES[name].description != DESCRIPTION
    again = draft("openai", spec.options, description=spec.description)
    assert again == spec, "what is recorded needs no name"


def test_a_role_of_ones_own_stays_what_it_is() -> None:
    for role in ("You write.", "@home, you write."):
        assert draft("openai", {"model": "m", "role": role}).options["role"] == role


def test_a_fork_records_the_text_of_a_role_too() -> None:
    from podium.cli.fork import _edits

    agent = draft("openai", {"model": "m"}, name="agent")
    state = Driver(begin(pool=Pool((agent,)))).state
    (edit,) = _edits(state, ["workers.agent.options.role=@critical-reviewer"])
    assert edit.value == ROLES["critical-reviewer"].prompt
    (edit,) = _edits(state, ["workers.agent.options.role=Be kind."])
    assert edit.value == "Be kind."


def test_a_role_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidData, match="no role '@nobody'") as refused:
        draft("openai", {"model": "m", "role": "@nobody"})
    assert "@critical-reviewer" in refused.value.hint


def test_what_a_role_says_fits_into_a_pool_and_holds_no_name_of_a_model() -> None:
    for role in ROLES.values():
        assert 200 < len(role.prompt) < 2_500
        assert role.description.count(". ") <= 2
    assert roles.named("") is None


def test_the_reviewer_gives_back_the_best_answer_word_for_word(endpoint: Endpoint) -> None:
    scores = {"1-0": 3, "1-1": 9.5, "answer 1": 2}
    endpoint.say("I think:\n" + json.dumps({"scores": scores, "why": "It is checked."}))
    sees = {"1-0": "Cusco", "1-1": {"city": "Lima"}}
    work = attempt(sees, subtask="Which is the capital?", answers=["Quito"])
    outcome = asked(endpoint, work, role="@best-by-reviewer")
    assert outcome.status == "OK"
    assert outcome.value == {
        "best": {"city": "Lima"},
        "name": "1-1",
        "scores": {"1-0": 3.0, "1-1": 9.5, "answer 1": 2.0},
        "why": "It is checked.",
    }
    user = endpoint.requests[0].body["messages"][1]["content"]
    assert '<output of="answer 1">\nQuito\n</output>' in user


def test_what_failed_is_no_answer_and_is_said_to_have_failed(endpoint: Endpoint) -> None:
    endpoint.say('{"scores": {"1-1": 5}}')
    seen = attempt({"1-0": "KeyError", "1-1": "Lima"})
    work = msgspec.structs.replace(seen, failed={"1-0": "EXEC_ERR"})
    assert asked(endpoint, work, role="@best-by-reviewer").value["name"] == "1-1"
    user = endpoint.requests[0].body["messages"][1]["content"]
    assert '<output of="1-0" status="EXEC_ERR">' in user


def test_with_nothing_to_compare_nobody_is_asked(endpoint: Endpoint) -> None:
    outcome = asked(endpoint, role="@best-by-reviewer")
    assert (outcome.status, outcome.fault, outcome.record) == ("PARSE_ERR", "policy", [])
    assert "answers" in outcome.value
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("The second one.", "no JSON object"),
        ('{"scores": {"a": 1}}', "score of b"),
        ('{"scores": {"a": 1, "b": "high"}}', "score of b"),
        ('{"scores": {"a": 1, "b": true}}', "score of b"),
        ('{"scores": {"a": 1, "b": NaN}}', "score of b"),
    ],
)
def test_a_reply_that_decides_nothing_is_the_reviewers_failure(
    endpoint: Endpoint, reply: str, said: str
) -> None:
    endpoint.say(reply)
    outcome = asked(endpoint, attempt({"a": "x", "b": "y"}), role="@best-by-reviewer")
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
    assert said in outcome.value


def test_of_a_tie_the_first_counts_and_the_others_are_said() -> None:
    judged = best('{"scores": {"b": 5, "a": 5, "c": 1}}', {"a": 1, "b": 2, "c": 3})
    assert judged == Judged(1, "a", {"a": 5.0, "b": 5.0, "c": 1.0}, ties=("b",))


def test_what_stands_last_counts() -> None:
    text = 'First {"scores": {"a": 1, "b": 2}}. No: {"scores": {"a": 3, "b": 2}}.'
    judged = best(text, {"a": "x", "b": "y"})
    assert isinstance(judged, Judged)
    assert judged.best == "x"


@given(st.text(alphabet='{}[]":,ab1 scores', max_size=400))
def test_any_reply_is_judged_or_refused(text: str) -> None:
    assert isinstance(best(text, {"a": "x"}), Judged | str)


def test_the_schema_is_that_of_what_it_gives() -> None:
    options: dict[str, Any] = {"model": "m"}
    assert draft("openai", options).parameters == PARAMETERS
    for named in ({"role": "@best-by-reviewer"}, {"gives": "best"}):
        assert draft("openai", {**options, **named}).parameters == JUDGE_PARAMETERS
