"""Podium as an A2A agent: the official client against the SDK's routes over a real deployment."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
import uvicorn
from a2a.client import ClientConfig, create_client
from a2a.client.client import Client as A2AClient
from a2a.helpers import new_data_part, new_text_part, new_url_part
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware

from actors.ports import Attempt, Outcome
from actors.workers import draft, host
from podium.client import Client
from podium.serve.a2a import Tasks, routes
from podium.serve.a2a_tasks import card_of
from protocol import subjects
from protocol.actions import Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, View
from tests.world import World, calls

WAIT_S: Final = 20.0

ECHO: Final = WorkerSpec(name="echo", description="Says it again.", timeout_ms=20_000)


class Named(AuthenticationBackend):
    """Takes the header ``X-User`` for who somebody is."""

    async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name)) if name else None


class Desk:
    """A deployment in memory with one worker, offered as an agent."""

    def __init__(self, shards: int) -> None:
        self.world = World()
        self.client = Client(
            self.world.log, self.world.tasks, by="tester", look_s=0.2, shards=shards
        )
        self.seen: list[Attempt] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.views: list[View] = []
        self.url = ""
        self.budget = Budget()

    def decide(self, view: View) -> Decision:
        """One round of calls, then what came of them."""
        self.views.append(view)
        if view.task.text == "never":
            return calls(("echo", {"say": "again"}))
        if view.final or view.turns:
            found = [str(item.value) for turn in view.turns for item in turn.observations]
            return Decision(answer=" ".join(found) or "nothing yet")
        return calls(("echo", {"say": view.task.text}), ("echo", {"say": "twice"}))

    async def work(self, attempt: Attempt) -> Outcome:
        """The worker."""
        self.seen.append(attempt)
        await self.hold.wait()
        if attempt.arguments["say"] == "again":
            return Outcome(status="EXEC_ERR", fault="worker", value="once was enough")
        return Outcome(value=attempt.arguments["say"], spend=Spend(tokens=7, cost=30))

    async def runs(self) -> list[str]:
        """All runs that were begun."""
        return [row.run for row in await self.client.runs()]


@contextlib.asynccontextmanager
async def desk(
    budget: Budget | None = None, *, conductor: bool = True, shards: int = 1
) -> AsyncIterator[Desk]:
    made = Desk(shards)
    world = made.world
    world.policy(made.decide)
    await world.worker(ECHO, made.work)
    if conductor:
        await world.conductor()
    listening = socket.create_server(("127.0.0.1", 0))
    made.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    card = card_of(world.pool, name="desk", url=f"{made.url}/a2a", version="1")
    tasks = Tasks(made.client, lambda: world.pool, world.policies["script"].spec, budget)
    app = Starlette(
        routes=routes(tasks, card),
        middleware=[Middleware(AuthenticationMiddleware, backend=Named())],
    )
    config = uvicorn.Config(app, loop="asyncio", ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield made
    finally:
        server.should_exit = server.force_exit = True
        await serving
        listening.close()
        await world.close()


@contextlib.asynccontextmanager
async def client_of(made: Desk, *, user: str = "", **config: Any) -> AsyncIterator[A2AClient]:
    headers = {"X-User": user} if user else {}
    async with httpx.AsyncClient(
        headers=headers, timeout=WAIT_S, trust_env=False, verify=False
    ) as http:
        yield await create_client(made.url, ClientConfig(httpx_client=http, **config))


def message(text: str = "", named: str = "m1", **fields: Any) -> Message:
    parts = fields.pop("parts", [new_text_part(text)])
    return Message(message_id=named, role=Role.ROLE_USER, parts=parts, **fields)


async def said(client: A2AClient, sent: Message, **fields: Any) -> list[StreamResponse]:
    request = SendMessageRequest(message=sent, configuration=SendMessageConfiguration(**fields))
    return [event async for event in client.send_message(request)]


async def task_of(client: A2AClient, sent: Message, **fields: Any) -> Task:
    (event,) = await said(client, sent, **fields)
    return event.task


def states(events: list[StreamResponse]) -> list[str]:
    """Each status that a stream told."""
    found = [
        event.task.status if event.HasField("task") else event.status_update.status
        for event in events
        if event.HasField("task") or event.HasField("status_update")
    ]
    return [TaskState.Name(each.state).removeprefix("TASK_STATE_") for each in found]


def texts(events: list[StreamResponse]) -> list[str]:
    """Each word beside a status."""
    return [part.text for event in events for part in event.status_update.status.message.parts]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_a_message_becomes_a_run_whose_log_is_told(binding: str) -> None:
    async with (
        desk() as made,
        client_of(made, supported_protocol_bindings=[binding]) as client,
    ):
        events = await said(client, message("hello"))
        told = states(events)
        assert told[0] in ("SUBMITTED", "WORKING")
        assert told[-1] == "COMPLETED"
        assert set(told[1:-1]) == {"WORKING"}
        assert texts(events) == ["round 1: echo ×2", "echo (1-0): OK", "echo (1-1): OK"] or (
            texts(events) == ["round 1: echo ×2", "echo (1-1): OK", "echo (1-0): OK"]
        )
        (answer,) = (each.artifact_update for each in events if each.HasField("artifact_update"))
        assert (answer.artifact.parts[0].text, answer.last_chunk) == ("hello twice", True)
        (run,) = await made.runs()
        assert {each.status_update.task_id for each in events[1:-2]} == {run}
        task = await client.get_task(GetTaskRequest(id=run))
        assert task.artifacts[0] == answer.artifact
        assert task.history[0].parts[0].text == "hello"
        assert task.context_id == run


async def test_without_streaming_the_task_comes_at_its_end_or_at_once() -> None:
    async with desk() as made:
        async with client_of(made, streaming=False) as client:
            task = await task_of(client, message("hello", context_id="talk"))
            assert task.status.state == TaskState.TASK_STATE_COMPLETED
            assert (task.context_id, task.artifacts[0].parts[0].text) == ("talk", "hello twice")
            none = await task_of(client, message("hello", context_id="talk"), history_length=0)
            assert (none.id, len(none.history)) == (task.id, 0)
        made.hold.clear()
        async with client_of(made, streaming=False, polling=True) as client:
            task = await task_of(client, message("wait", "m2"))
            assert task.status.state in (
                TaskState.TASK_STATE_SUBMITTED,
                TaskState.TASK_STATE_WORKING,
            )
            made.hold.set()


async def test_a_message_sent_again_is_the_same_run() -> None:
    async with desk() as made, client_of(made) as client:
        await asyncio.gather(*(said(client, message("hello")) for _ in range(4)))
        await said(client, message("hello"))
        assert len(await made.runs()) == 1
        await said(client, message("hello", "m2"))
        await said(client, message("hello", context_id="other"))
        assert len(await made.runs()) == 3


async def test_tasks_are_spread_over_the_shards_of_the_deployment() -> None:
    async with (
        desk(conductor=False, shards=4) as made,
        client_of(made, streaming=False, polling=True) as client,
    ):
        tasks = [await task_of(client, message("hello", f"m{n}")) for n in range(8)]
        assert len({subjects.shard(task.id) for task in tasks}) > 1
        for task in tasks:
            assert (await client.get_task(GetTaskRequest(id=task.id))).id == task.id


async def test_another_server_tells_of_the_same_task() -> None:
    async with desk() as made, client_of(made) as client:
        made.hold.clear()
        request = SendMessageRequest(message=message("hello", context_id="talk"))
        task = Task()
        async for event in client.send_message(request):
            task = event.task
            break  # and hangs up
        other = Tasks(made.client, lambda: made.world.pool, made.world.policies["script"].spec)
        again = await looked_up(other, task.id)
        assert (again.id, again.context_id) == (task.id, "talk")
        events = []
        async for event in client.subscribe(SubscribeToTaskRequest(id=task.id)):
            made.hold.set()
            events.append(event)
        assert states(events)[-1] == "COMPLETED"
        with pytest.raises(UnsupportedOperationError):
            _ = [each async for each in client.subscribe(SubscribeToTaskRequest(id=task.id))]


async def looked_up(tasks: Tasks, task: str) -> Task:
    from a2a.server.context import ServerCallContext

    return await tasks.on_get_task(GetTaskRequest(id=task), ServerCallContext())


async def test_a_task_that_nobody_has_begun_is_submitted() -> None:
    async with (
        desk(conductor=False) as made,
        client_of(made, streaming=False, polling=True) as client,
    ):
        task = await task_of(client, message("hello"))
        assert task.status.state == TaskState.TASK_STATE_SUBMITTED
        await made.world.conductor()
        await made.world.ended(task.id)
        task = await client.get_task(GetTaskRequest(id=task.id))
        assert task.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_run_without_an_answer_is_a_failed_task_that_says_why() -> None:
    async with desk(Budget(rounds=1)) as made, client_of(made) as client:
        events = await said(client, message("never"))
        assert states(events)[-1] == "FAILED"
        assert "no_answer" in texts(events)[-1]
        (run,) = await made.runs()
        task = await client.get_task(GetTaskRequest(id=run))
        assert task.status.state == TaskState.TASK_STATE_FAILED
        assert task.status.message.parts[0].text.startswith("the run failed")


async def test_cancelling_a_task_cancels_its_run() -> None:
    async with desk() as made, client_of(made) as client:
        made.hold.clear()
        events: list[StreamResponse] = []
        run = ""
        async for event in client.send_message(SendMessageRequest(message=message("hello"))):
            events.append(event)
            if event.HasField("status_update") and len(states(events)) == 2:
                (run,) = await made.runs()
                task = await client.cancel_task(CancelTaskRequest(id=run))
                assert task.status.state == TaskState.TASK_STATE_CANCELED
        assert states(events)[-1] == "CANCELED"
        assert (await made.client.state(run)).outcome == "cancelled"
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=run))


async def test_a_run_at_its_limit_asks_and_is_answered() -> None:
    budget = Budget(calls=1, on_limit="pause")
    async with desk(budget) as made, client_of(made) as client:
        events = await said(client, message("hello"))
        assert states(events)[-1] == "INPUT_REQUIRED"
        assert 'Say "answer"' in texts(events)[-1]
        (run,) = await made.runs()
        with pytest.raises(InvalidParamsError, match="answer, resume, cancel"):
            await said(client, message("go on, please", "m2", task_id=run))
        with pytest.raises(InvalidParamsError, match="another context"):
            await said(client, message("answer", "m2", task_id=run, context_id="other"))
        events = await said(client, message("Answer", "m3", task_id=run))
        assert states(events)[-1] == "COMPLETED"
        with pytest.raises(UnsupportedOperationError, match="has ended"):
            await said(client, message("answer", "m4", task_id=run))
        assert len(await made.runs()) == 1


async def test_a_run_that_its_operator_paused_is_at_work_and_says_why() -> None:
    async with desk() as made, client_of(made) as client:
        made.hold.clear()
        events: list[StreamResponse] = []
        run = ""
        async for event in client.send_message(SendMessageRequest(message=message("hello"))):
            events.append(event)
            if not run and event.HasField("status_update"):
                (run,) = await made.runs()
                await made.client.signal(run, "pause", reason="lunch")
                with pytest.raises(UnsupportedOperationError, match="takes no message"):
                    await said(client, message("answer", "m2", task_id=run))
            if "paused" in "".join(texts(events[-1:])):
                made.hold.set()
                await made.client.signal(run, "resume")
        assert "WORKING" in states(events)
        assert any("waits for its operator" in text for text in texts(events))
        assert states(events)[-1] == "COMPLETED"


async def test_what_a_message_carries_besides_text_is_input() -> None:
    async with desk() as made, client_of(made, streaming=False) as client:
        first = await task_of(client, message("hello"))
        parts = [
            new_text_part("sum"),
            new_text_part("it"),
            new_data_part({"n": 3}),
            new_url_part("https://example.org/a.csv", "text/csv"),
        ]
        sent = message(named="m2", parts=parts, reference_task_ids=[first.id])
        await task_of(client, sent)
        task = made.views[-1].task
        assert task.text == "sum\nit"
        assert task.inputs == {
            "given": [{"n": 3}, {"mimeType": "text/csv", "uri": "https://example.org/a.csv"}],
            "earlier": [{"task": "hello", "answer": "hello twice"}],
        }


@pytest.mark.parametrize(
    ("sent", "said_of"),
    [
        (message("hello", "x" * 257), "at most 256"),
        (message(" "), "needs a text"),
        (message("x" * 100_000), "bytes"),
        (message("hello", reference_task_ids=["nope"]), "no task 'nope'"),
    ],
)
async def test_a_message_that_can_be_no_run_is_refused(sent: Message, said_of: str) -> None:
    async with desk() as made, client_of(made) as client:
        with pytest.raises(A2AError, match=said_of):
            await said(client, sent)
        assert await made.runs() == []


async def test_a_task_is_shown_to_whoever_asked_for_it() -> None:
    async with (
        desk() as made,
        client_of(made, user="ann", streaming=False) as ann,
        client_of(made, user="bob", streaming=False) as bob,
    ):
        task = await task_of(ann, message("hello"))
        assert (await task_of(bob, message("hello"))).id != task.id
        assert (await ann.get_task(GetTaskRequest(id=task.id))).id == task.id
        own = await made.client.submit("own", made.world.pool, made.world.policies["script"].spec)
        await made.world.ended(own)
        for named in (task.id, own, "nope"):
            with pytest.raises(TaskNotFoundError):
                await bob.get_task(GetTaskRequest(id=named))
            with pytest.raises(TaskNotFoundError):
                await bob.cancel_task(CancelTaskRequest(id=named))
            with pytest.raises(TaskNotFoundError):
                await task_of(bob, message("answer", "m9", task_id=named))
        with pytest.raises(UnsupportedOperationError, match="keep their ids"):
            await ann.list_tasks(ListTasksRequest())


async def test_podium_is_a_worker_of_podium() -> None:
    async with desk() as made:
        spec = await asyncio.to_thread(draft, "a2a", {"url": made.url})
        assert "Workers: echo." in spec.description
        assert "- echo: Says it again." in spec.description
        adapter = host(spec)
        work = Attempt(
            run="r1", call="1-0", attempt=1, arguments={"subtask": "hello"}, timeout_s=WAIT_S
        )
        try:
            outcome = await adapter.run(work)
            assert (outcome.status, outcome.value) == ("OK", "hello twice")
            assert outcome.spend == Spend(tokens=14, cost=60)
            assert (await adapter.run(work)).value == "hello twice"
        finally:
            await adapter.close()
        assert len(await made.runs()) == 1
