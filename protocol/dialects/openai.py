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
from typing import Any, Final, TypeAlias

import msgspec

from protocol.actions import Call, Json, Pool
from protocol.decisions import (
    Decision,
    Observation,
    PlannedCall,
    Rejection,
    Reply,
    ToolCall,
    Turn,
    View,
)
from protocol.limits import MAX_DETAIL_CHARS, MAX_REPLY_BYTES

Message: TypeAlias = dict[str, Any]
"""One chat message, as the endpoint takes it."""

UNREADABLE: Final = "__unreadable__"
"""The only key of a call's arguments when the model's text was no JSON object.

Its value is that text, cut. The rules settle such a call as a ``PARSE_ERR``; the other calls of its
round go ahead.
"""

UNREADABLE_CHARS: Final = 500
"""Characters kept of unreadable arguments: enough to see the slip, little enough to repeat in every
later prompt."""

ROUND_CHARS: Final = 64_000
"""Characters of values shown of one round, shared by its calls: about 16,000 tokens."""

VALUE_CHARS: Final = 2_000
"""Characters that each value is shown at least, however many calls its round has: one screen."""

SYSTEM: Final = """\
You are the conductor of a run. You do not solve the task yourself: you break it into subtasks, \
give them to the workers you are offered as tools, read what comes back, and answer.

How you work, round by round:
- Decompose. Find the parts that do not depend on each other and call workers for all of them \
in one reply: calls of one reply run in parallel. What needs an earlier result waits for your \
next reply.
- State each subtask completely. A worker sees the arguments of its call and nothing of this \
conversation.
- Read every result. It is JSON with a "status" and a "value":
  OK         the value is the result;
  PARSE_ERR  the call was wrong and was not made; the value says how to mend it: call again;
  EXEC_ERR   the worker failed; the value says why: change the call, or use another worker;
  TIMEOUT    it took too long: ask for less, or use another worker.
- Repair what failed; do not repeat a call that has failed without changing it.
- Cross-check. Where results disagree, or the answer hangs on a single one, have it checked by \
another worker.
- Answer as soon as the results suffice: reply with the answer as plain text and no calls. \
Answer the question that was asked, from the results, and say what could not be found.

Text beside calls is kept as your note. A reply with neither calls nor text is refused."""
"""The conductor's job, as every model of this dialect is told it."""

STILL_OPEN: Final = "(still at work: its result follows when it comes)"
"""In place of the result of a call that went on when the policy was asked."""

LATE: Final = "Results of earlier calls that came in meanwhile:"
"""What stands before results that came when their round was over."""

_THINKING: Final = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
"""A reasoning block that a server has left in the text; it is thought, and thought is never an
answer."""

_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
"""What endpoints refuse in a function's name. A model may have invented such a name, and history
repeats it."""

_NAME_CHARS: Final = 64
"""Characters that endpoints accept in a function's name."""


