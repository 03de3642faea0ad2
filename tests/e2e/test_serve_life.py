"""Who hangs up, who waits too long, and what becomes of their runs; the end of the server."""

import asyncio
from typing import Any, Final

import openai
import pytest

from podium.serve.completions import KEEP_ALIVE
from protocol.events import RunCancelled, SignalReceived
from replay.chain import RunLog
from tests.served import WITHIN_S, Gate, served

HELLO: Final[list[Any]] = [{"role": "user", "content": "Do it."}]
BODY: Final[dict[str, Any]] = {"model": "orchestra", "messages": HELLO}
PATH: Final = "/v1/chat/completions"


def cancelled_because(log: RunLog) -> str:
    """Why, as the log has it."""
    assert log.state().outcome == "cancelled"
    assert any(isinstance(event, RunCancelled) for event in log.events())
    (signal,) = (event for event in log.events() if isinstance(event, SignalReceived))
    return signal.reason


async def test_who_hangs_up_has_the_run_cancelled() -> None:
    gate = Gate()
    async with served(gate=gate) as server:
        asking = asyncio.create_task(server.ask().chat.completions.create(**BODY))
        await gate.at_work.wait()
        asking.cancel()
        log = await server.ended()
    assert cancelled_because(log) == "its client hung up"


async def test_who_leaves_a_stream_has_the_run_cancelled() -> None:
    gate = Gate()
    async with served(gate=gate) as server:
        stream = await server.ask().chat.completions.create(**BODY, stream=True)
        await anext(stream)
        await gate.at_work.wait()
        await stream.close()
        log = await server.ended()
    assert cancelled_because(log) == "its client hung up"


async def test_who_hangs_up_before_the_run_begins_has_it_cancelled() -> None:
    async with served(conductor=False) as server:
        stream = await server.ask().chat.completions.create(**BODY, stream=True)
        run, heard = server.queued(), asyncio.Event()
        hints = await server.world.log.hints(run, lambda *_: heard.set())
        await stream.close()
        await heard.wait()
        await hints.close()
        await server.world.conductor()
        log = await server.world.ended(run)
    assert cancelled_because(log) == "its client hung up"


async def test_a_run_that_may_have_been_queued_is_cancelled() -> None:
    async with served(doubtful=True, conductor=False) as server:
        with pytest.raises(openai.InternalServerError, match="did not answer") as caught:
            await server.ask(max_retries=0).chat.completions.create(**BODY)
        run = server.queued()
        await server.end()
        await server.world.conductor()
        log = await server.world.ended(run)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-podium-run"] == run
    assert cancelled_because(log) == "its server lost touch with it"


async def test_a_run_at_work_has_no_completion_yet() -> None:
    gate = Gate()
    async with served(gate=gate) as server:
        client = server.ask(max_retries=0)
        asking = asyncio.create_task(client.chat.completions.create(**BODY))
        await gate.at_work.wait()
        with pytest.raises(openai.ConflictError, match="is at work"):
            await client.chat.completions.retrieve(await server.only_run())
        gate.go.set()
        assert (await asking).choices


async def test_a_run_with_a_key_goes_on_for_whoever_comes_back() -> None:
    gate = Gate()
    async with served(gate=gate) as server:
        client, key = server.ask(), {"Idempotency-Key": "k"}
        asking = asyncio.create_task(client.chat.completions.create(**BODY, extra_headers=key))
        await gate.at_work.wait()
        asking.cancel()
        await asyncio.wait({asking})
        stream = await client.chat.completions.create(**BODY, stream=True, extra_headers=key)
        gate.go.set()
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"
        log = await server.ended()
    assert log.state().outcome == "finished"


async def test_a_run_that_takes_too_long_is_a_504_and_cancelled() -> None:
    gate = Gate()
    async with served(gate=gate, timeout_s=0.2) as server:
        with pytest.raises(openai.InternalServerError) as caught:
            await server.ask().chat.completions.create(**BODY)
        log = await server.ended()
    assert caught.value.status_code == 504
    assert log.run in caught.value.message
    assert cancelled_because(log) == "it took too long"


async def test_a_silent_stream_says_that_the_run_is_at_work() -> None:
    gate = Gate()
    async with (
        served(gate=gate, keep_alive_s=0.01) as server,
        server.http() as http,
        http.stream("POST", PATH, json={**BODY, "stream": True}) as answer,
    ):
        text = b""
        async for part in answer.aiter_raw():
            text += part
            if text.count(KEEP_ALIVE) > 2:
                gate.go.set()
    assert text.startswith(b"data: ")
    assert text.endswith(b"data: [DONE]\n\n")


async def test_a_server_that_stops_waits_for_those_who_are_quick() -> None:
    gate = Gate()
    async with served(gate=gate, grace_s=WITHIN_S) as server:
        asking = asyncio.create_task(server.ask().chat.completions.create(**BODY))
        await gate.at_work.wait()
        server.stop.set()
        gate.go.set()
        assert (await asking).choices[0].finish_reason == "stop"
        await server.end()


async def test_a_server_that_stops_tells_the_others_and_cancels_their_runs() -> None:
    gate = Gate()
    async with served(gate=gate, grace_s=0.0) as server:
        asking = asyncio.create_task(server.ask(max_retries=0).chat.completions.create(**BODY))
        await gate.at_work.wait()
        await server.end()
        with pytest.raises(openai.InternalServerError, match="the server stops") as caught:
            await asking
        log = await server.ended()
    assert caught.value.status_code == 503
    assert cancelled_because(log) == "its server stopped"


async def test_a_stream_of_a_server_that_stops_ends_with_an_error() -> None:
    gate = Gate()
    async with served(gate=gate, grace_s=0.0) as server:
        stream = await server.ask().chat.completions.create(**BODY, stream=True)
        await gate.at_work.wait()
        ending = asyncio.create_task(server.end())
        with pytest.raises(openai.APIError, match="the server stops"):
            async for _ in stream:
                pass
        await ending
        assert cancelled_because(await server.ended()) == "its server stopped"
