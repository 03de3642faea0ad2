"""Operations at work: what each answer means, what goes where, and nothing to strangers."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from actors.ports import Attempt, Outcome
from actors.secrets import Secrets
from actors.work import work_on
from actors.workers import draft, host
from podium import poolcheck, poolfile
from protocol.actions import Spend
from tests.services import Answer, Asked, Service
from tests.unit.test_openapi_document import TEXT, described, put

LIMIT_S: Final = 20.0

GET: Final = (
    "/things/{id}",
    "get",
    {
        "operationId": "op",
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": TEXT},
            {"name": "q", "in": "query", "schema": TEXT},
            {"name": "X-Mode", "in": "header", "schema": TEXT},
            {"name": "seen", "in": "cookie", "schema": TEXT},
        ],
    },
)


def attempt(timeout_s: float = LIMIT_S, **arguments: Any) -> Attempt:
    return Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=timeout_s)


def ran(
    folder: Path,
    service: Service,
    *operations: Any,
    arguments: dict[str, Any] | None = None,
    timeout_s: float = LIMIT_S,
    document: dict[str, Any] | None = None,
    **options: Any,
) -> Outcome:
    """The outcome of one attempt at the operation ``op``."""
    api = described(*(operations or (GET,)), **(document or {}))
    given = {"document": put(folder, api), "base_url": f"{service.root}/v1/"} | options

    async def work() -> Outcome:
        adapter = host(draft("openapi:op", given))
        try:
            one = attempt(timeout_s, **({"id": "7"} if arguments is None else arguments))
            return await work_on(one, adapter, Secrets())
        finally:
            await adapter.close()

    return asyncio.run(work())


def answering(answer: Answer | Callable[[Asked], Answer | None] | None) -> Service:
    return Service(answer if callable(answer) else lambda _: answer)


def kinds(outcome: Outcome) -> tuple[str, str]:
    return outcome.status, outcome.fault


# ----------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (Answer(200, {"a": [1, None]}), {"a": [1, None]}),
        (Answer(201, b'{"a": 1}', {"content-type": "application/problem+json"}), {"a": 1}),
        (Answer(204), None),
        (Answer(200, b"plain", {"content-type": "text/plain"}), "plain"),
        (Answer(200, "é".encode("latin-1"), {"content-type": "text/csv; charset=latin-1"}), "é"),
        (Answer(200, "é".encode(), {"content-type": "text/csv; charset=no-such"}), "é"),
        (Answer(200, "é".encode(), {"content-type": "text/csv; charset=hex"}), "é"),
        (Answer(200, b"<a/>", {"content-type": "application/xml"}), "<a/>"),
        (Answer(200, b'{"a": 1}'), {"a": 1}),
        (Answer(200, b"no json"), "no json"),
        (
            Answer(200, b"text all the same", {"content-type": "application/octet-stream"}),
            "text all the same",
        ),
    ],
)
def test_what_an_answer_holds_is_the_value(tmp_path: Path, answer: Answer, value: Any) -> None:
    with answering(answer) as service:
        outcome = ran(tmp_path, service, price_usd=0.25)
    assert outcome == Outcome(value=value, spend=Spend(cost=250_000))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Answer(200, b"\x89PNG\r\n\x1a\n\0", {"content-type": "image/png"}),
            "9 bytes of image/png",
        ),
        (Answer(200, b"\xff\xfe"), "2 bytes of an unknown type"),
        (Answer(200, b"a\0b", {"content-type": "text/plain"}), "no text"),
        (Answer(200, b"{", {"content-type": "application/json"}), "is JSON and is none"),
        (Answer(200, b"[NaN]", {"content-type": "application/json"}), "is JSON and is none"),
        (Answer(200, b"x" * 101, {"content-type": "text/plain"}), "more than 100 bytes"),
    ],
)
def test_what_is_no_value_is_the_services_fault(tmp_path: Path, answer: Answer, said: str) -> None:
    with answering(answer) as service:
        outcome = ran(tmp_path, service, max_bytes=100)
    assert kinds(outcome) == ("EXEC_ERR", "worker")
    assert said in outcome.value


def test_what_grows_when_it_is_unpacked_is_held_to_the_limit(tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress(b"x" * 2_000_000)
    headers = {"content-type": "text/plain", "content-encoding": "gzip"}
    with answering(Answer(200, packed, headers)) as service:
        outcome = ran(tmp_path, service)
    assert "more than 1048576 bytes" in outcome.value


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        *((code, "PARSE_ERR", "policy") for code in (400, 406, 411, 413, 414, 415, 418, 422, 428)),
        *((code, "EXEC_ERR", "worker") for code in (404, 409, 410, 412, 423)),
        *((code, "EXEC_ERR", "infrastructure") for code in (401, 402, 403, 405, 407, 501)),
        *((code, "EXEC_ERR", "infrastructure") for code in (408, 425, 429, 500, 502, 503, 504)),
        *((code, "EXEC_ERR", "infrastructure") for code in (300, 304)),
    ],
)
def test_what_a_status_means(tmp_path: Path, code: int, status: str, fault: str) -> None:
    body = b"" if code == 304 else {"detail": "limit must be at most 50"}
    with answering(Answer(code, body)) as service:
        outcome = ran(tmp_path, service)
    assert kinds(outcome) == (status, fault)
    assert f"op: HTTP {code}" in outcome.value
    assert code == 304 or "limit must be at most 50" in outcome.value


def test_where_no_argument_chose_the_path_its_absence_is_the_set_ups_fault(tmp_path: Path) -> None:
    with answering(Answer(404)) as service:
        outcome = ran(tmp_path, service, ("/a", "get", {"operationId": "op"}), arguments={})
    assert kinds(outcome) == ("EXEC_ERR", "infrastructure")


@pytest.mark.parametrize(
    ("later", "said"), [("30", "after 30 seconds"), ("Fri, 1 Jan", "Fri, 1 Jan")]
)
def test_when_to_try_again_is_said(tmp_path: Path, later: str, said: str) -> None:
    with answering(Answer(429, b"", {"retry-after": later})) as service:
        assert said in ran(tmp_path, service).value


def test_a_long_refusal_is_cut_and_a_page_left_out(tmp_path: Path) -> None:
    with answering(Answer(400, b"x" * 5_000)) as service:
        assert "[cut: 5000 characters]" in ran(tmp_path, service).value
    page = Answer(400, b"<html>no</html>", {"content-type": "text/html"})
    with answering(page) as service:
        assert ran(tmp_path, service).value == "op: HTTP 400."


def test_a_service_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    with answering(None) as service:
        pass
    outcome = ran(tmp_path, service, price_usd=1)
    assert kinds(outcome) == ("EXEC_ERR", "infrastructure")
    assert f"op can't be asked at {service.root}/v1: ConnectError: " in outcome.value
    assert outcome.spend == Spend()


def test_a_service_that_hangs_up_may_have_done_it(tmp_path: Path) -> None:
    with answering(None) as service:
        outcome = ran(tmp_path, service, price_usd=1)
    assert kinds(outcome) == ("EXEC_ERR", "infrastructure")
    assert outcome.spend == Spend(cost=1_000_000)


def test_a_service_that_is_silent_is_a_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with answering(None) as service:
            outcome = ran(tmp_path, service, base_url=url, timeout_s=0.3, price_usd=1)
    assert kinds(outcome) == ("TIMEOUT", "worker")
    assert "longer than 0.3 s" in outcome.value
    assert outcome.spend == Spend(cost=1_000_000)


def test_arguments_that_cant_be_written_are_the_policys_fault(tmp_path: Path) -> None:
    with answering(Answer(200)) as service:
        outcome = ran(tmp_path, service, arguments={"id": "../admin"})
        assert service.asked == []
    assert kinds(outcome) == ("PARSE_ERR", "policy")


def test_a_document_that_is_gone_where_it_works_is_the_hosts_fault(tmp_path: Path) -> None:
    path = put(tmp_path, described(GET))
    adapter = host(draft("openapi:op", {"document": path}))
    Path(path).unlink()
    outcome = asyncio.run(adapter.run(attempt(id="7")))
    assert kinds(outcome) == ("EXEC_ERR", "infrastructure")
    assert "can't be read" in outcome.value


# ------------------------------------------------------------------------------------ what is sent


def test_everything_goes_where_the_document_says(tmp_path: Path) -> None:
    arguments = {"id": "a/b", "q": "x y", "X-Mode": "m", "seen": "1"}
    with answering(Answer(200)) as service:
        ran(tmp_path, service, arguments=arguments, headers={"X-Tenant": "t"})
        (asked,) = service.asked
    assert (asked.method, asked.path) == ("GET", "/v1/things/a%2Fb?q=x%20y")
    assert {name: asked.headers[name] for name in ("x-mode", "x-tenant", "cookie")} == {
        "x-mode": "m",
        "x-tenant": "t",
        "cookie": "seen=1",
    }
    assert asked.headers["user-agent"] == "podium"


def test_a_form_with_files_is_one_that_servers_read(tmp_path: Path) -> None:
    form = {"type": "object", "properties": {"file": TEXT | {"format": "binary"}, "n": TEXT}}
    said = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}
    with answering(Answer(200)) as service:
        operation = ("/up", "post", {"operationId": "op"} | said)
        ran(tmp_path, service, operation, arguments={"file": "data", "n": "1"})
        (asked,) = service.asked
    assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="file"' in asked.body
    assert b"\r\n\r\ndata\r\n" in asked.body


def test_what_one_attempt_is_given_is_not_the_next_ones(tmp_path: Path) -> None:
    with answering(Answer(200, b"", {"set-cookie": "session=1; Path=/"})) as service:
        options = {"document": put(tmp_path, described(GET)), "base_url": service.root}

        async def twice() -> None:
            adapter = host(draft("openapi:op", options))
            for _ in range(2):
                await adapter.run(attempt(id="7"))
            await adapter.close()

        asyncio.run(twice())
        assert ["cookie" in asked.headers for asked in service.asked] == [False, False]


SCHEMES: Final = {
    "inHeader": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "inQuery": {"type": "apiKey", "in": "query", "name": "key"},
    "inCookie": {"type": "apiKey", "in": "cookie", "name": "key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "oauth": {"type": "oauth2", "flows": {}},
}


def secured(asked: list[dict[str, list[str]]] | None = None, **more: Any) -> dict[str, Any]:
    return {"components": {"securitySchemes": SCHEMES}, "security": asked or []} | more


@pytest.mark.parametrize(
    ("scheme", "value", "seen"),
    [
        ("inHeader", "k-1", lambda asked: asked.headers["x-key"] == "k-1"),
        ("inQuery", "k&1", lambda asked: asked.path.endswith("?key=k%261")),
        ("inCookie", "k-1", lambda asked: asked.headers["cookie"] == "key=k-1"),
        ("bearer", "t-1", lambda asked: asked.headers["authorization"] == "Bearer t-1"),
        ("basic", "me:pw", lambda asked: asked.headers["authorization"] == "Basic bWU6cHc="),
        ("oauth", "t-1", lambda asked: asked.headers["authorization"] == "Bearer t-1"),
    ],
)
def test_a_credential_goes_where_its_scheme_says(
    tmp_path: Path, scheme: str, value: str, seen: Callable[[Asked], bool]
) -> None:
    with answering(Answer(200)) as service:
        document = secured([{scheme: []}])
        ran(tmp_path, service, document=document, security={scheme: value})
        assert seen(service.asked[0])


@pytest.mark.parametrize(
    ("accepted", "given", "sent"),
    [
        ([{"inHeader": []}], {"bearer": "t"}, set()),
        ([{"inHeader": []}, {"bearer": []}], {"bearer": "t"}, {"authorization"}),
        (
            [{"inHeader": [], "bearer": []}],
            {"bearer": "t", "inHeader": "k"},
            {"authorization", "x-key"},
        ),
        ([{"inHeader": []}, {"bearer": []}], {"bearer": "t", "inHeader": "k"}, {"x-key"}),
        ([], {"bearer": "t"}, set()),
    ],
)
def test_only_what_an_operation_asks_for_is_sent(
    tmp_path: Path, accepted: Any, given: dict[str, str], sent: set[str]
) -> None:
    with answering(Answer(200)) as service:
        ran(tmp_path, service, document=secured(accepted), security=given)
        assert service.asked[0].headers.keys() & {"authorization", "x-key"} == sent


def test_a_refused_credential_names_what_the_document_asks_for(tmp_path: Path) -> None:
    with answering(Answer(401)) as service:
        outcome = ran(tmp_path, service, document=secured([{"inHeader": []}, {"bearer": []}]))
    assert "the document asks for inHeader or bearer" in outcome.value


def test_a_secret_is_sent_and_never_said(tmp_path: Path) -> None:
    def echo(asked: Asked) -> Answer:
        return Answer(400, {"your key": asked.headers["x-key"]})

    with answering(echo) as service:
        document = described(GET, **secured([{"inHeader": []}]))
        options = {
            "document": put(tmp_path, document),
            "base_url": service.root,
            "security": {"inHeader": "${secret:SHOP}"},
        }
        secrets = Secrets(None, ("SHOP",), {"SHOP": "s3cret-value"})
        adapter = host(secrets.options(draft("openapi:op", options)))

        async def work() -> Outcome:
            try:
                return await work_on(attempt(id="7"), adapter, secrets)
            finally:
                await adapter.close()

        outcome = asyncio.run(work())
        assert service.asked[0].headers["x-key"] == "s3cret-value"
    assert "s3cret" not in outcome.value
    assert "${secret:SHOP}" in outcome.value


# --------------------------------------------------------------------------------------- redirects


@contextmanager
def two(code: int, location: str) -> Iterator[tuple[Service, Service]]:
    """A service that sends on to ``location``, and another on another port."""
    with answering(Answer(200, "arrived")) as other:

        def answer(asked: Asked) -> Answer:
            if "/there" in asked.path:
                return Answer(200, "arrived")
            return Answer(code, headers={"location": location.format(other=other.root)})

        with answering(answer) as first:
            yield first, other


SECRETS: Final[dict[str, Any]] = {
    "security": {"bearer": "t-1", "inHeader": "k-1", "inQuery": "k-2", "inCookie": "k-3"},
    "headers": {"X-Tenant": "t"},
    "document": secured([{"bearer": [], "inHeader": [], "inQuery": [], "inCookie": []}]),
}


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_what_is_sent_on_within_a_service_is_followed(tmp_path: Path, code: int) -> None:
    with two(code, "/there") as (first, _):
        outcome = ran(tmp_path, first, **SECRETS)
        assert outcome.value == "arrived"
        assert [asked.headers["x-key"] for asked in first.asked] == ["k-1", "k-1"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_nothing_of_ours_goes_to_another_server(tmp_path: Path, code: int) -> None:
    with two(code, "{other}/x") as (first, other):
        arguments = {"id": "7", "X-Mode": "m", "seen": "1"}
        assert ran(tmp_path, first, arguments=arguments, **SECRETS).value == "arrived"
        (asked,) = other.asked
    assert asked.path == "/x"
    assert not asked.headers.keys() & {
        *("authorization", "x-key", "cookie", "x-tenant", "x-mode", "traceparent")
    }


def test_what_came_from_another_server_gets_nothing_back(tmp_path: Path) -> None:
    """Sent away and back again: whoever sent it back chose the address."""
    with answering(None) as other:

        def answer(asked: Asked) -> Answer:
            if "/back" in asked.path:
                return Answer(200, "arrived")
            return Answer(302, headers={"location": f"{other.root}/x"})

        with answering(answer) as first:
            other.answer = lambda _: Answer(302, headers={"location": f"{first.root}/back"})
            assert ran(tmp_path, first, **SECRETS).value == "arrived"
            assert "x-key" not in first.asked[-1].headers


POST: Final = (
    "/a",
    "post",
    {"operationId": "op", "requestBody": {"content": {"application/json": {"schema": TEXT}}}},
)


@pytest.mark.parametrize(
    ("code", "location", "followed", "method"),
    [
        (307, "/there", True, "POST"),
        (308, "/there", True, "POST"),
        (303, "/there", True, "GET"),
        (301, "/there", False, ""),
        (302, "/there", False, ""),
        (307, "{other}/x", False, ""),
        (303, "{other}/x", False, ""),
        (307, "file:///etc/passwd", False, ""),
        (307, "", False, ""),
    ],
)
def test_what_does_something_is_sent_on_only_as_it_was(
    tmp_path: Path, code: int, location: str, followed: bool, method: str
) -> None:
    with two(code, location) as (first, other):
        outcome = ran(tmp_path, first, POST, arguments={"body": "data"})
        assert other.asked == []
        if followed:
            assert outcome.value == "arrived"
            assert first.asked[-1].method == method
            assert first.asked[-1].body == (b'"data"' if method == "POST" else b"")
        else:
            assert kinds(outcome) == ("EXEC_ERR", "infrastructure")
            assert "which is not followed" in outcome.value or not location


def test_a_circle_ends(tmp_path: Path) -> None:
    with two(302, "/again") as (first, _):
        outcome = ran(tmp_path, first)
    assert kinds(outcome) == ("EXEC_ERR", "infrastructure")
    assert "more than 5 times" in outcome.value


# ---------------------------------------------------------------------------------- in a pool file


def pool(folder: Path, service: Service, options: str = "") -> Path:
    put(folder, described(GET, **secured([{"bearer": []}])), "shop.json")
    path = folder / "pool.toml"
    path.write_text(
        '[[worker]]\nname = "thing"\nadapter = "openapi:op"\nsecrets = ["SHOP"]\n'
        f'[worker.options]\ndocument = "shop.json"\nbase_url = "{service.root}"\n'
        'security = { bearer = "${secret:SHOP}" }\n'
        'headers = { Authorization = "Bearer ${secret:SHOP}" }\n' + options
    )
    return path


@pytest.fixture
def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PODIUM_SECRET_SHOP", "a-long-secret")


@pytest.mark.usefixtures("_beside")
def test_a_pool_file_names_a_document_beside_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("shop.json").write_text("{}")
    with answering(Answer(200)) as service:
        loaded = poolfile.load(pool(tmp_path, service))
    (spec,) = loaded.pool.workers
    assert (spec.name, spec.adapter) == ("thing", "openapi:op")
    assert list(spec.parameters["properties"]) == ["id", "q", "X-Mode", "seen"]


@pytest.mark.usefixtures("_beside")
def test_worker_check_says_whether_the_service_is_there(tmp_path: Path) -> None:
    with answering(Answer(200)) as service:
        path = pool(tmp_path, service)
        (finding,) = asyncio.run(poolcheck.check(path))
        assert (finding.state, finding.found) == ("ok", f"GET /things/{{id}} at {service.root}")
        assert service.asked == []
    (finding,) = asyncio.run(poolcheck.check(path))
    assert finding.state == "failed"
    assert f"uses the service {service.root}, which refuses" in finding.found
    assert finding.hint == "Start the server, or correct base_url in the pool file."
