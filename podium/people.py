"""What runs ask people, and what they answer."""

from typing import NamedTuple

from protocol.actions import Json, Report
from protocol.awaited import asked_people
from protocol.codec import encode
from protocol.errors import Conflict, TooLarge, Usage
from protocol.limits import MAX_INLINE_BYTES
from protocol.state import RunState
from protocol.subjects import child_id
from protocol.views import filled_in
from replay.chain import RunLog
from replay.history import reports


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


def asked_in(log: RunLog) -> list[Asked]:
    """What a run asks, and nobody has answered; an answer counts from when it is in the inbox."""
    state = log.state()
    given = _given(log, state)
    calls = {name: state.calls[name] for name in _people(state) if name not in given}
    found = reports(log) if calls else {}
    known = {name: report.value for name, report in found.items() if report.blob is None}
    return [
        Asked(
            state.run,
            name,
            each.call.worker,
            dict(filled_in(state, name, known)),
            each.begun_at,
        )
        for name, each in calls.items()
    ]


def waited_for(log: RunLog) -> list[str]:
    """The child runs that a run waits for."""
    state = log.state()
    return [
        child_id(log.run, call, attempt)
        for call, attempt in state.open.items()
        if state.workers[state.calls[call].call.worker].kind == "conductor"
    ]


def _people(state: RunState) -> list[str]:
    return [] if state.phase == "ended" else asked_people(state)


def _given(log: RunLog, state: RunState) -> dict[str, Report]:
    """The answers in the inbox that no conductor has taken up: the first of each call counts."""
    found: dict[str, Report] = {}
    for entry in log.inbox:
        match entry.message:
            case Report(call=call, attempt=attempt) as report if state.waits_for(call, attempt):
                found.setdefault(call, report)
            case _:
                pass
    return {call: found[call] for call in _people(state) if call in found}


def nobody_asked(log: RunLog, call: str = "") -> Conflict:
    """Why a run takes no answer.

    Args:
        log: The run.
        call: The call that was to be answered; "" for whatever it asks.
    """
    run, given = log.run, _given(log, log.state())
    name = call or next(iter(given), "")
    if name in given:
        return Conflict(
            f"call {name} of run {run} is answered already, by {given[name].by}: the run goes on "
            "with that answer as soon as a deployment stands",
            hint=f"podium runs watch {run}   without a deployment: podium run --continue {run}",
        )
    if not call:
        return Conflict(f"run {run} asks nobody anything", hint=f"podium runs show {run}")
    waiting = [each.call for each in asked_in(log)]
    there = f"answer one of: {', '.join(waiting)}" if waiting else "see: podium answer"
    return Conflict(f"run {run}: nobody is asked in call {call!r}", hint=there)


def answered(log: RunLog, call: str, value: Json, by: str) -> Report:
    """The report that answers a call; the same answer may be given again.

    Raises:
        Conflict: The call is none of a person's, doesn't wait any more, or has another answer,
            which no conductor has taken up yet.
        Usage: It names the answers that are possible, and this is none of them.
        TooLarge: The answer has more than a message holds.
    """
    state, run = log.state(), log.run
    if call not in _people(state):
        raise nobody_asked(log, call)
    attempt = state.open[call]
    report = Report(run=run, call=call, attempt=attempt, status="OK", value=value, by=by)
    if _given(log, state).get(call, report) != report:
        raise nobody_asked(log, call)
    choices = state.calls[call].call.arguments.get("choices")
    if choices and value not in choices:
        raise Usage(
            f"{value!r} is none of the answers that run {run} can go on with in call {call}",
            hint=f"give one of: {', '.join(map(str, choices))}",
        )
    if (size := len(encode(report))) > MAX_INLINE_BYTES:
        raise TooLarge(
            f"the answer has {size} bytes of {MAX_INLINE_BYTES} at most",
            hint="say where it is, such as a path that the workers can read",
        )
    return report
