"""Runs as tasks of the Agent2Agent protocol: what a run's log says, in A2A's words. Pure.

A task is a run, by the run's id; all that is told of it is folded from its log, so that any server
tells the same, also after it was started anew. Who asked, and in which context, is kept beside the
run as a label.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Artifact,
    HTTPAuthSecurityScheme,
    Message,
    Part,
    Role,
    SecurityRequirement,
    SecurityScheme,
    StringList,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from podium.rows import waits_for
from protocol.actions import MICRO, Json, Pool
from protocol.codec import Commit
from protocol.events import (
    AnyEvent,
    CallSettled,
    RoundPlanned,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunPaused,
    RunResumed,
)
from protocol.inbox import SET_ASIDE, Label
from protocol.state import RunState
from replay.chain import RunLog

LABEL: Final = "a2a"
"""Key of the label that says who asked for a run."""

ANSWER: Final = "answer"
"""Id of the artifact that holds a run's answer."""

MAX_ID_CHARS: Final = 256
"""Characters of an id that a client makes: a UUID has 36."""

CAN_SAY: Final = ("answer", "resume", "cancel")
"""What may be said to a run that waits: signals."""

Update: TypeAlias = TaskStatusUpdateEvent | TaskArtifactUpdateEvent


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked for a run."""

    context: str
    """The conversation that the client says it belongs to."""
    message: str
    """The id of the message that asked for it."""
    owner: str = ""
    """Who the client was, if it said who it is."""


def key_of(asked: Asked) -> str:
    """What names the run of a message: the same for a message that is sent again."""
    return msgspec.json.encode([asked.owner, asked.context, asked.message]).decode()


def asked_of(log: RunLog) -> Asked | None:
    """Who asked for a run; None if it was begun in another way."""
    for entry in log.inbox:
        if isinstance(entry.message, Label) and entry.message.key == LABEL:
            try:
                return msgspec.convert(entry.message.value, Asked)
            except msgspec.ValidationError:
                continue
    return None


def task_of(log: RunLog, asked: Asked) -> Task:
    """The run as it stands."""
    state = log.state()
    made = Task(id=log.run, context_id=asked.context, status=_status(log, state))
    if state.task.text:
        said = Message(
            message_id=asked.message,
            context_id=asked.context,
            task_id=log.run,
            role=Role.ROLE_USER,
            parts=[Part(text=state.task.text)],
        )
        made.history.append(said)
    if state.outcome == "finished":
        made.artifacts.append(_answer(state))
    if state.phase == "ended":
        made.metadata.update(_bill(state))
    return made


def settled(log: RunLog) -> bool:
    """Whether nothing more comes of a run unless somebody says something."""
    state = log.state()
    return state.phase == "ended" or _asks(state)


def news(log: RunLog, asked: Asked, shown: int) -> list[Update]:
    """What a run's log says beyond its first ``shown`` commits."""
    state = log.state()
    found: list[Update] = []
    if state.phase == "new":  # it is told again only when nobody could begin it
        status = _status(log, state)
        found.append(
            TaskStatusUpdateEvent(task_id=log.run, context_id=asked.context, status=status)
        )
    for commit in log.commits[shown:]:
        for place, event in enumerate(commit.events):
            named = _Named(log.run, asked.context, f"{log.run}.{commit.n}.{place}")
            found += _told(event, state, named, commit)
    return found


class _Named(msgspec.Struct, frozen=True):
    """The ids of a piece of news."""

    task: str
    context: str
    message: str

    def status(self, state: TaskState, text: str, at: int) -> TaskStatusUpdateEvent:
        """News of the run's state."""
        status = _stated(state, text, at, self)
        return TaskStatusUpdateEvent(task_id=self.task, context_id=self.context, status=status)


def _told(event: AnyEvent, state: RunState, named: _Named, commit: Commit) -> Iterable[Update]:
    """What is told of one event: progress without anything that a worker or a policy said."""
    at = commit.at
    match event:
        case RoundPlanned(round=number):
            calls = [
                known.call.worker
                for call, known in state.calls.items()
                if call.partition("-")[0] == str(number)
            ]
            text = f"round {number}: {_counted(calls)}"
            yield named.status(TaskState.TASK_STATE_WORKING, text, at)
        case CallSettled(call=call, status=status):
            worker = state.calls[call].call.worker if call in state.calls else "a call"
            text = f"{worker} ({call}): {status}"
            yield named.status(TaskState.TASK_STATE_WORKING, text, at)
        case RunPaused():
            asks = event.reason == "budget"
            shown = TaskState.TASK_STATE_INPUT_REQUIRED if asks else TaskState.TASK_STATE_WORKING
            yield named.status(shown, _why_paused(event.reason, event.detail), at)
        case RunResumed():
            yield named.status(TaskState.TASK_STATE_WORKING, "the run goes on", at)
        case RunFinished():
            yield TaskArtifactUpdateEvent(
                task_id=named.task,
                context_id=named.context,
                artifact=_answer(state),
                last_chunk=True,
            )
            yield _ended(named.status(TaskState.TASK_STATE_COMPLETED, "", at), state)
        case RunFailed(reason=reason, detail=detail):
            text = _because(reason, detail)
            yield _ended(named.status(TaskState.TASK_STATE_FAILED, text, at), state)
        case RunCancelled(by=by, reason=reason):
            text = _because(f"cancelled by {by}", reason)
            yield _ended(named.status(TaskState.TASK_STATE_CANCELED, text, at), state)
        case _:
            return


