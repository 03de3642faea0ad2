"""Schemas of an OpenAPI document as JSON Schema, draft 2020-12: self-contained, of one direction.

Those of OpenAPI 3.1 are such schemas; those of 3.0 are a dialect of an old draft.
"""

import re
from typing import Final, Literal

import jsonschema_rs

from actors.workers.openapi.document import Part, followed, lookup
from protocol.actions import Json
from protocol.errors import InvalidData
from protocol.limits import MAX_NESTING

MAX_SCHEMAS: Final = 20_000
"""Schemas within one operation's parameters: far more than a policy could read."""

DROPPED: Final = frozenset(
    {"$schema", "$id", "xml", "externalDocs", "discriminator", "nullable", "example", "readOnly"}
    | {"writeOnly"}
)
"""Keywords that mean nothing to who fills in arguments, or are said otherwise."""

ONE: Final = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"}
    | {"unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
"""Where further schemas stand: one, a list of them, an object of them."""


class Schemas:
    """Converts schemas, and collects what they refer to under ``$defs``.

    Args:
        old: Whether they are those of OpenAPI 3.0.
        hidden: What is marked so is no part of them: ``readOnly`` of what is sent to a server,
            ``writeOnly`` of what it answers.
    """

    def __init__(self, *, old: bool, hidden: Literal["readOnly", "writeOnly"] = "readOnly") -> None:
        self.old, self.hidden = old, hidden
        self.definitions: dict[str, Json] = {}
        self._names: dict[int, str] = {}
        self._made = 0

    def converted(self, part: Part, depth: int = 0) -> Json:
        """One schema.

        Raises:
            InvalidData: It is none, it is endless, or refers to what isn't there.
        """
        self._made += 1
        if depth > MAX_NESTING or self._made > MAX_SCHEMAS:
            raise InvalidData(
                f"A schema of {part.uri} is too large for a worker's parameters: "
                f"more than {MAX_SCHEMAS} in it, or {MAX_NESTING} deep."
            )
        schema = part.value
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise InvalidData(f"{part.uri}: {schema!r} stands for a schema.")
        made: dict[str, Json] = {}
        ref = schema.get("$ref")
        if isinstance(ref, str):
            made["$ref"] = f"#/$defs/{self._named(part, ref, depth)}"
            if self.old:  # nothing counts beside a reference
                return made
        for keyword, value in schema.items():
            if keyword == "$ref" or keyword in DROPPED or keyword.startswith("x-"):
                continue
            made[keyword] = self._keyword(part, keyword, value, depth + 1)
        return _mended(schema, made, old=self.old)

    def _keyword(self, part: Part, keyword: str, value: Json, depth: int) -> Json:
        def inner(each: Json) -> Json:
            return self.converted(part.with_value(each), depth)

        if keyword in ONE and isinstance(value, dict | bool):
            return inner(value)
        if keyword in SEVERAL and isinstance(value, list):
            return [inner(each) for each in value]
        if keyword in NAMED and isinstance(value, dict):
            kept = self._kept(part, value) if keyword == "properties" else value
            return {name: inner(each) for name, each in kept.items()}
        if keyword == "required" and isinstance(value, list):
            properties = part.value.get("properties")
            known = properties if isinstance(properties, dict) else {}
            gone = known.keys() - self._kept(part, known).keys()
            return [name for name in value if name not in gone]
        return value

    def _kept(self, part: Part, properties: dict[str, Json]) -> dict[str, Json]:
        """The properties that are there in this direction."""
        kept = {}
        for name, each in properties.items():
            own = isinstance(each, dict) and each.get(self.hidden) is True
            if not own and followed(part.with_value(each)).table().get(self.hidden) is not True:
                kept[name] = each
        return kept

    def _named(self, part: Part, ref: str, depth: int) -> str:
        """The name under ``$defs`` of what a reference stands for."""
        target = lookup(part, ref)
        key = id(target.value)  # the document's own: the same for all that refer to it
        if key not in self._names:
            last = re.sub(r"[^A-Za-z0-9_.-]", "_", ref.rpartition("/")[2]) or "schema"
            name = free(last, self.definitions)
            self._names[key] = name
            self.definitions[name] = True  # whoever comes back here while it is made finds the name
            self.definitions[name] = self.converted(target, depth + 1)
        return self._names[key]


def free(name: str, taken: dict[str, Json] | set[str]) -> str:
    """The name, or with a number after it if somebody has it."""
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _mended(schema: dict[str, Json], made: dict[str, Json], *, old: bool) -> dict[str, Json]:
    """What OpenAPI says in words of its own, in JSON Schema's."""
    if "example" in schema and "examples" not in made:
        made["examples"] = [schema["example"]]
    if isinstance(made.get("examples"), dict):  # of a media type, not of a schema
        del made["examples"]
    pattern = made.get("pattern")
    if pattern is not None and not _usable(pattern):
        del made["pattern"]
    if not old:
        return made
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if made.get(exclusive) is True and bound in made:
            made[exclusive] = made.pop(bound)
        elif isinstance(made.get(exclusive), bool):
            del made[exclusive]
    if made.get("format") == "byte":
        made["contentEncoding"] = "base64"
    return _or_null(made) if schema.get("nullable") is True else made


def _or_null(made: dict[str, Json]) -> dict[str, Json]:
    if not isinstance(made.get("type"), str):
        return {"anyOf": [made, {"type": "null"}]}
    made["type"] = [made["type"], "null"]
    if isinstance(made.get("enum"), list) and None not in made["enum"]:
        made["enum"] = [*made["enum"], None]
    return made


def _usable(pattern: Json) -> bool:
    """Whether arguments can be checked against a pattern; many are of another engine."""
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern})
    except (ValueError, jsonschema_rs.ValidationError):
        return False
    return True
