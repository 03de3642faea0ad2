"""OpenAPI documents as workers: what is read, what a policy is shown, what is refused and why."""

import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.workers import draft
from actors.workers.openapi import OperationAdapter
from actors.workers.openapi import document as openapi_document
from actors.workers.openapi.document import load
from actors.workers.openapi.plan import argument, worker_name
from protocol.actions import WorkerSpec
from protocol.errors import InvalidData, NotFound, PodiumError, Unreachable
from protocol.limits import NAME_PATTERN
from protocol.schemas import check_schema
from tests.services import Answer, Service

TEXT: Final = {"type": "string"}


def described(*paths: Any, version: str = "3.1.0", **more: Any) -> dict[str, Any]:
    """A document with these operations, each a path, a method and what is said of it."""
    found: dict[str, Any] = {}
    for path, method, operation in paths:
        found.setdefault(path, {})[method] = {"responses": {}} | operation
    info = {"title": "t", "version": "1"}
    servers = [{"url": "https://shop.example/v1"}]
    return {"openapi": version, "info": info, "servers": servers, "paths": found} | more


def put(folder: Path, document: Any, name: str = "api.json") -> str:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def one(
    folder: Path, operation: dict[str, Any], path: str = "/a", method: str = "get", **more: Any
) -> WorkerSpec:
    """The worker of a document with one operation."""
    options = more.pop("options", {})
    document = described((path, method, {"operationId": "op"} | operation), **more)
    spec = draft("openapi:op", {"document": put(folder, document)} | options)
    check_schema(spec.parameters, "it")
    return spec


def schema(folder: Path, of: Any, **more: Any) -> Any:
    """What becomes of a parameter's schema."""
    parameters = [{"name": "x", "in": "query", "schema": of}]
    return one(folder, {"parameters": parameters}, **more).parameters["properties"]["x"]


def refused(kind: type[PodiumError], folder: Path, document: Any, **options: Any) -> PodiumError:
    with pytest.raises(kind) as error:
        draft("openapi:op", {"document": put(folder, document)} | options)
    return error.value


# -------------------------------------------------------------------------------------- finding it


YAML: Final = """
openapi: 3.0.3
info: {title: t, version: 1}
servers: [{url: "https://shop.example"}]
paths:
  /on:
    get:
      operationId: op
      parameters:
        - {name: day, in: query, schema: {type: string, default: 2026-11-25, enum: [yes, no, on]}}
      responses:
        200: {description: ok}
"""


def test_yaml_is_read_as_json_has_it(tmp_path: Path) -> None:
    spec = draft("openapi:op", {"document": put(tmp_path, YAML, "api.yaml")})
    day = spec.parameters["properties"]["day"]
    assert day == {"type": "string", "default": "2026-11-25", "enum": ["yes", "no", "on"]}


def test_a_path_is_found_where_modules_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, described(("/a", "get", {"operationId": "op"})), "beside.json")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert draft("openapi:op", {"document": "beside.json"}).name == "op"


def test_a_url_is_asked_for_and_what_is_sent_on_is_followed() -> None:
    document = described(("/a", "get", {"operationId": "op"}), servers=[{"url": "../v2"}])

    def answer(asked: Any) -> Answer:
        if asked.path == "/old":
            return Answer(302, headers={"location": "/docs/api.json"})
        return Answer(200, document)

    with Service(answer) as service:
        loaded = load(f"{service.root}/old")
        assert loaded.uri == f"{service.root}/docs/api.json"
        draft("openapi:op", {"document": f"{service.root}/old"})


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [(404, NotFound, "HTTP 404"), (401, Unreachable, "HTTP 401"), (500, Unreachable, "HTTP 500")],
)
def test_a_server_that_refuses_is_named(code: int, kind: type[PodiumError], said: str) -> None:
    with Service(lambda _: Answer(code)) as service:
        with pytest.raises(kind) as error:
            draft("openapi:op", {"document": f"{service.root}/api.json"})
        assert said in str(error.value)
        assert service.root in str(error.value)


