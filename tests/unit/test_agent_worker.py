"""Agents as workers, against a real HTTP server that follows a script."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.ports import Attempt, Outcome
from actors.workers import ADAPTERS, draft, host
from actors.workers.agent import ROLE, SEEN_CHARS
from protocol.actions import Json, Spend, Usage
from protocol.errors import InvalidData
from tests.endpoint import Endpoint

KEY = "sk-test-SECRET"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEAM_KEY", KEY)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(KEY) as serving:
        yield serving
        assert serving.errors == []


def asked(endpoint: Endpoint, work: Attempt | None = None, **options: Any) -> Outcome:
    fields = {"model": "m", "base_url": endpoint.url, "api_key_env": "TEAM_KEY", **options}

    async def ask() -> Outcome:
        adapter = host(draft("openai", fields, name="expert"))
        try:
            return await adapter.run(work or attempt())
        finally:
            await adapter.close()

    return asyncio.run(ask())


def attempt(
    sees: dict[str, Json] | None = None, task: str = "", timeout_s: float = 10, **arguments: Json
) -> Attempt:
    return Attempt(
        run="r",
        call="2-0",
        attempt=1,
        arguments=arguments or {"subtask": "Name the capital of Peru."},
        timeout_s=timeout_s,
        sees=sees or {},
        task=task,
    )


def test_it_is_told_its_role_and_its_subtask(endpoint: Endpoint) -> None:
    endpoint.say("Lima", usage=(100, 10))
    outcome = asked(
        endpoint, role="You know capitals.", temperature=0.0, max_tokens=64, price_in=1, price_out=2
    )
    assert (outcome.status, outcome.value) == ("OK", "Lima")
    assert outcome.spend == Spend(tokens=110, cost=120)
    assert outcome.usage == Usage(100, 10)
    body = endpoint.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "You know capitals."},
        {"role": "user", "content": "Name the capital of Peru."},
    ]
    assert (body["temperature"], body["max_tokens"]) == (0.0, 64)
    assert "tools" not in body


def test_what_it_sees_is_named_and_bounded(endpoint: Endpoint) -> None:
    endpoint.say("ok")
    sees = {"1-0": {"city": "Lima"}, "1-1": "x" * 200_000}
    asked(endpoint, attempt(sees, task="All capitals."))
    system, user = endpoint.requests[0].body["messages"]
    assert system["content"] == ROLE
    assert '<output of="1-0">\n{"city":"Lima"}\n</output>' in user["content"]
    assert "All capitals." in user["content"]
    assert user["content"].endswith("Your subtask:\nName the capital of Peru.")
    assert SEEN_CHARS // 2 < len(user["content"]) < SEEN_CHARS


def test_arguments_of_another_schema_are_shown_as_json(endpoint: Endpoint) -> None:
    endpoint.say("ok")
    asked(endpoint, attempt(topic="Peru", depth=2))
    assert endpoint.requests[0].body["messages"][1]["content"] == '{"depth":2,"topic":"Peru"}'


@pytest.mark.parametrize(
    ("code", "fault", "said"),
    [
        (400, "worker", "context too long"),
        (403, "infrastructure", "TEAM_KEY"),
        (404, "infrastructure", "model's name"),
        (429, "infrastructure", "may work later"),
        (500, "infrastructure", "may work later"),
        (529, "infrastructure", "may work later"),
    ],
)
def test_a_refusal_is_blamed_on_who_can_mend_it(
    endpoint: Endpoint, code: int, fault: str, said: str
) -> None:
    endpoint.refuse(code, "context too long")
    outcome = asked(endpoint)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", fault)
    assert said in outcome.value
    assert len(endpoint.requests) == 1


def test_a_missing_key_is_named_and_nothing_is_sent(endpoint: Endpoint) -> None:
    outcome = asked(endpoint, api_key_env="NO_SUCH_KEY")
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert "NO_SUCH_KEY" in outcome.value
    assert endpoint.requests == []


def test_a_key_that_is_echoed_is_not_recorded(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-other-SECRET")
    outcome = asked(endpoint)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert "Incorrect API key" in outcome.value
    assert "SECRET" not in outcome.value


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"text": ""}, "its reply was empty"),
        ({"text": " ", "finish": "length"}, "used up its tokens"),
        ({"text": "par", "finish": "content_filter"}, "content filter"),
        ({"text": None, "refusal": "I will not."}, "I will not."),
    ],
)
def test_no_answer_is_the_agents_fault_and_is_paid_for(
    endpoint: Endpoint, reply: dict[str, Any], said: str
) -> None:
    endpoint.say(**reply)
    outcome = asked(endpoint)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
    assert said in outcome.value
    assert outcome.spend == Spend(tokens=15)


def test_slow_is_a_timeout(endpoint: Endpoint) -> None:
    held = endpoint.dribble()
    outcome = asked(endpoint, attempt(timeout_s=0.5))
    assert outcome.status == "TIMEOUT"
    assert held.gone.wait(10)


def test_the_draft_reserves_what_an_attempt_may_spend() -> None:
    spec = draft("openai", {"model": "m", "max_tokens": 1_000, "price_in": 1, "price_out": 10})
    assert spec.kind == "agent"
    assert spec.reserve == Spend(tokens=25_000, cost=34_000)


@pytest.mark.parametrize("options", [{}, {"model": "m", "api_key": "sk-1"}, {"model": 7}])
def test_wrong_options_are_refused_with_those_there_are(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidData) as refused:
        draft("openai", options)
    assert "api_key_env" in refused.value.hint
    assert "sk-1" not in refused.value.message


def test_an_unknown_adapter_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidData) as refused:
        draft("telepathy:x")
    assert all(kind in refused.value.hint for kind in ADAPTERS)
