"""The Hermes and Qwen3 text template: tools, calls and results as tagged JSON within the messages.

::

    system     … <tools> one JSON object a line </tools> …
    assistant  <think>…</think> a note
               <tool_call>
               {"name": "lookup", "arguments": {"name": "Peru"}}
               </tool_call>
    user       <tool_response>
               {"name": "lookup", "status": "OK", "value": "Lima"}
               </tool_response>

For endpoints without native tool calls, and for models of ours: nothing but text goes to the model
and comes back. The tags and the JSON within are those of Qwen3's chat template, which makes of
these messages what it makes of native calls; the sentences are ours. A round is shown as the model
typed it as long as that says what was done, so that one prompt begins with the one before and what
was replied to it; else, as after a fork from another dialect, it is written anew.

Several blocks are parallel calls. The log keeps the whole of a reply's text, so a block that can't
be read rejects the reply. `PlannedCall.after`, `sees` and `earlier` have
no form here; an ``id`` within a block is its `ref`.
"""

import json
import re
from typing import Final

import msgspec

from protocol.actions import Call, Json, Pool
from protocol.decisions import Decision, PlannedCall, Rejection, Reply, Turn, View
from protocol.dialects import shared
from protocol.dialects.openai import tools
from protocol.dialects.shared import STILL_OPEN, SYSTEM, THINK, THOUGHT, Message, compact, cut

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"

_SHOWN_CHARS: Final = 200
"""Characters of a malformed block in the rejection: enough to find it again."""

_JSON: Final = json.JSONDecoder()
_WHITE: Final = re.compile(r"[ \t\r\n]*")

_FORM: Final = """\
Write each call as a JSON object with "name" and "arguments" within tags of its own:
<tool_call>
{"name": "…", "arguments": {…}}
</tool_call>"""

_TOOLS: Final = """

# Tools

The workers that you can call, each as JSON with its name and the JSON Schema of its arguments:
<tools>
@@
</tools>

Several calls in one reply run in parallel. """


