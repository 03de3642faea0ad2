"""What a document says of an operation's answers: a schema for each status and media type. No I/O.

Only JSON that is answered in a media type which the document has there is held to it: what a
document is silent about can't be wrong.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from actors.workers.openapi.document import Document, Operation, Part, followed
from actors.workers.openapi.schemas import Schemas
from protocol.actions import Json
from protocol.errors import InvalidData
from protocol.schemas import check_value_schema, misfit

logger: Final = logging.getLogger(__name__)

JSON: Final = ("/json", "+json")
"""How the media types end whose content is JSON."""

OTHERS: Final = ("2XX", "default")
"""Under which names a document describes statuses of success that it doesn't list."""


@dataclass(frozen=True)
class Declared:
    """Of one operation. The empty one is of a document that says nothing."""

    schemas: Mapping[str, Mapping[str, dict[str, Json]]] = field(default_factory=dict)
    """By status as the document has it (``200``, ``2XX``, ``default``), then by media type."""

    def wrong(self, code: int, media: str, value: Json, *, every: bool) -> str:
        """What of an answer is not as declared, or "".

        Args:
            code: Its HTTP status, one of success.
            media: Its media type, in lower case.
            value: What it holds.
            every: Whether all that is wrong is looked for; else the first that is found.
        """
        if not media.endswith(JSON):
            return ""
        known = next(
            (self.schemas[name] for name in (str(code), *OTHERS) if name in self.schemas), {}
        )
        ranges = (media, f"{media.partition('/')[0]}/*", "*/*")
        schema = next((known[name] for name in ranges if name in known), None)
        return "" if schema is None else misfit(schema, value, "the answer", every=every)


def declared(document: Document, operation: Operation) -> Declared:
    """What the document says of the operation's answers; the log names what can't be used."""
    try:
        responses = operation.part.at("responses")
    except InvalidData as error:
        _set_aside(document, operation, "responses", error)
        return Declared()
    found: dict[str, dict[str, dict[str, Json]]] = {}
    for status, raw in responses.table().items():
        name = str(status)  # YAML has numbers
        name = name.upper() if name[:1] == "2" else name
        if name[:1] == "2" or name == "default":
            try:
                found[name] = _by_media(document, operation, responses.with_value(raw))
            except InvalidData as error:
                found[name] = {}
                _set_aside(document, operation, name, error)
    return Declared(found)


def _set_aside(document: Document, operation: Operation, what: str, error: InvalidData) -> None:
    text = "%s: what %s says of its answers (%s) can't be used, and nothing is held to it: %s"
    logger.warning(text, operation.address, document.uri, what, error.message)


def _by_media(
    document: Document, operation: Operation, response: Part
) -> dict[str, dict[str, Json]]:
    content = followed(response).at("content")
    found = {}
    for media in content.table():
        schema = _schema(document, operation, content.at(media))
        if schema is not None:
            found[media.partition(";")[0].strip().lower()] = schema
    return found


def _schema(document: Document, operation: Operation, holder: Part) -> dict[str, Json] | None:
    raw = holder.table().get("schema")
    if not isinstance(raw, dict):
        return None
    schemas = Schemas(old=document.old, hidden="writeOnly")
    made = schemas.converted(holder.with_value(raw))
    if schemas.definitions:
        made["$defs"] = schemas.definitions | made.get("$defs", {})
    check_value_schema(made, f"what {operation.place} answers")
    return dict(made)