def test_a_server_that_is_not_there_is_named() -> None:
    with Service(lambda _: None) as service:
        address = f"{service.root}/api.json"
    with pytest.raises(Unreachable, match=re.escape(address)):
        draft("openapi:op", {"document": address})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "neither JSON nor YAML"),
        ("a: [", "neither JSON nor YAML (line 2): did not find expected"),
        ("[]", "openapi None"),
        ("{}", "openapi None"),
        ('{"swagger": "2.0"}', "swagger 2.0"),
        ('{"openapi": "4.0.0"}', "openapi '4.0.0'"),
        ("a: &a [*a]", "too deep"),
        ("a: !!python/object/apply:os.getpid []", "neither JSON nor YAML"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n"
                for i in range(8)
            ),
            "more than",
        ),
    ],
)
def test_what_is_no_document_is_refused(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi_document, "MAX_VALUES", 10_000)
    assert said in str(refused(InvalidData, tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (str(tmp_path / "gone.json"), "gone.json", "~nosuch/gone.json"):
        with pytest.raises(NotFound, match=r"gone\.json"):
            draft("openapi:op", {"document": path})


def test_an_unknown_operation_names_those_that_there_are(tmp_path: Path) -> None:
    document = described(("/a", "get", {"operationId": "list"}), ("/a", "post", {}))
    error = refused(NotFound, tmp_path, document)
    assert "list, POST /a" in error.hint
    for adapter in ("openapi", "openapi:"):
        with pytest.raises(NotFound, match="names no operation"):
            draft(adapter, {"document": put(tmp_path, document)})


# -------------------------------------------------------------------------------------- references


def test_what_is_referred_to_goes_with_the_parameters(tmp_path: Path) -> None:
    tree = {"type": "object", "properties": {"kids": {"items": {"$ref": "#/components/schemas/T"}}}}
    made = one(
        tmp_path,
        {"parameters": [{"$ref": "#/components/parameters/x"}]},
        components={
            "schemas": {"T": tree, "a b": TEXT},
            "parameters": {
                "x": {"name": "x", "in": "query", "schema": {"$ref": "#/components/schemas/T"}}
            },
        },
    ).parameters
    assert made["properties"]["x"] == {"$ref": "#/$defs/T"}
    assert made["$defs"]["T"]["properties"]["kids"] == {"items": {"$ref": "#/$defs/T"}}
    assert jsonschema_rs.is_valid(made, {"x": {"kids": [{"kids": []}]}})
    assert (
        not jsonschema_rs.is_valid(made, {"x": {"kids": [{"kids": [1]}]}}) or "T" in made["$defs"]
    )


def test_documents_may_refer_to_others_beside_them(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    put(tmp_path / "parts", {"Id": {"$ref": "more.json#/Number"}, "Number": TEXT}, "ids.json")
    put(tmp_path / "parts", {"Number": {"type": "integer"}}, "more.json")
    made = one(
        tmp_path,
        {"parameters": [{"name": "x", "in": "query", "schema": {"$ref": "parts/ids.json#/Id"}}]},
    ).parameters
    assert made["$defs"] == {"Id": {"$ref": "#/$defs/Number"}, "Number": {"type": "integer"}}


def test_same_names_of_two_documents_stay_apart(tmp_path: Path) -> None:
    put(tmp_path, {"Id": {"type": "integer"}}, "other.json")
    parameters = [
        {"name": "x", "in": "query", "schema": {"$ref": "#/components/schemas/Id"}},
        {"name": "y", "in": "query", "schema": {"$ref": "other.json#/Id"}},
    ]
    made = one(
        tmp_path, {"parameters": parameters}, components={"schemas": {"Id": TEXT}}
    ).parameters
    assert made["$defs"] == {"Id": TEXT, "Id_2": {"type": "integer"}}


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("#/components/schemas/gone", "can't be found"),
        ("#/components/schemas/loop", "circle"),
        ("gone.json#/x", "can't be read"),
        ("https://elsewhere.example/x.json#/x", "another place"),
    ],
)
def test_a_reference_to_nowhere_is_named(tmp_path: Path, ref: str, said: str) -> None:
    loop = {"$ref": "#/components/schemas/loop"}
    body = {"content": {"application/json": {"schema": {"$ref": ref}}}}
    document = described(
        ("/a", "post", {"operationId": "op", "requestBody": body}),
        components={"schemas": {"loop": loop}},
    )
    assert said in str(refused(PodiumError, tmp_path, document))


# ----------------------------------------------------------------------------------------- schemas


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"type": "string", "nullable": False}, TEXT),
        ({"allOf": [TEXT], "nullable": True}, {"anyOf": [{"allOf": [TEXT]}, {"type": "null"}]}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"maximum": 1, "exclusiveMaximum": True}, {"exclusiveMaximum": 1}),
        ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
        ({"type": "string", "example": "a"}, {"type": "string", "examples": ["a"]}),
        ({"format": "byte"}, {"format": "byte", "contentEncoding": "base64"}),
        (
            {"xml": {}, "externalDocs": {}, "discriminator": {}, "x-y": 1, "title": "t"},
            {"title": "t"},
        ),
        (
            {"properties": {"nullable": {"nullable": True, "type": "string"}, "example": TEXT}},
            {"properties": {"nullable": {"type": ["string", "null"]}, "example": TEXT}},
        ),
        (
            {"properties": {"id": {"readOnly": True}, "a": TEXT}, "required": ["id", "a"]},
            {"properties": {"a": TEXT}, "required": ["a"]},
        ),
        ({"enum": [{"nullable": True}]}, {"enum": [{"nullable": True}]}),
        ({"pattern": "(?<!a)b"}, {"pattern": "(?<!a)b"}),
        ({"pattern": "[z-a]"}, {}),
        (
            {"items": {"not": {"nullable": True, "type": "string"}}},
            {"items": {"not": {"type": ["string", "null"]}}},
        ),
    ],
)
def test_schemas_of_3_0_become_json_schema(tmp_path: Path, old: Any, new: Any) -> None:
    assert schema(tmp_path, old, version="3.0.3") == new


