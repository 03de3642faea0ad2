"""The spans of a run's questions and attempts, one function each: the parts of `trace`."""

from collections.abc import Callable
from sys import getsizeof
from typing import Final, NamedTuple

import msgspec

from protocol import semconv, subjects
from protocol.actions import Kind, Report, Status, WorkerSpec
from protocol.decisions import Decision, asked
from protocol.events import CallSettled, PolicyAsked, PolicyReplied
from protocol.traces import Context, span_id
from replay.spans import Attributes, Link, Span
from replay.trace_scene import Scene, messages, said, spent, text
from replay.trace_turns import Attempt, has_turns, held, model_calls, record_of, spans

MAX_REPORTS: Final = 32
"""Reports of one open attempt that are kept until one counts: more are somebody's noise."""


class Question(msgspec.Struct, frozen=True):
    """A question that is open."""

    asked: PolicyAsked
    number: int
    """Of the event that asked it."""
    at: int
    own: Context
    """Its span, as others name it."""
    root: Context
    """The run's own span at that time."""
    attempt: int = 1
    """How many times it was asked by then, without a reply that could be used."""
    links: tuple[Link, ...] = ()
    """To the span of the time before, if there was one."""


class Party(NamedTuple):
    """A worker, as far as spans tell of it."""

    name: str
    kind: Kind = "tool"
    provider: str = ""
    """Of an agent that is one model: whose it is, and which."""
    model: str = ""
    turns: bool = False
    """Whether it may have turns of its own, see `trace_turns`."""
    place: str = ""
    """Where its calls wait."""


def party(spec: WorkerSpec) -> Party:
    """What spans tell of a worker."""
    model = spec.options.get("model")
    if spec.kind != "agent" or not isinstance(model, str):
        return Party(spec.name, spec.kind, place=spec.place)
    provider = spec.adapter.partition(":")[0]
    return Party(spec.name, spec.kind, provider, model, has_turns(spec), spec.place)


class Offered(NamedTuple):
    """A call of a decision that no round has planned yet."""

    worker: str
    ref: str
    arguments: str | None
    """As much of them as will be told; None for none."""
    waits: Callable[[int], tuple[str, ...]]
    """Which calls it waits for, given the number of its round."""


def offered(scene: Scene, decision: Decision | None) -> tuple[Offered, ...]:
    """The calls of a decision."""
    return tuple(
        Offered(
            call.worker,
            call.ref,
            scene.content_of(call.arguments),
            call.waits,
        )
        for call in (decision.calls if decision is not None else ())
    )


class Called(msgspec.Struct, frozen=True):
    """A call of the open round, or of an earlier one that goes on."""

    worker: Party
    ref: str
    arguments: str | None
    """As `Offered` has them."""
    cause: str
    """Id of the event that planned it, or that ended its last attempt."""
    waits: tuple[str, ...] = ()
    """Calls that it waits for, or is shown the results of."""
    last: Context | None = None
    """The span of its last attempt that is over."""


class Begun(msgspec.Struct):
    """An attempt that is waited for."""

    number: int
    at: int
    root: Context
    """The run's own span at that time."""
    reports: dict[str, Report]

    def keep(self, scene: Scene, worker: Party, known: str, report: Report) -> None:
        """Keep a report until one counts: as much of it as will be told."""
        if len(self.reports) < MAX_REPORTS:
            value = scene.content_of(report.value)
            record = record_of(scene, report.record) if worker.turns else ()
            self.reports[known] = msgspec.structs.replace(report, value=value, record=record)

    @property
    def held(self) -> int:
        """Bytes of what agents wrote that are kept."""
        reports = self.reports.values()
        return sum(getsizeof(report.value) + held(report.record) for report in reports)


def failed(status: Status) -> str:
    """Why a span has failed."""
    return "" if status == "OK" else status


def lost(call: str) -> CallSettled:
    """The end of an attempt that has none of its own."""
    return CallSettled(call=call, status="EXEC_ERR")


class Tried(msgspec.Struct, frozen=True):
    """An attempt that is over."""

    call: str
    attempt: int
    """0 for a call that was settled without one."""
    number: int
    """Of the event that started it."""
    queued: int
    """When that was, milliseconds since the epoch."""
    root: Context
    """The run's own span at that time."""
    own: Context
    """The attempt's span, as others name it."""
    over: int
    """Of the event that ended it."""
    ended: int
    settled: CallSettled
    """How it ended, whether or not its call did with it."""
    report: Report | None
    """Its record is what is told of its turns."""
    error: str = ""
    """Why nobody waited for it any more, if so."""

    def began(self, kind: Kind) -> int:
        """When the work began, as far as the report tells."""
        if self.report is None or kind == "conductor":  # a child run has a start of its own
            return self.queued
        return max(self.queued, self.ended - self.report.latency_ms)


