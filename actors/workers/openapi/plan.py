"""What a worker needs to know of an operation: its arguments, and where each goes. No I/O."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import urljoin, urlsplit

from actors.workers.openapi.document import Document, Operation, Part
from actors.workers.openapi.schemas import Schemas, free
from protocol.actions import Json
from protocol.errors import InvalidData
from protocol.limits import MAX_WORKER_NAME_CHARS

Where: TypeAlias = Literal["path", "query", "header", "cookie", "body"]

STYLES: Final[dict[Where, str]] = {
    "path": "simple",
    "query": "form",
    "header": "simple",
    "cookie": "form",
    "body": "form",
}
"""How a parameter is written if the document doesn't say."""

WRITTEN: Final = (
    r"application/json",
    r".*\+json|\*/\*|application/\*",
    r"application/x-www-form-urlencoded",
    r"multipart/form-data",
    r"text/.*",
)
"""Media types of bodies that can be made of JSON arguments, the best first."""

FLAT: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description", "examples"}
)
"""Keywords of a body whose properties can be arguments of their own: others tie them together."""

RESERVED: Final = frozenset({"accept", "content-type", "authorization"})
"""Headers that a document can't describe as parameters; OpenAPI ignores them, too."""

MAX_DESCRIPTION_CHARS: Final = 1_500
"""Characters of a description: a policy reads those of all its workers, each time it is asked."""

MAX_ARGUMENT_CHARS: Final = 64
"""Characters of an argument's name: what endpoints accept in a tool's schema."""


@dataclass(frozen=True)
class Field:
    """Where an argument goes."""

    where: Where
    name: str
    """What it is called there."""
    style: str
    explode: bool
    media: str = ""
    """The media type of a parameter that is written as one, such as JSON."""
    file: bool = False
    """Whether it is a file of a form."""


@dataclass(frozen=True)
class Body:
    """How the body is sent."""

    media: str
    required: bool
    whole: str = ""
    """The argument that is all of it; empty if its properties are arguments."""


@dataclass(frozen=True)
class Plan:
    """An operation as a worker."""

    operation: Operation
    description: str
    parameters: dict[str, Json]
    """JSON Schema of the arguments."""
    fields: dict[str, Field] = field(default_factory=dict)
    """By argument."""
    body: Body | None = None


@dataclass(frozen=True)
class _Entry:
    """An argument before it has its name."""

    field: Field
    schema: Json
    required: bool


def planned(document: Document, operation: Operation, known: Mapping[tuple[str, str], str]) -> Plan:
    """The plan of an operation.

    Args:
        document: Where it is described.
        operation: Which one.
        known: Parameters that are filled by the worker itself, by place and lower-case name.

    Raises:
        InvalidData: It can't be asked with JSON arguments, or its description is broken.
    """
    schemas = Schemas(old=document.old)
    entries = [
        entry
        for each in _parameters(operation)
        if (entry := _parameter(operation, each, schemas)) is not None
        and (entry.field.where, entry.field.name.lower()) not in known
    ]
    body, more = _body(operation, schemas)
    entries += more
    _check_path(operation, entries)
    names = _names([entry.field for entry in entries])
    parameters: dict[str, Json] = {
        "type": "object",
        "properties": {name: entry.schema for name, entry in zip(names, entries, strict=True)},
        "required": [name for name, entry in zip(names, entries, strict=True) if entry.required],
        "additionalProperties": False,
    }
    if schemas.definitions:
        parameters["$defs"] = schemas.definitions
    fields = {name: entry.field for name, entry in zip(names, entries, strict=True)}
    if body is not None and body.whole:
        whole = next(name for name, each in fields.items() if each.where == "body")
        body = Body(body.media, body.required, whole)
    return Plan(operation, _description(operation), parameters, fields, body)


def server(document: Document, operation: Operation, base_url: str) -> str:
    """The address that an operation's path is added to.

    Raises:
        InvalidData: Neither the options nor the document say one.
    """
    base = base_url
    if not base:
        for part in (operation.part, operation.item, document.root):
            first = next(part.at("servers").items(), None)
            if first is not None and first.text("url"):
                base = _filled(first)
                break
        base = urljoin(document.uri, base or "/")
    where = urlsplit(base)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise InvalidData(
            f"{operation.place} of {document.uri} is at {base!r}, which is no server's address.",
            hint='Say where it is: base_url = "https://..."',
        )
    return f"{where.scheme}://{where.netloc}{where.path}".rstrip("/")


def _filled(part: Part) -> str:
    """A server's URL with the default values of its variables."""
    variables = part.at("variables").table()

    def default(match: re.Match[str]) -> str:
        variable = variables.get(match[1])
        return str(variable.get("default", "")) if isinstance(variable, dict) else ""

    return re.sub(r"\{([^{}]*)\}", default, part.text("url"))


def _parameters(operation: Operation) -> list[Part]:
    """The operation's parameters; they replace those of its path of the same name and place."""
    found: dict[tuple[str, str], Part] = {}
    for part in (operation.item, operation.part):
        for each in part.at("parameters").items():
            found[each.text("name"), each.text("in")] = each
    return list(found.values())


