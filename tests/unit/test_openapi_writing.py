"""Arguments written as requests: every style of OpenAPI, every body, and no way to elsewhere."""

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.workers.openapi.document import Document, load
from actors.workers.openapi.plan import Plan, planned
from actors.workers.openapi.writing import Misfit, Written, written
from tests.unit.test_openapi_document import TEXT, body, described, put

LIST: Final = ["blue", "black", "brown"]

OBJECT: Final = {"R": 100, "G": 200}


def plan(folder: Path, operation: dict[str, Any], path: str = "/a", method: str = "get") -> Plan:
    document: Document = load(
        put(folder, described((path, method, {"operationId": "op"} | operation)))
    )
    return planned(document, document.operation("op"), {})


def parameter(folder: Path, where: str, **said: Any) -> Plan:
    path = "/a/{color}/b" if where == "path" else "/a"
    return plan(folder, {"parameters": [{"name": "color", "in": where, "schema": {}} | said]}, path)


def sent(folder: Path, of: Any, media: str, **arguments: Any) -> Written:
    return written(plan(folder, {"requestBody": body(of, media)}, method="post"), arguments)


# The table of https://spec.openapis.org/oas/v3.1.1.html#style-examples, percent-encoded as it says.
STYLES: Final = [
    ("matrix", False, ";color=blue", ";color=blue,black,brown", ";color=R,100,G,200"),
    ("matrix", True, ";color=blue", ";color=blue;color=black;color=brown", ";R=100;G=200"),
    ("label", False, ".blue", ".blue,black,brown", ".R,100,G,200"),
    ("label", True, ".blue", ".blue.black.brown", ".R=100.G=200"),
    ("simple", False, "blue", "blue,black,brown", "R,100,G,200"),
    ("simple", True, "blue", "blue,black,brown", "R=100,G=200"),
]


@pytest.mark.parametrize(("style", "explode", "text", "array", "table"), STYLES)
def test_styles_in_a_path(
    tmp_path: Path, style: str, explode: bool, text: str, array: str, table: str
) -> None:
    made = parameter(tmp_path, "path", style=style, explode=explode)
    for value, expected in (("blue", text), (LIST, array), (OBJECT, table)):
        assert written(made, {"color": value}).path == f"/a/{expected}/b"


@pytest.mark.parametrize(
    ("style", "explode", "array", "table"),
    [
        ("form", False, ["color=blue,black,brown"], ["color=R,100,G,200"]),
        ("form", True, ["color=blue", "color=black", "color=brown"], ["R=100", "G=200"]),
        ("spaceDelimited", False, ["color=blue%20black%20brown"], ["color=R%20100%20G%20200"]),
        ("pipeDelimited", False, ["color=blue%7Cblack%7Cbrown"], ["color=R%7C100%7CG%7C200"]),
        (
            "deepObject",
            True,
            ["color=blue", "color=black", "color=brown"],
            ["color%5BR%5D=100", "color%5BG%5D=200"],
        ),
    ],
)
def test_styles_in_a_query(
    tmp_path: Path, style: str, explode: bool, array: list[str], table: list[str]
) -> None:
    made = parameter(tmp_path, "query", style=style, explode=explode)
    assert written(made, {"color": LIST}).query == array
    assert written(made, {"color": OBJECT}).query == table


def test_styles_in_a_header_and_a_cookie(tmp_path: Path) -> None:
    header = parameter(tmp_path, "header")
    assert written(header, {"color": LIST}).headers == {"color": "blue,black,brown"}
    assert written(header, {"color": OBJECT}).headers == {"color": "R,100,G,200"}
    exploded = parameter(tmp_path, "header", explode=True)
    assert written(exploded, {"color": OBJECT}).headers == {"color": "R=100,G=200"}
    cookie = parameter(tmp_path, "cookie")
    assert written(cookie, {"color": "a;b=c"}).cookies == ["color=a%3Bb%3Dc"]


@pytest.mark.parametrize("where", ["query", "path", "header"])
def test_a_parameter_may_be_json(tmp_path: Path, where: str) -> None:
    content = {"application/json": {"schema": {"type": "object"}}}
    said = {"name": "color", "in": where, "content": content}
    path = "/a/{color}" if where == "path" else "/a"
    made = written(plan(tmp_path, {"parameters": [said]}, path), {"color": {"a": [1]}})
    text = {"query": made.query[0:1], "path": [made.path], "header": [*made.headers.values()]}[
        where
    ]
    assert unquote(text[0]).endswith('{"a":[1]}')


@pytest.mark.parametrize(
    ("value", "said"), [(True, "true"), (3, "3"), (0.5, "0.5"), ("", ""), ("é&", "%C3%A9%26")]
)
def test_plain_values_are_written_as_json_has_them(tmp_path: Path, value: Any, said: str) -> None:
    assert written(parameter(tmp_path, "query"), {"color": value}).query == [f"color={said}"]


