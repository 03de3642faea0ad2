"""Who may say what to the broker, asked of the broker itself."""

import json
import socket
from collections.abc import Iterator

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError

from actors.embedded import Role
from tests.broker import One, r1, settled

ANSWER_LIMIT_S = 10.0
"""Seconds for the broker to answer a ping on a busy machine."""

UNHEARD_S = 0.2
"""Seconds for an answer to a question that the broker refuses to hear: there is none."""


@pytest.fixture(scope="module")
def broker() -> Iterator[One]:
    with r1() as one:
        yield one


def refused(broker: One, role: Role, said: str) -> bool:
    """Whether the broker refuses what ``role`` says. It complains before it answers the ping."""
    host, _, port = broker.url.removeprefix("nats://").partition(":")
    user, password = broker.credentials(role)
    login = json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False})
    with (
        socket.create_connection((host, int(port)), ANSWER_LIMIT_S) as link,
        link.makefile("rb") as lines,
    ):
        assert lines.readline().startswith(b"INFO")
        link.sendall(f"CONNECT {login}\r\n{said}\r\nPING\r\n".encode())
        for line in lines:
            if line.startswith(b"-ERR"):
                assert b"Permissions Violation for" in line
                return True
            if line.startswith(b"PONG"):
                return False
    raise AssertionError("the broker closed the connection")


EVERYBODY = (
    "log.0.run.i",
    "blobs.digest.0",
    "$JS.API.INFO",
    "$JS.API.STREAM.INFO.LOG-0",
    "$JS.API.STREAM.MSG.GET.LOG-0",
    "$JS.API.DIRECT.GET.LOG-0.log.0.run.c",
)

WORKERS_OWN = (
    "live.run",
    "$JS.API.CONSUMER.INFO.CALLS.w",
    "$JS.API.CONSUMER.CREATE.CALLS.w.calls.w.>",
    "$JS.API.CONSUMER.MSG.NEXT.CALLS.w",
    "$JS.ACK.CALLS.w.1.1.1.1.0",
)

CLIENTS_OWN = ("tasks.normal.run", "stats")

CONDUCTORS_OWN = (
    "log.0.run.c",
    "calls.worker.normal.run.1-0.1",
    "heads.run",
    "withdraw.worker",
    "models.name.ask",
    "models.name.begun",
    "$JS.API.STREAM.CREATE.LOG-0",
    "$JS.API.STREAM.UPDATE.LOG-0",
    "$JS.API.STREAM.PURGE.LOG-0",
    "$JS.API.STREAM.PURGE.TASKS",
    "$JS.API.STREAM.PURGE.CALLS",
    "$JS.API.STREAM.DELETE.LOG-0",
    "$JS.API.STREAM.MSG.DELETE.LOG-0",
    "$JS.API.CONSUMER.CREATE.TASKS.c",
    "$JS.API.CONSUMER.MSG.NEXT.TASKS.c",
    "$JS.API.CONSUMER.DELETE.CALLS.w",
    "$JS.ACK.TASKS.c.1.1.1.1.0",
    "_INBOX.somebody",
    "_INBOX_conductor.somebody",
    "_INBOX_worker.somebody",
    "_INBOX_client.somebody",
)

NOBODYS_OWN = ("hint.run.i",)

MAY: dict[Role, tuple[str, ...]] = {
    "conductor": EVERYBODY + WORKERS_OWN + CLIENTS_OWN + CONDUCTORS_OWN,
    "worker": EVERYBODY + WORKERS_OWN,
    "client": (*EVERYBODY, *CLIENTS_OWN, "$JS.API.CONSUMER.INFO.CALLS.w"),
    "tracer": tuple(subject for subject in EVERYBODY if subject.startswith("$JS.API.")),
}


@pytest.mark.parametrize(
    "subject", EVERYBODY + WORKERS_OWN + CLIENTS_OWN + CONDUCTORS_OWN + NOBODYS_OWN
)
@pytest.mark.parametrize("role", list(MAY))
def test_each_role_may_say_its_own_and_nothing_else(broker: One, role: Role, subject: str) -> None:
    said = f"PUB {subject} 0\r\n"
    assert refused(broker, role, said) is (subject not in MAY[role])


