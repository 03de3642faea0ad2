"""What runs ask people, and what they answer."""

from typing import NamedTuple

from protocol.actions import Json, Report
from protocol.awaited import asked_people
from protocol.codec import encode
from protocol.errors import Conflict, TooLarge, Usage
from protocol.limits import MAX_INLINE_BYTES
from protocol.state import RunState


class Asked(NamedTuple):
    """A question to a person."""

    run: str
    call: str
    who: str
    """The worker's name."""
    arguments: dict[str, Json]
    """``question``, and perhaps ``choices``."""
    since: int
    """Milliseconds since the epoch."""


def asked_in(state: RunState) -> list[Asked]:
    """What a run asks, and nobody has answered."""
    if state.phase == "ended":
        return []
    calls = {name: state.calls[name] for name in asked_people(state)}
    return [
        Asked(state.run, name, each.call.worker, dict(each.call.arguments), each.begun_at)
        for name, each in calls.items()
    ]


def answered(state: RunState, run: str, call: str, value: Json, by: str) -> Report:
    """The report that answers a call.

    Raises:
        Conflict: The call is none of a person's, or doesn't wait any more.
        Usage: It names the answers that are possible, and this is none of them.
        TooLarge: The answer has more than a message holds.
    """
    waiting = [each.call for each in asked_in(state)]
    if call not in waiting:
        there = f"answer one of: {', '.join(waiting)}" if waiting else "see: podium answer"
        raise Conflict(f"run {run}: nobody is asked in call {call!r}", hint=there)
    choices = state.calls[call].call.arguments.get("choices")
    if choices and value not in choices:
        raise Usage(
            f"{value!r} is none of the answers that run {run} can go on with in call {call}",
            hint=f"give one of: {', '.join(map(str, choices))}",
        )
    report = Report(run=run, call=call, attempt=state.open[call], status="OK", value=value, by=by)
    if (size := len(encode(report))) > MAX_INLINE_BYTES:
        raise TooLarge(
            f"the answer has {size} bytes of {MAX_INLINE_BYTES} at most",
            hint="say where it is, such as a path that the workers can read",
        )
    return report
