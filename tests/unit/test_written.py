"""A worker writes the answer: over policies that speak decisions, and over native tool calls."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import policies
from actors.policies import written
from actors.policies.written import record
from actors.ports import Attempt, Closing, Outcome, Policy
from protocol.actions import Call, Json, Pool, Status, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import (
    Decision,
    Dialect,
    Observation,
    PolicySpec,
    Reply,
    Task,
    Turn,
    View,
    asked,
)
from protocol.dialects import render
from protocol.errors import Usage
from protocol.limits import MAX_ARGUMENTS_BYTES, MAX_REPLY_BYTES
from replay.chain import RunLog
from replay.trace import of_run
from replay.verify import verify_run
from tests.world import World, calls

SCHEMA: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {"subtask": {"type": "string"}},
    "required": ["subtask"],
}
ADD: Final = WorkerSpec(name="add")
SCRIBE: Final = WorkerSpec(name="scribe", kind="agent", parameters=SCHEMA, attempts=1)


class Asked:
    """A policy that has to be waited for, and speaks native tool calls."""

    def __init__(self, decide: Callable[[View], Decision]) -> None:
        self.spec = PolicySpec(name="model", dialect="openai")
        self._decide = decide
        self.asked = 0

    async def ask(self, view: View) -> Reply:
        """See `EndpointPolicy`."""
        self.asked += 1
        await asyncio.sleep(0)
        said = render(self.spec, self._decide(view), view.pool)
        return msgspec.structs.replace(said, version="m-1")


class Hermes(Asked):
    """The same in the Hermes template, with its workers by number."""

    def __init__(self, decide: Callable[[View], Decision]) -> None:
        super().__init__(decide)
        self.spec = PolicySpec(name="model", dialect="hermes", naming="numbers")


class AtOnce(Asked):
    """The same by decisions."""

    def __init__(self, decide: Callable[[View], Decision]) -> None:
        super().__init__(decide)
        self.spec = PolicySpec(name="rules")

    ask = None  # type: ignore[assignment]

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        self.asked += 1
        return Reply(decision=self._decide(view), version="r-1")


def decide(view: View) -> Decision:
    """One call, then the answer."""
    if not view.turns and not view.final:
        return calls(("add", {"a": 2, "b": 3}))
    return Decision(answer="I make it 5")


async def ran(
    policy: Policy, write: Callable[[Attempt], Outcome] | None, budget: Budget | None = None
) -> RunLog:
    """A run whose policy's answer the scribe writes, if there is one."""
    world = World()
    outer = written.over("scribe", policy)
    world.policies[outer.spec.name] = outer

    async def add(attempt: Attempt) -> Outcome:
        return Outcome(value=attempt.arguments["a"] + attempt.arguments["b"])

    await world.worker(ADD, add)
    if write is not None:
        known = write

        async def scribe(attempt: Attempt) -> Outcome:
            return known(attempt)

        await world.worker(SCRIBE, scribe)
    await world.conductor()
    run = await world.submit(world.start(policy=outer.spec.name, budget=budget))
    log = await world.until(run, lambda log: log.state().phase in ("ended", "paused"))
    verified = await verify_run(world.log, run)
    assert (verified.outcome, verified.problems) == ("sound", ())
    await world.close()
    return log


both = pytest.mark.parametrize(
    "kind", [AtOnce, Asked, Hermes], ids=["decision", "openai", "hermes"]
)


@both
async def test_the_worker_writes_the_answer_from_the_record(kind: type[Asked]) -> None:
    seen: list[Attempt] = []

    def write(attempt: Attempt) -> Outcome:
        seen.append(attempt)
        return Outcome(value="Five.")

    policy = kind(decide)
    log = await ran(policy, write)
    state = log.state()
    assert (state.outcome, state.answer) == ("finished", "Five.")
    assert policy.asked == 2, "for the call and for its answer; the writer's needs no third"
    (attempt,) = seen
    assert attempt.call == "2-0"
    text = str(attempt.arguments["subtask"])
    assert text.startswith("The task:\na test\n")
    assert '- add {"a":2,"b":3}: OK: 5' in text
    assert text.endswith("I make it 5")
    spans = [span.name for span in of_run(log)]
    assert spans.count("plan conductor") == 3
    assert spans.count("chat model") == (0 if kind is AtOnce else 2)


@both
@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(status="EXEC_ERR", fault="worker", value="no key"),
        Outcome(value=""),
    ],
    ids=["failed", "empty"],
)
async def test_a_writer_that_fails_leaves_the_policys_own_answer(
    kind: type[Asked], outcome: Outcome
) -> None:
    log = await ran(kind(decide), lambda _: outcome)
    assert log.state().answer == "I make it 5"


