"""Native tool calls, the OpenAI shape: a `View` as chat messages, a reply as a `Decision`.

Everything is a pure function of its arguments, and rendering is canonical (sorted keys, compact
JSON, no clock, no random ids): the same log gives the same prompt for ever. Earlier rounds are
rendered from the recorded observations, not from what the model typed, so a recovered run, a replay
and a data set see one and the same text.

This dialect has parallel rounds only: `PlannedCall.after` and `sees` have no native form and are
not rendered.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.actions import Call, Json, Pool
from protocol.decisions import (
    Decision,
    PlannedCall,
    Rejection,
    Reply,
    ToolCall,
    Turn,
    View,
)
from protocol.dialects import shared
from protocol.dialects.shared import (
    STILL_OPEN,
    SYSTEM,
    UNREADABLE,
    UNREADABLE_CHARS,
    Message,
    compact,
    cut,
)

LATE: Final = "The result of an earlier call has come in meanwhile:"
"""What stands before a result that came when its round was over."""

_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
"""What endpoints refuse in a function's name. A model may have invented such a name, and history
repeats it."""

_NAME_CHARS: Final = 64
"""Characters that endpoints accept in a function's name."""


def request(view: View, system: str = "") -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: messages, tools, tool choice.

    In the final turn the tools stay in the request, since endpoints check the calls in the history
    against them, and ``tool_choice`` none forbids further calls.
    """
    offered = tools(view.pool)
    body: dict[str, Json] = {"messages": messages(view, system)}
    if offered:
        body["tools"] = offered
        body["tool_choice"] = "none" if view.final else "auto"
    return body


def tools(pool: Pool) -> list[Message]:
    """The pool's workers as function tools, in the pool's order."""
    return [
        {
            "type": "function",
            "function": {
                "name": worker.name,
                "description": worker.description,
                "parameters": worker.parameters,
            },
        }
        for worker in pool.workers
    ]


def messages(view: View, system: str = "") -> list[Message]:
    """The conversation so far: the conductor's job, the task, and each turn with its results."""
    shown: list[Message] = [{"role": "system", "content": system or SYSTEM}, shared.task(view)]
    for turn in view.turns:
        shown.extend(told(turn))
    if view.final:
        shown.append(shared.last_word(view))
    return shown


def parse(reply: Reply, pool: Pool) -> Decision | Rejection:
    """The decision in ``reply``: its calls if it has any, else its text as the answer. Total.

    Args:
        reply: What the model said.
        pool: Not consulted: an unknown worker is for the rules to settle, call by call.
    """
    del pool
    size = shared.size(reply.text) + sum(
        shared.size(part)
        for call in reply.tool_calls
        for part in (call.id, call.name, call.arguments)
    )
    if problem := shared.too_large(size):
        return problem
    if reply.tool_calls:
        return Decision(
            calls=tuple(
                PlannedCall(worker=call.name, arguments=_arguments(call.arguments), ref=call.id)
                for call in reply.tool_calls
            )
        )
    # Thinking that a server has left there is no answer; one without an end is taken as it is.
    answer = shared.spoken(reply.text) if shared.THOUGHT in reply.text else reply.text
    if answer.strip():
        return Decision(answer=answer)
    return Rejection(
        "empty",
        "The reply has neither calls nor an answer. "
        "Call workers, or give the answer as plain text.",
    )


def render(decision: Decision) -> Reply:
    """``decision`` as a model would say it: the inverse of `parse`.

    Not of ``after``, ``sees`` and ``last_answers``, which this dialect cannot say.
    """
    return Reply(
        text=decision.answer or "",
        tool_calls=tuple(
            ToolCall(id=call.ref, name=call.worker, arguments=compact(call.arguments))
            for call in decision.calls
        ),
    )


def told(turn: Turn) -> list[Message]:
    """One turn: what the model said, and what came of it."""
    if turn.rejection is not None:
        return [*shared.refused(turn, turn.rejection), *_late(turn)]
    asked = shared.asked(turn)
    if not asked:
        return [*shared.said(turn.text), *_late(turn)]
    ids = _ids(asked)
    calls = [
        {
            "id": ref,
            "type": "function",
            "function": {
                "name": _function_name(call.worker),
                "arguments": compact(call.arguments),
            },
        }
        for ref, call in zip(ids, asked, strict=True)
    ]
    limit = shared.value_chars(len(calls))
    seen = {item.call.id: shared.result(item, limit) for item in turn.observations}
    results = [
        {"role": "tool", "tool_call_id": ref, "content": seen.get(call.id, STILL_OPEN)}
        for ref, call in zip(ids, asked, strict=True)
    ]
    asks: Message = {"role": "assistant", "content": turn.text or None, "tool_calls": calls}
    return [asks, *results, *_late(turn)]


def _late(turn: Turn) -> list[Message]:
    """What came when the round was over, each result with its call."""
    lines = [
        f"{_function_name(seen.call.worker)}({compact(seen.call.arguments)}): "
        + shared.result(seen, shared.LATE_CHARS)
        for seen in turn.late
    ]
    return [{"role": "user", "content": f"{LATE}\n{line}"} for line in lines]


def _ids(calls: Iterable[Call]) -> list[str]:
    """One id a call, unique in its turn: the model's own unless it gave none, or one twice."""
    taken: set[str] = set()
    ids: list[str] = []
    for call in calls:
        own = call.ref
        ref = own if own and own not in taken else call.id
        taken.add(ref)
        ids.append(ref)
    return ids


def _arguments(text: str) -> dict[str, Json]:
    """The call's arguments, or what was written instead under `UNREADABLE`."""
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
        if isinstance(value, dict) and _storable(value):
            return value
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return {UNREADABLE: cut(shared.clean(text), UNREADABLE_CHARS)}


def _storable(value: Json) -> bool:
    """Whether the log can hold the value: it encodes, and is not nested beyond reason."""
    return bool(msgspec.json.encode(value))


def _function_name(worker: str) -> str:
    return _NOT_A_NAME.sub("_", worker)[:_NAME_CHARS] or "unnamed"
