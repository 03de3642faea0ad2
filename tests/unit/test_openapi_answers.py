"""JSON answers of a service are held to what its document says of them, and to nothing else."""

import logging
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ports import Outcome
from actors.workers.openapi.declared import Declared, declared
from actors.workers.openapi.document import load
from tests.services import Answer
from tests.unit.test_openapi_document import TEXT, described, put
from tests.unit.test_openapi_worker import answering, kinds, ran
from tests.words import VALUES

NUMBER: Final = {"type": "number"}
RATE: Final = {"type": "object", "required": ["rate"], "properties": {"rate": NUMBER}}
GOOD: Final = Answer(200, {"rate": 11.8})
BAD: Final = Answer(200, {"rate": "a lot"})


def operation(**responses: Any) -> Any:
    """A GET that answers so, by status; `ok` is 200 with JSON of that schema."""
    if "ok" in responses:
        responses["200"] = {"content": {"application/json": {"schema": responses.pop("ok")}}}
    return "/rate", "get", {"operationId": "op", "responses": responses}


def said(folder: Path, answer: Answer, what: Any, **more: Any) -> Outcome:
    with answering(answer) as service:
        return ran(folder, service, what, arguments={}, **more)


def known(folder: Path, what: Any, **more: Any) -> Declared:
    document = load(put(folder, described(what, **more)))
    return declared(document, document.operation("op"))


def test_an_answer_that_is_as_declared_is_taken(tmp_path: Path) -> None:
    outcome = said(tmp_path, GOOD, operation(ok=RATE))
    assert outcome == Outcome(value={"rate": 11.8})


def test_one_that_is_not_is_the_services_failure_and_says_where(tmp_path: Path) -> None:
    outcome = said(tmp_path, BAD, operation(ok=RATE), price_usd=0.25)
    assert kinds(outcome) == ("EXEC_ERR", "worker")
    assert outcome.value == (
        "op: the answer is not what its document says: ['rate']: must be of type number. "
        'It was {"rate":"a lot"}'
    )
    assert outcome.spend.cost == 250_000


def test_a_pool_may_take_answers_as_they_come(tmp_path: Path) -> None:
    assert said(tmp_path, BAD, operation(ok=RATE), check_answers=False).value == {"rate": "a lot"}


@pytest.mark.parametrize(
    ("answer", "responses"),
    [
        (BAD, {}),
        (BAD, {"200": {"description": "fine"}}),
        (BAD, {"200": {"content": {"application/json": {}}}}),
        (BAD, {"200": {"content": {"text/csv": {"schema": RATE}}}}),
        (BAD, {"400": {"content": {"application/json": {"schema": RATE}}}}),
        (BAD, {"200": {}, "default": {"content": {"application/json": {"schema": RATE}}}}),
        (Answer(204), {"ok": RATE}),
        (Answer(200, b"a lot", {"content-type": "text/plain"}), {"ok": RATE}),
    ],
)
def test_what_a_document_is_silent_about_is_taken(
    tmp_path: Path, answer: Answer, responses: Any
) -> None:
    assert said(tmp_path, answer, operation(**responses)).status == "OK"


@pytest.mark.parametrize(
    "responses",
    [
        {"2XX": {"content": {"application/json": {"schema": RATE}}}},
        {"2xx": {"content": {"application/*": {"schema": RATE}}}},
        {"default": {"content": {"*/*": {"schema": RATE}}}},
        {"200": {"content": {"Application/JSON; charset=utf-8": {"schema": RATE}}}},
        {"200": {"$ref": "#/components/responses/Rate"}},
        {"ok": {"$ref": "#/components/schemas/Rate"}},
    ],
)
def test_wherever_the_document_says_it(tmp_path: Path, responses: Any) -> None:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Rate"}}}
    components = {"schemas": {"Rate": RATE}, "responses": {"Rate": {"content": content}}}
    document = {"components": components}
    assert said(tmp_path, GOOD, operation(**responses), document=document).status == "OK"
    assert said(tmp_path, BAD, operation(**responses), document=document).status == "EXEC_ERR"


def test_statuses_of_yaml_may_be_numbers(tmp_path: Path) -> None:
    text = (
        "openapi: 3.1.0\npaths: {/rate: {get: {operationId: op, responses: {200: "
        "{content: {application/json: {schema: {type: number}}}}}}}}"
    )
    document = load(put(tmp_path, text, "api.yaml"))
    assert declared(document, document.operation("op")).schemas == {
        "200": {"application/json": NUMBER}
    }


def test_what_is_only_written_is_in_no_answer_and_what_is_only_read_is(tmp_path: Path) -> None:
    secret, number = {"type": "string", "writeOnly": True}, {"type": "integer", "readOnly": True}
    user = {
        "type": "object",
        "properties": {"name": TEXT, "password": secret, "id": number},
        "required": ["name", "password", "id"],
        "additionalProperties": False,
    }
    what = known(tmp_path, operation(ok=user))
    media = "application/json"
    assert what.wrong(200, media, {"name": "ada", "id": 1}, every=True) == ""
    assert what.wrong(200, media, {"name": "ada"}, every=True) == "the answer: 'id' is required"


def test_an_old_document_says_null_in_its_own_way(tmp_path: Path) -> None:
    maybe = known(tmp_path, operation(ok=TEXT | {"nullable": True}), version="3.0.3")
    assert maybe.wrong(200, "application/json", None, every=True) == ""
    assert maybe.wrong(200, "application/json", 1, every=True) != ""


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/components/schemas/Nothing"},
        {"type": "object", "properties": {"x": 3}},
    ],
)
def test_what_cannot_be_used_is_set_aside_with_a_note_and_nothing_else_is(
    tmp_path: Path, schema: Any, caplog: pytest.LogCaptureFixture
) -> None:
    created = {"content": {"application/json": {"schema": NUMBER}}}
    with caplog.at_level(logging.WARNING):
        outcome = said(tmp_path, BAD, operation(ok=schema, **{"201": created}))
    assert outcome.value == {"rate": "a lot"}
    (record,) = caplog.records
    assert record.message.startswith("op: what file://")
    assert "(200) can't be used" in record.message
    other = said(tmp_path, Answer(201, {"a": 1}), operation(ok=schema, **{"201": created}))
    assert kinds(other) == ("EXEC_ERR", "worker")


@given(answers=st.dictionaries(st.sampled_from(["200", "2XX", "default", "404"]), VALUES))
def test_no_document_breaks_its_worker(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, Any]
) -> None:
    what = known(tmp_path_factory.mktemp("d"), operation(**answers))
    assert isinstance(what.wrong(200, "application/json", 1, every=True), str)