@both
async def test_at_a_limit_the_policys_own_answer_stands(kind: type[Asked]) -> None:
    log = await ran(kind(decide), lambda _: Outcome(value="Five."), Budget(rounds=1))
    assert log.state().answer == "I make it 5"
    log = await ran(kind(decide), lambda _: Outcome(value="Five."), Budget(rounds=2))
    assert log.state().answer == "Five.", "a limit that the writer's own round has reached"


@both
async def test_a_call_of_the_writer_by_the_policy_is_a_call(kind: type[Asked]) -> None:
    def early(view: View) -> Decision:
        return decide(view) if view.turns else calls(("scribe", {"subtask": "Say hello."}))

    written_ = iter(["hello", "Five."])
    log = await ran(kind(early), lambda _: Outcome(value=next(written_)))
    state = log.state()
    assert (state.answer, len(state.calls)) == ("Five.", 2)


@both
async def test_without_its_writer_a_run_pauses_and_says_so(kind: type[Asked]) -> None:
    log = await ran(kind(decide), None)
    state = log.state()
    assert (state.phase, state.pause_reason) == ("paused", "policy_unavailable")
    assert "no worker 'scribe'" in state.pause_detail


def shown(turns: tuple[Turn, ...], text: str = "a test", **inputs: Json) -> View:
    return View(run="r", task=Task(text=text, inputs=inputs), pool=Pool((ADD, SCRIBE)), turns=turns)


def turn(number: int, value: Json, status: Status = "OK") -> Turn:
    call = Call(f"{number}-0", "add", {"n": number})
    return Turn("a note", (Observation(call=call, status=status, value=value),))


def test_the_record_cuts_values_before_it_leaves_calls_out() -> None:
    few = record(shown(tuple(turn(n, "x" * 9_000) for n in range(1, 9))), "draft")
    assert "left out" not in few
    assert few.count("- add") == 8
    many = record(shown(tuple(turn(n, "x" * 9_000) for n in range(1, 2_000))), "draft")
    assert "earlier lines are left out)" in many
    assert '- add {"n":1999}' in many, "what came last is kept"
    assert many.endswith("draft")


def test_what_failed_and_what_came_late_is_in_the_record() -> None:
    late = Observation(call=Call("1-1", "add", {}), status="OK", value={"sum": 3})
    failed = msgspec.structs.replace(turn(1, "no key", "EXEC_ERR"), late=(late,))
    text = record(shown((failed,), place="Peru"), "draft")
    assert "Round 1: a note" in text
    assert '- add {"n":1}: EXEC_ERR: no key' in text
    assert '- add {}: OK: {"sum":3}' in text
    assert 'Its inputs (JSON):\n{"place":"Peru"}' in text


@settings(max_examples=30)
@given(
    st.lists(st.text(max_size=3_000), max_size=30), st.text(max_size=20_000), st.text(min_size=1)
)
def test_the_record_always_fits_into_a_call(values: list[str], draft: str, task: str) -> None:
    turns = tuple(turn(n, value) for n, value in enumerate(values, 1))
    made = {"subtask": record(shown(turns, task * 500), draft)}
    assert len(msgspec.json.encode(made)) <= MAX_ARGUMENTS_BYTES


@pytest.mark.parametrize("dialect", ["decision", "openai", "hermes"])
def test_an_answer_that_leaves_no_room_is_given_as_it_is(dialect: Dialect) -> None:
    long = Decision(answer="x" * (MAX_REPLY_BYTES - 2_000))
    outer = written._Last("scribe", AtOnce(decide))
    outer.spec = PolicySpec(name="p", dialect=dialect)
    reply = render(outer.spec, long, Pool(()))
    assert outer._ended(shown(()), reply) is reply


@both
async def test_what_the_policy_holds_is_released_with_it(kind: type[Asked]) -> None:
    closed: list[str] = []

    class Holding(kind):  # type: ignore[misc, valid-type]
        async def close(self) -> None:
            closed.append(self.spec.name)

    for policy in (Holding(decide), kind(decide)):
        outer = written.over("scribe", policy)
        assert isinstance(outer, Closing)
        await outer.close()
    assert closed == [kind(decide).spec.name]


def test_its_name_says_who_writes_and_who_is_asked() -> None:
    assert asked("written:scribe:python:mine:Policy") == "python:mine:Policy"
    assert asked("openai:written:x") == "openai:written:x"
    found = policies.find("written:scribe:rules")
    assert found.spec.name == "written:scribe:rules"
    for wrong in (
        "written:scribe",
        "written:scribe:",
        "written:a:written:b:rules",
        "written::rules",
    ):
        with pytest.raises(Usage):
            policies.find(wrong)