def plan(scene: Scene, question: Question, at: int, error: str, content: str = "") -> Span:
    """A question to the policy or the composer, until the reply or its loss.

    Args:
        scene: The run.
        question: The question.
        at: When that was, milliseconds since the epoch.
        error: Why it failed; "" if it didn't.
        content: Where what was replied stands, unless another span says it.
    """
    put = question.asked
    agent = semconv.CONDUCTOR if put.asker == "policy" else put.asker
    attributes = scene.common(question.number, scene.event(question.number - 1)) | {
        semconv.OPERATION_NAME: semconv.PLAN,
        semconv.AGENT_NAME: agent,
        semconv.TURN: put.turn,
        semconv.ATTEMPT: question.attempt,
        semconv.LIMITED_BY: put.limited_by,
        semconv.CONTENT_REF: content,
    }
    return scene.span(
        question.own.span,
        f"{semconv.PLAN} {agent}",
        (question.at, at),
        attributes,
        under=question.root,
        error=error,
        links=question.links,
    )


def chat(scene: Scene, question: Question, reply: PolicyReplied, at: int, content: str) -> Span:
    """The model's part of a question; ``content`` says where what it said stands."""
    provider, _, model = asked(scene.policy.name).partition(":")
    model = model or provider
    asked_by = scene.event(question.number)
    attributes = scene.common(question.number, asked_by) | {
        semconv.OPERATION_NAME: semconv.CHAT,
        semconv.PROVIDER_NAME: provider,
        semconv.REQUEST_MODEL: model,
        semconv.RESPONSE_MODEL: reply.version.partition("@")[0],
        semconv.ATTEMPT: question.attempt,
        semconv.CONTENT_REF: content,
        **spent(reply.spend),
    }
    if reply.finish:
        attributes[semconv.FINISH_REASONS] = (reply.finish,)
    if reply.usage.input or reply.usage.output:
        attributes[semconv.INPUT_TOKENS] = reply.usage.input
        attributes[semconv.OUTPUT_TOKENS] = reply.usage.output
    if scene.content:
        attributes[semconv.OUTPUT_MESSAGES] = _reply(reply)
    end = min(at, question.at + reply.latency_ms) if reply.latency_ms else at
    return scene.span(
        span_id(f"{asked_by}/{semconv.CHAT}"),
        f"{semconv.CHAT} {model}",
        (question.at, end),
        attributes,
        under=question.own,
        kind="client",
        error=reply.status if reply.status != "OK" else "",
    )


def _reply(reply: PolicyReplied) -> str:
    decided = reply.decision
    answer = decided.answer if decided is not None and decided.answer is not None else ""
    parts = [said(each) for each in dict.fromkeys((reply.text, answer)) if each]
    for call in decided.calls if decided is not None else ():
        part = {"type": "tool_call", "name": call.worker, "arguments": call.arguments}
        parts.append(part | ({"id": call.ref} if call.ref else {}))
    return messages("assistant", parts, reply.finish)


def attempt(
    scene: Scene, called: Called, tried: Tried, under: Context, joined: tuple[Link, ...]
) -> Span:
    """One attempt of a call, from the start of the work to its end; ``joined`` led to it."""
    kind = called.worker.kind
    start = tried.began(kind)
    operation = semconv.EXECUTE_TOOL if kind == "tool" else semconv.INVOKE_AGENT
    attributes = _of_attempt(scene, called, tried) | {semconv.OPERATION_NAME: operation}
    if start > tried.queued:
        attributes[semconv.QUEUE_WAIT_MS] = start - tried.queued
    status, fault = tried.settled.status, tried.settled.fault
    error = tried.error or ("" if status == "OK" else status)
    links = (Link.to(called.last, semconv.RETRIES),) if called.last is not None else joined
    return scene.span(
        tried.own.span,
        f"{operation} {called.worker.name}",
        (start, tried.ended),
        attributes,
        under=under,
        error=error,
        message=f"{error} (fault: {fault})" if error and fault != "none" else error,
        links=links,
    )


