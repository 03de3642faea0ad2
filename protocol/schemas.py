"""JSON Schema: is a schema one, do arguments fit it, and does a text hold what a pattern says.

The texts are ours, made of the kind and the place of the error, so that a log means the same under
every version of the library that finds them.
"""

import re
from collections.abc import Callable
from functools import lru_cache

import jsonschema_rs
import msgspec

from protocol.actions import Json
from protocol.codec import deeper_than
from protocol.errors import InvalidData
from protocol.limits import MAX_NESTING
from protocol.references import Put, filled, refers

_CACHED_SCHEMAS = 4_096
"""Compiled validators kept: all workers of many pools."""


_SHOWN_ERRORS = 3
"""What is told at once of what doesn't fit; a policy mends no more in one go."""


_ALONE = re.compile(r"\$\{output:[^{}]*\}")
"""An argument that is nothing but a reference to an output."""

ARGUMENTS = "the arguments"
"""What is looked at, unless something else is said."""


def _refuse(uri: str) -> Json:
    raise ValueError(f"a schema must be self-contained, but refers to {uri}")


@lru_cache(maxsize=_CACHED_SCHEMAS)
def _validator(encoded: bytes) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(msgspec.json.decode(encoded), retriever=_refuse)


def searching(pattern: str) -> Callable[[Json], bool] | None:
    """Whether a text holds a match of a pattern: JSON Schema's keyword ``pattern`` by itself.

    The search takes time linear in the text, however many alternatives the pattern has. It raises
    `ValueError` for a text that UTF-8 can't say.

    Args:
        pattern: A regular expression without look-around.

    Returns:
        The search; None for a pattern that is too large to be compiled.
    """
    engine = jsonschema_rs.RegexOptions()
    try:
        return jsonschema_rs.Draft202012Validator(
            {"pattern": pattern}, pattern_options=engine
        ).is_valid
    except (ValueError, jsonschema_rs.ValidationError):
        return None


def check_schema(schema: Json, of: str) -> None:
    """Raise `InvalidData` unless ``schema`` is a JSON Schema for an object.

    Args:
        schema: What a worker declares of its parameters.
        of: Whose it is, for the message.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise InvalidData(
            f"the parameters of {of} are no JSON Schema of an object",
            hint='give {"type": "object", "properties": {...}, "required": [...]}',
        )
    _check(schema, f"the parameters of {of} are")


def check_value_schema(schema: Json, of: str) -> None:
    """Raise `InvalidData` unless ``schema`` is a JSON Schema; of anything, not only an object."""
    _check(schema, f"{of} is")


def _check(schema: Json, what_is: str) -> None:
    try:
        if not isinstance(schema, dict):
            raise ValueError("it is no object")
        _validator(msgspec.json.encode(schema))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise InvalidData(
            f"{what_is} no JSON Schema: {_first_line(error)}",
            hint="see https://json-schema.org/understanding-json-schema",
        ) from None


def misfit(
    schema: dict[str, Json], value: Json, what: str = ARGUMENTS, *, every: bool = True
) -> str:
    """What is wrong with a value and how to mend it, or "" if it fits. Never raises.

    What is said of arguments is recorded, and decided again by `podium verify`: it must not change.

    Args:
        schema: JSON Schema.
        value: What has to fit.
        what: What the value is, for the text.
        every: Whether all that is wrong is looked for; else the first that is found.
    """
    try:
        validator = _validator(msgspec.json.encode(schema))
        if validator.is_valid(value):
            return ""
        errors = validator.iter_errors(value) if every else _first(validator, value)
        texts = sorted({_text(error, what) for error in errors})
    except (ValueError, TypeError, RecursionError) as error:
        of = "its parameters" if what == ARGUMENTS else what
        return f"what the worker declares of {of} can't be used: {_first_line(error)}"
    more = f"; and {len(texts) - _SHOWN_ERRORS} more" if len(texts) > _SHOWN_ERRORS else ""
    return "; ".join(texts[:_SHOWN_ERRORS]) + more


def unfilled_misfit(schema: dict[str, Json], arguments: dict[str, Json]) -> str:
    """`misfit` of arguments before outputs are put in: what refers to one may be anything yet."""
    return misfit(_open(schema, arguments), arguments)


def filled_arguments(
    schema: dict[str, Json], arguments: dict[str, Json], output: Put, secret: Put | None = None
) -> dict[str, Json]:
    """The arguments with outputs put in, and secrets, if they are given.

    An argument that is nothing but a reference, and does not fit as a text, is what the text says
    as JSON: so a number can be referred to where a number is wanted.

    Args:
        schema: What the worker declares.
        arguments: With references.
        output: The text of an output, by its call.
        secret: A secret, by its name.
    """
    given: dict[str, Json] = filled(arguments, secret, output)
    for name, value in arguments.items():
        alone = isinstance(value, str) and _ALONE.fullmatch(value) is not None
        if alone and misfit(_of_one(schema, name), {name: given[name]}):
            given[name] = _read(given[name])
    return given


def _read(text: str) -> Json:
    """What a text says as JSON; the text itself, if that is none, or no value may nest so deep."""
    try:
        data = text.encode()
        return text if deeper_than(MAX_NESTING, data) else msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError):
        return text


def _open(schema: dict[str, Json], arguments: dict[str, Json]) -> dict[str, Json]:
    """The schema, with anything allowed where an argument refers to an output."""
    there = schema.get("properties")
    if not isinstance(there, dict):
        return schema
    free = {
        name: True for name, value in arguments.items() if name in there and refers(value, "output")
    }
    return {**schema, "properties": {**there, **free}} if free else schema


def _of_one(schema: dict[str, Json], name: str) -> dict[str, Json]:
    """What the schema says of one argument."""
    there = schema.get("properties")
    own = there.get(name, {}) if isinstance(there, dict) else {}
    shared: dict[str, Json] = {
        key: schema[key] for key in ("$defs", "definitions") if key in schema
    }
    return {**shared, "properties": {name: own}}


def _first(
    validator: jsonschema_rs.Draft202012Validator, value: Json
) -> list[jsonschema_rs.ValidationError]:
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return [error]
    return []


def _text(error: jsonschema_rs.ValidationError, what: str) -> str:
    place = "".join(f"[{part!r}]" for part in error.instance_path) or what
    keyword = str(error.schema_path[-1]) if error.schema_path else "schema"
    match keyword:
        case "required":
            return f"{place}: {getattr(error.kind, 'property', '?')!r} is required"
        case "additionalProperties" | "unevaluatedProperties":
            unexpected = ", ".join(map(repr, getattr(error.kind, "unexpected", ())))
            among = "among the parameters" if what == ARGUMENTS else "declared"
            return f"{place}: {unexpected or 'something'} is not {among}"
        case "type":
            types = getattr(error.kind, "types", None) or getattr(
                error.kind, "type", "another type"
            )
            wanted = " or ".join(map(str, types)) if isinstance(types, list | tuple) else types
            return f"{place}: must be of type {wanted}"
        case "enum":
            return f"{place}: must be one of {getattr(error.kind, 'options', '?')}"
        case "anyOf" | "oneOf":
            return f"{place}: fits none, or too many, of the forms under {keyword!r}"
        case _:
            limit = getattr(error.kind, "limit", getattr(error.kind, "pattern", None))
            said = f" ({limit})" if isinstance(limit, str | int | float) else ""
            return f"{place}: does not satisfy {keyword!r}{said}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
