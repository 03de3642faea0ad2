"""JSON Schema: what is one, what fits it, and how the policy is told."""

from typing import Any

import pytest
from hypothesis import given

from protocol.errors import InvalidData
from protocol.schemas import check_schema, misfit
from tests.runs import NUMBER
from tests.strategies import JSON

STRICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "pattern": "^[A-Z]"},
        "n": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["km", "mi"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "many": {"type": "array", "items": {"$ref": "#/$defs/point"}},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"point": {"type": "object", "required": ["x"]}},
}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"city": "Rome"}, ""),
        ({"city": "Rome", "n": 2, "unit": "km", "either": None, "many": [{"x": 1}]}, ""),
        ({}, "the arguments: 'city' is required"),
        ({"city": 3}, "['city']: must be of type string"),
        ({"city": "R"}, "['city']: does not satisfy 'minLength' (2)"),
        ({"city": "rome"}, "['city']: does not satisfy 'pattern' (^[A-Z])"),
        ({"city": "Rome", "n": 0}, "['n']: does not satisfy 'minimum' (1)"),
        ({"city": "Rome", "unit": "ell"}, "['unit']: must be one of ['km', 'mi']"),
        ({"city": "Rome", "town": 1}, "the arguments: 'town' is not among the parameters"),
        ({"city": "Rome", "either": 1}, "['either']: fits none, or too many, of the forms"),
        ({"city": "Rome", "many": [{"x": 1}, {}]}, "['many'][1]: 'x' is required"),
        ([], "the arguments: must be of type object"),
    ],
)
def test_a_misfit_says_where_and_what(arguments: Any, text: str) -> None:
    found = misfit(STRICT, arguments)
    assert found.startswith(text)
    assert bool(found) == bool(text)
    assert "ValidationError" not in found


def test_several_errors_are_told_in_a_stable_order() -> None:
    found = misfit(STRICT, {"n": 0, "unit": 1, "either": 2, "many": 3})
    assert found.split("; ") == [
        "['either']: fits none, or too many, of the forms under 'anyOf'",
        "['many']: must be of type array",
        "['n']: does not satisfy 'minimum' (1)",
        "and 2 more",
    ]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        {},
        {"type": "array"},
        {"type": "object", "properties": {"a": {"type": "nonsense"}}},
        {"type": "object", "properties": {"a": {"pattern": "(?=a"}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.org/a.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
    ],
)
def test_a_schema_that_is_none_is_refused_with_whose_it_is(schema: Any) -> None:
    with pytest.raises(InvalidData, match="the parameters of worker w are no JSON Schema") as one:
        check_schema(schema, "worker w")
    assert one.value.hint


@pytest.mark.parametrize("schema", [{"type": "object"}, NUMBER, STRICT])
def test_a_schema_is_accepted(schema: Any) -> None:
    check_schema(schema, "worker w")


@given(JSON)
def test_any_arguments_fit_or_are_told_why_not(arguments: Any) -> None:
    fits = (
        isinstance(arguments, dict)
        and set(arguments) == {"n"}
        and isinstance(arguments["n"], int | float)
        and not isinstance(arguments["n"], bool)
        and arguments["n"] == int(arguments["n"])
    )
    assert (misfit(NUMBER, arguments) == "") == fits


@given(JSON)
def test_a_schema_that_is_none_is_a_misfit_and_raises_nothing(schema: Any) -> None:
    declared = {"type": "object", "properties": schema, "required": schema}
    assert isinstance(misfit(declared, {}), str)
