"""The spans of an agent's own turns: what it asked its model, and the tools of its own it used.

They stand below the agent's attempt, and are made of the record beside its report. Their ids are
hashes of what they are about, as all are: of the attempt, and the place in its record.
"""

from collections.abc import Iterator, Mapping
from sys import getsizeof
from typing import Final

import msgspec

from protocol import semconv
from protocol.actions import UNKNOWN_USAGE, BlobRef, Json, Report, Spend, Status, Usage, WorkerSpec
from protocol.errors import InvalidData
from protocol.exchanges import Exchange, Failed, Said, Used, exchanges
from protocol.limits import MAX_NAME_CHARS
from protocol.state import RunState
from protocol.traces import Context, span_id
from protocol.views import short
from replay.chain import RunLog
from replay.history import reports
from replay.spans import Attributes, Span
from replay.trace_scene import MAX_CONTENT_CHARS, Scene, messages, said, spent

MAX_SPANS: Final = 200
"""Spans of one attempt's turns: a trace in which one call has more shows nothing else."""

MAX_BYTES: Final = 4_000_000
"""Bytes of a record that is looked into. What needs more is no conversation."""

Records = Mapping[str, Json]
"""Records of agents' attempts, by the hash of the report that names them."""

NO_RECORDS: Final[Records] = {}

Record = tuple["Asked", ...]
"""What is kept of a record until its attempt is over."""


class Called(msgspec.Struct, frozen=True, gc=False):
    """One use of a tool of an agent's own."""

    name: str
    ref: str
    """The model's own id of the call."""
    status: Status
    fault: str
    began_ms: int
    """Milliseconds from the beginning of the attempt."""
    took_ms: int
    spend: Spend
    usage: Usage
    arguments: str | None
    """Content, as much as will be told; None for none."""
    result: str | None
    inner: Record = ()
    """What the tool asked, if it is an agent itself."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """One request to an agent's model, and the tools that the reply has called."""

    began_ms: int
    took_ms: int
    model: str
    """The one that answered; empty if none did."""
    finish: str
    error: str
    spend: Spend
    usage: Usage
    text: str
    """What it said, as a message; empty for no content."""
    tools: tuple[Called, ...] = ()


def has_turns(spec: WorkerSpec) -> bool:
    """Whether an agent may have turns of its own.

    One without tools asks once, and its attempt says all of that.
    """
    return spec.kind == "agent" and bool(spec.options.get("tools"))


def record_of(scene: Scene, record: Json) -> Record:
    """What is told of a record; nothing of what can't be read, or is one request without tools."""
    try:
        made = exchanges(record)
    except InvalidData:
        return ()
    if len(made) < 2 and not any(each.tools for each in made):
        return ()
    return tuple(_asked(scene, each) for each in made[:MAX_SPANS])


def _asked(scene: Scene, made: Exchange) -> Asked:
    reply = made.reply
    spoke = reply if isinstance(reply, Said) else Said()
    return Asked(
        began_ms=made.began_ms,
        took_ms=made.took_ms,
        model=spoke.version.partition("@")[0][:MAX_NAME_CHARS],
        finish=spoke.finish[:MAX_NAME_CHARS],
        error=reply.status if isinstance(reply, Failed) else "",
        spend=spoke.spend,
        usage=spoke.usage,
        text=_message(spoke) if scene.content else "",
        tools=tuple(_called(scene, spoke, place, use) for place, use in enumerate(made.tools)),
    )


def _message(spoke: Said) -> str:
    parts = [said(spoke.text)] if spoke.text else []
    room = MAX_CONTENT_CHARS // max(1, len(spoke.tool_calls))
    for call in spoke.tool_calls:
        name, ref = call.name[:MAX_NAME_CHARS], call.id[:MAX_NAME_CHARS]
        part = {"type": "tool_call", "name": name, "arguments": short(call.arguments, room)}
        parts.append(part | ({"id": ref} if ref else {}))
    return messages("assistant", parts, spoke.finish[:MAX_NAME_CHARS])


def _called(scene: Scene, spoke: Said, place: int, use: Used) -> Called:
    asked = spoke.tool_calls[place] if place < len(spoke.tool_calls) else None
    return Called(
        name=asked.name[:MAX_NAME_CHARS] if asked is not None else "",
        ref=asked.id[:MAX_NAME_CHARS] if asked is not None else "",
        status=use.status,
        fault=use.fault,
        began_ms=use.began_ms,
        took_ms=use.took_ms,
        spend=use.spend,
        usage=use.usage,
        arguments=scene.content_of(asked.arguments if asked is not None else None),
        result=scene.content_of(use.value),
        inner=record_of(scene, use.record) if use.record is not None else (),
    )


class Attempt(msgspec.Struct, frozen=True):
    """The attempt that the turns are of."""

    identity: str
    """``RUN/CALL/ATTEMPT``."""
    own: Context
    """Its span."""
    common: Attributes
    """What stands on each span below it."""
    provider: str
    model: str
    """The model that it asks."""
    began: int
    """When its work began, milliseconds since the epoch."""
    ended: int


