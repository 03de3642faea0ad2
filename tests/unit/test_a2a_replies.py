"""What an A2A agent says, piece by piece or as a whole, made one outcome."""

import msgspec
import pytest
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from actors.workers.a2a.replies import Heard, Prices, Told, outcome, spend, told
from protocol.actions import Json, Spend, Usage

COMPLETED = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=12,
)


def chunk(artifact: str, text: str, *, append: bool = True) -> StreamResponse:
    made = Artifact(artifact_id=artifact, parts=[Part(text=text)])
    update = TaskArtifactUpdateEvent(task_id="t", artifact=made, append=append)
    return StreamResponse(artifact_update=update)


def status(state: TaskState, **metadata: Json) -> StreamResponse:
    update = TaskStatusUpdateEvent(task_id="t", status=TaskStatus(state=state), metadata=metadata)
    return StreamResponse(status_update=update)


def completed(*parts: Part) -> Heard:
    heard = Heard()
    artifact = Artifact(artifact_id="a", parts=parts)
    heard.take(Task(id="t", status=COMPLETED, artifacts=[artifact]))
    return heard


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), texts), min_size=1))
def test_chunks_and_a_look_at_the_task_give_the_same(pieces: list[tuple[str, str]]) -> None:
    streamed = Heard()
    whole: dict[str, Artifact] = {}
    for artifact, text in pieces:
        streamed.hear(chunk(artifact, text))
        kept = whole.setdefault(artifact, Artifact(artifact_id=artifact))
        kept.parts.append(Part(text=text))
    streamed.hear(status(TaskState.TASK_STATE_COMPLETED))
    looked = Heard()
    looked.take(Task(id="t", status=COMPLETED, artifacts=whole.values()))
    assert outcome(streamed, Prices()) == outcome(looked, Prices())
    joined = ["".join(text for name, text in pieces if name == each) for each in whole]
    assert outcome(looked, Prices()).value == "\n\n".join(joined)


def test_a_chunk_that_does_not_append_begins_the_artifact_anew() -> None:
    heard = Heard()
    for event in (chunk("a", "draft", append=False), chunk("a", "final", append=False)):
        heard.hear(event)
    heard.hear(status(TaskState.TASK_STATE_COMPLETED))
    assert outcome(heard, Prices()).value == "final"


def test_what_was_streamed_counts_no_more_when_the_task_was_looked_at() -> None:
    heard = Heard()
    heard.hear(chunk("a", "lost in part"))
    heard.take(Task(id="t", status=COMPLETED, artifacts=[Artifact(artifact_id="b", parts=[])]))
    assert outcome(heard, Prices()).value is None


def test_without_artifacts_the_last_word_is_the_result() -> None:
    said = [
        Message(role=Role.ROLE_AGENT, parts=[Part(text="thinking")]),
        Message(role=Role.ROLE_AGENT, parts=[Part(text="Lima")]),
        Message(role=Role.ROLE_USER, parts=[Part(text="thanks")]),
    ]
    heard = Heard()
    heard.take(Task(id="t", status=COMPLETED, history=said))
    assert outcome(heard, Prices()).value == "Lima"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_a_failure_that_says_so(number: float) -> None:
    heard = completed(Part(data=Value(number_value=number)))
    made = outcome(heard, Prices())
    assert (made.status, made.fault) == ("EXEC_ERR", "worker")
    assert "result" in made.value


@given(st.integers(-(2**52), 2**52) | st.floats(-1e300, 1e300) | st.just(1e300))
def test_numbers_are_whole_where_they_can_be(number: float) -> None:
    value = outcome(completed(Part(data=Value(number_value=number))), Prices()).value
    assert value == number
    if float(number).is_integer() and abs(number) < 2**53:
        assert isinstance(value, int)
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    ("state", "settled", "left"),
    [
        (TaskState.TASK_STATE_UNSPECIFIED, False, True),
        (TaskState.TASK_STATE_SUBMITTED, False, True),
        (TaskState.TASK_STATE_WORKING, False, True),
        (TaskState.TASK_STATE_COMPLETED, True, False),
        (TaskState.TASK_STATE_FAILED, True, False),
        (TaskState.TASK_STATE_CANCELED, True, False),
        (TaskState.TASK_STATE_REJECTED, True, False),
        (TaskState.TASK_STATE_INPUT_REQUIRED, True, False),
        (TaskState.TASK_STATE_AUTH_REQUIRED, True, True),
    ],
)
def test_a_task_is_left_alone_when_it_ended_or_can_be_answered(
    state: TaskState, settled: bool, left: bool
) -> None:
    heard = Heard()
    heard.hear(status(state))
    assert (heard.settled, heard.open) == (settled, left)


@pytest.mark.parametrize(
    ("metadata", "usage", "cost"),
    [
        ({}, Usage(), None),
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2.0}}, Usage(3, 2), None),
        ({"input_tokens": 3, "output_tokens": 2, "cost_usd": 0.5}, Usage(3, 2), 500_000),
        ({"adk_usage_metadata": {"promptTokenCount": 9}}, Usage(9, 0), None),
        ({"kagent_usage_total": {"candidatesTokenCount": 4}}, Usage(0, 4), None),
        ({"usage": {"total_cost_usd": 2}}, Usage(), 2_000_000),
        ({"usage": {"input_tokens": -3, "output_tokens": True, "cost_usd": "x"}}, Usage(), None),
        ({"usage": "many"}, Usage(), None),
    ],
)
def test_usage_is_understood_however_it_is_spelled(
    metadata: dict[str, Json], usage: Usage, cost: int | None
) -> None:
    assert told(metadata) == Told(usage, cost)


@given(st.dictionaries(st.sampled_from(["usage", "cost_usd", "input_tokens"]) | st.text(), jsons))
def test_whatever_an_agent_tells_is_a_count_or_nothing(metadata: dict[str, Json]) -> None:
    heard = Heard()
    heard.task, heard.told = "t", told(metadata)
    made = spend(heard, Prices(0.1, 1, 2))
    assert msgspec.convert(msgspec.to_builtins(made), Spend) == made


def test_a_sum_of_tokens_is_billed_where_they_are_not_told_apart() -> None:
    heard = Heard()
    heard.hear(status(TaskState.TASK_STATE_COMPLETED, usage={"total_tokens": 12}))
    made = outcome(heard, Prices())
    assert (made.usage, made.spend) == (Usage(), Spend(tokens=12))


def test_the_last_that_is_told_counts_and_silence_takes_nothing_back() -> None:
    heard = Heard()
    heard.hear(status(TaskState.TASK_STATE_WORKING, usage={"input_tokens": 5, "cost_usd": 0.1}))
    heard.hear(status(TaskState.TASK_STATE_WORKING, usage={"input_tokens": 9}))
    heard.hear(status(TaskState.TASK_STATE_COMPLETED))
    made = outcome(heard, Prices(attempt=7, read=1))
    assert (made.usage, made.spend) == (Usage(9, 0), Spend(tokens=9, cost=100_000))
