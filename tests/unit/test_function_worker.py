"""Python functions as workers: what a policy is told of them, and what becomes of their results."""

import asyncio
import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import jsonschema_rs
import msgspec
import pytest

from actors.ports import Attempt, Outcome
from actors.workers import FunctionAdapter, cancelled, spec_of, tool
from actors.workers.function import find
from protocol.actions import Json, Spend
from protocol.errors import InvalidData, NotFound
from protocol.limits import MAX_DETAIL_CHARS

HELD = threading.Event()
ENDED = threading.Event()


@dataclasses.dataclass
class Place:
    city: str
    weight: float = 1.0


@tool(timeout_s=2.5, concurrency=3, attempts=4, cost_usd=0.002)
def distance(  # noqa: D417
    start: Place,
    goal: Annotated[str, msgspec.Meta(description="Where to go.")],
    unit: Literal["km", "mi"] = "km",
    via: list[str] = ["x"],  # noqa: B006
    limit: Optional[int] = None,  # noqa: UP045
) -> dict[str, Json]:
    """Measures the way
    between two places.

    A second paragraph, not for the policy.

    Args:
        start: Where it begins.
        unit: Of the result.
    """  # noqa: D205
    return {"from": start.city, "to": goal, "unit": unit, "via": via, "limit": limit}


@tool
async def double(number: float) -> float:
    """Doubles a number."""
    await asyncio.sleep(0)
    return number * 2


@tool
def give(what: str) -> object:
    """Returns something odd."""
    loop: list[object] = []
    loop.append(loop)
    odd: dict[str, Callable[[], object]] = {
        "nan": lambda: {"rows": [1.0, {"mean": float("nan")}]},
        "infinity": lambda: float("inf"),
        "bytes": lambda: [b"\xff\xfe"],
        "text bytes": lambda: b"caf\xc3\xa9",
        "surrogate": lambda: "a\ud800",
        "surrogate key": lambda: {"a\ud800": 1},
        "set": lambda: {3, 1, 2},
        "place": lambda: Place("Lima"),
        "object": object,
        "loop": lambda: loop,
        "int keys": lambda: {1: "a"},
        "exception": lambda: 1 / 0,
        "exit": lambda: sys.exit(3),
        "stop": lambda: next(iter(())),
        "long": lambda: (_ for _ in ()).throw(ValueError("a" * 9_000 + "the end")),
        "withdrawn": lambda: (_ for _ in ()).throw(asyncio.CancelledError()),
    }
    return odd[what]()


@tool
def hold() -> str:
    """Works until it is withdrawn."""
    HELD.set()
    while not cancelled():
        pass
    ENDED.set()
    return "withdrawn"


def unmarked(a: int) -> int:
    """Adds one."""
    return a + 1


def attempt(**arguments: Json) -> Attempt:
    return Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=5)


def outcome(function: Callable[..., Any], **arguments: Json) -> Outcome:
    async def work() -> Outcome:
        adapter = FunctionAdapter(spec_of(function))
        try:
            return await adapter.run(attempt(**arguments))
        finally:
            await adapter.close()

    return asyncio.run(work())


def test_the_spec_is_the_signature_and_the_docstring() -> None:
    spec = spec_of(distance)
    assert spec.name == "distance"
    assert spec.description == "Measures the way between two places."
    assert (spec.timeout_ms, spec.concurrency, spec.attempts) == (2_500, 3, 4)
    assert spec.reserve == Spend(cost=2_000)
    assert spec.adapter == f"function:{__name__}:distance"
    schema = spec.parameters
    assert schema["type"] == "object"
    assert schema["required"] == ["start", "goal"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["goal"] == {"type": "string", "description": "Where to go."}
    assert schema["properties"]["unit"]["enum"] == ["km", "mi"]
    assert schema["properties"]["unit"]["description"] == "Of the result."
    assert schema["properties"]["start"]["description"] == "Where it begins."
    assert schema["properties"]["via"]["items"] == {"type": "string"}


def test_what_the_schema_accepts_the_function_gets() -> None:
    validator = jsonschema_rs.Draft202012Validator(spec_of(distance).parameters)
    arguments: dict[str, Json] = {"start": {"city": "Lima"}, "goal": "Quito", "limit": 3}
    assert validator.is_valid(arguments)
    assert outcome(distance, **arguments) == Outcome(
        value={"from": "Lima", "to": "Quito", "unit": "km", "via": ["x"], "limit": 3},
        spend=Spend(cost=2_000),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": {"city": "Lima"}},
        {"start": {}, "goal": ""},
        {"start": 1, "goal": ""},
        {"start": {"city": "a"}, "goal": "b", "more": 1},
    ],
)
def test_what_does_not_fit_is_the_policys_fault(arguments: dict[str, Json]) -> None:
    validator = jsonschema_rs.Draft202012Validator(spec_of(distance).parameters)
    assert not validator.is_valid(arguments)
    refused = outcome(distance, **arguments)
    assert (refused.status, refused.fault) == ("PARSE_ERR", "policy")


def test_a_marked_function_is_still_itself() -> None:
    assert distance(Place("a"), "b")["to"] == "b"
    assert asyncio.run(double(2.0)) == 4.0


