"""The endpoint policy, against a real HTTP server that follows a script."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.policies.openai import OpenAIPolicy, from_env
from protocol.actions import Call, Pool, Spend, Usage, WorkerSpec
from protocol.decisions import (
    NO_ROOM,
    Decision,
    Observation,
    Reply,
    Task,
    ToolCall,
    Turn,
    View,
)
from protocol.dialects import parse
from protocol.errors import Denied
from tests.endpoint import Endpoint, completion

POOL = Pool((WorkerSpec(name="lookup", description="Finds a country."),))
KEY = "sk-test-SECRET"


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(KEY) as serving:
        yield serving
        assert serving.errors == []


def view(**fields: Any) -> View:
    return View(run="r1", task=Task(text="Capital of Peru?"), pool=POOL, **fields)


def asked(policy: OpenAIPolicy, shown: View | None = None) -> Reply:
    async def ask() -> Reply:
        try:
            return await policy.ask(shown or view())
        finally:
            await policy.close()

    return asyncio.run(ask())


def policy(endpoint: Endpoint, **options: Any) -> OpenAIPolicy:
    return OpenAIPolicy("m", base_url=endpoint.url, **{"api_key": KEY, **options})


def test_a_reply_has_calls_usage_cost_latency_and_version(endpoint: Endpoint) -> None:
    calls = [("a", "lookup", '{"name":"Peru"}'), ("b", "lookup", "{oops")]
    endpoint.say("Two.", calls=calls, usage=(1_000, 100), model="m-7", fingerprint="fp1")
    ticks = iter([10.0, 10.25])
    reply = asked(policy(endpoint, price_in=2.0, price_out=10.0, clock=lambda: next(ticks)))
    assert reply == Reply(
        text="Two.",
        tool_calls=(
            ToolCall("a", "lookup", '{"name":"Peru"}'),
            ToolCall("b", "lookup", "{oops"),
        ),
        spend=Spend(tokens=1_100, cost=3_000),
        latency_ms=250,
        version="m-7@fp1",
        usage=Usage(1_000, 100),
        finish="tool_calls",
    )
    decision = parse(OpenAIPolicy("m").spec, reply, POOL)
    assert isinstance(decision, Decision)
    assert len(decision.calls) == 2


def test_the_request_is_the_dialects(endpoint: Endpoint) -> None:
    endpoint.say("Lima")
    observation = Observation(
        call=Call(id="1-0", worker="lookup", arguments={"name": "Peru"}, ref="a"),
        status="OK",
        value="Lima",
    )
    shown = view(turns=(Turn(observations=(observation,)),))
    asked(policy(endpoint, temperature=0.5, max_tokens=99, extra={"seed": 7}), shown)
    (request,) = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    body = request.body
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == (
        "m",
        0.5,
        99,
        7,
    )
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert body["tools"][0]["function"]["name"] == "lookup"
    assert body["tool_choice"] == "auto"


def test_the_final_turn_forbids_calls(endpoint: Endpoint) -> None:
    endpoint.say("Lima")
    asked(policy(endpoint), view(final=True, limited_by="rounds"))
    assert endpoint.requests[0].body["tool_choice"] == "none"


@pytest.mark.parametrize("code", [400, 403, 404, 429, 500, 503])
def test_a_refusal_is_a_reply_and_is_not_tried_again(endpoint: Endpoint, code: int) -> None:
    endpoint.refuse(code, "that is why")
    reply = asked(policy(endpoint))
    assert reply.status == "EXEC_ERR"
    assert str(code) in reply.error
    assert "that is why" in reply.error
    assert reply.retry == (code in (429, 500, 503)), "a wrong key stays wrong"
    assert reply.finish == ""
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9001 tokens",
        "Your input exceeds the context window of this model.",
        "the request exceeds the available context size, try increasing it",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
def test_a_conversation_that_the_model_has_no_room_for_is_known_as_that(
    endpoint: Endpoint, said: str
) -> None:
    endpoint.refuse(400, said)
    reply = asked(policy(endpoint))
    assert (reply.status, reply.retry, reply.finish) == ("EXEC_ERR", False, NO_ROOM)


def test_a_key_that_is_missing_is_not_asked_for_again(endpoint: Endpoint) -> None:
    reply = asked(policy(endpoint, api_key=""))
    assert (reply.status, reply.retry) == ("EXEC_ERR", False)
    assert endpoint.requests == []


def test_a_key_that_the_endpoint_echoes_is_not_recorded(endpoint: Endpoint) -> None:
    reply = asked(policy(endpoint, api_key="sk-WRONG-SECRET"))
    assert reply.status == "EXEC_ERR"
    assert "SECRET" not in reply.error
    assert "[key]" in reply.error
    assert "OPENAI_API_KEY" in reply.error


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>hello</html>", "text/html"),
        (b"not json", "application/json"),
        (b'{"choices": []}', "application/json"),
        (b'{"choices": [{"message": null}]}', "application/json"),
        (b'{"choices": 7}', "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b'{"choices": [{"message": {"content": "\xff"}}]}', "application/json"),
        (b"", "application/json"),
    ],
)
def test_what_is_no_completion_is_a_failure(endpoint: Endpoint, body: bytes, kind: str) -> None:
    endpoint.send(body, kind=kind)
    reply = asked(policy(endpoint))
    assert reply.status == "EXEC_ERR"
    assert "OpenAI-compatible" in reply.error


def test_fields_that_endpoints_leave_out_are_not_missed(endpoint: Endpoint) -> None:
    endpoint.send(b'{"choices": [{"message": {"content": "Lima"}}]}')
    assert asked(policy(endpoint, clock=lambda: 0.0)) == Reply(text="Lima", version="m")


def test_lone_surrogates_are_replaced(endpoint: Endpoint) -> None:
    endpoint.send(b'{"choices": [{"message": {"content": "a\\ud800"}}]}')
    assert asked(policy(endpoint)).text == "a?"


def test_absurd_usage_is_not_believed(endpoint: Endpoint) -> None:
    endpoint.say("Lima", usage=(10**30, -5))
    assert 0 < asked(policy(endpoint)).spend.tokens <= 10**9


def test_a_connection_that_is_closed_or_refused_is_a_failure(endpoint: Endpoint) -> None:
    endpoint.hang_up()
    assert "can't be reached" in asked(policy(endpoint)).error
    with Endpoint(KEY) as other:
        address = other.url
    gone = OpenAIPolicy("m", base_url=address, api_key=KEY)
    reply = asked(gone)
    assert reply.status == "EXEC_ERR"
    assert "can't be reached" in reply.error


def test_an_endpoint_that_never_ends_its_answer_is_a_timeout(endpoint: Endpoint) -> None:
    held = endpoint.dribble()
    reply = asked(policy(endpoint, timeout_s=0.5))
    assert reply.status == "TIMEOUT"
    assert "0.5 seconds" in reply.error
    assert held.gone.wait(10)


def test_cancelling_hangs_up(endpoint: Endpoint) -> None:
    held = endpoint.hold()

    async def cancel() -> None:
        asking = policy(endpoint)
        task = asyncio.create_task(asking.ask(view()))
        assert await asyncio.to_thread(held.arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(held.gone.wait, 10)
        await asking.close()

    asyncio.run(cancel())


def test_the_environment_gives_address_and_key(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.say("Lima")
    made = from_env("m")
    assert made.spec.name == "openai:m"
    assert made.spec.dialect == "openai"
    assert asked(made).text == "Lima"


def test_without_a_key_it_says_how_to_give_one() -> None:
    with pytest.raises(Denied) as denied:
        from_env("m")
    assert "OPENAI_API_KEY" in denied.value.message
    assert "export OPENAI_API_KEY" in denied.value.hint


def test_the_script_can_say_what_the_real_endpoint_says() -> None:
    from openai.types.chat import ChatCompletion

    made = ChatCompletion.model_validate(completion("hi", calls=[("a", "f", "{}")]), strict=False)
    assert made.choices[0].message.content == "hi"