def spans(scene: Scene, attempt: Attempt, record: Record) -> list[Span]:
    """The spans of an attempt's turns, as they began."""
    found: list[Span] = []
    for span in _spans(scene, attempt, record, "", attempt.began):
        if len(found) == MAX_SPANS:
            break
        found.append(span)
    return found


def model_calls(record: Record) -> Attributes:
    """How many requests to its model an agent made, each of which has a span of its own."""
    return {semconv.MODEL_CALLS: len(record)} if record else {}


def held(record: Record) -> int:
    """Bytes of what agents wrote."""
    uses = [use for asked in record for use in asked.tools]
    texts = [asked.text for asked in record]
    texts += [each for use in uses for each in (use.arguments, use.result) if each is not None]
    return sum(map(getsizeof, texts)) + sum(held(use.inner) for use in uses)


def _spans(
    scene: Scene, attempt: Attempt, record: Record, above: str, began: int
) -> Iterator[Span]:
    for turn, asked in enumerate(record, 1):
        place = f"{above}{turn}"
        yield _chat(scene, attempt, asked, place, turn, began)
        for number, use in enumerate(asked.tools):
            inner = f"{place}.{number}"
            span = _use(scene, attempt, use, inner, turn, began)
            yield span
            below = msgspec.structs.replace(
                attempt, own=attempt.own.with_span(span.id), provider="", model=""
            )
            yield from _spans(scene, below, use.inner, f"{inner}/", began + use.began_ms)


def _times(attempt: Attempt, start: int, took_ms: int) -> tuple[int, int]:
    """Within the attempt, whatever a record says."""
    start = min(max(attempt.began, start), attempt.ended)
    return start, min(start + took_ms, attempt.ended)


def _chat(scene: Scene, attempt: Attempt, asked: Asked, place: str, turn: int, began: int) -> Span:
    model = attempt.model or asked.model
    attributes = attempt.common | {
        semconv.OPERATION_NAME: semconv.CHAT,
        semconv.PROVIDER_NAME: attempt.provider,
        semconv.REQUEST_MODEL: model,
        semconv.RESPONSE_MODEL: asked.model,
        semconv.TURN: turn,
        semconv.OUTPUT_MESSAGES: asked.text,
        **spent(asked.spend),
        **_usage(asked.usage),
    }
    if asked.finish:
        attributes[semconv.FINISH_REASONS] = (asked.finish,)
    return scene.span(
        span_id(f"{attempt.identity}/{place}"),
        f"{semconv.CHAT} {model}".rstrip(),
        _times(attempt, began + asked.began_ms, asked.took_ms),
        attributes,
        under=attempt.own,
        kind="client",
        error=asked.error,
    )


def _use(scene: Scene, attempt: Attempt, use: Called, place: str, turn: int, began: int) -> Span:
    agent = bool(use.inner) or use.usage != UNKNOWN_USAGE
    operation = semconv.INVOKE_AGENT if agent else semconv.EXECUTE_TOOL
    attributes = attempt.common | {
        semconv.OPERATION_NAME: operation,
        semconv.TURN: turn,
        semconv.STATUS: use.status,
        semconv.FAULT: use.fault if use.fault != "none" else "",
        semconv.TOOL_CALL_ARGUMENTS: use.arguments or "",
        semconv.TOOL_CALL_RESULT: use.result or "",
        **spent(use.spend),
        **_usage(use.usage),
    }
    if agent:
        attributes |= {semconv.AGENT_NAME: use.name, **model_calls(use.inner)}
    else:
        attributes |= {
            semconv.TOOL_NAME: use.name,
            semconv.TOOL_TYPE: semconv.FUNCTION,
            semconv.TOOL_CALL_ID: use.ref,
        }
    error = use.status if use.status != "OK" else ""
    return scene.span(
        span_id(f"{attempt.identity}/{place}"),
        f"{operation} {use.name}".rstrip(),
        _times(attempt, began + use.began_ms, use.took_ms),
        attributes,
        under=attempt.own,
        error=error,
        message=f"{error} (fault: {use.fault})" if error and use.fault != "none" else error,
    )


def _usage(usage: Usage) -> Attributes:
    if not (usage.input or usage.output):
        return {}
    return {semconv.INPUT_TOKENS: usage.input, semconv.OUTPUT_TOKENS: usage.output}


def in_blobs(log: RunLog) -> dict[str, BlobRef]:
    """Where the records of a run's agents stand that are not in their reports: by the report."""
    state: RunState = log.state()
    found: dict[str, BlobRef] = {}
    for known, report in reports(log).items():
        call = state.calls.get(report.call)
        spec = state.workers.get(call.call.worker) if call is not None else None
        if spec is not None and has_turns(spec) and (ref := in_blob(report)) is not None:
            found[known] = ref
    return found


def in_blob(report: Report) -> BlobRef | None:
    """Where the record of a report stands, if it is not in the report and is to be looked into."""
    ref = report.record_blob
    return ref if ref is not None and ref.size <= MAX_BYTES else None