@pytest.mark.parametrize(
    "same",
    [
        {"type": ["string", "null"]},
        {"exclusiveMinimum": 1, "minimum": 0},
        {"const": {"nullable": True}},
        {"prefixItems": [TEXT], "items": False},
        True,
    ],
)
def test_schemas_of_3_1_stay_what_they_are(tmp_path: Path, same: Any) -> None:
    assert schema(tmp_path, same) == same


def test_beside_a_reference_3_1_may_say_more(tmp_path: Path) -> None:
    of = {"$ref": "#/components/schemas/T", "description": "more"}
    components = {"schemas": {"T": TEXT}}
    new = schema(tmp_path, of, components=components)
    old = schema(tmp_path, of, components=components, version="3.0.3")
    assert (new, old) == ({"$ref": "#/$defs/T", "description": "more"}, {"$ref": "#/$defs/T"})


# --------------------------------------------------------------------------------------- arguments


def body(of: Any, media: str = "application/json", **more: Any) -> dict[str, Any]:
    return {"required": True, "content": {media: {"schema": of}}} | more


def test_parameters_and_body_are_one_object_without_clashes(tmp_path: Path) -> None:
    made = one(
        tmp_path,
        {
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": TEXT},
                {"name": "id", "in": "query", "schema": {"type": "integer"}},
                {"name": "path_id", "in": "query", "schema": TEXT},
                {"name": "X-Mode", "in": "header", "schema": TEXT, "description": "How."},
                {"name": "sort[by]", "in": "cookie", "schema": TEXT, "example": "name"},
                {"name": "Accept", "in": "header", "schema": TEXT},
            ],
            "requestBody": body(
                {"type": "object", "properties": {"id": TEXT, "name": TEXT}, "required": ["name"]}
            ),
        },
        "/a/{id}",
        "post",
    ).parameters
    assert list(made["properties"]) == [
        *("path_id_2", "query_id", "path_id", "X-Mode", "sort_by_", "body_id", "name"),
    ]
    assert made["required"] == ["path_id_2", "name"]
    assert made["properties"]["X-Mode"] == {"type": "string", "description": "How."}
    assert made["properties"]["sort_by_"] == {"type": "string", "examples": ["name"]}
    assert made["additionalProperties"] is False