WORKERS_HEAR = ("_INBOX_worker.one.*", "withdraw.add", "stats")

CLIENTS_HEAR = ("_INBOX_client.one.*", "hint.run.i", "hint.*.c", "live.run")

CONDUCTORS_HEAR = (
    ">",
    "*",
    "*.>",
    "log.>",
    "tasks.>",
    "calls.>",
    "blobs.>",
    "heads.>",
    "models.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.ACK.TASKS.>",
    "$JS.ACK.CALLS.>",
    "_INBOX.>",
    "_INBOX_conductor.>",
    "_INBOX_conductor.one.*",
)

HEARS: dict[Role, tuple[str, ...]] = {
    "conductor": WORKERS_HEAR + CLIENTS_HEAR + CONDUCTORS_HEAR,
    "worker": WORKERS_HEAR,
    "client": CLIENTS_HEAR,
    "tracer": ("_INBOX_tracer.one.*",),
}


@pytest.mark.parametrize("subject", WORKERS_HEAR + CLIENTS_HEAR + CONDUCTORS_HEAR)
@pytest.mark.parametrize("role", list(HEARS))
def test_each_role_hears_its_own_and_nothing_else(broker: One, role: Role, subject: str) -> None:
    assert refused(broker, role, f"SUB {subject} 1") is (subject not in HEARS[role])


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_nobody_answers_a_conductors_append_in_the_streams_place(
    broker: One, role: Role
) -> None:
    """Without a stream there: only a forger could answer."""
    async with broker.connect("conductor") as conductor, broker.connect(role) as forger:

        async def forge(message: Msg) -> None:
            await message.respond(b'{"stream": "LOG-9", "seq": 1}')

        await forger.subscribe("log.>", cb=forge)
        await settled(forger)
        with pytest.raises(NoRespondersError):
            await conductor.request("log.9.run.c", b"commit", timeout=ANSWER_LIMIT_S)


@pytest.mark.parametrize("role", ["worker", "client"])
async def test_nobody_acknowledges_a_task_in_its_conductors_place(broker: One, role: Role) -> None:
    async with broker.connect("conductor") as conductor, broker.connect(role) as forger:
        streams = conductor.jetstream()
        await streams.add_stream(name="TASKS", subjects=["tasks.>"], retention="workqueue")
        heard = await forger.subscribe(">")  # a second ear would use up the right to answer once
        await settled(forger)
        await streams.publish("tasks.normal.run", b"task")
        taking = await streams.pull_subscribe("tasks.>", durable="tasks", stream="TASKS")
        (task,) = await taking.fetch(1, timeout=ANSWER_LIMIT_S)
        await settled(forger)  # all that was sent to it is here
        while heard.pending_msgs:
            if place := (await heard.next_msg()).reply:
                await forger.publish(place, b"+ACK")
        await forger.publish(task.reply, b"+ACK")  # even if it knew where
        await settled(forger)
        await conductor.request(task.reply, b"+WPI", timeout=ANSWER_LIMIT_S)  # after all before it
        assert (await taking.consumer_info()).num_ack_pending == 1
        assert (await streams.stream_info("TASKS")).state.messages == 1
        await task.ack_sync(timeout=ANSWER_LIMIT_S)
        assert (await streams.stream_info("TASKS")).state.messages == 0
        await streams.delete_stream("TASKS")


async def test_only_a_conductors_commit_is_stored(broker: One) -> None:
    async with broker.connect("conductor") as client:
        stream = client.jetstream()
        await stream.add_stream(name="LOG-1", subjects=["log.1.*.c", "log.1.*.i"])
        for role in ("worker", "client", "system"):
            async with broker.connect(role) as other:
                await other.publish("log.1.run.c", b"forged")
                await settled(other)
        await stream.publish("log.1.run.c", b"mine")
        assert (await stream.stream_info("LOG-1")).state.messages == 1
        assert (await stream.get_last_msg("LOG-1", "log.1.run.c")).data == b"mine"


