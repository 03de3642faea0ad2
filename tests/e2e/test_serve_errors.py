"""What a client of `podium serve` is told when something is wrong, and what it raises."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import openai
import pytest

from podium.serve.chat import MAX_BODY_BYTES
from protocol.budgets import Budget, Extension
from protocol.decisions import Decision, View
from protocol.limits import MAX_TASK_BYTES
from tests.served import TOKEN, Gate, Served, served
from tests.world import calls

HELLO: Final[list[Any]] = [{"role": "user", "content": "Do it."}]
PATH: Final = "/v1/chat/completions"
SHAPE: Final = {"message", "type", "param", "code"}


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served() as server:
        yield server


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:,"}}
TOOLS: Final = [{"type": "function", "function": {"name": "f"}}]

REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"model": 7}, "model"),
    ({"messages": [{"content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "I"}]}, "messages[1].role"),
    ({"messages": [*HELLO, {"role": "tool", "content": "7"}]}, "messages[1].role"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}, *HELLO]}, "messages[0].tool_calls"),
    (user(" "), "messages[0].content"),
    (user(None), "messages[0].content"),
    (user([{"type": "text", "text": "What is it?"}, IMAGE]), "messages[0].content[1]"),
    ({"n": 2}, "n"),
    ({"n": 0}, "n"),
    ({"tools": TOOLS}, "tools"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"logprobs": True}, "logprobs"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"stream": "yes"}, "stream"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"metadata": {"a" * 65: "x"}}, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"podium": {"colour": "red"}}, "podium"),
    ({"podium": {"budget": {"rounds": -1}}}, "podium.budget.rounds"),
    ({"podium": {"inputs": {"conversation": []}}}, "podium.inputs.conversation"),
]


async def test_a_wrong_request_is_refused_and_the_field_named(server: Served) -> None:
    async with server.http() as http:
        for fields, param in REFUSED:
            body = {"model": "orchestra", "messages": HELLO, **fields}
            answer = await http.post(PATH, json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, param), error
            assert set(error) == SHAPE
            assert error["type"] == "invalid_request_error"
            assert param.partition(".")[0].partition("[")[0] in error["message"]
            assert answer.headers["x-should-retry"] == "false"
    assert await server.client.ids() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"model": "\\ud800"', b"[" * 100_000, b"7", b"null", b"[]"],
    ids=lambda body: repr(body[:8]),
)
async def test_a_body_that_is_no_request_is_a_400(server: Served, body: bytes) -> None:
    async with server.http() as http:
        kind = {"content-type": "application/json"}
        answer = await http.post(PATH, content=body, headers=kind)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == SHAPE


@pytest.mark.parametrize(
    ("fields", "raised", "code"),
    [
        ({"model": "choir"}, openai.NotFoundError, "model_not_found"),
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter"),
        (user("x" * MAX_TASK_BYTES), openai.BadRequestError, "context_length_exceeded"),
        ({"extra_body": {"podium": {"budget": {"tokens": 1}}}}, openai.BadRequestError, None),
    ],
)
async def test_the_official_client_raises_what_fits(
    server: Served, fields: dict[str, Any], raised: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(raised) as caught:
        await server.ask().chat.completions.create(
            **{"model": "orchestra", "messages": HELLO, **fields}
        )
    assert caught.value.code == code or code is None


async def test_a_body_that_is_too_large_is_a_413(server: Served) -> None:
    kind = {"content-type": "application/json"}

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (MAX_BODY_BYTES // 2)

    async with server.http() as http:
        told = await http.post(PATH, content=b" " * (MAX_BODY_BYTES + 1), headers=kind)
        assert told.status_code == 413
        untold = await http.post(PATH, content=endless(), headers=kind)
        assert untold.status_code == 413
        assert untold.json()["error"]["code"] == "request_too_large"


async def test_only_json_is_taken(server: Served) -> None:
    async with server.http() as http:
        body = json.dumps({"model": "orchestra", "messages": HELLO})
        answer = await http.post(PATH, content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415


async def test_who_has_no_token_is_not_let_in(server: Served) -> None:
    for wrong in ("another-token-of-these", TOKEN + "x", "x"):
        with pytest.raises(openai.AuthenticationError):
            await server.ask(api_key=wrong).models.list()
    async with server.http() as http:
        del http.headers["authorization"]
        for path in ("/v1/models", "/v1/models/orchestra", PATH, "/nowhere"):
            answer = await http.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
        foreign = {b"authorization": b"Bearer \xfc"}
        assert (await http.get("/v1/models", headers=foreign)).status_code == 401
        assert (await http.get("/health")).status_code == 200


async def test_any_of_several_tokens_will_do() -> None:
    async with served(tokens=("one-token-of-these", TOKEN)) as server:
        for token in ("one-token-of-these", TOKEN):
            assert (await server.ask(api_key=token).models.list()).data


async def test_without_a_token_only_this_machines_own_names_are_answered() -> None:
    async with served(tokens=()) as server, server.http() as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await http.get("/v1/models", headers={"host": "localhost:7"})).status_code == 200
        led_here = await http.get("/v1/models", headers={"host": "evil.example:7576"})
    assert led_here.status_code == 403
    assert led_here.json()["error"]["code"] == "wrong_host"


async def test_what_is_not_there_is_said_in_the_same_shape(server: Served) -> None:
    async with server.http() as http:
        nowhere = await http.get("/v1/embeddings")
        method = await http.get(PATH)
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "unknown_url")
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_more_runs_than_the_limit_are_told_to_come_again() -> None:
    gate = Gate()
    async with served(gate=gate, max_runs=1) as server:
        client = server.ask(max_retries=0)
        first = asyncio.create_task(
            client.chat.completions.create(model="orchestra", messages=HELLO)
        )
        await gate.at_work.wait()
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="orchestra", messages=HELLO)
        assert caught.value.response.headers["retry-after"]
        gate.go.set()
        assert (await first).choices


def unable(view: View) -> Decision:
    raise ValueError("it can't be decided")


async def test_a_policy_that_is_not_there_is_a_503_that_says_how_to_go_on() -> None:
    async with served(decide=unable) as server:
        with pytest.raises(openai.InternalServerError) as caught:
            await server.ask().chat.completions.create(model="orchestra", messages=HELLO)
        run = await server.only_run()  # the client has not tried again
        assert (await server.client.state(run)).phase == "paused"
    error: Any = caught.value.body
    assert caught.value.status_code == 503
    assert error["code"] == "run_paused_policy_unavailable"
    assert error["run"] == run == caught.value.response.headers["x-podium-run"]
    assert f"podium runs resume {run}" in error["message"]


async def test_a_budget_that_pauses_the_run_is_a_429_that_says_how_to_go_on() -> None:
    def more(view: View) -> Decision:
        return Decision(answer="enough") if len(view.turns) > 1 else calls(("tool", {}))

    async with served(decide=more, budget=Budget(rounds=1, on_limit="pause")) as server:
        client, key = server.ask(), {"Idempotency-Key": "k"}
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(
                model="orchestra", messages=HELLO, extra_headers=key
            )
        run = await server.only_run()
        assert caught.value.code == "insufficient_quota"
        assert f"podium runs extend {run}" in caught.value.message
        await server.client.signal(run, "extend", extension=Extension(rounds=4))
        said = await client.chat.completions.create(
            model="orchestra", messages=HELLO, extra_headers=key
        )
    assert said.choices[0].message.content == "enough"


async def test_a_run_that_somebody_cancels_is_a_409() -> None:
    gate = Gate()
    async with served(gate=gate) as server:
        asking = asyncio.create_task(
            server.ask().chat.completions.create(model="orchestra", messages=HELLO)
        )
        await gate.at_work.wait()
        run = await server.only_run()
        await server.client.signal(run, "cancel", reason="not wanted")
        with pytest.raises(openai.ConflictError, match=f"run {run} was cancelled"):
            await asking
        await server.only_run()


async def test_an_error_in_a_stream_is_raised_by_the_client() -> None:
    async with served(decide=unable) as server:
        stream = await server.ask().chat.completions.create(
            model="orchestra", messages=HELLO, stream=True
        )
        with pytest.raises(openai.APIError, match="is paused") as caught:
            async for _ in stream:
                pass
        run = await server.only_run()
        assert stream.response.headers["x-podium-run"] == run
    error: Any = caught.value.body
    assert error["run"] == run
    assert error["code"] == "run_paused_policy_unavailable"