@pytest.mark.parametrize(
    "of",
    [
        {"type": "array", "items": TEXT},
        TEXT,
        {"type": "object", "properties": {"a": TEXT}, "additionalProperties": True},
        {"type": "object", "properties": {"a": TEXT}, "minProperties": 1},
        {"type": "object"},
        {"oneOf": [{"type": "object"}, TEXT]},
    ],
)
def test_a_body_whose_parts_belong_together_is_one_argument(tmp_path: Path, of: Any) -> None:
    made = one(tmp_path, {"requestBody": body(of, description="All.")}, method="post").parameters
    assert made["properties"] == {"body": of | {"description": "All."}}
    assert made["required"] == ["body"]


def test_what_an_optional_body_needs_is_optional(tmp_path: Path) -> None:
    of = {"type": "object", "properties": {"a": TEXT}, "required": ["a"]}
    made = one(tmp_path, {"requestBody": body(of, required=False)}, method="post").parameters
    assert made["required"] == []


@pytest.mark.parametrize(
    ("operation", "path", "said"),
    [
        ({}, "/a/{id}", "does not describe its parameter {id}"),
        ({"parameters": [{"name": "x", "in": "body"}]}, "/a", "'x' in 'body'"),
        ({"parameters": [{"name": "x", "in": "query", "schema": 7}]}, "/a", "stands for a schema"),
        ({"requestBody": body({}, "image/png")}, "/a", "image/png, which a worker can't write"),
    ],
)
def test_what_cant_be_asked_for_is_refused(
    tmp_path: Path, operation: Any, path: str, said: str
) -> None:
    document = described((path, "post", {"operationId": "op"} | operation))
    assert said in str(refused(InvalidData, tmp_path, document))


def test_what_the_pool_gives_is_nobodys_argument(tmp_path: Path) -> None:
    parameters = [
        {"name": "X-Tenant", "in": "header", "required": True, "schema": TEXT},
        {"name": "key", "in": "query", "required": True, "schema": TEXT},
        {"name": "q", "in": "query", "schema": TEXT},
    ]
    scheme = {"type": "apiKey", "in": "query", "name": "key"}
    made = one(
        tmp_path,
        {"parameters": parameters},
        components={"securitySchemes": {"k": scheme}},
        options={"headers": {"x-tenant": "a"}, "security": {"k": "${secret:KEY}"}},
    ).parameters
    assert list(made["properties"]) == ["q"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"summary": "Short."}, "Short."),
        ({"summary": "Short", "description": "Long."}, "Short\n\nLong."),
        ({"summary": "Gets", "description": "Gets it all."}, "Gets it all."),
        ({"description": "Old.", "deprecated": True}, "Deprecated. Old."),
        ({}, "GET /a"),
    ],
)
def test_the_description_is_the_documents(tmp_path: Path, said: Any, shown: str) -> None:
    assert one(tmp_path, said).description == shown


@pytest.mark.parametrize(
    ("method", "attempts"), [("get", 2), ("put", 2), ("delete", 2), ("post", 1), ("patch", 1)]
)
def test_what_may_do_more_when_done_twice_is_tried_once(
    tmp_path: Path, method: str, attempts: int
) -> None:
    assert one(tmp_path, {}, method=method).attempts == attempts


