"""An OpenAPI document: found, read, and everything in it that is referred to looked up.

Nothing is required of a document that isn't needed: many that are in use are not flawless, and what
is wrong with one operation is no reason to go without the others.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import msgspec

from actors.workers.options import beside
from protocol.actions import Json
from protocol.errors import InvalidData, NotFound, Unreachable
from protocol.limits import MAX_NESTING

if TYPE_CHECKING:
    from referencing._core import Resolver

MAX_DOCUMENT_BYTES: Final = 16_777_216
"""Bytes of one document: the largest that are published have 12 MB."""

MAX_VALUES: Final = 2_000_000
"""Values in one document: YAML can say a billion in a few lines."""

MAX_DOCUMENTS: Final = 100
"""Documents that one may refer to, all together."""

MAX_HOPS: Final = 32
"""References that may be followed from one to the next; more go in a circle."""

FETCH_S: Final = 15.0
"""Seconds that a document's server may take."""

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
"""Methods whose operations can be workers."""

VERSIONS: Final = ("3.0", "3.1", "3.2")


@dataclass(frozen=True)
class Part:
    """A value of a document, and from where what it refers to is looked up."""

    value: Json
    uri: str
    """The document."""
    resolver: "Resolver[Json]"

    def with_value(self, value: Json) -> "Part":
        """Another value of the same place."""
        return Part(value, self.uri, self.resolver)

    def at(self, name: str) -> "Part":
        """What stands under a name, reference followed; None if nothing does.

        Raises:
            InvalidData: It refers to what isn't there.
        """
        inner = self.value.get(name) if isinstance(self.value, dict) else None
        return followed(self.with_value(inner))

    def items(self) -> Iterator["Part"]:
        """What stands in a list, references followed."""
        if isinstance(self.value, list):
            yield from (followed(self.with_value(each)) for each in self.value)

    def text(self, name: str) -> str:
        """The text under a name; "" if there is none."""
        found = self.value.get(name) if isinstance(self.value, dict) else None
        return found.strip() if isinstance(found, str) else ""

    def table(self) -> dict[str, Json]:
        """The value, if it is an object; else an empty one."""
        return self.value if isinstance(self.value, dict) else {}


@dataclass(frozen=True)
class Operation:
    """One operation of a document."""

    address: str
    """Its ``operationId``; of one that has none of its own, ``GET /path``."""
    method: str
    path: str
    item: Part
    """The path's entry, for what all its operations share."""
    part: Part

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        return f"{self.method.upper()} {self.path}"


@dataclass(frozen=True)
class Document:
    """A document, and all that it refers to."""

    uri: str
    """Where it is."""
    root: Part

    @property
    def old(self) -> bool:
        """Whether its schemas are those of OpenAPI 3.0, which are no JSON Schema."""
        return self.root.text("openapi").startswith("3.0")

    def operations(self) -> list[Operation]:
        """All operations, in the order of the document."""
        found = []
        for path, raw in self.root.at("paths").table().items():
            if not path.startswith("/"):  # an extension
                continue
            item = followed(self.root.with_value(raw))
            for method in METHODS:
                if isinstance(item.table().get(method), dict):
                    part = item.with_value(item.value[method])
                    found.append(Operation(part.text("operationId"), method, path, item, part))
        ids = Counter(operation.address for operation in found)
        return [
            each if each.address and ids[each.address] == 1 else replace(each, address=each.place)
            for each in found
        ]

    def operation(self, address: str) -> Operation:
        """The operation of that id, or at ``GET /path``.

        Raises:
            NotFound: There is none; the hint names those that there are.
        """
        known = self.operations()
        for operation in known:
            if address in (operation.address, operation.place):
                return operation
        shown = ", ".join(operation.address for operation in known[:20])
        more = f" and {len(known) - 20} more" if len(known) > 20 else ""
        raise NotFound(
            f"The document {self.uri} has no operation {address!r}.",
            hint=f"Operations: {shown or 'none'}{more}. One without an id is 'GET /path'.",
        )


def load(location: str) -> Document:
    """Read a document and whatever it refers to. Blocks.

    Args:
        location: An ``http``, ``https`` or ``file`` URL, or a path; one that is not full is looked
            for in the folders that Python imports from, of which the pool file's is one.

    Raises:
        NotFound: There is no such document.
        Unreachable: Its server does not answer, or refuses.
        InvalidData: It is no OpenAPI document of version 3, or refers to what isn't there.
    """
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    uri, value = _read(_uri(location))
    root = value if isinstance(value, dict) else {}
    version = root.get("openapi")
    if not isinstance(version, str) or not version.startswith(VERSIONS):
        said = f"swagger {root['swagger']}" if "swagger" in root else f"openapi {version!r}"
        raise InvalidData(
            f"{uri} is no OpenAPI document of version 3: it says {said}.",
            hint="Convert an older one, such as with swagger2openapi or converter.swagger.io.",
        )
    documents = {uri: value}
    _referred(uri, documents)
    registry: Registry[Json] = Registry().with_contents(
        documents.items(), default_specification=DRAFT202012
    )
    return Document(uri, Part(root, uri, registry.resolver(uri)))