def _status(log: RunLog, state: RunState) -> TaskStatus:
    named = _Named(log.run, "", f"{log.run}.{log.head.n}")
    at = log.head.at
    match state.phase:
        case "new":
            for entry in log.inbox:
                if isinstance(entry.message, Label) and entry.message.key == SET_ASIDE:
                    why = f"the run could not be begun: {entry.message.value}"
                    return _stated(TaskState.TASK_STATE_REJECTED, why, at, named)
            return _stated(TaskState.TASK_STATE_SUBMITTED, "", at, named)
        case "paused":
            asks = _asks(state)
            shown = TaskState.TASK_STATE_INPUT_REQUIRED if asks else TaskState.TASK_STATE_WORKING
            return _stated(shown, _why_paused(state.pause_reason, state.pause_detail), at, named)
        case "ended":
            shown, text = {
                "finished": (TaskState.TASK_STATE_COMPLETED, ""),
                "failed": (TaskState.TASK_STATE_FAILED, _because("the run failed", state.detail)),
                "cancelled": (TaskState.TASK_STATE_CANCELED, state.detail),
                "": (TaskState.TASK_STATE_FAILED, "the run is in an archive that is not here"),
            }[state.outcome]
            return _stated(shown, text, at, named)
        case _:
            return _stated(TaskState.TASK_STATE_WORKING, f"waits for {waits_for(state)}", at, named)


def _stated(state: TaskState, text: str, at: int, named: _Named) -> TaskStatus:
    made = TaskStatus(state=state)
    if text:
        said = Message(
            message_id=named.message,
            context_id=named.context,
            task_id=named.task,
            role=Role.ROLE_AGENT,
            parts=[Part(text=text)],
        )
        made.message.CopyFrom(said)
    if at:
        made.timestamp.FromDatetime(datetime.fromtimestamp(at / 1_000, UTC))
    return made


def _ended(update: TaskStatusUpdateEvent, state: RunState) -> TaskStatusUpdateEvent:
    update.metadata.update(_bill(state))
    return update


def _bill(state: RunState) -> Mapping[str, Json]:
    """What the run spent, child runs included, as agents tell it."""
    spent = state.spent
    return {"usage": {"total_tokens": spent.tokens, "cost_usd": spent.cost / MICRO}}


def _answer(state: RunState) -> Artifact:
    limited = {"limited_by": state.limited_by} if state.limited_by else None
    parts = [Part(text=state.answer)]
    return Artifact(artifact_id=ANSWER, name=ANSWER, parts=parts, metadata=limited)


def _asks(state: RunState) -> bool:
    """Whether whoever asked can have the run go on."""
    return state.phase == "paused" and state.pause_reason == "budget"


def _why_paused(reason: str, detail: str) -> str:
    text = _because(f"the run is paused ({reason})", detail)
    if reason == "budget":
        return (
            f'{text}. Say "answer" to have an answer from what is there, "resume" when its '
            'operator has given it more, or "cancel".'
        )
    return f"{text}, and waits for its operator"


def _because(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


def _counted(workers: Iterable[str]) -> str:
    counts = Counter(workers)
    return ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in counts.items())


def card_of(
    pool: Pool, *, name: str, url: str, version: str, description: str = "", bearer: bool = False
) -> AgentCard:
    """The card of a pool: its workers are the agent's skills.

    Args:
        pool: The pool that runs are given.
        name: What the agent is called.
        url: Where its routes are, as clients reach them.
        version: Of the agent; any text that changes with the pool.
        description: What it does; else that it is a conductor, and of which workers.
        bearer: Whether a request needs ``Authorization: Bearer …``.
    """
    said = description or (
        "Breaks a task into subtasks, gives them to its workers in parallel, and answers from what "
        f"comes back. Workers: {', '.join(worker.name for worker in pool.workers)}."
    )
    made = AgentCard(
        name=name,
        description=said,
        version=version,
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")
            for binding in ("JSONRPC", "HTTP+JSON")
        ],
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(
                id=worker.name,
                name=worker.name,
                description=worker.description or worker.name,
                tags=[worker.kind],
            )
            for worker in pool.workers
        ],
    )
    if bearer:
        scheme = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer"))
        made.security_schemes["bearer"].CopyFrom(scheme)
        made.security_requirements.append(SecurityRequirement(schemes={"bearer": StringList()}))
    return made