def _parameter(operation: Operation, part: Part, schemas: Schemas) -> _Entry | None:
    name, place = part.text("name"), part.text("in")
    where = next((each for each in STYLES if each == place and each != "body"), None)
    if where is None or not name:
        raise InvalidData(
            f"{operation.place} has a parameter {name!r} in {place!r}: a parameter has a name, and "
            "is in path, query, header or cookie."
        )
    if where == "header" and name.lower() in RESERVED:
        return None
    content = part.at("content").table()
    media = next(iter(content), "")
    holder = part.at("content").at(media) if media else part
    schema = schemas.converted(holder.with_value(holder.table().get("schema", {})))
    style = part.text("style") or STYLES[where]
    explode = part.table().get("explode")
    made = Field(
        where, name, style, explode if isinstance(explode, bool) else style == "form", media
    )
    required = where == "path" or part.table().get("required") is True
    return _Entry(made, _described(schema, part), required)


def _described(schema: Json, part: Part) -> Json:
    """The schema with what the document says of the parameter itself."""
    if not isinstance(schema, dict):
        return schema
    said = {"description": part.text("description")} if part.text("description") else {}
    example = part.table().get("example")
    if example is not None and "examples" not in schema:
        return schema | said | {"examples": [example]}
    return schema | said


def _body(operation: Operation, schemas: Schemas) -> tuple[Body | None, list[_Entry]]:
    """How the body is sent, and the arguments that make it."""
    part = operation.part.at("requestBody")
    content = part.at("content")
    if not content.table():
        return None, []
    media = _media(list(content.table()))
    required = part.table().get("required") is True
    if media is None:
        if not required:
            return None, []
        raise InvalidData(
            f"{operation.place} takes {', '.join(content.table())}, which a worker can't write.",
            hint="It writes JSON, forms and plain text.",
        )
    holder = content.at(media)
    schema = holder.with_value(holder.table().get("schema", {}))
    target = holder.at("schema")
    made = Schemas(old=schemas.old).converted(target)
    flat = (
        isinstance(made, dict)
        and made.keys() <= FLAT
        and made.get("type") == "object"
        and made.get("additionalProperties", False) is False
        and bool(made.get("properties"))
    )
    if not flat:
        whole = schemas.converted(schema)
        entry = _Entry(Field("body", "body", "form", True), _described(whole, part), required)
        return Body(media, required, "body"), [entry]
    made = schemas.converted(target)
    needed = made.get("required", []) if required else []
    raw = target.at("properties")
    return Body(media, required), [
        _Entry(Field("body", name, "form", True, file=_is_file(raw.at(name))), each, name in needed)
        for name, each in made["properties"].items()
    ]


def _media(offered: list[str]) -> str | None:
    """The media type to send: JSON if there is a choice."""
    kinds = {each: each.partition(";")[0].strip().lower() for each in offered}
    for wanted in WRITTEN:
        for each, kind in kinds.items():
            if re.fullmatch(wanted, kind):
                return each
    return None


def _is_file(part: Part) -> bool:
    table = part.table()
    return table.get("format") == "binary" or "contentMediaType" in table


def _check_path(operation: Operation, entries: list[_Entry]) -> None:
    there = {entry.field.name for entry in entries if entry.field.where == "path"}
    for name in re.findall(r"\{([^{}]*)\}", operation.path):
        if name not in there:
            raise InvalidData(f"{operation.place} does not describe its parameter {{{name}}}.")


def _names(fields: list[Field]) -> list[str]:
    """A name for each argument: its own, or with the place before it if two have the same."""
    plain = [argument(each.name) for each in fields]
    counts = Counter(plain)
    taken = {name for name in plain if counts[name] == 1}
    names = []
    for each, name in zip(fields, plain, strict=True):
        names.append(name if counts[name] == 1 else free(argument(f"{each.where}_{name}"), taken))
        taken.add(names[-1])
    return names


def argument(name: str) -> str:
    """A name that every endpoint accepts in a tool's schema."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:MAX_ARGUMENT_CHARS] or "_"


def worker_name(address: str) -> str:
    """A worker's name made of an operation's address; see ``limits.NAME_PATTERN``."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", address).strip("_-")
    if not name[:1].isalpha() or not name[:1].isascii():
        name = f"op_{name}"
    return name[:MAX_WORKER_NAME_CHARS].rstrip("_-")


def _description(operation: Operation) -> str:
    summary, text = operation.part.text("summary"), operation.part.text("description")
    said = [text] if text.startswith(summary) else [summary, text]
    both = "\n\n".join(filter(None, said)) or operation.item.text("summary") or operation.place
    if operation.part.table().get("deprecated") is True:
        both = f"Deprecated. {both}"
    if len(both) > MAX_DESCRIPTION_CHARS:
        both = both[: MAX_DESCRIPTION_CHARS - 2].rstrip() + " …"
    return both
