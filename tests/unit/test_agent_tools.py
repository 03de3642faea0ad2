"""Agents with tools of their own, against a real HTTP server that follows a script."""

import asyncio
import json
import threading
from typing import Any, Final

import msgspec
import pytest

import podium
from actors.ports import Attempt, Outcome
from actors.work import record_of
from actors.workers import draft, host, isolation
from actors.workers.agent import MAX_TURNS, PROMPT_TOKENS, REPLY_TOKENS, OpenAIAdapter
from actors.workers.agent.exchanges import Replay
from actors.workers.agent.turns import LAST_WORD
from protocol.actions import Json, Spend, Usage, WorkerSpec
from protocol.errors import InvalidData, NotFound
from protocol.exchanges import Exchange, exchanges
from protocol.redaction import Redactor
from tests.endpoint import Endpoint
from tests.unit.test_agent_worker import _keys, endpoint

__all__ = ["_keys", "endpoint"]

LIMIT_S: Final = 20.0

BARRIER = threading.Barrier(2)
STARTED = threading.Event()
STOPPED = threading.Event()
INSIDE: list[int] = []


@podium.tool(cost_usd=0.25)
def price(product: str) -> dict[str, Any]:
    """The price of a product, in euros."""
    return {"product": product, "price": {"chair": 12.5}[product]}


@podium.tool
def both(name: str) -> str:
    """Comes back when two are here."""
    BARRIER.wait(LIMIT_S)
    return name


@podium.tool
async def endless() -> None:
    """Never comes back by itself."""
    STARTED.set()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        STOPPED.set()


@podium.tool
async def crowd() -> int:
    """How many of it are at work."""
    INSIDE.append(1)
    for _ in range(20):  # let the others come in
        await asyncio.sleep(0)
    found = len(INSIDE)
    INSIDE.pop()
    return found


@podium.tool
def long(letters: int) -> str:
    """So many letters."""
    return "x" * letters


@podium.tool
def leaky() -> str:
    """Says what nobody may know."""
    return "the key is sk-proj-PLANTED0aBcDeFgHiJkLmNoP"


def address(name: str) -> str:
    return f"function:{__name__}:{name}"


def agent(endpoint: Endpoint, *tools: str | dict[str, Json], **options: Any) -> WorkerSpec:
    named = [
        address(tool) if isinstance(tool, str) and tool in globals() else tool for tool in tools
    ]
    fields = {"model": "m", "base_url": endpoint.url, "api_key_env": "TEAM_KEY", **options}
    return draft("openai", {**fields, "tools": named}, name="clerk")


def attempt(timeout_s: float = LIMIT_S, **more: Any) -> Attempt:
    arguments = {"subtask": "What does a chair cost?"}
    return Attempt(run="r", call="2-0", attempt=1, arguments=arguments, timeout_s=timeout_s, **more)


async def worked(spec: WorkerSpec, work: Attempt | None = None) -> Outcome:
    adapter = host(spec)
    try:
        return await adapter.run(work or attempt())
    finally:
        await adapter.close()


def asked(spec: WorkerSpec, work: Attempt | None = None) -> Outcome:
    return asyncio.run(worked(spec, work))


def results(endpoint: Endpoint, request: int = -1) -> list[Json]:
    """What the model was shown of its tools."""
    shown = endpoint.requests[request].body["messages"]
    return [json.loads(each["content"]) for each in shown if each["role"] == "tool"]