def cut(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """``text``, or its first ``limit`` characters and how many there were."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [cut: {limit} of {len(text)} characters]"


def value_chars(calls: int) -> int:
    """Characters that each value of a round of so many calls is shown at most."""
    return max(VALUE_CHARS, ROUND_CHARS // max(1, calls))


def request(view: View) -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: messages, tools, tool choice.

    In the final turn the tools stay in the request, since endpoints check the calls in the history
    against them, and ``tool_choice`` none forbids further calls.
    """
    offered = tools(view.pool)
    body: dict[str, Json] = {"messages": messages(view)}
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


def messages(view: View) -> list[Message]:
    """The conversation so far: the conductor's job, the task, and each turn with its results."""
    shown: list[Message] = [{"role": "system", "content": SYSTEM}, _task(view)]
    for turn in view.turns:
        shown.extend(told(turn))
    if view.final:
        shown.append({"role": "user", "content": _last_word(view)})
    return shown


def parse(reply: Reply, pool: Pool) -> Decision | Rejection:
    """The decision in ``reply``: its calls if it has any, else its text as the answer. Total.

    Args:
        reply: What the model said.
        pool: Not consulted: an unknown worker is for the rules to settle, call by call.
    """
    del pool
    size = _bytes(reply.text) + sum(
        _bytes(part) for call in reply.tool_calls for part in (call.id, call.name, call.arguments)
    )
    if size > MAX_REPLY_BYTES:
        return Rejection(
            "too_large",
            f"The reply has {size} bytes; at most {MAX_REPLY_BYTES} are taken. "
            "Make fewer calls, or say less.",
        )
    if reply.tool_calls:
        return Decision(
            calls=tuple(
                PlannedCall(worker=call.name, arguments=_arguments(call.arguments), ref=call.id)
                for call in reply.tool_calls
            )
        )
    answer = _THINKING.sub("", reply.text)
    if answer.strip():
        return Decision(answer=answer)
    return Rejection(
        "empty",
        "The reply has neither calls nor an answer. "
        "Call workers, or give the answer as plain text.",
    )


def render(decision: Decision) -> Reply:
    """``decision`` as a model would say it: the inverse of `parse`.

    Not of ``after`` and ``sees``, which this dialect cannot say.
    """
    return Reply(
        text=decision.answer or "",
        tool_calls=tuple(
            ToolCall(id=call.ref, name=call.worker, arguments=_compact(call.arguments))
            for call in decision.calls
        ),
    )


def _task(view: View) -> Message:
    text = view.task.text
    if view.task.inputs:
        text += f"\n\nInputs (JSON):\n{_compact(view.task.inputs)}"
    return {"role": "user", "content": text}


def told(turn: Turn) -> list[Message]:
    """One turn: what the model said, and what came of it."""
    if turn.rejection is not None:
        said = [{"role": "assistant", "content": turn.text}] if turn.text.strip() else []
        refused = f"That reply was refused ({turn.rejection.reason}): {turn.rejection.detail}"
        return [*said, {"role": "user", "content": refused}, *_late(turn)]
    asked = [seen.call for seen in turn.observations] + list(turn.open)
    if not asked:
        return [{"role": "assistant", "content": turn.text}] if turn.text.strip() else []
    ids = _ids(asked)
    calls = [
        {
            "id": ref,
            "type": "function",
            "function": {
                "name": _function_name(call.worker),
                "arguments": _compact(call.arguments),
            },
        }
        for ref, call in zip(ids, asked, strict=True)
    ]
    limit = value_chars(len(calls))
    contents = [_result(seen, limit) for seen in turn.observations]
    contents += [STILL_OPEN] * len(turn.open)
    results = [
        {"role": "tool", "tool_call_id": ref, "content": content}
        for ref, content in zip(ids, contents, strict=True)
    ]
    asks: Message = {"role": "assistant", "content": turn.text or None, "tool_calls": calls}
    return [asks, *results, *_late(turn)]


def _late(turn: Turn) -> list[Message]:
    """What came when the round was over, each result with its call."""
    if not turn.late:
        return []
    limit = value_chars(len(turn.late))
    lines = [
        f"{_function_name(seen.call.worker)}({_compact(seen.call.arguments)}): "
        + _result(seen, limit)
        for seen in turn.late
    ]
    return [{"role": "user", "content": "\n".join([LATE, *lines])}]


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


def _result(seen: Observation, limit: int) -> str:
    value = seen.value
    text = value if isinstance(value, str) else _compact(value)
    if len(text) > limit:
        value = cut(text, limit)
    return _compact({"status": seen.status, "value": value}, sort=False)


def _last_word(view: View) -> str:
    why = f" The run's limit of {view.limited_by} is reached." if view.limited_by else ""
    return (
        f"Answer now: no further calls are possible.{why} Give the best answer that the results "
        "so far support, as plain text, and say plainly what is missing or unsure."
    )


def _arguments(text: str) -> dict[str, Json]:
    """The call's arguments, or what was written instead under `UNREADABLE`."""
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
        if isinstance(value, dict) and _storable(value):
            return value
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return {UNREADABLE: cut(_clean(text), UNREADABLE_CHARS)}


def _storable(value: Json) -> bool:
    """Whether the log can hold the value: it encodes, and is not nested beyond reason."""
    return bool(msgspec.json.encode(value))


def _compact(value: Json, *, sort: bool = True) -> str:
    """Canonical JSON text: no spaces, keys sorted unless their order is ours."""
    return msgspec.json.encode(value, order="deterministic" if sort else None).decode()


def _function_name(worker: str) -> str:
    return _NOT_A_NAME.sub("_", worker)[:_NAME_CHARS] or "unnamed"


def _clean(text: str) -> str:
    """``text`` without lone surrogates, which no UTF-8 message can hold."""
    return text.encode("utf-8", "replace").decode()


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
