"""What came of a run, in OpenAI's shapes: a completion, or the chunks of one. Pure.

The usage is the run's own, as its log has it: every reply of the policy and every report of an
agent. What an endpoint doesn't tell apart counts as read.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from podium.render import tree
from podium.resting import pause_error
from podium.serve.problems import Problem, of_error
from protocol.actions import Spend, Usage
from protocol.events import CallSettled, PolicyReplied, ReportNoted
from protocol.state import RunState
from replay.chain import RunLog
from replay.history import reports

PREFIX: Final = "chatcmpl-"
"""Before a run's id: the id of its completion."""

PIECE_CHARS: Final = 256
"""Characters of one chunk, at most: an answer is known as a whole, and clients draw as it comes."""

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": the run is at work\n\n"
"""A comment: no client shows it, and no proxy takes the connection for dead."""

_PIECE: Final = re.compile(rf".{{1,{PIECE_CHARS}}}(?!\S)\s?|.{{1,{PIECE_CHARS}}}", re.DOTALL)

_BUDGETS: Final = frozenset({"rounds", "calls", "tokens", "cost", "wall"})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a run that has finished gives."""

    run: str
    model: str
    created: int
    """Seconds since the epoch."""
    text: str
    finish: str
    """``stop``; ``length`` where a budget made the answer early or incomplete."""
    usage: dict[str, Any]
    about: dict[str, Any]
    """``podium``: what OpenAI's shape has no place for."""

    def completion(self) -> dict[str, Any]:
        """The whole of it."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        head = _head(self.run, self.model, self.created, "chat.completion")
        return {**head, "choices": [choice], "usage": self.usage, "podium": self.about}


class Chunks:
    """Makes the chunks of one completion.

    Args:
        run: Its run.
        model: As the request has it.
        created: When the stream began, seconds since the epoch.
        usage: Whether the usage is asked for: then every chunk says that it has none, but the last.
    """

    def __init__(self, run: str, model: str, created: int, usage: bool) -> None:
        self._head = _head(run, model, created, "chat.completion.chunk")
        self._usage = usage

    def first(self) -> bytes:
        """Says who speaks; sent at once."""
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, lines: list[str]) -> bytes:
        """What has happened, as reasoning."""
        return self._chunk({"reasoning_content": "".join(f"{line}\n" for line in lines)})

    def rest(self, answer: Answer) -> Iterator[bytes]:
        """The answer, why it ends, the usage, and the end."""
        for piece in pieces(answer.text):
            yield self._chunk({"content": piece})
        yield self._chunk({}, answer.finish, podium=answer.about)
        if self._usage:
            yield event({**self._head, "choices": [], "usage": answer.usage})
        yield DONE

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._usage else {}
        return event({**self._head, "choices": [choice], **usage, **more})


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def pieces(text: str) -> list[str]:
    """A text in pieces, between words where that is possible; together they are the text."""
    return _PIECE.findall(text)


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The text up to the first of some texts."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]


def answer_of(log: RunLog, model: str, stops: tuple[str, ...], usage: Usage) -> Answer:
    """What came of a run that has ended or paused. Raises `Problem` if that is no answer."""
    state = log.state()
    if state.phase == "paused":
        raise _paused(log)
    if state.outcome != "finished":
        raise _without(state)
    text = cut(state.answer, stops)
    short = state.limited_by in _BUDGETS and text == state.answer
    return Answer(
        run=log.run,
        model=model,
        created=state.started_at // 1_000,
        text=text,
        finish="length" if short else "stop",
        usage=_usage(state.spent, usage),
        about={
            "run": log.run,
            "rounds": state.round,
            "calls": state.spent.calls,
            "limited_by": state.limited_by or None,
        },
    )


def _head(run: str, model: str, created: int, kind: str) -> dict[str, Any]:
    return {"id": f"{PREFIX}{run}", "object": kind, "created": created, "model": model}


def _paused(log: RunLog) -> Problem:
    """A run that rests is no answer, and nothing of it is lost."""
    shown = tree(log)
    problem = of_error(pause_error(shown), log.run)
    problem.again = False
    problem.code = f"run_paused_{shown.paused}"
    match shown.paused:
        case "budget":
            problem.status, problem.code = 429, "insufficient_quota"
        case "signal" | "person":
            problem.status = 409
        case "kills_host":
            problem.status = 500
        case _:
            problem.status = 503
    return problem


def _without(state: RunState) -> Problem:
    run = state.run
    look = f"look at it: podium runs show {run}"
    if state.outcome == "cancelled":
        why = f": {state.detail}" if state.detail else ""
        return Problem(409, "run_cancelled", f"run {run} was cancelled{why} ({look})", run=run)
    text = f"run {run} {state.outcome or 'is archived'}: {state.detail or state.archived} ({look})"
    return Problem(500, "run_failed", text, run=run)


def _usage(spent: Spend, known: Usage) -> dict[str, Any]:
    read = max(known.input, spent.tokens - known.output)
    return {
        "prompt_tokens": read,
        "completion_tokens": known.output,
        "total_tokens": read + known.output,
        "cost": spent.cost / 1e6,
    }


def told_apart(log: RunLog) -> Usage:
    """The tokens of one run that are told apart, those of its child runs not included."""
    read = written = 0
    known = reports(log)
    for said in log.events():
        match said:
            case PolicyReplied(usage=usage):
                read, written = read + usage.input, written + usage.output
            case CallSettled(report=digest) | ReportNoted(report=digest) if digest in known:
                usage = known[digest].usage
                read, written = read + usage.input, written + usage.output
    return Usage(read, written)