def test_it_uses_its_tools_and_only_its_answer_comes_out(endpoint: Endpoint) -> None:
    endpoint.say("Let me look.", calls=[("a", "price", '{"product": "chair"}')], usage=(100, 10))
    endpoint.say("12.50 euros", usage=(150, 5))
    outcome = asked(agent(endpoint, "price", price_in=1, price_out=2, temperature=0.5))
    assert (outcome.status, outcome.value) == ("OK", "12.50 euros")
    assert outcome.spend == Spend(tokens=265, cost=280 + 250_000)
    assert outcome.usage == Usage(250, 15)
    first, second = (request.body for request in endpoint.requests)
    (offered,) = first["tools"]
    assert offered["function"]["name"] == "price"
    assert offered["function"]["description"] == "The price of a product, in euros."
    assert offered["function"]["parameters"]["required"] == ["product"]
    assert (first["tool_choice"], second["temperature"]) == ("auto", 0.5)
    said, result = second["messages"][2:]
    assert said["content"] == "Let me look."
    assert said["tool_calls"][0]["id"] == result["tool_call_id"] == "a"
    assert json.loads(result["content"]) == {
        "status": "OK",
        "value": {"product": "chair", "price": 12.5},
    }


def test_each_kind_of_failure_goes_back_to_the_model_as_text(endpoint: Endpoint) -> None:
    slow: dict[str, Json] = {"adapter": address("endless"), "name": "slow", "timeout_s": 0.05}
    endpoint.say(
        calls=[
            ("a", "price", '{"product": 7}'),
            ("b", "price", '{"product": '),
            ("c", "prize", "{}"),
            ("d", "price", '{"product": "lamp"}'),
            ("e", "slow", "{}"),
            ("f", "price", '{"product": "${secret:WORD}"}'),
        ]
    )
    endpoint.say("I don't know.")
    outcome = asked(agent(endpoint, "price", slow))
    assert outcome.status == "OK"
    shown = results(endpoint)
    statuses = [each["status"] for each in shown]
    assert statuses == ["PARSE_ERR", "PARSE_ERR", "PARSE_ERR", "EXEC_ERR", "TIMEOUT", "PARSE_ERR"]
    texts = [str(each["value"]) for each in shown]
    assert "'product'" in texts[0]
    assert "no JSON object" in texts[1]
    assert "There are: price, slow." in texts[2]
    assert "KeyError: 'lamp'" in texts[3]
    assert "longer than 0.05 s" in texts[4]
    assert "does not declare" in texts[5]


def test_calls_of_one_turn_are_made_at_the_same_time(endpoint: Endpoint) -> None:
    BARRIER.reset()
    endpoint.say(calls=[("a", "both", '{"name": "x"}'), ("b", "both", '{"name": "y"}')])
    endpoint.say("both")
    assert asked(agent(endpoint, "both")).value == "both"
    assert [each["value"] for each in results(endpoint)] == ["x", "y"]


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (8, 3)])
def test_no_more_are_made_at_the_same_time_than_is_allowed(
    endpoint: Endpoint, parallel: int, most: int
) -> None:
    endpoint.say(calls=[(ref, "crowd", "{}") for ref in "abc"])
    endpoint.say("counted")
    asked(agent(endpoint, "crowd", parallel=parallel))
    assert max(int(str(each["value"])) for each in results(endpoint)) == most


def test_out_of_turns_it_is_asked_once_more_without_tools(endpoint: Endpoint) -> None:
    call = [("a", "price", '{"product": "chair"}')]
    for _ in range(2):
        endpoint.say(calls=call)
    endpoint.say("12.50, I think")
    outcome = asked(agent(endpoint, "price", max_turns=2))
    assert outcome.value == "12.50, I think"
    last = endpoint.requests[-1].body
    assert len(endpoint.requests) == 3
    assert last["tool_choice"] == "none"
    assert last["messages"][-1] == {"role": "user", "content": LAST_WORD}


def test_without_an_answer_even_then_it_has_failed_and_says_so(endpoint: Endpoint) -> None:
    call = [("a", "price", '{"product": "chair"}')]
    for _ in range(3):
        endpoint.say(calls=call)
    outcome = asked(agent(endpoint, "price", max_turns=2))
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
    assert "its 2 turns were used up" in outcome.value
    assert outcome.spend == Spend(tokens=45, cost=500_000)


def test_what_was_reserved_bounds_the_turns(endpoint: Endpoint) -> None:
    endpoint.say(calls=[("a", "price", '{"product": "chair"}')], usage=(400, 100))
    endpoint.say("12.50")
    spec = msgspec.structs.replace(agent(endpoint, "price"), reserve=Spend(tokens=1_200))
    assert asked(spec).value == "12.50"
    assert endpoint.requests[-1].body["tool_choice"] == "none"