def request(view: View, system: str = "") -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: its messages."""
    return {"messages": messages(view, system)}


def messages(view: View, system: str = "") -> list[Message]:
    """The conversation so far: the job and the tools, the task, and each turn with its results."""
    job = system or SYSTEM
    if view.pool.workers:
        listed = "\n".join(map(compact, tools(view.pool)))
        job += _TOOLS.replace("@@", listed) + _FORM
    shown: list[Message] = [{"role": "system", "content": job}, shared.task(view)]
    for turn in view.turns:
        shown.extend(_turn(turn))
    if view.final:
        shown.append(shared.last_word(view))
    return shown


def parse(reply: Reply, pool: Pool) -> Decision | Rejection:
    """The decision in ``reply``: its calls if it has any, else its text as the answer. Total.

    Args:
        reply: What the model said; only its text counts.
        pool: Not consulted: an unknown worker is for the rules to settle, call by call.
    """
    del pool
    text = shared.clean(reply.text)
    if problem := shared.too_large(shared.size(text)):
        return problem
    spoken = _spoken(text)
    if _OPEN in spoken:
        return _calls(text, spoken)
    if _CLOSE in spoken:
        return _malformed(f"The reply has {_CLOSE}, and no {_OPEN} before it.", spoken)
    if spoken.strip():
        return Decision(answer=spoken)
    return Rejection(
        "empty",
        "The reply has neither calls nor an answer after its thinking. "
        "Call workers, or give the answer as plain text.",
    )


def render(decision: Decision) -> Reply:
    """``decision`` as a model would say it: the inverse of `parse`.

    Not of what has no form in this dialect, nor of an answer that holds its tags.
    """
    return Reply(text=decision.answer or _blocks(decision.calls))


def beside(text: str) -> str:
    """What a reply says beside its calls and after its thinking."""
    return _spoken(text).partition(_OPEN)[0].strip()


def _spoken(text: str) -> str:
    """What a reply says after its thinking, which some servers begin by themselves, unseen."""
    head, thought, rest = text.partition(THOUGHT)
    if thought and THINK not in head and _OPEN not in head:
        return rest.lstrip()
    return shared.spoken(text)


def _calls(text: str, spoken: str) -> Decision | Rejection:
    calls: list[PlannedCall] = []
    end = 0
    while (start := spoken.find(_OPEN, end)) >= 0:
        number = len(calls) + 1
        start += len(_OPEN)
        found = _object(spoken, start)
        if found is None:
            return _malformed(f"Call {number} is no JSON object.", spoken[start:])
        call, end = found
        planned = _planned(call)
        if planned is None:
            return _malformed(
                f'Call {number} has no "name", or "arguments" that are no object.', spoken[start:]
            )
        calls.append(planned)
        end = _past(spoken, end)
        if end < 0:
            return _malformed(f"Call {number} is not followed by {_CLOSE}.", spoken[start:])
    if problem := shared.too_large(shared.size(text) + len(msgspec.json.encode(calls))):
        return problem
    return Decision(calls=tuple(calls))


def _object(text: str, start: int) -> tuple[dict[str, Json], int] | None:
    """The JSON object that begins here, and where it ends: a tag within a string is none."""
    start = _past_white(text, start)
    try:
        _, end = _JSON.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    found = shared.json_object(text[start:end])
    return None if found is None else (found, end)


def _planned(call: dict[str, Json]) -> PlannedCall | None:
    name, arguments = call.get("name"), call.get("arguments", {})
    if isinstance(arguments, str):  # some models write the object as a text
        arguments = shared.json_object(arguments) if arguments.strip() else {}
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    ref = call.get("id", "")
    return PlannedCall(name, arguments, ref=ref if isinstance(ref, str) else "")


def _past_white(text: str, start: int) -> int:
    white = _WHITE.match(text, start)
    return white.end() if white else start


def _past(text: str, end: int) -> int:
    """Where the block is over; -1 if it isn't closed.

    The end of the reply closes it too: endpoints keep the text at which they stop to themselves.
    """
    end = _past_white(text, end)
    if end == len(text):
        return end
    return end + len(_CLOSE) if text.startswith(_CLOSE, end) else -1


def _malformed(what: str, text: str) -> Rejection:
    return Rejection("malformed", f"{what} {_FORM}\nThere was: {cut(text.strip(), _SHOWN_CHARS)}")


def _blocks(calls: tuple[PlannedCall, ...]) -> str:
    return "\n".join(f"{_OPEN}\n{_written(call)}\n{_CLOSE}" for call in calls)


def _written(call: PlannedCall) -> str:
    ref = f', "id": {compact(call.ref)}' if call.ref else ""
    return f'{{"name": {compact(call.worker)}, "arguments": {compact(call.arguments)}{ref}}}'


def _turn(turn: Turn) -> list[Message]:
    if turn.rejection is not None:
        return [*shared.refused(turn, turn.rejection), *_late(turn)]
    asked = shared.asked(turn)
    if not asked:
        return [*shared.said(turn.text), *_late(turn)]
    limit = shared.value_chars(len(asked))
    seen = {
        item.call.id: shared.result(item, limit, name=item.call.worker)
        for item in turn.observations
    }
    results = [
        seen.get(call.id) or compact({"name": call.worker, "value": STILL_OPEN}) for call in asked
    ]
    return [
        {"role": "assistant", "content": _typed(turn, asked)},
        _responses(results),
        *_late(turn),
    ]


def _late(turn: Turn) -> list[Message]:
    """What came when the round was over, each result with its call."""
    results = [
        shared.result(
            item,
            shared.LATE_CHARS,
            name=item.call.worker,
            arguments=shared.sorted_json(item.call.arguments),
        )
        for item in turn.late
    ]
    return [_responses([result]) for result in results]


def _responses(results: list[str]) -> Message:
    """Nothing but responses: so the template knows them from a user's words."""
    shown = "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)
    return {"role": "user", "content": shown}


def _typed(turn: Turn, asked: list[Call]) -> str:
    """The round as the model typed it, or anew if that doesn't say what was done."""
    done = tuple(PlannedCall(call.worker, call.arguments) for call in asked)
    parsed = parse(Reply(text=turn.text), Pool(()))
    typed = parsed.calls if isinstance(parsed, Decision) else ()
    if tuple(msgspec.structs.replace(call, ref="") for call in typed) == done:
        return turn.text
    spoken = _spoken(turn.text)
    beside = turn.text.removesuffix(spoken) + spoken.partition(_OPEN)[0].rstrip()
    return f"{beside}\n{_blocks(done)}" if beside else _blocks(done)
