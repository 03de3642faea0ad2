"""Podium as an A2A agent: a message becomes a run, its log the task's news, its answer an artifact.

The log is the task store. A task's id is its run's, and both derive from the message, so that a
message sent again is not a second run; a server that was started anew, or another one, goes on
telling of the same tasks. A client that hangs up leaves its run at work: it can come back.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing
from typing import Any, Final, NoReturn

import msgspec
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from a2a.types import (
    Task as A2ATask,
)
from a2a.utils.errors import (
    ExtendedAgentCardNotConfiguredError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.proto_utils import validate_proto_required_fields
from a2a.utils.task import apply_history_length
from starlette.routing import BaseRoute

from actors import tracing
from actors.workers.a2a.replies import value_of
from actors.workers.outcomes import Unrepresentable
from podium.client import Client
from podium.serve.a2a_tasks import (
    CAN_SAY,
    LABEL,
    MAX_ID_CHARS,
    Asked,
    Update,
    asked_of,
    key_of,
    news,
    settled,
    task_of,
)
from podium.serve.waits import Waits
from protocol import subjects
from protocol.actions import Json, Pool
from protocol.budgets import Budget
from protocol.codec import encode
from protocol.decisions import PolicySpec, Task
from protocol.errors import Busy, Conflict, NotFound, PodiumError, Unreachable
from protocol.inbox import Label, Signal
from protocol.traces import TRACEPARENT, parse
from replay.chain import RunLog

CANCEL_S: Final = 10.0
"""Seconds that a cancelled run may take to end before its client is told how it stands."""

MAX_EARLIER: Final = 8
"""Earlier tasks that one message may refer to: their answers stand in every prompt of its run."""


class Tasks(RequestHandler):
    """What the SDK's routes call, over a deployment.

    Args:
        client: A deployment's.
        pool: Gives what runs may use that begin.
        policy: Who decides in them.
        budget: What each may spend.
        waits: Who waits for runs, where others do so besides. When that stops, those who wait are
            told how their runs stand, which go on.
    """

    def __init__(
        self,
        client: Client,
        pool: Callable[[], Pool],
        policy: PolicySpec,
        budget: Budget | None = None,
        waits: Waits | None = None,
    ) -> None:
        self._client, self._pool, self._policy, self._budget = client, pool, policy, budget
        self._waits = waits or Waits()

    # ---------------------------------------------------------------------------------- messages

    async def on_message_send(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> A2ATask | Message:
        """Begin or go on with a run; wait for its end unless the client wants no waiting."""
        if params.configuration.return_immediately:
            run, asked, _ = await self._taken(params, context)
            log = await self._client.log(run)
        else:
            with self._place():
                run, asked, signal = await self._taken(params, context)
                log = await self._end(run, signal)
        return apply_history_length(task_of(log, asked), params.configuration)

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Any, None]:
        """Begin or go on with a run; tell of it until its end."""
        with self._place():
            run, asked, signal = await self._taken(params, context)
            async with aclosing(self._told(run, asked, signal)) as events:
                async for event in events:
                    yield event

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Any, None]:
        """Tell of a run that goes on, from how it stands now."""
        log, asked = await self._known(params.id, context)
        if log.state().phase == "ended":
            raise UnsupportedOperationError(f"task {log.run} has ended: there is nothing to tell")
        with self._place():
            async with aclosing(self._told(log.run, asked)) as events:
                async for event in events:
                    yield event

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> A2ATask:
        """A run as it stands."""
        log, asked = await self._known(params.id, context)
        return apply_history_length(task_of(log, asked), params)

    async def on_cancel_task(
        self, params: CancelTaskRequest, context: ServerCallContext
    ) -> A2ATask:
        """Cancel a run, and wait a little for its end."""
        log, asked = await self._known(params.id, context)
        if log.state().phase == "ended":
            raise TaskNotCancelableError(f"task {log.run} has ended already")
        try:
            signal = await self._signal(log.run, "cancel", asked)
            async with asyncio.timeout(CANCEL_S):
                log = await self._end(log.run, signal)
        except TimeoutError:
            pass  # it is told how the run stands: the signal is in its inbox
        return task_of(log, asked)

    # --------------------------------------------------------------------------------------- runs

    async def _taken(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> tuple[str, Asked, str]:
        """The run of a message, who asked for it, and the signal that the message was, if any."""
        validate_proto_required_fields(params)
        message = params.message
        for each in (message.message_id, message.context_id):
            if len(each) > MAX_ID_CHARS:
                raise InvalidParamsError(f"an id has at most {MAX_ID_CHARS} characters")
        if message.task_id:
            return await self._answered(message, context)
        asked = Asked(message.context_id, message.message_id, context.user.user_name)
        run = self._client.run_of(key_of(asked))
        if not asked.context:  # the first message of a conversation names it
            asked = msgspec.structs.replace(asked, context=run)
        try:
            log = await self._client.log(run)
            if not log.commits:
                task = await self._task(message, context)
                label = Label(run=run, key=LABEL, value=msgspec.to_builtins(asked), by="a2a")
                if asked_of(log) is None:
                    await self._client.reader.post(run, encode(label))
                with _under(context):
                    await self._client.submit(
                        task, self._pool(), self._policy, self._budget, run=run
                    )
        except PodiumError as error:
            _refuse(error)
        return run, asked, ""

    async def _task(self, message: Message, context: ServerCallContext) -> Task:
        """What a message asks: its texts, with data, files and earlier answers as inputs."""
        texts = [part.text for part in message.parts if part.HasField("text")]
        if not any(text.strip() for text in texts):
            raise InvalidParamsError("a message needs a text that says what to do")
        try:
            others = [value_of([part]) for part in message.parts if not part.HasField("text")]
        except Unrepresentable as error:
            raise InvalidParamsError(str(error)) from None
        inputs: dict[str, Json] = {"given": others} if others else {}
        earlier = []
        for named in message.reference_task_ids[:MAX_EARLIER]:
            state = (await self._known(named, context))[0].state()
            earlier.append({"task": state.task.text, "answer": state.answer})
        if earlier:
            inputs["earlier"] = earlier
        return Task(text="\n".join(texts), inputs=inputs)

    async def _answered(
        self, message: Message, context: ServerCallContext
    ) -> tuple[str, Asked, str]:
        """A message to a run that is there: one of the few words that it can be told."""
        log, asked = await self._known(message.task_id, context)
        if message.context_id not in ("", asked.context):
            raise InvalidParamsError(f"task {log.run} is of another context")
        if log.state().phase == "ended":
            raise UnsupportedOperationError(
                f"task {log.run} has ended: ask anew, and refer to it by referenceTaskIds"
            )
        if not settled(log):
            raise UnsupportedOperationError(f"task {log.run} is at work, and takes no message")
        word = " ".join(part.text for part in message.parts).strip().lower()
        if word not in CAN_SAY:
            raise InvalidParamsError(f"task {log.run} can be told: {', '.join(CAN_SAY)}")
        return log.run, asked, await self._signal(log.run, word, asked)

    async def _signal(self, run: str, kind: Any, asked: Asked) -> str:
        try:
            by = f"a2a:{asked.owner}" if asked.owner else "a2a"
            return await self._client.signal(run, kind, by=by, reason="its A2A client said so")
        except Conflict:
            raise TaskNotCancelableError(f"task {run} has ended already") from None
        except PodiumError as error:
            _refuse(error)

    async def _known(self, task: str, context: ServerCallContext) -> tuple[RunLog, Asked]:
        """A run that this client asked for. Raises `TaskNotFoundError` for every other."""
        none = TaskNotFoundError(f"there is no task {task!r}")
        if not subjects.is_run(task):
            raise none
        try:
            log = await self._client.log(task)
        except NotFound:  # nor a shard that it could be in
            raise none from None
        except PodiumError as error:
            _refuse(error)
        asked = asked_of(log)
        if asked is None or asked.owner != context.user.user_name:
            raise none
        return log, asked

    # --------------------------------------------------------------------------------------- news

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """A place among those that wait for runs."""
        try:
            with self._waits.place():
                yield
        except Busy as error:
            _refuse(error)

    async def _watched(self, run: str, signal: str = "") -> AsyncGenerator[RunLog, None]:
        """The run's log as it grows, until it is settled after that signal, or the server stops."""
        try:
            async with (
                aclosing(self._client.follow(run)) as logs,
                aclosing(self._waits.each(logs)) as steps,
            ):
                async for log in steps:
                    if log is None or (signal and not _heard(log, signal)):
                        continue
                    yield log
                    if settled(log):
                        return
        except Conflict:  # no conductor could begin it: its inbox says why
            yield await self._client.log(run)
        except PodiumError as error:
            _refuse(error)

    async def _told(
        self, run: str, asked: Asked, signal: str = ""
    ) -> AsyncGenerator[A2ATask | Update, None]:
        """The run as it stands, then what happens to it."""
        shown = -1
        async with aclosing(self._watched(run, signal)) as logs:
            async for log in logs:
                if shown < 0:
                    yield task_of(log, asked)
                for each in news(log, asked, shown) if shown >= 0 else ():
                    yield each
                shown = len(log.commits)

    async def _end(self, run: str, signal: str = "") -> RunLog:
        """The run's log when it is settled, or the server stops."""
        last: RunLog | None = None
        async with aclosing(self._watched(run, signal)) as logs:
            async for log in logs:
                last = log
        return last or await self._client.log(run)

    # -------------------------------------------------------------------------- what is not offered

    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        """Not offered: it would read every run of the deployment."""
        raise UnsupportedOperationError("tasks are not listed here: keep their ids")

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Not offered."""
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Not offered."""
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """Not offered."""
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Not offered."""
        raise PushNotificationNotSupportedError

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """Not offered: the public card has it all."""
        raise ExtendedAgentCardNotConfiguredError


def routes(tasks: Tasks, card: AgentCard, path: str = "/a2a") -> list[BaseRoute]:
    """The routes of an agent: its card, and both ways of carrying A2A below ``path``.

    Who may use them is the server's business: it sets the request's user, and a task is shown to
    the user who asked for it.
    """
    return [
        *create_agent_card_routes(card),
        *create_jsonrpc_routes(tasks, path),
        *create_rest_routes(tasks, path_prefix=path),
    ]


def _heard(log: RunLog, signal: str) -> bool:
    """Whether a run has read a signal."""
    state = log.state()
    return state.phase == "ended" or any(
        isinstance(entry.message, Signal)
        and entry.message.id == signal
        and entry.hash in state.signals
        for entry in log.inbox
    )


def _under(context: ServerCallContext) -> AbstractContextManager[None]:
    """Have what is begun hang under the span that the client says it is in."""
    above = parse(context.state.get("headers", {}).get(TRACEPARENT))
    return contextlib.nullcontext() if above is None else tracing.under(lambda: (above, {}))


def _refuse(error: PodiumError) -> NoReturn:
    """Say it as A2A does. Hints are for whoever runs Podium, and don't go out."""
    if isinstance(error, Busy | Unreachable):
        raise InternalError(f"{error.message}; it may work later") from None
    raise InvalidParamsError(error.message) from None
