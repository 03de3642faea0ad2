"""What the dialects of models share: how a task, a result and a refusal are put into words.

Pure, and canonical: sorted keys, compact JSON, no clock, no random ids.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec

from protocol.actions import Call, Json
from protocol.codec import deeper_than
from protocol.decisions import Observation, Output, Referable, Rejection, Turn, View
from protocol.limits import MAX_DETAIL_CHARS, MAX_NESTING, MAX_REPLY_BYTES

Message: TypeAlias = dict[str, Any]
"""One chat message, as an endpoint takes it."""

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

LATE_CHARS: Final = 8_000
"""Characters shown of a value that came late. Each is a message of its own, and none depends on how
many there are: more may come before a question that was lost is asked again."""

SEEN_CHARS: Final = 48_000
"""Characters of the results that a task shows of the run above, shared by them."""

STILL_OPEN: Final = "(still at work: its result follows when it comes)"
"""In place of the result of a call that went on when the policy was asked."""

_BLANKS: Final = " \t\r\n"
"""What may stand around JSON."""

THINK: Final = "<think>"
THOUGHT: Final = "</think>"
"""Around a model's thinking, where a server has left that in the text."""

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
"""The conductor's job, as every model that calls its workers as tools is told it."""


def cut(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """``text``, or its first ``limit`` characters and how many there were."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [cut: {limit} of {len(text)} characters]"


def compact(value: Json, *, sort: bool = True) -> str:
    """Canonical JSON text: no spaces, keys sorted unless their order is ours."""
    return msgspec.json.encode(value, order="deterministic" if sort else None).decode()


def sorted_json(value: Json) -> msgspec.Raw:
    """A value that is written canonically within what is not."""
    return msgspec.Raw(compact(value).encode())


def clean(text: str) -> str:
    """``text`` without lone surrogates, which no UTF-8 message can hold."""
    return text.encode("utf-8", "replace").decode()


def size(text: str) -> int:
    """Bytes of a text."""
    return len(text.encode("utf-8", "replace"))


def json_object(text: str) -> dict[str, Json] | None:
    """The JSON object that a text is, as the log can hold it; None if it is none."""
    if not text.lstrip(_BLANKS).startswith("{"):
        return None  # most texts are none: they are not to cost an exception
    try:
        data = clean(text).encode()
        if deeper_than(MAX_NESTING, data):
            return None
        value = msgspec.json.decode(data)
        return value if isinstance(value, dict) and msgspec.json.encode(value) else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def spoken(text: str) -> str:
    """What a text says after its thinking; nothing if it never ends that."""
    if not text.lstrip().startswith(THINK):
        return text
    return text.partition(THOUGHT)[2].lstrip()


def too_large(bytes_: int) -> Rejection | None:
    """Why a reply of so many bytes is refused, if it is."""
    if bytes_ <= MAX_REPLY_BYTES:
        return None
    return Rejection(
        "too_large",
        f"The reply has {bytes_} bytes; at most {MAX_REPLY_BYTES} are taken. "
        "Make fewer calls, or say less.",
    )


def task(view: View) -> Message:
    """The task, with the data that belongs to it."""
    text = view.task.text
    if view.task.inputs:
        text += f"\n\nInputs (JSON):\n{compact(view.task.inputs)}"
    return {"role": "user", "content": text + outputs(view.task.sees)}


def outputs(seen: Sequence[Output], limit: int = SEEN_CHARS) -> str:
    """What a task shows of the run above, below the task; empty if that is nothing.

    Args:
        seen: The outputs.
        limit: Characters of all of them together.
    """
    if not seen:
        return ""
    share = limit // len(seen)
    parts = ["", "Results that are known already, of calls made before this task was given:"]
    for each in seen:
        status = f' status="{each.status}"' if each.status != "OK" else ""
        value = each.value if isinstance(each.value, str) else compact(each.value)
        parts.append(f'<output of="{each.worker}"{status}>\n{cut(value, share)}\n</output>')
    return "\n\n".join(parts)


def refused(turn: Turn, rejection: Rejection) -> list[Message]:
    """A reply that was no decision, and why."""
    why = f"That reply was refused ({rejection.reason}): {rejection.detail}"
    return [*said(turn.text), {"role": "user", "content": why}]


def said(text: str) -> list[Message]:
    """What the model said, if it said anything."""
    return [{"role": "assistant", "content": text}] if text.strip() else []


def asked(turn: Turn) -> list[Call]:
    """The calls of a round in the order in which they were asked for, also those that go on."""
    calls = [*(seen.call for seen in turn.observations), *turn.open]
    return sorted(calls, key=lambda call: _place(call.id))


def referable(view: View) -> Referable:
    """What the reply to a view may refer to."""
    return Referable(view.task, tuple(call.id for turn in view.turns for call in asked(turn)))


def _place(call: str) -> int:
    place = call.partition("-")[2]
    return int(place) if place.isascii() and place.isdecimal() else 0


def value_chars(calls: int) -> int:
    """Characters that each value of a round of so many calls is shown at most."""
    return max(VALUE_CHARS, ROUND_CHARS // max(1, calls))


def result(seen: Observation, limit: int, **first: Json) -> str:
    """An observation as JSON: its status, and its value as far as there is room."""
    value = seen.value
    text = value if isinstance(value, str) else compact(value)
    if len(text) > limit:
        value = cut(text, limit)
    return compact({**first, "status": seen.status, "value": value}, sort=False)


def limit_reached(view: View) -> str:
    """Which limit is reached, as a sentence; empty if none is."""
    return f" The run's limit of {view.limited_by} is reached." if view.limited_by else ""


def last_word(view: View) -> Message:
    """That an answer is wanted now."""
    text = (
        f"Answer now: no further calls are possible.{limit_reached(view)} Give the best answer "
        "that the results so far support, as plain text, and say plainly what is missing or unsure."
    )
    return {"role": "user", "content": text}
