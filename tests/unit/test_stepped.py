"""Models that are driven by whoever asks: the replies of a server, without its thread."""

import asyncio
from pathlib import Path

import pytest

from actors.models.loading import Loaded, load
from actors.models.server import PolicyServer
from actors.models.serving import Batching
from actors.models.stepped import Stepped
from protocol.decisions import Reply
from protocol.model_versions import BASE
from replay import model_folder
from tests.models import question, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def loaded(folder: Path) -> Loaded:
    return load(model_folder.find(folder, BASE), Batching())


async def driven(models: Stepped, *asking: "asyncio.Task[Reply]") -> list[Reply]:
    """The replies, by as many steps as they take."""
    await asyncio.sleep(0)
    while models.step():  # noqa: ASYNC110 - what is waited for is what the step does
        await asyncio.sleep(0)
    return await asyncio.gather(*asking)


async def test_its_replies_are_those_of_a_server(folder: Path, loaded: Loaded) -> None:
    models = Stepped({str(folder): loaded}, Batching(rows=3))
    asked = [question("word " * place, seed=place) for place in range(8)]
    tasks = [asyncio.create_task(models.ask(str(folder), each, 1.0)) for each in asked]
    found = await driven(models, *tasks)
    server = PolicyServer(folder)
    await server.start()
    for each, reply in zip(asked, found, strict=True):
        wanted = await server.ask(each, 60.0)
        assert (reply.text, reply.version, reply.usage) == (
            wanted.text,
            wanted.version,
            wanted.usage,
        )
        assert reply.sampled is not None
        assert wanted.sampled is not None
        assert (reply.sampled.weights, reply.sampled.seed) == (
            wanted.sampled.weights,
            wanted.sampled.seed,
        )
        assert reply.latency_ms == 0
    await server.stop()
    assert models.idle
    assert models.sampled == sum(reply.usage.output for reply in found)


async def test_nothing_is_sampled_between_two_steps(loaded: Loaded) -> None:
    models = Stepped({"m": loaded})
    task = asyncio.create_task(models.ask("m", question(max_tokens=2), 1.0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    assert models.step() == 1
    with pytest.raises(RuntimeError, match="while replies"):
        models.refresh("2")
    await driven(models, task)
    models.refresh("2", "hash")
    again = asyncio.create_task(models.ask("m", question(max_tokens=2), 1.0))
    (reply,) = await driven(models, again)
    assert reply.version == "m/2@hash"


async def test_failures_are_replies_and_a_question_can_be_taken_back(loaded: Loaded) -> None:
    models = Stepped({"m": loaded})
    assert "nobody has the model" in (await models.ask("other", question(), 1.0)).error
    assert not (await models.ask("m", question("x" * 9_000), 1.0)).retry
    task = asyncio.create_task(models.ask("m", question(max_tokens=500), 1.0))
    await asyncio.sleep(0)
    models.step()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    models.step()
    assert models.idle


async def test_a_step_that_fails_is_told_to_who_asks(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Stepped({"m": loaded})
    monkeypatch.setattr(loaded, "rows", lambda: 1 / 0)
    task = asyncio.create_task(models.ask("m", question(), 1.0))
    (reply,) = await driven(models, task)
    assert (reply.status, "ZeroDivisionError" in reply.error) == ("EXEC_ERR", True)