def test_the_draft_reserves_for_the_whole_loop_and_the_tools(endpoint: Endpoint) -> None:
    spec = agent(endpoint, "price", price_in=1)
    requests = MAX_TURNS + 1
    assert spec.reserve == Spend(
        tokens=requests * (PROMPT_TOKENS + REPLY_TOKENS),
        cost=requests * PROMPT_TOKENS + MAX_TURNS * 250_000,
    )


def test_the_draft_has_all_that_is_known_of_its_tools(endpoint: Endpoint) -> None:
    spec = agent(endpoint, {"adapter": address("price"), "name": "cost"}, "python")
    cost, python = spec.options["tools"]
    assert (cost["name"], cost["description"]) == ("cost", "The price of a product, in euros.")
    assert cost["parameters"]["required"] == ["product"]
    assert (python["name"], python["adapter"]) == ("python", "python")
    again = draft("openai", spec.options, name="clerk")
    assert again == spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=WorkerSpec) == spec


def test_a_tool_may_be_an_agent_with_tools(endpoint: Endpoint) -> None:
    inner = agent(endpoint, "price").options
    helper: dict[str, Json] = {"adapter": "openai", "name": "helper", "options": inner}
    endpoint.say(calls=[("a", "helper", '{"subtask": "Look it up."}')])
    endpoint.say(calls=[("b", "price", '{"product": "chair"}')])
    endpoint.say("it is 12.5")
    endpoint.say("12.50")
    outcome = asked(agent(endpoint, helper), attempt(task="Furnish the room."))
    assert (outcome.value, outcome.spend) == ("12.50", Spend(tokens=60, cost=250_000))
    assert "Furnish the room." in endpoint.requests[1].body["messages"][1]["content"]
    assert results(endpoint) == [{"status": "OK", "value": "it is 12.5"}]
    kept = exchanges(msgspec.json.decode(record_of(outcome, Redactor())))
    (inner_first, _) = exchanges(kept[0].tools[0].record)
    assert inner_first.tools[0].value == {"product": "chair", "price": 12.5}
    assert all(len(str(part)) == 16 for part in inner_first.request.values()), "hashes only"


def test_its_tools_see_what_it_sees(endpoint: Endpoint) -> None:
    endpoint.say(calls=[("a", "majority", "{}")])
    endpoint.say("Lima")
    spec = agent(endpoint, "function:podium.pools.consolidation:majority")
    sees = {"1-0": "Lima", "1-1": "lima", "1-2": "KeyError"}
    asked(spec, attempt(sees=sees, failed={"1-2": "EXEC_ERR"}))
    (shown,) = results(endpoint)
    voted = shown["value"]
    assert (voted["answer"], voted["votes"], voted["failed"]) == ("Lima", 2, ["1-2"])


def test_code_that_it_writes_runs_in_a_sandbox(endpoint: Endpoint) -> None:
    code = json.dumps({"code": "import math\nmath.comb(49, 6)"})
    endpoint.say(calls=[("a", "python", code)])
    endpoint.say("Result: 13983816")
    options: dict[str, Json] = {"isolation": isolation().level}
    outcome = asked(agent(endpoint, {"adapter": "python", "options": options}))
    assert outcome.value == "Result: 13983816"
    (shown,) = results(endpoint)
    assert shown["value"]["result"] == "13983816"


def test_a_failure_of_its_endpoint_ends_it_and_what_was_spent_is_said(endpoint: Endpoint) -> None:
    endpoint.say(calls=[("a", "price", '{"product": "chair"}')], usage=(100, 10))
    endpoint.refuse(503, "busy")
    outcome = asked(agent(endpoint, "price"))
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert (outcome.spend, outcome.usage) == (Spend(tokens=110, cost=250_000), Usage(100, 10))
    assert len(outcome.record) == 2


