"""`podium serve` under the official client: an orchestra as one model."""

import asyncio
from typing import Any, Final

import openai
import pytest

from protocol.budgets import Budget
from protocol.decisions import Decision, View
from protocol.events import RunStarted
from protocol.inbox import Label
from replay.chain import RunLog
from tests.served import ANSWER, TOKEN, Gate, served
from tests.world import calls

HELLO: Final[list[Any]] = [{"role": "user", "content": "Do it."}]
SPENT: Final = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60, "cost": 14e-6}


def started(log: RunLog) -> RunStarted:
    event = next(iter(log.events()))
    assert isinstance(event, RunStarted)
    return event


async def test_a_completion_is_a_run() -> None:
    async with served() as server:
        raw = await server.ask().chat.completions.with_raw_response.create(
            model="orchestra", messages=HELLO
        )
        said = raw.parse()
        run = raw.headers["x-podium-run"]
        log = await server.client.log(run)
    assert said.id == f"chatcmpl-{run}"
    assert said._request_id == run
    assert (said.object, said.model) == ("chat.completion", "orchestra")
    (choice,) = said.choices
    assert choice.message.content == ANSWER
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert said.usage is not None
    assert said.usage.model_dump(exclude_none=True) == SPENT
    about: Any = said.model_extra
    assert about["podium"] == {"run": run, "rounds": 1, "calls": 1, "limited_by": None}
    assert log.state().outcome == "finished"
    assert log.state().task.text == "Do it."


async def test_the_synchronous_client_is_served_too() -> None:
    async with served() as server:

        def ask() -> str | None:
            with openai.OpenAI(base_url=server.url, api_key=TOKEN) as client:
                said = client.chat.completions.create(model="orchestra", messages=HELLO)
                return said.choices[0].message.content

        assert await asyncio.to_thread(ask) == ANSWER


async def test_a_stream_begins_at_once_and_ends_with_the_answer() -> None:
    gate = Gate()
    async with served(gate=gate) as server:
        stream = await server.ask().chat.completions.create(
            model="orchestra", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        run = stream.response.headers["x-podium-run"]
        first = await anext(stream)
        assert first.choices[0].delta.role == "assistant"
        assert not gate.go.is_set()
        gate.go.set()
        *chunks, last, usage = [chunk async for chunk in stream]
    assert {chunk.id for chunk in (first, *chunks, last, usage)} == {f"chatcmpl-{run}"}
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert len(texts) > 1
    assert "".join(texts) == ANSWER
    assert last.choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in (first, *chunks, last))
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.model_dump(exclude_none=True) == SPENT


async def test_a_stream_has_no_usage_unless_it_is_asked_for() -> None:
    async with served() as server:
        stream = await server.ask().chat.completions.create(
            model="orchestra", messages=HELLO, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_progress_is_told_where_it_is_asked_for() -> None:
    async with served() as server:
        stream = await server.ask().chat.completions.create(
            model="orchestra",
            messages=HELLO,
            stream=True,
            extra_body={"podium": {"progress": True}},
        )
        deltas = [chunk.choices[0].delta async for chunk in stream]
    told = "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
    assert "round 1: 1 call: tool" in told
    assert "1-0  tool  OK" in told
    assert "".join(delta.content or "" for delta in deltas) == ANSWER


async def test_a_conversation_reaches_the_policy_as_inputs() -> None:
    async with served() as server:
        await server.ask().chat.completions.create(
            model="orchestra",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "How large is Chad?"}]},
                {"role": "assistant", "content": "Large."},
                {"role": "user", "content": "And Mali?"},
            ],
            temperature=0.3,
            max_tokens=5,
            user="anna",
            metadata={"ticket": "7"},
            extra_body={"podium": {"inputs": {"year": 2026}}, "service_tier": "flex"},
        )
        log = await server.ended()
    assert started(log).task.text == "And Mali?"
    assert started(log).task.inputs == {
        "instructions": "Be brief.",
        "conversation": [
            {"role": "user", "content": "How large is Chad?"},
            {"role": "assistant", "content": "Large."},
        ],
        "year": 2026,
    }
    labels = [each.message for each in log.inbox if isinstance(each.message, Label)]
    assert {each.key: each.value for each in labels} == {"user": "anna", "metadata.ticket": "7"}


async def test_an_answer_ends_before_a_stop() -> None:
    async with served() as server:
        said = await server.ask().chat.completions.create(
            model="orchestra", messages=HELLO, stop=["absent", " done"]
        )
    assert said.choices[0].message.content == "It is"


async def test_an_answer_that_a_budget_cut_short_says_so() -> None:
    def never_enough(view: View) -> Decision:
        return Decision(answer="so far") if view.final else calls(("tool", {}))

    async with served(decide=never_enough) as server:
        said = await server.ask().chat.completions.create(
            model="orchestra", messages=HELLO, extra_body={"podium": {"budget": {"rounds": 2}}}
        )
    assert said.choices[0].finish_reason == "length"
    assert said.choices[0].message.content == "so far"
    assert (said.model_extra or {})["podium"]["limited_by"] == "rounds"


async def test_a_request_can_only_lower_the_budget() -> None:
    async with served(budget=Budget(rounds=3)) as server:
        await server.ask().chat.completions.create(
            model="orchestra",
            messages=HELLO,
            extra_body={"podium": {"budget": {"rounds": 99, "cost_usd": 0.5}}},
        )
        budget = started(await server.ended()).budget
    assert (budget.rounds, budget.cost) == (3, 500_000)


async def test_the_usage_has_the_runs_below() -> None:
    def delegate(view: View) -> Decision:
        if view.turns or view.task.text == "a part":
            return Decision(answer="done")
        return calls(("sub", {"task": "a part"}))

    async with served(decide=delegate) as server:
        said = await server.ask().chat.completions.create(model="orchestra", messages=HELLO)
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (60, 30)


async def test_the_models_are_listed() -> None:
    async with served() as server:
        client = server.ask()
        (model,) = [each async for each in client.models.list()]
        assert model.id == "orchestra"
        assert model.owned_by == "podium"
        assert (await client.models.retrieve("orchestra")).id == "orchestra"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("choir")


async def test_a_completion_can_be_fetched_again() -> None:
    async with served() as server:
        client = server.ask()
        said = await client.chat.completions.create(model="orchestra", messages=HELLO)
        again = await client.chat.completions.retrieve(said.id)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.retrieve("chatcmpl-0000000000000")
    assert again.choices == said.choices
    assert again.usage == said.usage


async def test_the_callers_span_is_the_runs_parent() -> None:
    above = f"00-{'ab' * 16}-{'cd' * 8}-01"
    async with served() as server:
        await server.ask().chat.completions.create(
            model="orchestra", messages=HELLO, extra_headers={"traceparent": above}
        )
        log = await server.ended()
    assert started(log).traceparent == above


async def test_the_same_key_gives_the_same_run() -> None:
    key = {"Idempotency-Key": "order-66"}
    async with served() as server:
        client = server.ask()
        first = await client.chat.completions.create(
            model="orchestra", messages=HELLO, extra_headers=key
        )
        again = await client.chat.completions.create(
            model="orchestra", messages=HELLO, extra_headers=key
        )
        assert again.id == first.id
        assert again.choices == first.choices
        await server.only_run()
        with pytest.raises(openai.UnprocessableEntityError, match="belongs to run"):
            await client.chat.completions.create(
                model="orchestra",
                messages=[{"role": "user", "content": "Something else."}],
                extra_headers=key,
            )
        other = await client.chat.completions.create(model="orchestra", messages=HELLO)
    assert other.id != first.id