@pytest.mark.parametrize(
    "options", [{}, {"max_bytes": 0}, {"price_usd": -1}, {"x": 1}, {"headers": {"a": 1}}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    document = {} if options == {} else {"document": "x"}
    with pytest.raises(InvalidData, match="options of the worker"):
        draft("openapi:op", document | options)


# ---------------------------------------------------------------------------------- all operations


def test_every_operation_is_a_worker(tmp_path: Path) -> None:
    document = described(
        ("/things", "get", {"operationId": "things.list"}),
        ("/things", "post", {"operationId": "add thing!"}),
        ("/things/{id}", "get", {"parameters": [{"name": "id", "in": "path", "schema": TEXT}]}),
        ("/twice", "get", {"operationId": "same"}),
        ("/twice", "put", {"operationId": "same"}),
        ("/things", "put", {"operationId": "things_list"}),
        ("/picture", "put", {"operationId": "picture", "requestBody": body({}, "image/png")}),
    )
    options = {"document": put(tmp_path, document)}
    found = {spec.name: spec for spec in OperationAdapter.discover("openapi", options)}
    assert {name: spec.adapter for name, spec in found.items()} == {
        "things_list": "openapi:things.list",
        "add_thing": "openapi:add thing!",
        "things_list_2": "openapi:things_list",
        "GET_things_id": "openapi:GET /things/{id}",
        "GET_twice": "openapi:GET /twice",
        "PUT_twice": "openapi:PUT /twice",
    }
    for spec in found.values():
        again = draft(spec.adapter, spec.options)
        assert (again.parameters, again.description) == (spec.parameters, spec.description)
        assert re.match(NAME_PATTERN, spec.name)


def test_only_those_that_are_asked_for(tmp_path: Path) -> None:
    document = described(
        ("/a", "get", {"operationId": "a"}),
        ("/b", "get", {"operationId": "b"}),
        ("/c", "put", {"operationId": "c", "requestBody": body({}, "image/png")}),
    )
    options = {"document": put(tmp_path, document)}
    only = OperationAdapter.discover("openapi", options | {"only": ["GET /b", "a"]})
    assert [spec.name for spec in only] == ["b", "a"]
    with pytest.raises(NotFound, match="'d'"):
        OperationAdapter.discover("openapi", options | {"only": ["d"]})
    with pytest.raises(InvalidData, match="image/png"):
        OperationAdapter.discover("openapi", options | {"only": ["c"]})


@given(st.text(min_size=1))
def test_any_address_makes_a_name(address: str) -> None:
    assert re.match(NAME_PATTERN, worker_name(address))
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", argument(address))


# ------------------------------------------------------------------------------- servers, security


def test_a_file_that_names_no_server_wants_one(tmp_path: Path) -> None:
    document = described(("/a", "get", {"operationId": "op"}), servers=[])
    assert "no server's address" in str(refused(InvalidData, tmp_path, document))
    options = {"document": put(tmp_path, document), "base_url": "http://127.0.0.1:1/x"}
    assert draft("openapi:op", options).name == "op"


@pytest.mark.parametrize(
    ("schemes", "given_", "said"),
    [
        ({}, {"k": "v"}, "no security scheme 'k'"),
        ({"k": {"type": "mutualTLS"}}, {"k": "v"}, "one text opens"),
        ({"k": {"type": "http", "scheme": "digest"}}, {"k": "v"}, "one text opens"),
    ],
)
def test_a_scheme_that_cant_be_opened_is_named(
    tmp_path: Path, schemes: Any, given_: Any, said: str
) -> None:
    document = described(
        ("/a", "get", {"operationId": "op"}), components={"securitySchemes": schemes}
    )
    assert said in str(refused(InvalidData, tmp_path, document, security=given_))
