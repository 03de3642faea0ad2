"""Security schemes of a document: what an operation asks for, and what opens it. Pure."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from actors.workers.openapi.document import Document, Operation, Part
from protocol.actions import Json
from protocol.errors import InvalidData


@dataclass(frozen=True)
class Credential:
    """Something that opens a server, and where it goes."""

    where: Literal["query", "header", "cookie"]
    name: str
    value: str

    @property
    def pair(self) -> str:
        """As ``name=value``, encoded."""
        return f"{quote(self.name, safe='')}={quote(self.value, safe='')}"


def asked(document: Document, operation: Operation) -> list[dict[str, Json]]:
    """The sets of schemes that an operation accepts, any of them."""
    said = operation.part.table().get("security", document.root.table().get("security"))
    return [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []


def schemes(document: Document, given: Mapping[str, str]) -> dict[str, Part]:
    """The schemes that something is given for.

    Raises:
        InvalidData: The document has no such scheme, or one that no text opens.
    """
    known = document.root.at("components").at("securitySchemes")
    for name in given:
        if not isinstance(known.table().get(name), dict):
            there = ", ".join(known.table()) or "none"
            raise InvalidData(
                f"The document {document.uri} has no security scheme {name!r}.",
                hint=f"It has: {there}. What it doesn't describe can be given in `headers`.",
            )
        _credential(name, known.at(name), "")
    return {name: known.at(name) for name in given}


def credentials(
    document: Document, operation: Operation, given: Mapping[str, str]
) -> tuple[Credential, ...]:
    """What is sent with an operation: what it asks for, as far as something is given.

    It may accept several sets of schemes; the first that is wholly given is sent, else whatever of
    them is: the server says what it misses.
    """
    known = schemes(document, given)
    sets = asked(document, operation)
    whole = next((each for each in sets if each and each.keys() <= known.keys()), None)
    wanted = whole if whole is not None else {name: [] for each in sets for name in each}
    return tuple(_credential(name, known[name], given[name]) for name in wanted if name in known)


def named(
    document: Document, headers: Mapping[str, str], given: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """Parameters that the worker fills in itself, by place and lower-case name."""
    found = {("header", name.lower()): name for name in headers}
    for name, part in schemes(document, given).items():
        made = _credential(name, part, "")
        found[made.where, made.name.lower()] = made.name
    return found


def _credential(name: str, part: Part, value: str) -> Credential:
    kind, scheme = part.text("type"), part.text("scheme").lower()
    match kind, scheme:
        case "apiKey", _ if part.text("in") == "query":
            return Credential("query", part.text("name"), value)
        case "apiKey", _ if part.text("in") == "cookie":
            return Credential("cookie", part.text("name"), value)
        case "apiKey", _:
            return Credential("header", part.text("name"), value)
        case "http", "basic":
            encoded = base64.b64encode(value.encode()).decode()
            return Credential("header", "authorization", f"Basic {encoded}")
        case "http", "bearer":
            return Credential("header", "authorization", f"Bearer {value}")
        case (("oauth2" | "openIdConnect"), _):
            return Credential("header", "authorization", f"Bearer {value}")
        case _:
            raise InvalidData(
                f"The security scheme {name!r} ({kind} {scheme}".rstrip() + ") is none that one "
                "text opens.",
                hint="What it needs can be given in `headers`.",
            )
