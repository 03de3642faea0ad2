"""An agent's own turns in a trace: made of the record beside its report, below its attempt."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from actors.workers import draft, host
from actors.workers.agent.exchanges import kept
from podium.tracing.follower import Follower
from protocol import semconv
from protocol.actions import BlobRef, Json, Pool, Report, Spend, Usage, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import blob_ref, decode_value
from protocol.decisions import Decision, ToolCall
from protocol.errors import NotFound, PodiumError, Unreachable
from protocol.exchanges import Exchange, Failed, Said, Used
from protocol.limits import MAX_NAME_CHARS, MAX_RECORD_BYTES
from protocol.traces import attempt_id, span_id
from replay.measures import measures
from replay.spans import Span
from replay.trace import of_run, spans
from replay.trace_scene import MAX_CONTENT_CHARS
from replay.trace_turns import MAX_BYTES, MAX_SPANS, in_blobs
from tests.endpoint import Endpoint
from tests.runs import AGENT, RUN, Driver, answer, begin, inbox, plan, planned
from tests.traces import log_of, named, shape
from tests.unit.test_agent_tools import address
from tests.unit.test_agent_worker import _keys, endpoint
from tests.unit.test_follower import Sink, Stream
from tests.world import World, calls

__all__ = ["_keys", "endpoint"]

CLERK = msgspec.structs.replace(
    AGENT, adapter="openai", options={"model": "gpt-9", "tools": [{"adapter": "function:m:price"}]}
)

ASKED = ToolCall(id="a", name="price", arguments='{"of":"chair"}')
PASSED_ON = ToolCall(id="b", name="helper", arguments="{}")

INNER = [
    Exchange(
        {}, Said(tool_calls=(ASKED,), usage=Usage(5, 1)), (Used(began_ms=2, took_ms=3),), 0, 2
    ),
    Exchange({}, Said(text="so", usage=Usage(6, 2)), (), 5, 4),
]
"""What a tool that is an agent itself asked."""

MADE = [
    Exchange(
        {"model": "1234"},
        Said(
            text="Let me look.",
            tool_calls=(ASKED, PASSED_ON),
            finish="tool_calls",
            spend=Spend(tokens=110, cost=7),
            version="gpt-9-mini@fp",
            usage=Usage(100, 10),
        ),
        (
            Used(value={"price": 12.5}, began_ms=40, took_ms=20),
            Used(
                status="EXEC_ERR",
                fault="worker",
                value="broken",
                usage=Usage(11, 3),
                record=msgspec.to_builtins(INNER),
                began_ms=45,
                took_ms=30,
            ),
        ),
        0,
        40,
    ),
    Exchange({}, Failed(status="TIMEOUT", fault="worker", text="no answer"), (), 80, 15),
]


def ran(
    record: Json, spec: WorkerSpec = CLERK, ref: BlobRef | None = None, run: str = RUN
) -> Driver:
    """A run whose agent reported such a record, after 100 ms of work."""
    driver = Driver(msgspec.structs.replace(begin(pool=Pool((spec,))), run=run))
    driver.reply(plan(planned(spec.name)))
    report = msgspec.structs.replace(
        driver.report_of("1-0"),
        latency_ms=100,
        by="clerk-1",
        usage=Usage(111, 13),
        record=record,
        record_blob=ref,
    )
    driver.give(inbox(report), after_ms=105)
    driver.reply(answer())
    return driver


def turns(record: Sequence[Exchange] = MADE) -> Json:
    return msgspec.to_builtins(kept(msgspec.to_builtins(list(record))))


def below(found: Sequence[Span]) -> list[Span]:
    """The spans of the turns."""
    return [span for span in found if semconv.TURN in span.attributes and span.name[:4] != "plan"]


def test_they_stand_below_the_attempt_in_their_order() -> None:
    found = of_run(log_of(ran(turns())))
    assert shape(found) == [
        "invoke_workflow script",
        "  plan conductor",
        "  invoke_agent agent",
        "    chat gpt-9",
        "    execute_tool price",
        "    invoke_agent helper !EXEC_ERR",
        "      chat",
        "      execute_tool price",
        "      chat",
        "    chat gpt-9 !TIMEOUT",
        "  plan conductor",
    ]
    (attempt,) = named(found, "invoke_agent agent")
    assert attempt.attributes[semconv.MODEL_CALLS] == 2
    starts = [(span.start_ns - attempt.start_ns) // 10**6 for span in below(found)]
    assert starts == [0, 40, 45, 45, 47, 50, 80]
    assert [round(span.ms) for span in below(found)] == [40, 20, 30, 2, 3, 4, 15]


def test_their_ids_are_of_the_attempt_and_the_place_in_its_record() -> None:
    found = below(of_run(log_of(ran(turns()))))
    places = ["1", "1.0", "1.1", "1.1/1", "1.1/1.0", "1.1/2", "2"]
    assert [span.id for span in found] == [span_id(f"{RUN}/1-0/1/{place}") for place in places]
    attempt, helper = attempt_id(RUN, "1-0", 1), found[2].id
    parents = [span.parent for span in found]
    assert parents == [attempt, attempt, attempt, helper, helper, helper, attempt]


def test_each_says_what_was_asked_and_what_it_cost() -> None:
    chat, price, *_ = below(of_run(log_of(ran(turns()))))
    assert chat.kind == "client"
    assert {
        semconv.OPERATION_NAME: "chat",
        semconv.PROVIDER_NAME: "openai",
        semconv.REQUEST_MODEL: "gpt-9",
        semconv.RESPONSE_MODEL: "gpt-9-mini",
        semconv.FINISH_REASONS: ("tool_calls",),
        semconv.INPUT_TOKENS: 100,
        semconv.OUTPUT_TOKENS: 10,
        semconv.TOKENS: 110,
        semconv.CALL_ID: "1-0",
        semconv.ACTOR_ID: "clerk-1",
        semconv.ACTOR_ROLE: "worker",
        semconv.TURN: 1,
    }.items() <= chat.attributes.items()
    assert {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "price",
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: "a",
        semconv.STATUS: "OK",
    }.items() <= price.attributes.items()


def test_what_was_said_is_told_only_where_somebody_asks() -> None:
    assert not any(
        semconv.CONTENT & span.attributes.keys() for span in of_run(log_of(ran(turns())))
    )
    chat, price, *_ = below(of_run(log_of(ran(turns())), content=True))
    (said,) = msgspec.json.decode(str(chat.attributes[semconv.OUTPUT_MESSAGES]))
    assert said["parts"] == [
        {"type": "text", "content": "Let me look."},
        {"type": "tool_call", "name": "price", "arguments": '{"of":"chair"}', "id": "a"},
        {"type": "tool_call", "name": "helper", "arguments": "{}", "id": "b"},
    ]
    assert price.attributes[semconv.TOOL_CALL_ARGUMENTS] == '{"of":"chair"}'
    assert price.attributes[semconv.TOOL_CALL_RESULT] == '{"price":12.5}'


def test_tokens_are_counted_once() -> None:
    found = [each for span in of_run(log_of(ran(turns()))) for each in measures(span)]
    tokens = [each.value for each in found if each.name == semconv.CLIENT_TOKEN_USAGE]
    assert tokens == [100, 10, 5, 1, 6, 2], "by the request that read and wrote them"
    sent = [each for each in found if each.name == semconv.SENT_MESSAGES]
    assert len(sent) == 1, "a use of a tool is no message"


PLAIN = msgspec.structs.replace(CLERK, options={"model": "gpt-9"})


@pytest.mark.parametrize(
    ("record", "spec"),
    [
        (turns(), PLAIN),
        (turns([Exchange({}, Said(text="at once"), (), 0, 90)]), CLERK),
        ("nonsense", CLERK),
        ([{"reply": {"type": "said"}}], CLERK),
        (None, CLERK),
        ([], CLERK),
    ],
    ids=["no tools", "one request", "no record", "half a record", "nothing", "empty"],
)
def test_where_there_is_nothing_to_tell_there_is_the_attempt_alone(
    record: Json, spec: WorkerSpec
) -> None:
    found = of_run(log_of(ran(record, spec)))
    assert below(found) == []
    (attempt,) = named(found, "invoke_agent agent")
    assert attempt.attributes[semconv.INPUT_TOKENS] == 111


def test_they_are_within_the_attempt_and_no_more_than_so_many() -> None:
    wild = [Exchange({}, Said(), (), 10**9, 10**9)] * (2 * MAX_SPANS)
    found = of_run(log_of(ran(turns(wild))))
    (attempt,) = named(found, "invoke_agent agent")
    assert len(below(found)) == MAX_SPANS
    assert {(span.start_ns, span.end_ns) for span in below(found)} == {(attempt.end_ns,) * 2}


def test_no_attribute_is_longer_than_a_backend_takes_whatever_a_model_said() -> None:
    long = "x" * (MAX_CONTENT_CHARS + 9_000)
    calls = (ToolCall(id=long, name=long, arguments=long),) * 3
    said = Said(text=long, tool_calls=calls, finish=long, version=long)
    made = [Exchange({}, said, (Used(value=long),) * 3, 0, 1)]
    for span in of_run(log_of(ran(turns(made))), content=True):
        assert len(span.name) <= 2 * MAX_NAME_CHARS
        texts = (text for text in span.attributes.values() if isinstance(text, str))
        assert max(map(len, texts)) <= 2 * MAX_CONTENT_CHARS + 2_000, span.name


# -------------------------------------------------------------------------- of records in blobs

DATA = msgspec.json.encode(turns())


def in_a_blob(run: str = RUN) -> Driver:
    return ran(None, ref=blob_ref(DATA), run=run)


def test_a_record_in_a_blob_is_named_for_whoever_can_fetch_it() -> None:
    log = log_of(in_a_blob())
    ((report, ref),) = in_blobs(log).items()
    assert ref == blob_ref(DATA)
    assert below(of_run(log)) == []
    records = {report: decode_value(DATA)}
    assert shape(spans([log], records=records)) == shape(of_run(log_of(ran(turns()))))
    assert in_blobs(log_of(ran(None, PLAIN, blob_ref(DATA)))) == {}
    assert in_blobs(log_of(ran(None, ref=BlobRef("f" * 64, MAX_BYTES + 1)))) == {}


@pytest.mark.parametrize("fails", [[], [Unreachable("away")]])
async def test_live_they_are_what_an_export_gives(fails: list[PodiumError]) -> None:
    driver = in_a_blob()
    stream, sink = Stream([driver], page=3), Sink()
    stream.blobs[blob_ref(DATA).sha256] = DATA
    following = Follower(stream, sink.take, {0: 0})
    stream.fails += fails
    if fails:
        with pytest.raises(Unreachable):
            await following.catch_up()
    await following.catch_up()
    ((report, _),) = in_blobs(log_of(driver)).items()
    assert sink.taken
    exported = spans([log_of(driver)], records={report: decode_value(DATA)})
    assert sorted(span.id for span in sink.taken) == sorted(span.id for span in exported)
    assert below(sink.taken) == below(exported)


async def test_live_a_record_that_is_gone_costs_nothing_but_the_turns() -> None:
    driver = in_a_blob()
    stream, sink = Stream([driver]), Sink()
    stream.fails.append(NotFound("it is nowhere"))
    await Follower(stream, sink.take, {0: 0}).catch_up()
    assert sorted(span.id for span in sink.taken) == sorted(
        span.id for span in of_run(log_of(driver))
    )


async def test_a_real_agents_turns_are_in_its_trace(endpoint: Endpoint) -> None:
    endpoint.say("Look." * 1_000, calls=[("a", "price", '{"product": "chair"}')], usage=(100, 10))
    endpoint.say("12.50 euros", usage=(150, 5))
    fields: dict[str, Any] = {"model": "m", "base_url": endpoint.url, "api_key_env": "TEAM_KEY"}
    spec = draft("openai", {**fields, "tools": [address("price")]}, name="clerk")
    adapter = host(spec)
    world = World()

    def decide(view: Any) -> Decision:
        return Decision(answer="ok") if view.turns else calls(("clerk", {"subtask": "How much?"}))

    world.policy(decide)
    await world.worker(spec, adapter.run)
    await world.conductor()
    log = await world.ended(await world.submit(world.start(budget=Budget(cost=10**7))))
    (report,) = [each.message for each in log.inbox if isinstance(each.message, Report)]
    assert report.record_blob is not None
    assert report.record_blob.size > MAX_RECORD_BYTES
    refs = in_blobs(log).items()
    records = {known: decode_value(await world.log.get_blob(ref)) for known, ref in refs}
    found = spans([log], records=records)
    await world.close()
    await adapter.close()
    assert shape(found)[2:-1] == [
        "  invoke_agent clerk",
        "    chat m",
        "    execute_tool price",
        "    chat m",
    ]
    (attempt,) = named(found, "invoke_agent clerk")
    for span in below(found):
        assert attempt.start_ns <= span.start_ns <= span.end_ns <= attempt.end_ns
