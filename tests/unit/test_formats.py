"""Runs in others' formats: valid whatever happened, and nothing said that was not asked for."""

import json
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest
from atif import Trajectory
from hypothesis import given

from protocol.codec import blob_ref, encode
from protocol.commands import Activate, Fork
from protocol.decisions import WRITTEN, Reply
from protocol.dialects.shared import STILL_OPEN
from protocol.inbox import Label
from protocol.run import RULES
from replay.chain import Messages, RunLog, assemble
from replay.forks import origin_at
from replay.formats.atif import trajectory
from replay.formats.common import Tree, read_tree, ref
from replay.formats.orchestration import trace
from replay.memory_log import MemoryLog, MemoryStore
from tests.runs import AT, Driver, answer, begin, planned, started
from tests.runs import plan as planning
from tests.stored import BLOB, MANY, put, stored_family, stored_of
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough

SCHEMA: Final = jsonschema_rs.validator_for(
    json.loads((Path(__file__).parent / "orchestration.schema.json").read_text())
)

Object = dict[str, Any]


def wire(value: Any) -> Any:
    """As it stands in a file."""
    return json.loads(msgspec.json.encode(value), parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def atif(tree: Tree, *, content: bool = False) -> Object:
    """A run's trajectory, after an independent implementation has read it."""
    found: Object = wire(trajectory(tree, version="0.0", content=content))
    again = Trajectory.model_validate(found, strict=True)
    assert again.model_dump(mode="json", exclude_unset=True) == found
    return found


def orchestration(tree: Tree, *, content: bool = False) -> Object:
    """A run's trace, checked against the schema, and against what a schema can't say."""
    found: Object = wire(trace(tree, content=content))
    SCHEMA.validate(found)
    ids = [event["id"] for event in found["events"]]
    assert len(set(ids)) == len(ids)
    for edge in found["edges"]:
        assert edge["src"] in ids
        assert edge["dst"] in ids
        assert edge["src"] != edge["dst"]
    times = [event["t"] for event in found["events"]]
    assert times == sorted(times)
    return found


@pytest.fixture
async def family() -> Tree:
    store = MemoryStore()
    root, *_ = stored_family(store, 2)
    log = MemoryLog(store)
    await log.post(root, encode(Label(run=root, key="note", value="a secret note", by="ada")))
    return await read_tree(log, root, blobs=True)


def test_a_trajectory_of_a_run_with_children(family: Tree) -> None:
    found = atif(family, content=True)
    root = family.log.run
    steps = found["steps"]
    assert [step["source"] for step in steps] == ["user", "agent", "agent", "agent"]
    assert steps[0]["message"] == "What is asked?"
    assert [call["tool_call_id"] for call in steps[1]["tool_calls"]] == ["1-0", "1-1", "1-2"]
    assert steps[1]["tool_calls"][1] == {
        "tool_call_id": "1-1",
        "function_name": "tool",
        "arguments": {"n": 2},
    }
    by_call = {each["source_call_id"]: each for each in steps[1]["observation"]["results"]}
    assert by_call["1-1"]["content"] == BLOB.decode()[1:-1], "a blob's value is in it"
    assert by_call["1-2"]["extra"]["podium"]["tokens"] == 40
    (child,) = by_call["1-0"]["subagent_trajectory_ref"]
    assert child["trajectory_id"] in family.below
    assert [each["trajectory_id"] for each in found["subagent_trajectories"]] == list(family.below)
    below = found["subagent_trajectories"][0]
    assert below["session_id"] == root
    assert below["extra"]["podium"]["parent"]["run"] == root
    (broken,) = below["steps"][1]["observation"]["results"]
    assert broken["extra"]["podium"]["status"] == "EXEC_ERR"
    assert broken["extra"]["podium"]["fault"] == "worker"
    assert steps[-1]["message"] == "42"
    assert steps[-1]["llm_call_count"] == 0, "no model is behind a script"
    about = found["extra"]["podium"]
    assert about["status"] == "finished"
    assert about["rewards"] == [{"channel": "correct", "value": 1.0, "by": "a test", "head": ""}]
    assert found["final_metrics"]["extra"]["podium"]["rewards"] == {"correct": 1.0}
    assert found["final_metrics"]["total_steps"] == 4


def test_a_trace_of_a_run_with_children(family: Tree) -> None:
    found = orchestration(family, content=True)
    types = [event["type"] for event in found["events"]]
    assert (types.count("spawn"), types.count("despawn")) == (2, 2)
    assert types.count("aggregate") == 4
    assert types.count("orchestrator_decision") == 3 + 2 * 2
    assert found["costs"]["tool_calls"] == types.count("tool_call") == 2 + 2
    assert types.count("tool_result") == 4
    assert found["topology"] == "hierarchical"
    assert found["rewards"] == {"correct": 1.0}
    by_id = {event["id"]: event for event in found["events"]}
    joined = {(by_id[e["src"]]["type"], e["type"], by_id[e["dst"]]["type"]) for e in found["edges"]}
    assert {
        ("orchestrator_decision", "causal", "spawn"),
        ("spawn", "spawn", "message"),
        ("spawn", "return", "return"),
        ("return", "aggregate", "aggregate"),
        ("tool_call", "tool_dependency", "tool_result"),
        ("aggregate", "causal", "orchestrator_decision"),
    } <= joined
    assert found["events"][-1]["to"] == "user"
    assert found["events"][-1]["podium"]["content"] == "42"


def test_content_is_named_by_its_hash_unless_it_is_asked_for(family: Tree) -> None:
    said = ["What is asked?", "it broke", "said", "a long value", "a secret note", '"42"']
    for make in (atif, orchestration):
        without, whole = (json.dumps(make(family, content=each)) for each in (False, True))
        for text in said:
            assert text not in without, (make, text)
        assert "it broke" in whole
        assert ref("it broke") in without
    assert ref("42") in json.dumps(orchestration(family))


async def test_children_and_blobs_are_read_when_they_are_asked_for() -> None:
    store = MemoryStore()
    root, *_ = stored_family(store)
    alone = await read_tree(MemoryLog(store), root, children=False)
    assert alone.below == {}
    found = atif(alone, content=True)
    assert "subagent_trajectories" not in found
    assert orchestration(alone)["topology"] == "centralized"
    store.blobs.clear()
    lost = await read_tree(MemoryLog(store), root, blobs=True)
    assert f"blob {blob_ref(BLOB).sha256} is not in the store" in str(lost.values)


def test_a_rejected_reply_is_a_step_without_calls() -> None:
    driver = Driver(begin())
    driver.reply(Reply(text="I can't decide."))
    found = atif(tree_of(driver), content=True)
    rejected = found["steps"][1]
    assert "tool_calls" not in rejected
    (result,) = rejected["observation"]["results"]
    assert "source_call_id" not in result
    assert result["extra"]["podium"]["status"] == "PARSE_ERR"
    assert rejected["message"] == "I can't decide."


def test_what_came_after_its_round_stands_where_it_was_shown() -> None:
    policy = msgspec.structs.replace(begin().policy, replan_on="failure")
    driver = started(planned(n=1), planned("agent"), policy=policy)
    driver.report("1-0", status="EXEC_ERR", fault="worker", value="broken")
    driver.reply(planning(planned(n=2)))
    driver.report("2-0", status="TIMEOUT", fault="worker", value="too slow")
    driver.report("2-0", value="late after all")
    driver.reply(planning(planned(n=3)))
    driver.report("1-1", value="long in the making")
    driver.report("3-0", value="three")
    driver.reply(answer())
    found = atif(tree_of(driver), content=True)
    shown = [
        [(each.get("source_call_id"), each["content"]) for each in step["observation"]["results"]]
        for step in found["steps"]
        if "observation" in step
    ]
    assert shown == [
        [("1-0", "broken"), ("1-1", STILL_OPEN)],
        [("2-0", "too slow")],
        [("3-0", "three")],
        [(None, "late after all"), (None, "long in the making")],
    ], "what comes while the policy thinks is shown with the next question"
    (late,) = (step for step in found["steps"] if step["source"] == "system")
    calls = [each["extra"]["podium"]["call"] for each in late["observation"]["results"]]
    assert calls == ["2-0", "1-1"]
    told = [
        event["podium"]["content"]
        for event in orchestration(tree_of(driver), content=True)["events"]
        if event["type"] in ("tool_result", "return") and event["to"] != "user"
    ]
    assert told == ["broken", "too slow", "late after all", "long in the making", "three"]


@pytest.mark.parametrize("name", ["openai:gpt-5", "local:gpt-5", "written:ada:local:gpt-5"])
def test_a_model_behind_the_policy_is_named_and_counted(name: str) -> None:
    policy = msgspec.structs.replace(begin().policy, name=name)
    driver = Driver(begin(policy=policy))
    driver.reply(answer(version="gpt-5-0815"))
    found = atif(tree_of(driver))
    assert found["agent"]["model_name"] == "gpt-5"
    step = found["steps"][1]
    assert (step["model_name"], step["llm_call_count"]) == ("gpt-5-0815", 1)
    assert step["metrics"]["extra"]["podium"]["tokens"] == 0


def test_an_answer_that_a_worker_wrote_is_no_call_of_the_policys_model() -> None:
    policy = msgspec.structs.replace(begin().policy, name=f"{WRITTEN}:ada:openai:gpt-5")
    driver = Driver(begin(policy=policy))
    driver.reply(answer(version=WRITTEN))
    step = atif(tree_of(driver))["steps"][1]
    assert step["llm_call_count"] == 0
    assert not {"model_name", "metrics"} & step.keys()


async def test_what_a_fork_shares_is_marked_as_copied() -> None:
    origin = started(planned(n=1))
    store = MemoryStore()
    put(store, origin.state.run, stored_of(origin))
    whole = await MemoryLog(store).read(origin.state.run)
    at = len(origin.events)
    fork = Driver(at=AT + 10**6)
    fork.state = whole.state()
    fork.give(Fork(run=MANY, origin=origin_at(whole, at)), Activate("conductor", RULES))
    fork.report("1-0", value=8)
    fork.reply(answer())
    put(store, MANY, stored_of(fork))
    tree = await read_tree(MemoryLog(store), MANY)
    found = atif(tree)
    assert [step.get("is_copied_context", False) for step in found["steps"]] == [
        True,
        True,
        False,
        False,
    ]
    assert found["extra"]["podium"]["origin"] == {"run": origin.state.run, "events": at}
    orchestration(tree)


def tree_of(driver: Driver) -> Tree:
    """The tree of one driven run."""
    messages = stored_of(driver)
    log = assemble(driver.state.run, *Messages(messages.commits, []))
    return Tree(log, dict(driver.values), {})


@thorough
@given(STARTS, HISTORIES)
def test_whatever_happened_to_a_run_it_is_valid(start: Any, history: History) -> None:
    tree = tree_of(lived(start, history))
    for content in (False, True):
        found = atif(tree, content=content)
        settled = [
            result["source_call_id"]
            for step in found["steps"]
            for result in step.get("observation", {}).get("results", ())
            if "source_call_id" in result
        ]
        assert len(set(settled)) == len(settled), "each call has one result"
        orchestration(tree, content=content)


def test_a_run_of_which_nothing_is_known_is_valid() -> None:
    tree = Tree(RunLog("0" * 13), {}, {})
    assert len(atif(tree)["steps"]) == 1
    assert len(orchestration(tree)["events"]) == 1
