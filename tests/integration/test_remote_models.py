"""A model of ours over a real broker: one process hosts it, conductors share its batches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.bus import NatsBus
from actors.models.question import Question, Sampling
from actors.models.remote import MAX_BYTES, RemoteModels, Service, name_of
from actors.models.serving import Batching
from actors.policies.local import Options, spec_of
from actors.programs import Connection, Declared, Program, start
from protocol import subjects
from protocol.decisions import Reply
from protocol.errors import InvalidData
from replay import model_versions
from replay.broker import Broker
from tests.broker import One, r1
from tests.models import model, question, save, tiny, tokenizer

LONG_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[One]:
    with r1() as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny(tmp_path / "tiny")


class Brokers:
    """Connections that end with the test."""

    def __init__(self, server: One) -> None:
        self.server = server
        self.opened: list[Broker] = []

    async def open(self) -> Broker:
        """One more, with a conductor's rights."""
        user, password = self.server.credentials("conductor")
        self.opened.append(await Broker.connect(self.server.url, user=user, password=password))
        return self.opened[-1]


@pytest.fixture
async def brokers(server: One) -> AsyncIterator[Brokers]:
    brokers = Brokers(server)
    yield brokers
    for broker in brokers.opened:
        await broker.close()


@contextlib.asynccontextmanager
async def hosted(brokers: Brokers, folder: Path, rows: int = 16) -> AsyncIterator[Service]:
    """A service of its own connection."""
    service = Service(await brokers.open(), str(folder), Batching(rows=rows), "model-1")
    await service.start(LONG_S)
    try:
        yield service
    finally:
        await service.stop()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - of things that have no event
        await asyncio.sleep(0)


async def being_sampled(models: RemoteModels, service: Service) -> asyncio.Task[Reply]:
    """A long reply, once it is at work."""
    asked = models.ask(service.place, question(max_tokens=1_900), LONG_S)
    asking = asyncio.create_task(asked)
    await until(lambda: service.server.asked == 1)
    return asking


async def test_two_conductors_share_one_server_and_its_batches(
    brokers: Brokers, folder: Path
) -> None:
    async with hosted(brokers, folder) as service:
        conductors = [RemoteModels(await brokers.open()) for _ in range(2)]
        asked = [question(f"{place}", seed=place, max_tokens=40) for place in range(6)]
        tasks = [
            asyncio.create_task(each.ask(str(folder), one, LONG_S))
            for one in asked
            for each in conductors
        ]
        await until(lambda: service.server.asked > len(asked))
        replies = await asyncio.gather(*tasks)
        assert all(reply.status == "OK" for reply in replies)
        assert service.server.counts["asked"] == 12
        for first, second in zip(replies[::2], replies[1::2], strict=True):
            assert first.text == second.text, "the same question, whoever asks it"


async def test_what_nobody_hosts_is_said_at_once(brokers: Brokers, folder: Path) -> None:
    models = RemoteModels(await brokers.open())
    reply = await models.ask(str(folder), question(), LONG_S)
    assert (reply.status, reply.retry) == ("EXEC_ERR", True)
    assert f"nobody hosts the model in {folder}" in reply.error


async def test_a_question_that_is_taken_back_is_taken_back_from_the_server(
    brokers: Brokers, folder: Path
) -> None:
    async with hosted(brokers, folder) as service:
        models = RemoteModels(await brokers.open())
        asking = await being_sampled(models, service)
        asking.cancel()
        await until(lambda: service.server.counts["withdrawn"] == 1)
        assert (await models.ask(str(folder), question(), LONG_S)).status == "OK"


async def test_a_server_that_begins_has_what_was_asked_before_asked_again(
    brokers: Brokers, folder: Path
) -> None:
    async with hosted(brokers, folder) as service:
        models = RemoteModels(await brokers.open())
        asking = await being_sampled(models, service)
        async with hosted(brokers, folder):
            reply = await asking
        assert (reply.status, reply.retry) == ("EXEC_ERR", True)
        assert "has begun anew" in reply.error


async def test_a_question_that_no_message_holds_is_refused(brokers: Brokers, folder: Path) -> None:
    models = RemoteModels(await brokers.open())
    reply = await models.ask(str(folder), question("x" * MAX_BYTES), LONG_S)
    assert (reply.status, reply.retry) == ("EXEC_ERR", False)
    assert "bytes" in reply.error


async def test_no_reply_in_time_is_a_time_out(brokers: Brokers, folder: Path) -> None:
    async with hosted(brokers, folder):
        models = RemoteModels(await brokers.open())
        reply = await models.ask(str(folder), question(max_tokens=1_900), 0.02)
        assert reply.status == "TIMEOUT"


async def test_what_is_no_question_is_set_aside(brokers: Brokers, folder: Path) -> None:
    async with hosted(brokers, folder) as service:
        broker = await brokers.open()
        subject = subjects.model(name_of(str(folder)), "ask")
        await broker.client.publish(subject, b"{}", reply=broker.client.new_inbox())
        await until(lambda: service.server.counts["aside"] == 1)
        asked: dict[str, Any] = {"id": "1", "within_ms": 1_000}
        data = msgspec.json.encode({**asked, "question": question()})
        await broker.client.publish(subject, data, reply="log.0.somebody.c")
        models = RemoteModels(broker)
        assert (await models.ask(str(folder), question(), LONG_S)).status == "OK"
        assert service.server.counts["asked"] == 1, "nobody has it write where he likes"
        broken = await models.ask(str(folder), Question(messages=({"content": "hi"},)), LONG_S)
        assert (broken.status, broken.error) == ("EXEC_ERR", "KeyError: 'role'")


def declared(server: One, folder: Path) -> Declared:
    user, password = server.credentials("conductor")
    return Declared(
        name="model-1",
        kind="model",
        connection=Connection(url=server.url, user=user, password=password),
        lease_s=2.0,
        endpoints=(spec_of(Options(folder=str(folder))),),
    )


async def test_a_model_s_process_answers_and_says_how_it_is(
    server: One, brokers: Brokers, folder: Path
) -> None:
    program: Program = await start(declared(server, folder))
    try:
        health = await program.health()
        assert (health.queues, health.connected, health.failed) == ({}, True, "")
        broker = await brokers.open()
        models = RemoteModels(broker)
        asked = Question(
            messages=({"role": "user", "content": "hi"},), sampling=Sampling(max_tokens=3)
        )
        assert (await models.ask(str(folder), asked, LONG_S)).version.startswith("tiny/base@")
        words = tokenizer()
        model_versions.publish(folder, lambda path: save(path, model(words, 4), words))
        reply = await models.ask(str(folder), asked, LONG_S)
        while not reply.version.startswith("tiny/000001@"):
            reply = await models.ask(str(folder), asked, LONG_S)
        (said,) = [
            msgspec.json.decode(each) for each in await NatsBus(broker).ask("stats", b"", 0.5)
        ]
        assert (said["kind"], said["actor"], said["version"]) == ("model", "model-1", "000001")
        assert said["counts"]["swapped"] == 1
    finally:
        await program.stop()


async def test_a_model_s_process_says_why_it_can_t_begin(server: One, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(InvalidData, match="can't be loaded"):
        await start(declared(server, folder))


def test_a_model_s_subjects_are_tokens_of_the_broker(folder: Path) -> None:
    subject = subjects.model(name_of(f"{folder} *.>"), "ask")
    assert len(subject.split(".")) == 3
    assert not {" ", "*", ">"} & set(subject)
