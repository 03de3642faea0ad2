"""A real A2A agent of the official SDK, for tests: its server in a thread, on a free port.

::

    with A2AServer() as server:
        ...                                # a client of ours asks server.url for "ok", "fail", …
        assert server.asked[-1].method == "SendStreamingMessage"

What it does is said by the first word of a message's last line: `Agent` has a method for each.
Nothing here knows of our code: it is what stands at the other end of the wire.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self

import uvicorn
from a2a.helpers import new_data_part, new_raw_part, new_text_part, new_url_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Message,
    Part,
    Role,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from starlette.applications import Starlette

WAIT_S: Final = 20.0
"""Seconds after which a server that hangs is given up, so that a broken test ends."""

LARGE: Final = 300_000
"""Characters of a large result."""


class Asked(NamedTuple):
    """A request that came in."""

    path: str
    method: str
    """The JSON-RPC method; empty for other requests."""
    headers: dict[str, str]
    """Names in lower case."""
    body: Any


Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Any]


class Agent(AgentExecutor):
    """Does what the last line of a message says."""

    def __init__(self, parties: int) -> None:
        self.started = threading.Event()
        """Set when ``wait`` is at work."""
        self.stopped = threading.Event()
        """Set when it was cancelled."""
        self.go_on = threading.Event()
        """What ``slow`` waits for, half way."""
        self.barrier = asyncio.Barrier(parties)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        words = context.get_user_input().splitlines()[-1].split()
        assert context.message is not None
        if words[0] == "message":
            await event_queue.enqueue_event(said(context, "Lima", new_text_part("Peru")))
        elif words[0] == "span":
            headers = context.call_context.state["headers"]
            await event_queue.enqueue_event(said(context, headers.get("traceparent", "none")))
        else:
            if context.current_task is None:
                status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
                task = Task(id=context.task_id, context_id=context.context_id, status=status)
                task.history.append(context.message)
                await event_queue.enqueue_event(task)
            updater = TaskUpdater(event_queue, context.task_id or "", context.context_id or "")
            await getattr(self, "_" + words[0].lower())(updater, context)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.stopped.set()
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def _ok(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.start_work(updater.new_agent_message([new_text_part("looking it up")]))
        await updater.add_artifact([new_text_part("Li")], "answer", append=False)
        await updater.add_artifact([new_text_part("m")], "answer", append=True)
        await updater.add_artifact([new_text_part("a")], "answer", append=True, last_chunk=True)
        await updater.event_queue.enqueue_event(
            TaskStatusUpdateEvent(
                task_id=updater.task_id,
                context_id=updater.context_id,
                status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED),
                metadata={"usage": {"input_tokens": 10, "output_tokens": 5}},
            )
        )

    async def _fail(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.failed(updater.new_agent_message([new_text_part("there is no such thing")]))

    async def _crash(self, updater: TaskUpdater, _: RequestContext) -> None:
        raise ValueError("a bug of the agent")

    async def _reject(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.reject(updater.new_agent_message([new_text_part("not my trade")]))

    async def _stop(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.cancel(updater.new_agent_message([new_text_part("an operator did it")]))

    async def _authorise(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.requires_auth(updater.new_agent_message([new_text_part("log in first")]))

    async def _ask(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.requires_input(updater.new_agent_message([new_text_part("Which city?")]))

    async def _lima(self, updater: TaskUpdater, context: RequestContext) -> None:
        """The answer to what ``ask`` asked."""
        asked = context.current_task.history[0].parts[0].text if context.current_task else ""
        await updater.add_artifact([new_text_part(f"{asked} was answered")])
        await updater.complete()

    async def _context(self, updater: TaskUpdater, context: RequestContext) -> None:
        assert context.message is not None
        ids = {"context": context.context_id, "message": context.message.message_id}
        await updater.add_artifact([new_data_part(ids)])
        await updater.complete()

    async def _mixed(self, updater: TaskUpdater, _: RequestContext) -> None:
        parts = [
            new_text_part("a map"),
            new_text_part(" and a table"),
            new_data_part({"rows": 3, "share": 0.5}),
            new_raw_part(b"\x89PNG", "image/png", "map.png"),
            new_url_part("https://example.org/a.csv", "text/csv"),
        ]
        await updater.add_artifact(parts)
        await updater.complete()

    async def _several(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.add_artifact([new_text_part("one")])
        await updater.add_artifact([new_text_part("two")])
        await updater.complete()

    async def _status(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.complete(updater.new_agent_message([new_text_part("done and said")]))

    async def _nothing(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.complete()

    async def _large(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.add_artifact([new_text_part("x" * LARGE)])
        await updater.complete()

    async def _meet(self, updater: TaskUpdater, _: RequestContext) -> None:
        await self.barrier.wait()
        await updater.complete()

    async def _wait(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.start_work()
        self.started.set()
        await asyncio.get_running_loop().create_future()

    async def _slow(self, updater: TaskUpdater, _: RequestContext) -> None:
        await updater.add_artifact([new_text_part("half ")], "answer", append=False)
        await asyncio.to_thread(self.go_on.wait, WAIT_S)
        await updater.add_artifact([new_text_part("whole")], "answer", append=True, last_chunk=True)
        await updater.complete()


def said(context: RequestContext, *parts: "str | Part") -> Message:
    """A reply without a task."""
    return Message(
        message_id="reply",
        role=Role.ROLE_AGENT,
        context_id=context.context_id,
        parts=[new_text_part(each) if isinstance(each, str) else each for each in parts],
        metadata={"adk_usage_metadata": {"promptTokenCount": 7, "candidatesTokenCount": 2}},
    )


class A2AServer:
    """The agent and its server. Use it as a context manager.

    Args:
        streaming: What its card says of streaming.
        binding: The one way in which it is reached, ``JSONRPC`` or ``HTTP+JSON``.
        version: The version of A2A that its card names.
        key: What the header ``X-Key`` has to be, for all but the card; "" for anybody.
        parties: How many meet.
    """

    def __init__(
        self,
        *,
        streaming: bool = True,
        binding: str = "JSONRPC",
        version: str = "1.0",
        key: str = "",
        parties: int = 3,
    ) -> None:
        self.agent = Agent(parties)
        self.asked: list[Asked] = []
        self.key = key
        self.faults: dict[str, Callable[[App, Scope, Any, Any], Any]] = {}
        """What happens to the next request of a method, in place of an answer."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.card = card_of(f"{self.url}/a2a", streaming, binding, version)
        self._first_card = AgentCard()
        self._first_card.CopyFrom(self.card)
        handler = DefaultRequestHandler(self.agent, InMemoryTaskStore(), self.card)
        self._handler = handler
        routes = [
            *create_agent_card_routes(self.card),
            *create_jsonrpc_routes(handler, "/a2a", enable_v0_3_compat=version == "0.3"),
            *create_rest_routes(handler, path_prefix="/a2a"),
        ]
        self._app: App = Starlette(routes=routes)
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.agent.go_on.set()
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(WAIT_S)
        self._socket.close()

    def forget(self) -> None:
        """Be as if just begun, for another test."""
        self.asked.clear()
        self.faults.clear()
        self.agent.stopped.clear()
        self.agent.go_on.clear()
        self.card.CopyFrom(self._first_card)

    def methods(self) -> list[str]:
        """The methods that were called, in order."""
        return [each.method for each in self.asked if each.method]

    async def _main(self) -> None:
        await self._server.serve(sockets=[self._socket])
        await self._handler.aclose()

    async def _serve(self, scope: Scope, receive: Any, send: Any) -> None:
        data = b""
        while (event := await receive())["type"] == "http.request":
            data += event["body"]
            if not event["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = json.loads(data) if data else {}
        method = body.get("method", "")
        self.asked.append(Asked(scope["path"], method, headers, body))
        given = iter([{"type": "http.request", "body": data, "more_body": False}])

        async def again() -> Any:
            return next(given, None) or await receive()

        app = self._app
        if self.key and method and headers.get("x-key") != self.key:
            await refuse(401, f"{headers.get('x-key')} is no key")(app, scope, again, send)
        elif method in self.faults:
            await self.faults.pop(method)(app, scope, again, send)
        else:
            await app(scope, again, send)


def card_of(url: str, streaming: bool, binding: str, version: str) -> AgentCard:
    """The agent's card."""
    interface = AgentInterface(url=url, protocol_binding=binding, protocol_version=version)
    return AgentCard(
        name="atlas",
        description="Knows cities.",
        version="7",
        capabilities=AgentCapabilities(streaming=streaming),
        supported_interfaces=[interface],
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(id="capitals", name="Capitals", description="Names a capital.", tags=["x"]),
            AgentSkill(
                id="rivers",
                name="Rivers",
                description="Follows a river.",
                tags=["x"],
                examples=["Where does the Rhine end?"],
            ),
        ],
    )


def refuse(code: int, body: str) -> Callable[[App, Scope, Any, Any], Any]:
    """Answer with an HTTP error."""
    return answer(body.encode(), code=code, kind=b"text/plain")


def answer(
    body: bytes, *, code: int = 200, kind: bytes = b"application/json"
) -> Callable[[App, Scope, Any, Any], Any]:
    """Answer with these bytes."""

    async def fault(_app: App, _scope: Scope, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return fault


def hang_up(after: int = 0) -> Callable[[App, Scope, Any, Any], Any]:
    """Close the connection when so many pieces of the answer were sent, while the agent goes on."""

    async def fault(app: App, scope: Scope, receive: Any, send: Any) -> None:
        sent = 0

        async def some(event: Any) -> None:
            nonlocal sent
            if event["type"] == "http.response.body":
                sent += 1
                if sent > after:
                    raise ConnectionAbortedError
            await send(event)

        await app(scope, receive, some)

    return fault