def _of_attempt(scene: Scene, called: Called, tried: Tried) -> Attributes:
    worker, settled, report = called.worker, tried.settled, tried.report
    found = scene.common(tried.number, called.cause) | {
        semconv.CALL_ID: tried.call,
        semconv.ATTEMPT: tried.attempt,
        semconv.ROUND: scene.round,
        semconv.STATUS: settled.status if not tried.error else "",
        semconv.FAULT: settled.fault if settled.fault != "none" else "",
        semconv.ACTOR_ROLE: _role(worker),
        semconv.ACTOR_ID: report.by if report is not None else "",
        **spent(settled.spend),
    }
    if worker.kind == "tool":
        found[semconv.TOOL_NAME] = worker.name
        found[semconv.TOOL_TYPE] = semconv.FUNCTION
        found[semconv.TOOL_CALL_ID] = called.ref or tried.call
    else:
        found[semconv.AGENT_NAME] = worker.name
    if worker.model:
        found[semconv.PROVIDER_NAME] = worker.provider
        found[semconv.REQUEST_MODEL] = worker.model
    if report is not None and report.record:
        found |= model_calls(report.record)
    if report is not None and report.deliveries > 1:
        found[semconv.DELIVERIES] = report.deliveries
    if report is not None and (report.usage.input or report.usage.output):
        found[semconv.INPUT_TOKENS] = report.usage.input
        found[semconv.OUTPUT_TOKENS] = report.usage.output
    if report is not None and report.blob is not None:
        found[semconv.CONTENT_REF] = f"sha256:{report.blob.sha256}"
    elif report is not None or settled.value is not None:
        found[semconv.CONTENT_REF] = scene.event(tried.over)
    if scene.content:
        value = report.value if report is not None else settled.value
        found[semconv.TOOL_CALL_ARGUMENTS] = text(called.arguments)
        found[semconv.TOOL_CALL_RESULT] = text(value) if value is not None else ""
    return found


def turns(scene: Scene, called: Called, tried: Tried) -> list[Span]:
    """What an agent asked and used within an attempt, below the attempt's own span."""
    report, worker = tried.report, called.worker
    if report is None or not report.record:
        return []
    common = scene.common(tried.number, called.cause) | {
        semconv.CALL_ID: tried.call,
        semconv.ACTOR_ROLE: _role(worker),
        semconv.ACTOR_ID: report.by,
    }
    made = Attempt(
        identity=f"{scene.run}/{tried.call}/{tried.attempt}",
        own=tried.own,
        common=common,
        provider=worker.provider,
        model=worker.model,
        began=tried.began(worker.kind),
        ended=tried.ended,
    )
    return spans(scene, made, report.record)


def _role(worker: Party) -> str:
    return semconv.CONDUCTOR if worker.kind == "conductor" else semconv.WORKER


def message(scene: Scene, called: Called, tried: Tried) -> tuple[Span, Span]:
    """The spans of an attempt's message: published by the conductor, processed by a worker."""
    identity, worker = f"{scene.run}/{tried.call}/{tried.attempt}", called.worker
    if worker.kind == "conductor":
        place = subjects.task("high", subjects.child_id(scene.run, tried.call, tried.attempt))
        template, queue, group = subjects.TASK, "tasks", "tasks-high"
    else:
        place = subjects.call(worker.place, scene.priority, scene.run, tried.call, tried.attempt)
        template = subjects.CALL
        queue, group = f"calls.{worker.place}", f"calls-{worker.place}-{scene.priority}"
    attributes = scene.common(tried.number, called.cause) | {
        semconv.MESSAGING_SYSTEM: semconv.NATS,
        semconv.DESTINATION_NAME: place,
        semconv.DESTINATION_TEMPLATE: template,
        semconv.MESSAGE_ID: identity,
        semconv.CONVERSATION_ID: scene.run,
        semconv.CALL_ID: tried.call,
        semconv.ATTEMPT: tried.attempt,
    }
    report = tried.report
    replica: Attributes = {
        semconv.ACTOR_ROLE: _role(worker),
        semconv.ACTOR_ID: report.by if report is not None else "",
    }
    if report is not None and report.deliveries > 1:
        replica[semconv.DELIVERIES] = report.deliveries
    published = scene.span(
        span_id(f"{identity}/publish"),
        f"publish {queue}",
        (tried.queued, tried.queued),
        attributes
        | {
            semconv.MESSAGING_OPERATION_NAME: "publish",
            semconv.MESSAGING_OPERATION_TYPE: semconv.SEND,
        },
        under=tried.root,
        kind="producer",
    )
    processed = scene.span(
        span_id(f"{identity}/process"),
        f"process {queue}",
        (tried.began(worker.kind), tried.ended),
        attributes
        | replica
        | {
            semconv.MESSAGING_OPERATION_NAME: semconv.PROCESS,
            semconv.MESSAGING_OPERATION_TYPE: semconv.PROCESS,
            semconv.CONSUMER_GROUP: group,
        },
        under=tried.root.with_span(published.id),
        kind="consumer",
    )
    return published, processed