def test_async_functions_run_on_the_loop() -> None:
    assert outcome(double, number=4).value == 8.0


def test_a_function_without_mark_gets_the_defaults() -> None:
    assert spec_of(unmarked).timeout_ms == 60_000
    assert outcome(unmarked, a=1).value == 2


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("text bytes", "café"),
        ("set", [1, 2, 3]),
        ("place", {"city": "Lima", "weight": 1.0}),
        ("int keys", {"1": "a"}),
    ],
)
def test_results_take_their_json_form(what: str, value: Json) -> None:
    assert outcome(give, what=what) == Outcome(value=value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nan", "nan at $.rows[1].mean is no JSON number"),
        ("infinity", "inf at $"),
        ("bytes", "$[0] are no UTF-8 text"),
        ("surrogate", "lone surrogates"),
        ("surrogate key", "no JSON form"),
        ("object", "type object"),
        ("loop", "contains itself"),
        ("exception", "ZeroDivisionError: division by zero (at test_function_worker.py:"),
        ("exit", "SystemExit: 3"),
        ("stop", "StopIteration"),
        ("withdrawn", "cancelled by something of its own"),
        ("long", "the end"),
    ],
)
def test_what_can_not_be_recorded_or_is_raised_is_the_workers_fault(what: str, said: str) -> None:
    failed = outcome(give, what=what)
    assert (failed.status, failed.fault) == ("EXEC_ERR", "worker")
    assert said in failed.value
    assert len(failed.value) <= MAX_DETAIL_CHARS
    assert "/" not in failed.value


def test_a_sync_function_learns_that_it_was_withdrawn() -> None:
    async def work() -> None:
        adapter = FunctionAdapter(spec_of(hold))
        task = asyncio.create_task(adapter.run(attempt()))
        await asyncio.to_thread(HELD.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ENDED.wait, 5)
        await adapter.close()

    asyncio.run(work())


def positional(a: int, /) -> int:
    return a


def star(*a: int) -> int:
    return 0


def double_star(**a: int) -> int:
    return 0


def bare(a) -> int:  # type: ignore[no-untyped-def]
    return 0


def generator(a: int) -> Iterator[int]:
    yield a


@pytest.mark.parametrize(
    ("function", "cure"),
    [
        (positional, "remove the '/'"),
        (star, "a: list[str]"),
        (double_star, "named parameters"),
        (bare, "a: str"),
        (generator, "Return a list"),
        (len, "def name"),
    ],
)
def test_a_signature_that_can_not_be_described_is_refused_when_marked(
    function: Callable[..., object], cure: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        tool(function)
    assert cure in refused.value.hint


def callback(how: Callable[[], int]) -> int:
    return how()


def sentinel(a: int = object()) -> int:  # type: ignore[assignment]
    return a


def unknown(a: "Nowhere") -> int:  # type: ignore[name-defined]  # noqa: F821
    return 0


@pytest.mark.parametrize(
    ("function", "named"), [(callback, "'how'"), (sentinel, "'a'"), (unknown, "Nowhere")]
)
def test_a_type_without_schema_names_function_parameter_and_cure(
    function: Callable[..., object], named: str
) -> None:
    with pytest.raises(InvalidData) as refused:
        spec_of(function)
    assert named in refused.value.message
    assert function.__qualname__ in refused.value.message
    assert refused.value.hint


def test_a_function_that_no_other_process_can_import_is_refused() -> None:
    with pytest.raises(InvalidData, match="can't be imported"):
        spec_of(tool(name="one")(lambda: 1))


@pytest.mark.parametrize(
    "values", [{"name": "no name"}, {"timeout_s": 0}, {"concurrency": 0}, {"cost_usd": -1}]
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidData) as refused:
        tool(**values)(unmarked)
    assert next(iter(values)) in refused.value.message


@pytest.mark.parametrize(
    ("adapter", "error"),
    [
        ("function:nowhere:f", NotFound),
        ("function:json:nothing", NotFound),
        ("function:json.nowhere:f", NotFound),
        ("function:json", InvalidData),
        ("python:json:loads", InvalidData),
    ],
)
def test_an_address_that_leads_nowhere_says_so(adapter: str, error: type[Exception]) -> None:
    spec = msgspec.structs.replace(spec_of(unmarked), adapter=adapter)
    with pytest.raises(error):
        FunctionAdapter(spec)


def test_a_module_that_is_no_python_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "podium_test_unclosed.py").write_text("A = 1\nB = (\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidData, match=r"\(podium_test_unclosed.py, line 2\)") as error:
        find("function:podium_test_unclosed:f")
    assert "frozen" not in error.value.message


def test_a_module_that_breaks_is_no_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "podium_test_breaks.py").write_text("import podium_test_missing\n")
    (tmp_path / "podium_test_raises.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = spec_of(unmarked)
    with pytest.raises(InvalidData, match="podium_test_missing"):
        FunctionAdapter(msgspec.structs.replace(spec, adapter="function:podium_test_breaks:f"))
    with pytest.raises(InvalidData, match="RuntimeError: no"):
        FunctionAdapter(msgspec.structs.replace(spec, adapter="function:podium_test_raises:f"))
