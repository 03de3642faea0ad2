"""What strangers say to the broker, one lie at a time, each against the real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from nats.aio.msg import Msg

from actors.bus import NatsBus
from protocol import subjects
from protocol.actions import BlobRef
from protocol.codec import blob_ref
from protocol.errors import InvalidData, PodiumError
from protocol.subjects import run_id
from replay.broker import Broker, Unanswered
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams
from tests.broker import One, r1, settled
from tests.stranger import Stranger

LIMIT_S = 20.0
"""Seconds for what takes milliseconds on an idle machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[One]:
    with r1() as one:
        yield one


@pytest.fixture
async def broker(server: One) -> AsyncIterator[Broker]:
    user, password = server.credentials("conductor")
    broker = await Broker.connect(server.url, user=user, password=password)
    await ensure_streams(broker)
    yield broker
    await broker.close()


@pytest.fixture
async def stranger(server: One) -> AsyncIterator[Stranger]:
    async with Stranger.connect(server) as stranger:
        yield stranger


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        (b"ear.a", b"ab"),
        (b"ear.a", b"NATS/1.0"),
        (b"ear.a", b"NATS/1.0 \xff\xfe\xfd\r\n\r\n"),
        (b"ear.a", b"NATS/1.0 404 \xff\xfe\r\nNo: way\r\n\r\n"),
        (b"ear.a", b"NATS/1.0\r\n\xff: \xff\r\n:\r\n\r\n"),
        (b"ear.\xff\xfe", None),
    ],
)
async def test_no_message_deafens_a_connection(
    broker: Broker, stranger: Stranger, subject: bytes, headers: bytes | None
) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        heard.put_nowait(message.data)

    await broker.client.subscribe("ear.*", cb=hear)
    await settled(broker.client)
    stranger.say(subject, b"strange", headers)
    stranger.say(b"ear.a", b"plain")
    async with asyncio.timeout(LIMIT_S):
        assert [await heard.get(), await heard.get()] == [b"strange", b"plain"]


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0\r\nStatus: 404\r\n\r\n",
        b"NATS/1.0\r\nStatus: 500\r\n\r\n",
        b"NATS/1.0 404\r\n\r\n",
        b"NATS/1.0 204\r\nNats-Num-Pending: 0\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: 999999999\r\n\r\n",
        b"NATS/1.0\r\nNats-Sequence: many\r\n\r\n",
        b"not headers at all",
    ],
)
async def test_no_header_hides_the_messages_behind_it(
    broker: Broker, stranger: Stranger, headers: bytes
) -> None:
    subject = f"log.0.{run_id(headers[-12:])}.i"
    stranger.tell("stored", subject.encode(), b"strange", headers)
    await stranger.settled()
    seq = await broker.append(subject, b"plain")
    read = await broker.read("LOG-0", subject)
    assert [stored.data for stored in read] == [b"strange", b"plain"]
    assert read[-1].seq == seq


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff", b"{}", b"[]", b'{"seq": 0}', b'{"seq": -1}', b"[" * 100_000, b'{"a":' * 100_000],
)
async def test_an_answer_that_is_none_is_no_answer(broker: Broker, answer: bytes) -> None:
    async def lie(message: Msg) -> None:
        await message.respond(answer)

    subscription = await broker.client.subscribe("liar", cb=lie)
    await settled(broker.client)
    with pytest.raises(Unanswered):
        await broker.append("liar", b"commit")
    if not answer.startswith(b'{"s') and answer != b"{}":
        with pytest.raises(Unanswered):
            await broker.request("liar")
    assert broker.counts["strange_answers"] >= 1
    await subscription.unsubscribe()


async def test_subjects_that_name_no_run_are_no_runs(broker: Broker, stranger: Stranger) -> None:
    log = JetStreamLog(broker)
    mine = run_id(b"listed..")
    await log.post(mine, b"{}")
    for name in (
        b"x",
        b"*",
        b">",
        b'a"b',
        b"\xff",
        b"ILOU",
        mine.encode() + b"x",
        b"0" * 12 + b"7",
    ):
        stranger.tell("stored", b"log.0." + name + b".c", b"strange")
    await stranger.settled()
    runs = await log.runs()
    assert mine in runs
    for run in runs:
        await log.read(run)
    assert not [run for run in runs if not run.endswith("0")]


@pytest.mark.parametrize(
    "ref",
    [
        BlobRef("0" * 64, 10**15),
        BlobRef("0" * 64, -1),
        BlobRef("*", 5),
        BlobRef(">", 5),
        BlobRef("", 5),
        BlobRef("a b\r\nPUB x", 5),
        BlobRef("F" * 64, 5),
    ],
)
async def test_a_reference_that_names_no_blob_is_invalid(broker: Broker, ref: BlobRef) -> None:
    with pytest.raises(InvalidData):
        await JetStreamLog(broker).get_blob(ref)


async def test_a_blob_is_written_once(broker: Broker, stranger: Stranger) -> None:
    log = JetStreamLog(broker)
    ref = await log.put_blob(b"the truth")
    stranger.tell("blob", f"blobs.{ref.sha256}.0".encode(), b"a lie")
    await stranger.settled()
    assert stranger.refused["blob"] == 1
    assert await log.get_blob(ref) == b"the truth"
    assert await log.put_blob(b"the truth") == ref == blob_ref(b"the truth")


async def test_questions_are_answered_to_inboxes_only(broker: Broker, stranger: Stranger) -> None:
    """Else whoever may ask for stats could write to a run with a conductor's rights."""
    bus = NatsBus(broker)
    run = run_id(b"victim..")

    async def listener(_: bytes) -> bytes:
        return b"stats"

    await bus.listen("asked", listener)
    await settled(broker.client)
    stranger.say(b"asked", b"", None, subjects.commits(run).encode())
    stranger.say(b"asked", b"", None, b"said.answer")
    await stranger.sync()
    assert await bus.ask("asked", b"", 0.2) == [b"stats"]
    assert await JetStreamLog(broker).tail(run) is None


async def test_a_run_of_a_shard_that_is_not_there_is_an_error(broker: Broker) -> None:
    log = JetStreamLog(broker)
    async with asyncio.timeout(LIMIT_S):
        for ask in (log.tail, log.read, log.inbox):
            with pytest.raises(PodiumError, match="shard"):
                await ask(run_id(b"nowhere.", shard=31))
        with pytest.raises(PodiumError, match="shard"):
            await log.post(run_id(b"nowhere.", shard=31), b"{}")
