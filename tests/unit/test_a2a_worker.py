"""Agents that speak A2A as workers, against a real agent of the official SDK."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest

from actors import tracing
from actors.ports import Attempt, Outcome
from actors.workers import a2a, draft, host
from actors.workers.a2a.card import DESCRIPTION_CHARS, MAX_CARD_BYTES
from protocol.actions import Json, Spend, Usage
from protocol.errors import Denied, InvalidData, NotFound, Unreachable
from protocol.errors import Usage as UsageError
from tests.a2a_agent import A2AServer, answer, hang_up, refuse

WAIT_S: Final = 20.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def standing() -> Iterator[A2AServer]:
    with A2AServer() as serving:
        yield serving


@pytest.fixture
def server(standing: A2AServer) -> A2AServer:
    standing.forget()
    return standing


class Arrival:
    """Lets a request through, and says that it came."""

    def __init__(self) -> None:
        self.arrived = threading.Event()

    async def __call__(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        self.arrived.set()
        await app(scope, receive, send)


def attempt(subtask: str, timeout_s: float = WAIT_S, **more: Json) -> Attempt:
    arguments = {"subtask": subtask, **more}
    return Attempt(run="r1", call="1-0", attempt=1, arguments=arguments, timeout_s=timeout_s)


def told(server: A2AServer, *works: Attempt | str, **options: Any) -> Outcome:
    """The outcome of the last of these attempts, made one after the other by one adapter."""

    async def tell() -> Outcome:
        adapter = host(draft("a2a", {"url": server.url, **options}, description="An agent."))
        made = Outcome()
        try:
            for work in works:
                made = await adapter.run(attempt(work) if isinstance(work, str) else work)
        finally:
            await adapter.close()
        return made

    return asyncio.run(tell())


# ----------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize("updates", ["streaming", "polling"])
@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("ok", "Lima"),
        ("message", "Lima\nPeru"),
        ("several", "one\n\ntwo"),
        ("status", "done and said"),
        ("nothing", None),
        (
            "mixed",
            [
                "a map and a table",
                {"rows": 3, "share": 0.5},
                {"name": "map.png", "mimeType": "image/png", "bytes": "iVBORw=="},
                {"mimeType": "text/csv", "uri": "https://example.org/a.csv"},
            ],
        ),
    ],
)
def test_a_result_is_the_same_however_it_comes(
    server: A2AServer, word: str, updates: str, value: Json
) -> None:
    outcome = told(server, word, updates=updates)
    assert (outcome.status, outcome.fault, outcome.value) == ("OK", "none", value)


@pytest.mark.parametrize("updates", ["streaming", "polling"])
@pytest.mark.parametrize(
    ("word", "fault", "said"),
    [
        ("fail", "worker", "failed: there is no such thing"),
        ("reject", "worker", "refused the subtask: not my trade"),
        ("stop", "worker", "cancelled: an operator did it"),
        ("ask", "worker", "asks for more: Which city?"),
        ("authorise", "infrastructure", "log in first"),
        ("crash", "worker", "failed"),
    ],
)
def test_each_other_end_is_an_observation_with_a_reason(
    server: A2AServer, word: str, updates: str, fault: str, said: str
) -> None:
    outcome = told(server, word, updates=updates)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", fault)
    assert said in outcome.value


def test_what_waits_for_nobody_is_cancelled(server: A2AServer) -> None:
    told(server, "authorise")
    assert "CancelTask" in server.methods()
    assert server.agent.stopped.is_set()


# ----------------------------------------------------------------------------------- conversation


def test_a_question_is_answered_by_a_call_that_names_the_task(server: A2AServer) -> None:
    question = told(server, "ask the way")
    task = question.value.partition('"task": "')[2].partition('"')[0]
    outcome = told(server, attempt("Lima", task=task))
    assert (outcome.status, outcome.value) == ("OK", "ask the way was answered")


@pytest.mark.parametrize("conversation", ["run", "call"])
def test_a_task_that_is_none_is_the_policys_fault(server: A2AServer, conversation: str) -> None:
    outcome = told(server, attempt("Lima", task="nope"), conversation=conversation)
    assert (outcome.status, outcome.fault) == ("PARSE_ERR", "policy")
    assert "no task 'nope'" in outcome.value


def test_a_task_of_another_run_can_not_be_answered(server: A2AServer) -> None:
    task = told(server, "ask").value.partition('"task": "')[2].partition('"')[0]
    other = msgspec.structs.replace(attempt("Lima", task=task), run="r2")
    outcome = told(server, other)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")


def test_a_run_is_a_conversation_and_an_attempt_is_a_message(server: A2AServer) -> None:
    assert told(server, "context").value == {"context": "r1", "message": "r1/1-0/1"}
    alone = told(server, "context", conversation="call").value
    assert alone["context"] not in ("", "r1")


def test_the_prompt_is_that_of_any_agent(server: A2AServer) -> None:
    work = msgspec.structs.replace(attempt("message it"), sees={"1-1": "seen"}, task="The task.")
    told(server, work)
    (sent,) = (each for each in server.asked if each.method == "SendStreamingMessage")
    (part,) = sent.body["params"]["message"]["parts"]
    assert part["text"].startswith("The task of the whole team")
    assert '<output of="1-1">\nseen\n</output>' in part["text"]
    assert part["text"].endswith("Your subtask:\nmessage it")


def test_a_schema_of_the_pools_own_goes_to_the_agent_as_json(server: A2AServer) -> None:
    work = msgspec.structs.replace(attempt(""), arguments={"task": "message", "depth": 2})
    told(server, work)
    (sent,) = (each for each in server.asked if each.method == "SendStreamingMessage")
    assert "taskId" not in sent.body["params"]["message"]
    assert sent.body["params"]["message"]["parts"][0]["text"] == '{"depth":2,"task":"message"}'


# --------------------------------------------------------------------------------------- the bill


def test_what_the_agent_tells_of_its_tokens_is_billed(server: A2AServer) -> None:
    outcome = told(server, "ok", cost_usd=0.01, price_in=1, price_out=2)
    assert outcome.usage == Usage(10, 5)
    assert outcome.spend == Spend(tokens=15, cost=10_020)
    assert told(server, "message").usage == Usage(7, 2)


def test_what_was_never_taken_on_costs_nothing(server: A2AServer) -> None:
    server.faults["SendStreamingMessage"] = refuse(503, "full")
    assert told(server, "ok", cost_usd=1).spend == Spend()
    assert told(server, "fail", cost_usd=1).spend == Spend(cost=1_000_000)


# ---------------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize("updates", ["streaming", "polling"])
@pytest.mark.parametrize(
    ("fault", "whose", "said"),
    [
        (refuse(400, "too long"), "worker", "HTTP 400: too long"),
        (refuse(403, "who are you"), "infrastructure", "headers"),
        (refuse(404, "nothing here"), "infrastructure", "address that is none"),
        (refuse(429, "slow down"), "infrastructure", "may work later"),
        (refuse(502, "gone"), "infrastructure", "may work later"),
        (answer(b"{}"), "infrastructure", "as A2A wants it"),
        (answer(b"[1"), "infrastructure", "as A2A wants it"),
        (answer(b'{"result":{"task":7}}'), "infrastructure", "as A2A wants it"),
        (hang_up(), "infrastructure", "can't be reached"),
        (answer(b'{"error":{"code":-32603,"message":"oh"}}'), "worker", "failed: oh"),
        (answer(b'{"error":{"code":-32602,"message":"no"}}'), "worker", 'conversation = "call"'),
        (answer(b'{"error":{"code":-32009,"message":"no"}}'), "infrastructure", "asked so: no"),
    ],
)
def test_a_refusal_is_blamed_on_who_can_mend_it(
    server: A2AServer, updates: str, fault: Callable[..., Any], whose: str, said: str
) -> None:
    method = "SendStreamingMessage" if updates == "streaming" else "SendMessage"
    server.faults[method] = fault
    outcome = told(server, "ok", updates=updates)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", whose)
    assert said in outcome.value
    assert server.methods() == [method]


def test_a_stream_that_breaks_is_taken_up_again(server: A2AServer) -> None:
    server.faults["SendStreamingMessage"] = hang_up(after=1)
    server.faults["GetTask"] = hang_up()
    server.faults["SubscribeToTask"] = listened = Arrival()

    async def go() -> Outcome:
        adapter = host(draft("a2a", {"url": server.url}, description="An agent."))
        working = asyncio.create_task(adapter.run(attempt("slow")))
        assert await asyncio.to_thread(listened.arrived.wait, WAIT_S)
        server.agent.go_on.set()
        try:
            return await working
        finally:
            await adapter.close()

    outcome = asyncio.run(go())
    assert (outcome.status, outcome.value) == ("OK", "half whole")
    assert server.methods().count("SendStreamingMessage") == 1


def test_an_agent_that_stays_away_is_given_up(
    server: A2AServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(a2a, "TRIES", 2)
    server.faults["SendStreamingMessage"] = hang_up(after=1)

    async def gone(app: Any, scope: Any, receive: Any, send: Any) -> None:
        server.faults["GetTask"] = gone
        await hang_up()(app, scope, receive, send)

    server.faults["GetTask"] = gone
    outcome = told(server, "slow")
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert "can't be reached" in outcome.value
    assert server.methods().count("GetTask") == 3


def test_an_agent_that_forgets_its_task_is_not_asked_for_ever(server: A2AServer) -> None:
    server.faults["SendStreamingMessage"] = hang_up(after=1)
    server.faults["GetTask"] = answer(b'{"error":{"code":-32001,"message":"no such task"}}')
    outcome = told(server, "slow")
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert "lost the task" in outcome.value


def test_an_agent_that_never_stops_sending_is_stopped(
    server: A2AServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.workers.a2a.replies.MAX_VALUE_BYTES", 4_096)
    outcome = told(server, "large")
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
    assert "more than 4096 bytes" in outcome.value


def test_after_a_failure_the_card_is_read_again(server: A2AServer) -> None:
    server.faults["SendStreamingMessage"] = refuse(404, "moved")
    assert told(server, "ok", "ok").value == "Lima"
    assert [each.path for each in server.asked].count("/.well-known/agent-card.json") == 2


def test_only_the_span_goes_out_and_no_baggage(server: A2AServer) -> None:
    from opentelemetry import baggage, context

    from protocol import semconv

    async def go() -> None:
        adapter = host(draft("a2a", {"url": server.url}, description="An agent."))
        token = context.attach(baggage.set_baggage(next(iter(semconv.CARRIED)), "r1"))
        try:
            await adapter.run(attempt("ok"))
        finally:
            context.detach(token)
            await adapter.close()

    asyncio.run(go())
    assert all("baggage" not in each.headers for each in server.asked)
    assert tracing.caller() == ""


# --------------------------------------------------------------------------- ways of carrying A2A


@pytest.mark.parametrize(
    ("binding", "version"), [("HTTP+JSON", "1.0"), ("JSONRPC", "0.3"), ("JSONRPC", "1.7")]
)
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("word", "value"), [("ok", "Lima"), ("message", "Lima\nPeru")])
def test_every_way_that_is_promised_is_spoken(
    binding: str, version: str, streaming: bool, word: str, value: str
) -> None:
    with A2AServer(binding=binding, version=version, streaming=streaming) as server:
        assert told(server, word).value == value


@pytest.mark.parametrize(("binding", "version"), [("GRPC", "1.0"), ("JSONRPC", "2.0"), ("X", "")])
def test_another_way_is_refused_by_name(binding: str, version: str) -> None:
    with A2AServer(binding=binding, version=version) as server:
        outcome = told(server, "ok")
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
        assert f"speaks {binding} {version}" in outcome.value
        with pytest.raises(InvalidData, match=f"speaks {binding} {version}"):
            draft("a2a", {"url": server.url})


# --------------------------------------------------------------------------------- card and draft


def test_a_described_worker_is_drafted_without_the_agent() -> None:
    options = {"url": "http://127.0.0.1:9", "cost_usd": 0.5}
    spec = draft("a2a", options, name="atlas", description="Knows cities.")
    assert (spec.name, spec.kind, spec.description) == ("atlas", "agent", "Knows cities.")
    assert spec.reserve == Spend(cost=500_000)


def test_another_is_described_by_its_card(server: A2AServer) -> None:
    spec = draft("a2a", {"url": server.url})
    assert spec.description == (
        "Knows cities.\n- Capitals: Names a capital.\n- Rivers: Follows a river."
    )
    by_card = draft("a2a", {"url": f"{server.url}/.well-known/agent-card.json"})
    assert by_card.description == spec.description
    rivers = draft("a2a", {"url": server.url, "skill": "rivers"})
    assert rivers.description == "Follows a river.\nExample: Where does the Rhine end?"
    with pytest.raises(NotFound, match="no skill 'lakes'") as caught:
        draft("a2a", {"url": server.url, "skill": "lakes"})
    assert caught.value.hint == "It has: capitals, rivers."


def test_a_card_is_as_long_as_a_prompt_can_bear(server: A2AServer) -> None:
    server.card.description = "x" * 100_000
    assert len(draft("a2a", {"url": server.url}).description) < DESCRIPTION_CHARS + 100


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("http://127.0.0.1:9", Unreachable, "can't be reached"),
        ("http://user:pass@127.0.0.1:9", Unreachable, "http://127.0.0.1:9 can't"),
        ("http://127.0.0.1:port", Unreachable, "can't be reached"),
        ("{}/elsewhere", NotFound, "has no card at"),
        ("{}/a2a/tasks/x?y=.json", InvalidData, "gave a card that is none"),
    ],
)
def test_an_agent_that_shows_no_card_is_a_clear_error(
    server: A2AServer, url: str, error: type[Exception], said: str
) -> None:
    server.faults[""] = answer(b"<html>") if error is InvalidData else refuse(404, "no")
    with pytest.raises(error, match=said):
        draft("a2a", {"url": url.format(server.url)})


def test_a_card_of_any_length_is_not_taken_in(server: A2AServer) -> None:
    server.faults[""] = answer(b" " * (MAX_CARD_BYTES + 1))
    with pytest.raises(InvalidData, match=f"more than {MAX_CARD_BYTES} bytes"):
        draft("a2a", {"url": server.url})
    server.faults[""] = answer(b" " * (MAX_CARD_BYTES + 1))
    outcome = told(server, "ok")
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert f"more than {MAX_CARD_BYTES} bytes" in outcome.value


def test_no_header_that_refers_to_a_secret_is_sent_while_drafting(server: A2AServer) -> None:
    headers = {"X-Key": "${secret:KEY}", "X-Team": "atlas"}
    draft("a2a", {"url": server.url, "headers": headers})
    sent = server.asked[-1].headers
    assert sent["x-team"] == "atlas"
    assert "x-key" not in sent
    server.faults[""] = refuse(401, "no")
    with pytest.raises(Denied, match="HTTP 401"):
        draft("a2a", {"url": server.url, "headers": headers})


def test_headers_go_with_every_request() -> None:
    with A2AServer(key="k-1234") as server:
        assert told(server, "ok", headers={"X-Key": "k-1234"}).value == "Lima"
        outcome = told(server, "ok", headers={"X-Key": "wrong"})
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")


def test_headers_go_to_no_host_that_the_pool_does_not_name(server: A2AServer) -> None:
    server.card.supported_interfaces[0].url = server.url.replace("127.0.0.1", "localhost") + "/a2a"
    headers = {"X-Key": "k-1234"}
    outcome = told(server, "ok", headers=headers)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert 'hosts = ["localhost"]' in outcome.value
    assert told(server, "ok", headers=headers, hosts=["localhost"]).value == "Lima"
    assert told(server, "ok").value == "Lima"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "url"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://x", "model": "m"}, "model"),
        ({"url": "http://x", "headers": {"A": "one\r\nB: two"}}, "header 'A'"),
        ({"url": "http://x", "headers": {"A": "naïve-secret"}}, "header 'A'"),
        ({"url": "http://x", "updates": "push"}, "updates"),
        ({"url": "http://x", "cost_usd": -1}, "cost_usd"),
    ],
)
def test_wrong_options_are_refused_and_no_value_is_shown(
    options: dict[str, Json], said: str
) -> None:
    with pytest.raises(InvalidData, match=said) as caught:
        host(draft("a2a", options, description="An agent."))
    assert "two" not in str(caught.value)
    assert "naïve" not in str(caught.value)


def test_without_the_sdk_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = draft("a2a", {"url": "http://x"}, description="An agent.")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        host(spec)
    assert caught.value.hint == "pip install 'podium[a2a]'"