def test_its_deadline_is_its_tools_deadline_and_the_record_survives(endpoint: Endpoint) -> None:
    STOPPED.clear()
    endpoint.say(calls=[("a", "endless", "{}")])
    outcome = asked(agent(endpoint, "endless"), attempt(timeout_s=1.0))
    assert outcome.status == "TIMEOUT"
    assert STOPPED.is_set()
    first, last = exchanges(outcome.record)
    assert first.tools[0].status == "TIMEOUT"
    assert "time was used up" in last.reply.text


def test_its_deadline_holds_while_another_attempt_uses_its_tool(endpoint: Endpoint) -> None:
    STARTED.clear()
    for _ in range(2):
        endpoint.say(calls=[("a", "endless", "{}")])
    spec = agent(endpoint, {"adapter": address("endless"), "concurrency": 1})

    async def both_at_work() -> Outcome:
        adapter = host(spec)
        first = asyncio.create_task(adapter.run(attempt()))
        assert await asyncio.to_thread(STARTED.wait, LIMIT_S)
        second = await adapter.run(attempt(timeout_s=1.0))
        assert not first.done()
        first.cancel()
        await asyncio.wait([first])
        await adapter.close()
        return second

    outcome = asyncio.run(both_at_work())
    assert outcome.status == "TIMEOUT"
    (use,) = exchanges(outcome.record)[0].tools
    assert (use.status, use.fault) == ("TIMEOUT", "infrastructure")
    assert "in use by others" in str(use.value)


def test_a_request_that_is_cut_off_counts_as_its_part_of_the_reserve(endpoint: Endpoint) -> None:
    held = endpoint.dribble()
    outcome = asked(agent(endpoint, "price"), attempt(timeout_s=0.5))
    assert outcome.status == "TIMEOUT"
    assert held.gone.wait(LIMIT_S)
    assert outcome.spend.tokens == PROMPT_TOKENS + REPLY_TOKENS


def test_withdrawn_it_stops_its_tools(endpoint: Endpoint) -> None:
    STARTED.clear()
    STOPPED.clear()

    async def withdrawn() -> None:
        working = asyncio.create_task(worked(agent(endpoint, "endless")))
        assert await asyncio.to_thread(STARTED.wait, LIMIT_S)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    endpoint.say(calls=[("a", "endless", "{}")])
    asyncio.run(withdrawn())
    assert STOPPED.is_set()


def test_a_long_result_is_cut_and_recorded_as_it_was_shown(endpoint: Endpoint) -> None:
    endpoint.say(calls=[("a", "long", '{"letters": 500000}')])
    endpoint.say("long")
    outcome = asked(agent(endpoint, "long"))
    (shown,) = results(endpoint)
    assert str(shown["value"]).endswith("[cut: 63936 of 500000 characters]")
    assert exchanges(outcome.record)[0].tools[0].value == shown["value"]


def test_what_a_tool_lets_out_reaches_neither_model_nor_record(endpoint: Endpoint) -> None:
    endpoint.say(calls=[("a", "leaky", "{}")])
    endpoint.say("done")
    outcome = asked(agent(endpoint, "leaky"))
    assert results(endpoint) == [{"status": "OK", "value": "the key is [redacted:openai_key]"}]
    assert b"PLANTED" not in record_of(outcome, Redactor())


def replayed(spec: WorkerSpec, record: Json, *, tools: bool) -> tuple[Outcome, Replay]:
    async def run() -> tuple[Outcome, Replay]:
        adapter = host(spec)
        assert isinstance(adapter, OpenAIAdapter)
        replay = Replay("m", exchanges(record))
        adapter.endpoint = replay
        if tools:
            adapter.toolbox = replay
        outcome = await adapter.run(attempt())
        await adapter.close()
        return outcome, replay

    return asyncio.run(run())


