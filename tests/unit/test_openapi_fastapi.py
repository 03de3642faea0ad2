"""A service made with FastAPI, which describes itself: each of its operations is a worker.

Nothing of it was written for Podium: the document is FastAPI's, and so is what reads the requests.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import fastapi
import pytest
import uvicorn
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, Field, field_validator

from actors.ports import Attempt, Outcome
from actors.workers import host
from actors.workers.openapi import OperationAdapter
from protocol.actions import WorkerSpec
from protocol.schemas import check_schema, misfit

app = fastapi.FastAPI(title="A shop")

key = APIKeyHeader(name="X-Shop-Key")

basic = HTTPBasic()


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Article(BaseModel):
    name: str = Field(max_length=10)
    price: float = Field(gt=0, description="In euros.")
    colours: list[Colour] = []
    parts: list["Article"] = []

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        if name == "unicorn":
            raise ValueError("there are no unicorns: choose another name")
        return name


class Stored(Article):
    id: int


@app.put("/shops/{shop}/articles/{id}")
def store(
    shop: str,
    id: int,  # noqa: A002
    article: Article,
    tag: Annotated[list[str], fastapi.Query()] = [],  # noqa: B006
    dry: bool = False,
    x_mode: Annotated[str | None, fastapi.Header()] = None,
    seen: Annotated[str | None, fastapi.Cookie()] = None,
) -> dict[str, Any]:
    """Stores an article."""
    given = {"shop": shop, "id": id, "tag": tag, "dry": dry, "x_mode": x_mode, "seen": seen}
    return given | {"article": article.model_dump(mode="json")}


@app.post("/sum")
def total(numbers: list[float], times: Annotated[int, fastapi.Body()] = 1) -> float:
    return sum(numbers) * times


@app.post("/mean")
def mean(numbers: Annotated[list[float], fastapi.Body()]) -> float:
    return sum(numbers) / len(numbers)


@app.post("/login")
def login(
    user: Annotated[str, fastapi.Form()], groups: Annotated[list[int], fastapi.Form()]
) -> str:
    return f"{user} {groups}"


@app.post("/upload")
async def upload(file: fastapi.UploadFile, note: Annotated[str, fastapi.Form()]) -> str:
    return f"{(await file.read()).decode()} {note}"


@app.get("/mine/{id}")
def mine(id: int, shop: Annotated[str, fastapi.Depends(key)]) -> str:  # noqa: A002
    if id == 0:
        raise fastapi.HTTPException(404, "there is no 0")
    return f"{id} of {shop}"


@app.get("/me")
def me(who: Annotated[HTTPBasicCredentials, fastapi.Depends(basic)]) -> str:
    return f"{who.username}:{who.password}"


@app.get("/files/{path:path}")
def file(path: str) -> fastapi.Response:
    return fastapi.Response(path.encode(), media_type="text/plain")


@app.get("/slashed/")
def slashed(request: fastapi.Request) -> str:
    return request.url.path


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, WorkerSpec]]:
    """All operations of the running service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
        serving = threading.Thread(target=server.run, args=([listening],))
        serving.start()
        try:
            options = {
                "document": f"http://127.0.0.1:{listening.getsockname()[1]}/openapi.json",
                "security": {"APIKeyHeader": "shop-7", "HTTPBasic": "me:pw"},
            }
            found = OperationAdapter.discover("openapi", options)
            yield {spec.name.partition("_")[0]: spec for spec in found}
        finally:
            server.should_exit = True
            serving.join()


def ran(spec: WorkerSpec, **arguments: Any) -> Outcome:
    """The outcome of a call that fits the worker's schema."""
    check_schema(spec.parameters, spec.name)
    assert misfit(spec.parameters, arguments) == ""

    async def work() -> Outcome:
        adapter = host(spec)
        try:
            return await adapter.run(
                Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=20)
            )
        finally:
            await adapter.close()

    return asyncio.run(work())


def test_each_operation_is_found(workers: dict[str, WorkerSpec]) -> None:
    assert list(workers) == [
        *("store", "total", "mean", "login", "upload", "mine", "me", "file", "slashed"),
    ]
    assert workers["store"].description == "Stores an article."
    assert workers["mine"].description == "Mine"


def test_every_place_at_once(workers: dict[str, WorkerSpec]) -> None:
    chair = {"name": "chair", "price": 10.5, "colours": ["red"]}
    leg = {"name": "leg", "price": 1.0}
    given = {"shop": "a b", "id": 7, "tag": ["x", "y&z"], "dry": True, "seen": "a;b"}
    value = ran(workers["store"], **given, **chair, **{"x-mode": "m", "parts": [leg]}).value
    assert value.pop("article") == chair | {"parts": [leg | {"colours": [], "parts": []}]}
    assert value == given | {"x_mode": "m", "seen": "a%3Bb"}


def test_what_the_schema_says_holds_before_anything_is_sent(workers: dict[str, WorkerSpec]) -> None:
    parameters = workers["store"].parameters
    fits = {"shop": "s", "id": 1, "name": "leg", "price": 1}
    assert misfit(parameters, fits) == ""
    assert "'name' is required" in misfit(parameters, {"shop": "s", "id": 1, "price": 1})
    wrongs: list[dict[str, Any]] = [{"id": "x"}, {"price": 0}, {"parts": [{}]}, {"more": 1}]
    for wrong in [*wrongs, {"colours": ["green"]}]:
        assert misfit(parameters, fits | wrong) != ""


def test_what_only_the_service_knows_is_told_to_the_policy(workers: dict[str, WorkerSpec]) -> None:
    outcome = ran(workers["store"], shop="s", id=1, name="unicorn", price=1)
    assert (outcome.status, outcome.fault) == ("PARSE_ERR", "policy")
    assert "choose another name" in outcome.value


def test_bodies_of_every_kind(workers: dict[str, WorkerSpec]) -> None:
    assert ran(workers["total"], numbers=[1, 2], times=3).value == 9
    assert ran(workers["mean"], body=[1, 2]).value == 1.5
    assert ran(workers["login"], user="Ada & co", groups=[1, 2]).value == "Ada & co [1, 2]"
    assert ran(workers["upload"], file="data é", note="n").value == "data é n"


def test_credentials(workers: dict[str, WorkerSpec]) -> None:
    assert "X-Shop-Key" not in workers["mine"].parameters["properties"]
    assert ran(workers["mine"], id=3).value == "3 of shop-7"
    assert ran(workers["me"]).value == "me:pw"


def test_what_is_not_there_is_the_services_word(workers: dict[str, WorkerSpec]) -> None:
    outcome = ran(workers["mine"], id=0)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
    assert "there is no 0" in outcome.value


def test_paths_in_a_path(workers: dict[str, WorkerSpec]) -> None:
    assert ran(workers["file"], path="a/b c.txt").value == "a/b c.txt"


def test_a_service_that_adds_a_slash_is_followed(workers: dict[str, WorkerSpec]) -> None:
    assert ran(workers["slashed"]).value == "/slashed/"
