"""A worker's results are held to what it declares, before a run takes them for facts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.ports import Attempt, Outcome
from actors.workers.outcomes import EVERY_MISFIT_BYTES
from protocol.actions import WorkerSpec
from protocol.decisions import Decision, Observation
from protocol.errors import InvalidData
from protocol.schemas import check_value_schema
from tests.world import World, calls

SHAPE = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def observed(world: World, outcome: Outcome, returns: dict[str, Any]) -> Observation:
    """What a policy is shown of a call with that outcome."""
    seen: list[Observation] = []

    def decide(view: Any) -> Decision:
        if not view.turns:
            return calls(("probe", {}))
        seen.extend(view.turns[0].observations)
        return Decision(answer="done")

    async def work(_: Attempt) -> Outcome:
        return outcome

    world.policy(decide)
    await world.worker(WorkerSpec(name="probe", returns=returns), work)
    await world.conductor()
    await world.ended(await world.submit(world.start()))
    return seen[0]


async def test_a_result_that_fits_is_taken(world: World) -> None:
    seen = await observed(world, Outcome(value={"n": 1}), SHAPE)
    assert (seen.status, seen.value) == ("OK", {"n": 1})


async def test_one_that_does_not_is_the_workers_failure_and_says_where(world: World) -> None:
    seen = await observed(world, Outcome(value={"n": "one", "m": 2}), SHAPE)
    assert (seen.status, seen.fault) == ("EXEC_ERR", "worker")
    assert seen.value == (
        "probe returned what it does not declare: ['n']: must be of type integer; "
        'the result: \'m\' is not declared. It returned {"n":"one","m":2}'
    )


async def test_of_a_large_one_only_the_first_is_told(world: World) -> None:
    large = {"n": "x" * EVERY_MISFIT_BYTES, "m": 2}
    seen = await observed(world, Outcome(value=large), SHAPE)
    assert (seen.status, seen.fault) == ("EXEC_ERR", "worker")
    told = seen.value.partition(". It returned ")[0].removeprefix("probe returned what it does ")
    assert told in (
        "not declare: ['n']: must be of type integer",
        "not declare: the result: 'm' is not declared",
    )


async def test_where_nothing_is_declared_anything_fits(world: World) -> None:
    assert (await observed(world, Outcome(value=[None]), {})).value == [None]


async def test_a_failure_is_what_it_is(world: World) -> None:
    failed = Outcome(status="EXEC_ERR", fault="worker", value="broken")
    assert (await observed(world, failed, SHAPE)).value == "broken"


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://x/y"}, [], "x"])
def test_a_schema_has_to_be_one(schema: Any) -> None:
    with pytest.raises(InvalidData, match="what it returns is no JSON Schema"):
        check_value_schema(schema, "what it returns")


@pytest.mark.parametrize("schema", [{}, {"type": "string"}, {"type": "array", "items": SHAPE}])
def test_a_result_may_be_anything(schema: Any) -> None:
    check_value_schema(schema, "what it returns")