def test_it_is_played_again_with_its_recorded_results_or_live_ones(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.say(calls=[("a", "price", '{"product": "chair"}'), ("b", "prize", "{}")])
    endpoint.say("12.50")
    spec = agent(endpoint, "price")
    outcome = asked(spec)
    kept = msgspec.json.decode(record_of(outcome, Redactor()))
    assert set(kept[1]["request"]) == {"messages[2]", "messages[3]", "messages[4]"}, "what is added"
    for tools in (True, False):
        again, replay = replayed(spec, kept, tools=tools)
        assert (again.value, again.spend, replay.changed) == ("12.50", outcome.spend, [])
    monkeypatch.setattr(price, "__code__", (lambda product: {"price": 13}).__code__)
    again, replay = replayed(spec, kept, tools=True)
    assert replay.changed == [], "the tool is not asked"
    again, replay = replayed(spec, kept, tools=False)
    assert replay.changed == ["request 2, messages[3]"]


def test_a_record_without_a_result_says_so(endpoint: Endpoint) -> None:
    endpoint.say(calls=[("a", "price", '{"product": "chair"}')])
    endpoint.say("12.50")
    spec = agent(endpoint, "price")
    kept = exchanges(msgspec.json.decode(record_of(asked(spec), Redactor())))
    bare = [msgspec.structs.replace(each, tools=()) for each in kept]
    _, replay = replayed(spec, msgspec.to_builtins(bare), tools=True)
    assert "request 1, calls of tools" in replay.changed


def test_a_record_of_an_agent_without_tools_is_as_ever(endpoint: Endpoint) -> None:
    endpoint.say("Lima")
    (kept,) = msgspec.json.decode(record_of(asked(agent(endpoint)), Redactor()))
    assert set(kept) - {"began_ms", "took_ms"} == {"request", "reply"}
    old = [{"request": kept["request"], "reply": kept["reply"]}]
    assert exchanges(old) == [Exchange(kept["request"], exchanges(old)[0].reply)]


@pytest.mark.parametrize(
    ("tools", "error", "said"),
    [
        (["telepathy"], InvalidData, "no adapter 'telepathy'"),
        ([f"function:{__name__}:nothing"], NotFound, "nothing"),
        (["python", "python"], InvalidData, "several tools with the name 'python'"),
        ([{"name": "x"}], InvalidData, "adapter"),
        ([{"adapter": "python", "colour": "red"}], InvalidData, "colour"),
        (["python"] * 65, InvalidData, "64"),
        ([{"adapter": "python", "name": "a b"}], InvalidData, "no name"),
    ],
)
def test_tools_that_are_none_are_refused(
    endpoint: Endpoint, tools: list[Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        draft("openai", {"model": "m", "base_url": endpoint.url, "tools": tools})


def test_a_tool_that_can_not_be_hosted_any_more_is_told_to_the_model(endpoint: Endpoint) -> None:
    spec = agent(endpoint, "price")
    (table,) = spec.options["tools"]
    moved = {**spec.options, "tools": [{**table, "adapter": f"function:{__name__}:gone"}]}
    endpoint.say(calls=[("a", "price", '{"product": "chair"}')])
    endpoint.say("no idea")
    asked(msgspec.structs.replace(spec, options=moved))
    (shown,) = results(endpoint)
    assert shown["status"] == "EXEC_ERR"
    assert "no function 'gone'" in str(shown["value"])


def test_too_much_in_one_reply_is_refused_and_said(endpoint: Endpoint) -> None:
    endpoint.say("x" * 140_000, calls=[("a", "price", "{}")])
    endpoint.say("12.50")
    assert asked(agent(endpoint, "price")).value == "12.50"
    assert "too_large" in endpoint.requests[-1].body["messages"][-1]["content"]


def test_the_keys_of_tools_that_are_agents_are_kept_out_too(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actors.secrets import endpoint_keys

    monkeypatch.setenv("OTHER_KEY", "other-SECRET-key")
    inner: dict[str, Json] = {"model": "m", "api_key_env": "OTHER_KEY"}
    spec = agent(endpoint, {"adapter": "openai", "options": inner})
    assert sorted(endpoint_keys(spec)) == ["[redacted:OTHER_KEY]", "[redacted:TEAM_KEY]"]