def test_nothing_is_sent_of_what_is_null_or_not_there(tmp_path: Path) -> None:
    made = parameter(tmp_path, "query")
    assert written(made, {"color": None}).query == written(made, {"color": []}).query == []
    assert written(made, {}) == Written("GET", "/a")


def test_a_name_that_was_changed_for_the_policy_is_the_services_again(tmp_path: Path) -> None:
    made = plan(tmp_path, {"parameters": [{"name": "page[size]", "in": "query", "schema": {}}]})
    assert written(made, {"page_size_": 3}).query == ["page%5Bsize%5D=3"]


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return parameter(tmp_path_factory.mktemp("api"), "query")


@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_form_reads_as_it_was_written(query: Plan, values: list[str]) -> None:
    pairs = parse_qsl("&".join(written(query, {"color": values}).query), keep_blank_values=True)
    assert pairs == [("color", value) for value in values]


# ----------------------------------------------------------------------------- no way to elsewhere


@pytest.mark.parametrize(
    ("style", "value"),
    [
        *(
            ("simple", value)
            for value in ("", ".", "..", "../admin", "a/../../b", "a/./b", "..\\b")
        ),
        *(("simple", value) for value in ([".."], ["../b"], ["a", "b/../c"], {"a": "b/../c"})),
        *(("label", value) for value in ("", ".", "/../a", ["", "/a"])),
    ],
)
def test_no_value_leads_to_another_path(tmp_path: Path, style: str, value: Any) -> None:
    with pytest.raises(Misfit, match="'color' can't be empty"):
        written(parameter(tmp_path, "path", style=style, explode=True), {"color": value})


@pytest.mark.parametrize("value", ["a/b", "a?b", "a#b", "%2e%2e", "a b", "ä", "..."])
def test_any_other_value_stays_in_its_place(tmp_path: Path, value: str) -> None:
    path = written(parameter(tmp_path, "path"), {"color": value}).path
    assert [unquote(part) for part in path.split("/")] == ["", "a", value, "b"]


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "ä", "a\0"])
def test_a_header_holds_no_other(tmp_path: Path, value: str) -> None:
    with pytest.raises(Misfit, match="'color' is a header"):
        written(parameter(tmp_path, "header"), {"color": value})


def test_what_is_no_parameter_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(Misfit, match="'colour' is not among the parameters: color"):
        written(parameter(tmp_path, "query"), {"colour": 1})


# ------------------------------------------------------------------------------------------ bodies


PERSON: Final = {"type": "object", "properties": {"name": TEXT, "age": {"type": "integer"}}}


def test_json_is_put_together_from_its_arguments(tmp_path: Path) -> None:
    made = sent(tmp_path, PERSON, "application/json", name="Ada", age=36)
    assert json.loads(made.content or b"") == {"name": "Ada", "age": 36}
    assert made.headers == {"content-type": "application/json"}


def test_a_needed_body_without_arguments_is_an_empty_object(tmp_path: Path) -> None:
    assert sent(tmp_path, PERSON, "application/json").content == b"{}"


def test_a_body_that_is_not_needed_is_left_out(tmp_path: Path) -> None:
    made = plan(tmp_path, {"requestBody": body(PERSON, required=False)}, method="post")
    assert written(made, {}).content is None


def test_a_whole_body_is_sent_as_it_is(tmp_path: Path) -> None:
    of = {"type": "array", "items": TEXT}
    made = sent(tmp_path, of, "application/vnd.api+json; charset=utf-8", body=["a"])
    assert made.content == b'["a"]'
    assert made.headers == {"content-type": "application/vnd.api+json; charset=utf-8"}


def test_json_is_chosen_where_there_is_a_choice(tmp_path: Path) -> None:
    content = {"text/plain": {}, "application/xml": {}, "application/json": {"schema": PERSON}}
    made = plan(tmp_path, {"requestBody": {"content": content}}, method="post")
    assert written(made, {"age": 1}).content == b'{"age":1}'


def test_a_form(tmp_path: Path) -> None:
    of = {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}}
    made = sent(tmp_path, of, "application/x-www-form-urlencoded", a="x y&", b=[1, 2], c={"d": 1})
    assert made.content is not None
    pairs = parse_qsl(made.content.decode())
    assert pairs == [("a", "x y&"), ("b", "1"), ("b", "2"), ("c", '{"d":1}')]


def test_a_form_with_files(tmp_path: Path) -> None:
    of = {"type": "object", "properties": {"file": TEXT | {"format": "binary"}, "note": TEXT}}
    made = sent(tmp_path, of, "multipart/form-data", file="data", note="é")
    assert made.parts == [
        ("file", ("file", b"data", "application/octet-stream")),
        ("note", (None, "é".encode(), "text/plain")),
    ]


def test_plain_text(tmp_path: Path) -> None:
    assert sent(tmp_path, TEXT, "text/plain", body="as it is").content == b"as it is"