def followed(part: Part) -> Part:
    """What a reference stands for; the part itself if it is none."""
    for _ in range(MAX_HOPS):
        ref = part.value.get("$ref") if isinstance(part.value, dict) else None
        if not isinstance(ref, str):
            return part
        part = lookup(part, ref)
    raise InvalidData(f"{part.uri}: its references go in a circle.")


def lookup(part: Part, ref: str) -> Part:
    """What one reference names. Raises `InvalidData` if that isn't there."""
    from referencing.exceptions import Unresolvable

    try:
        resolved = part.resolver.lookup(ref)
    except (Unresolvable, ValueError, TypeError) as error:
        raise InvalidData(f"{part.uri} refers to {ref}, which can't be found.") from error
    uri = urldefrag(urljoin(part.uri, ref)).url
    return Part(resolved.contents, uri, resolved.resolver)


def _uri(location: str) -> str:
    if urlsplit(location).scheme in ("http", "https", "file"):
        return location
    if (path := Path(os.path.expanduser(location))).is_absolute():
        return path.as_uri()
    if (found := beside(location, Path.is_file)) is not None:
        return found.resolve().as_uri()
    raise NotFound(
        f"There is no document {location!r}.",
        hint="Give a URL, a full path, or a path from the pool file's folder.",
    )


def _read(uri: str) -> tuple[str, Json]:
    """Where the document really is, and what it holds."""
    if urlsplit(uri).scheme == "file":
        path = Path(unquote(urlsplit(uri).path))
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise NotFound(
                f"The document {path} can't be read: {error.strerror}.",
                hint="It has to be readable where the workers run, too.",
            ) from None
    else:
        uri, data = _fetched(uri)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidData(f"{uri} has more than {MAX_DOCUMENT_BYTES} bytes.")
    return uri, _plain(uri, _parsed(uri, data))


def _fetched(uri: str) -> tuple[str, bytes]:
    import httpx2

    data = bytearray()
    try:
        with (
            httpx2.Client(follow_redirects=True, timeout=FETCH_S) as client,
            client.stream("GET", uri, headers={"accept": "application/json, */*"}) as response,
        ):
            if response.status_code in (404, 410):
                raise NotFound(f"There is no document at {uri}: HTTP {response.status_code}.")
            if not response.is_success:
                raise Unreachable(
                    f"The document at {uri} is refused with HTTP {response.status_code}.",
                    hint="It is asked for without credentials: save it beside the pool file.",
                )
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_DOCUMENT_BYTES:
                    break
            return str(response.url), bytes(data)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unreachable(
            f"The document at {uri} can't be had: {type(error).__name__}: {error}.",
            hint="Start its server, or correct the address in the pool file.",
        ) from None


def _parsed(uri: str, data: bytes) -> Json:
    try:
        return msgspec.json.decode(data)
    except ValueError:
        pass
    import yaml

    try:
        return yaml.load(data, Loader=_loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        why = getattr(error, "problem", None) or _first_line(error)
        raise InvalidData(f"{uri} is neither JSON nor YAML{line}: {why}.") from None


def _loader() -> Any:
    """YAML as JSON has it: no dates, and only true and false are either."""
    import re

    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """As said above."""

    dropped = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    Loader.yaml_implicit_resolvers = {
        first: [each for each in known if each[0] not in dropped]
        for first, known in Loader.yaml_implicit_resolvers.items()
    }
    booleans = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
    Loader.add_implicit_resolver(dropped[1], booleans, list("tTfF"))
    return Loader


def _plain(uri: str, value: Json) -> Json:
    """A copy of plain JSON: every key a text, nothing endless."""
    left = MAX_VALUES

    def copied(inner: Json, depth: int) -> Json:
        nonlocal left
        left -= 1
        if depth > MAX_NESTING or left < 0:
            raise InvalidData(f"{uri} is too deep, or says more than {MAX_VALUES} values.")
        match inner:
            case dict():
                return {str(key): copied(item, depth + 1) for key, item in inner.items()}
            case list() | tuple() | set():
                return [copied(item, depth + 1) for item in inner]
            case None | bool() | int() | float() | str():
                return inner
            case _:
                raise InvalidData(f"{uri} holds a {type(inner).__name__}, which is no JSON.")

    return copied(value, 0)


def _referred(uri: str, documents: dict[str, Json]) -> None:
    """Read the documents that one refers to, and those that they refer to, into ``documents``."""
    for ref in list(_references(documents[uri])):
        other = urldefrag(urljoin(uri, ref)).url
        if other in documents:
            continue
        if not _beside(uri, other):
            raise InvalidData(
                f"{uri} refers to {other}, which is of another place.",
                hint="Bundle it into one document: redocly bundle, swagger-cli bundle.",
            )
        if len(documents) >= MAX_DOCUMENTS:
            raise InvalidData(f"{uri} refers to more than {MAX_DOCUMENTS} documents.")
        documents[other] = _read(other)[1]
        _referred(other, documents)


def _references(value: Json) -> Iterator[str]:
    """What is referred to in other documents."""
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and not ref.startswith("#"):
            yield ref
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _beside(uri: str, other: str) -> bool:
    """Whether a document may refer to another: a file to files, a server's to the same server's."""
    here, there = urlsplit(uri), urlsplit(other)
    return (here.scheme, here.netloc) == (there.scheme, there.netloc)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