async def test_a_worker_can_take_a_call_report_and_acknowledge(broker: One) -> None:
    async with broker.connect("conductor") as conductor, broker.connect("worker") as worker:
        streams, mine = conductor.jetstream(), worker.jetstream()
        await streams.add_stream(name="CALLS", subjects=["calls.>"], retention="workqueue")
        await streams.add_stream(name="LOG-2", subjects=["log.2.*.i"], allow_direct=True)
        await streams.add_stream(name="BLOBS", subjects=["blobs.>"], allow_direct=True)
        await streams.publish("calls.add.normal.run.1-0.1", b"call")
        taking = await mine.pull_subscribe(
            "calls.add.normal.>",
            durable="add-normal",
            stream="CALLS",
            config=ConsumerConfig(ack_wait=30),
        )
        (call,) = await taking.fetch(1, timeout=ANSWER_LIMIT_S)
        await mine.publish("blobs.digest.0", b"large")
        await mine.publish("log.2.run.i", b"report")
        await call.in_progress()
        await call.ack_sync(timeout=ANSWER_LIMIT_S)
        assert (await mine.get_last_msg("LOG-2", "log.2.run.i", direct=True)).data == b"report"
        assert (await mine.get_last_msg("LOG-2", "log.2.run.i")).data == b"report"
        assert (await streams.stream_info("CALLS")).state.messages == 0


async def test_a_client_can_ask_and_watch_and_purges_nothing(broker: One) -> None:
    async with broker.connect("conductor") as conductor, broker.connect("client") as client:
        streams, mine = conductor.jetstream(), client.jetstream()
        await streams.add_stream(name="TASKS", subjects=["tasks.>"])
        watching = await client.subscribe("live.run")
        await settled(client)
        await mine.publish("tasks.normal.run", b"task")
        await conductor.publish("live.run", b"progress")
        assert (await watching.next_msg(timeout=ANSWER_LIMIT_S)).data == b"progress"
        with pytest.raises(NatsTimeout):
            await client.jetstream(timeout=UNHEARD_S).purge_stream("TASKS")
        assert (await mine.stream_info("TASKS")).state.messages == 1
        await streams.delete_stream("TASKS")


@pytest.mark.parametrize("role", ["client", "conductor"])
async def test_a_worker_answers_whoever_asked_how_it_is(broker: One, role: Role) -> None:
    async with broker.connect(role) as asking, broker.connect("worker") as worker:

        async def answer(message: Msg) -> None:
            await message.respond(b"here")

        await worker.subscribe("stats", cb=answer)
        await settled(worker)
        reply = await asking.request("stats", b"", timeout=ANSWER_LIMIT_S)
        assert reply.data == b"here"


async def test_workers_that_share_a_process_all_answer(broker: One) -> None:
    """As those do whose MCP tools are of one server."""
    async with broker.connect("client") as asking, broker.connect("worker") as worker:

        async def answer(message: Msg) -> None:
            await worker.publish(message.reply, b"here")

        for _ in range(3):
            await worker.subscribe("stats", cb=answer)
        await settled(worker)
        inbox = asking.new_inbox()
        heard = await asking.subscribe(inbox)
        await asking.publish("stats", b"", reply=inbox)
        for _ in range(3):
            assert (await heard.next_msg(timeout=ANSWER_LIMIT_S)).data == b"here"


async def test_known_hole_the_broker_does_not_check_where_an_answer_goes(broker: One) -> None:
    """A worker can have the broker *answer* onto a run's commits (decision 0003).

    So a reader sets aside what does not chain; permissions alone don't keep strangers out. Should
    this test fail, the broker has closed the hole, and the decision can be taken again.
    """
    async with broker.connect("conductor") as conductor, broker.connect("worker") as worker:
        streams = conductor.jetstream()
        await streams.add_stream(name="LOG-3", subjects=["log.3.*.c", "log.3.*.i"])
        await streams.add_stream(name="OTHER", subjects=["live.>"])
        seen = await conductor.subscribe("log.3.run.c")
        await settled(conductor)
        await worker.publish("live.run", b"progress", reply="log.3.run.c")
        forged = await seen.next_msg(timeout=ANSWER_LIMIT_S)
        assert json.loads(forged.data)["stream"] == "OTHER"
        with pytest.raises(APIError, match="wrong last sequence: 1"):
            await streams.publish(
                "log.3.run.c", b"mine", headers={"Nats-Expected-Last-Subject-Sequence": "0"}
            )
        await streams.delete_stream("OTHER")
