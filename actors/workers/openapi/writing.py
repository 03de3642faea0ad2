"""Arguments written as a request: path, query, headers, cookies and body, as a plan says. Pure.

The styles are those of OpenAPI's Parameter Object.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from actors.workers.openapi.plan import Field, Plan
from protocol.actions import Json

DELIMITERS: Final = {"spaceDelimited": "%20", "pipeDelimited": "%7C"}

HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
"""What a header may hold everywhere."""


class Misfit(ValueError):
    """Arguments that can't be written; the text says which and how to mend it."""


@dataclass(frozen=True)
class Written:
    """A request, but for the server's address and what the worker itself adds."""

    method: str
    path: str
    query: list[str] = field(default_factory=list)
    """``name=value`` pairs, encoded."""
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    """``name=value`` pairs, encoded."""
    content: bytes | None = None
    parts: list[tuple[str, tuple[str | None, bytes, str]]] = field(default_factory=list)
    """Parts of a form with files: name; file name, content, media type."""


def written(plan: Plan, arguments: Mapping[str, Json]) -> Written:
    """The request that arguments ask for.

    Raises:
        Misfit: One can't be written where it belongs.
    """
    given: dict[str, list[tuple[Field, Json]]] = {}
    for name, value in arguments.items():
        place = plan.fields.get(name)
        if place is None:
            raise Misfit(f"{name!r} is not among the parameters: {', '.join(plan.fields)}.")
        given.setdefault(place.where, []).append((place, value))
    made = Written(
        plan.operation.method.upper(),
        _path(plan.operation.path, given.get("path", [])),
        [pair for place, value in given.get("query", []) for pair in _query(place, value)],
        {place.name: _header(place, value) for place, value in given.get("header", [])},
        [pair for place, value in given.get("cookie", []) for pair in _query(place, value)],
    )
    return _with_body(plan, made, given.get("body", []))


def _path(template: str, given: list[tuple[Field, Json]]) -> str:
    segments = template.split("/")
    for place, value in given:
        text = _inside(place, value)
        seen = re.split(r"[/\\]", unquote(text))  # as a server may see it
        if not text or "." in seen or ".." in seen:  # it would be another path
            raise Misfit(f"{place.name!r} can't be empty, nor have '.' or '..' for a part.")
        segments = [each.replace(f"{{{place.name}}}", text) for each in segments]
    if any(each in (".", "..") for each in segments):
        raise Misfit("The path would have '.' or '..' for a part.")
    return "/".join(quote(each, safe="%!$&'()*+,;=:@~") for each in segments)


def _inside(place: Field, value: Json) -> str:
    """A value as part of a path."""
    if place.media:
        return quote(_json(value), safe="")
    between = {"label": ".", "matrix": ";"}.get(place.style, ",") if place.explode else ","
    before = {"label": ".", "matrix": ";"}.get(place.style, "")
    name = f"{quote(place.name, safe='')}=" if place.style == "matrix" else ""
    match value:
        case list() if name and place.explode:
            return before + between.join(name + _enc(each) for each in value)
        case list():
            return before + name + between.join(map(_enc, value))
        case dict() if place.explode:
            return before + between.join(f"{_enc(key)}={_enc(each)}" for key, each in value.items())
        case dict():
            return before + name + ",".join(_enc(each) for pair in value.items() for each in pair)
        case _:
            text = _enc(value)
            return before + name + text if text else ""


def _query(place: Field, value: Json) -> Iterator[str]:
    """A value as ``name=value`` pairs."""
    name = quote(place.name, safe="")
    if place.media:
        yield f"{name}={quote(_json(value), safe='')}"
        return
    match value:
        case None:
            return
        case list() if place.explode or not value:
            yield from (f"{name}={_enc(each)}" for each in value)
        case list():
            yield f"{name}={DELIMITERS.get(place.style, ',').join(map(_enc, value))}"
        case dict() if place.style == "deepObject":
            yield from _deep(name, value)
        case dict() if place.explode:
            yield from (f"{_enc(key)}={_enc(each)}" for key, each in value.items())
        case dict():
            between = DELIMITERS.get(place.style, ",")
            yield f"{name}={between.join(_enc(each) for pair in value.items() for each in pair)}"
        case _:
            yield f"{name}={_enc(value)}"


def _deep(name: str, value: Json) -> Iterator[str]:
    """``name[key]=value``; OpenAPI defines one level, and servers take more the same way."""
    match value:
        case dict():
            for key, each in value.items():
                yield from _deep(f"{name}%5B{_enc(key)}%5D", each)
        case list():
            for each in value:
                yield from _deep(name, each)
        case None:
            return
        case _:
            yield f"{name}={_enc(value)}"


def _header(place: Field, value: Json) -> str:
    match value:
        case _ if place.media:
            made = _json(value)
        case list():
            made = ",".join(map(text, value))
        case dict() if place.explode:
            made = ",".join(f"{key}={text(each)}" for key, each in value.items())
        case dict():
            made = ",".join(text(each) for pair in value.items() for each in pair)
        case _:
            made = text(value)
    if HEADER_VALUE.fullmatch(made) is None:
        raise Misfit(f"{place.name!r} is a header, which holds printable ASCII characters only.")
    return made


def _with_body(plan: Plan, made: Written, given: list[tuple[Field, Json]]) -> Written:
    body = plan.body
    if body is None or (not given and (body.whole or not body.required)):
        return made
    whole = given[0][1] if body.whole else {place.name: value for place, value in given}
    kind = body.media.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files = {place.name for place, _ in given if place.file}
        made.parts.extend(_parts(whole, files))
        return made
    if kind == "application/x-www-form-urlencoded":
        content = "&".join(_form(whole)).encode()
    elif kind.startswith("text/"):
        content = text(whole).encode("utf-8", "replace")
    else:
        content = msgspec.json.encode(whole)
    media = body.media if "*" not in body.media else "application/json"
    made.headers["content-type"] = media
    return replace(made, content=content)


def _form(value: Json) -> Iterator[str]:
    if not isinstance(value, dict):
        raise Misfit("The body is a form: give an object.")
    for name, each in value.items():
        yield from _query(Field("body", name, "form", True), each if _flat(each) else _json(each))


def _flat(value: Json) -> bool:
    """Whether a form has a way of its own to say a value."""
    if isinstance(value, list):
        return not any(isinstance(each, dict | list) for each in value)
    return not isinstance(value, dict)


def _parts(value: Json, files: set[str]) -> Iterator[tuple[str, tuple[str | None, bytes, str]]]:
    if not isinstance(value, dict):
        raise Misfit("The body is a form: give an object.")
    for name, each in value.items():
        for item in each if isinstance(each, list) else [each]:
            data = text(item).encode("utf-8", "replace")
            if name in files:
                yield name, (name, data, "application/octet-stream")
            else:
                kind = "application/json" if isinstance(item, dict | list) else "text/plain"
                yield name, (None, data, kind)


def text(value: Json) -> str:
    """A value as a parameter says it: texts as they are, all else as in JSON."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def _enc(value: Json) -> str:
    return quote(text(value), safe="")
