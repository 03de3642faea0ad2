"""Events in words: one line for each, for people. The only place that puts an event into words.

What agents wrote is in them only on request (``content``), and always on one line and cleaned.
"""

from typing import Final

from podium.render import (
    NAME_CHARS,
    arguments_text,
    observed_text,
    pause_text,
    signal_text,
    spend,
)
from podium.render_text import count, duration, one_line
from protocol.actions import NOTHING, Report, Spend
from protocol.decisions import Decision
from protocol.events import (
    AnswerGiven,
    Archived,
    AttemptStarted,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
    NotedReason,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RoundPlanned,
    RunActivated,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunForked,
    RunPaused,
    RunResumed,
    RunStarted,
    SignalReceived,
    UnknownEvent,
)
from protocol.inbox import Signal
from protocol.views import LIMIT_TEXTS
from replay.timeline import Row, Timeline


def told(row: Row, timeline: Timeline, *, content: bool) -> str:
    """What an event says.

    Args:
        row: The event.
        timeline: The timeline in which it stands.
        content: Whether to show what agents wrote.
    """
    match row.entry.event:
        case AttemptStarted() | CallSettled() | ReportNoted():
            return _of_call(row, timeline, content)
        case PolicyAsked() | PolicyReplied() | DecisionRejected() as event:
            return _of_policy(event, content)
        case RunStarted() as event:
            seen = ", ".join(each.call for each in event.task.sees)
            beside = f"; it sees {seen} of run {event.parent.run}" if seen and event.parent else ""
            return f"run {event.run} begins: {one_line(event.task.text)}{beside}"
        case RunForked() as event:
            before = timeline.rows[: row.number - 1]
            shared = sum(isinstance(each.entry.event, RoundClosed) for each in before)
            text = f"run {event.run} begins, forked from {event.origin.run}@{event.origin.events}"
            text += f", with {count(shared, 'round')} of it" if shared else ""
            return text + (f": {one_line(event.reason, 200)}" if event.reason else "")
        case RunActivated() as event:
            return _activated(event, timeline.rows[: row.number - 1])
        case RoundPlanned() as event:
            planned = timeline.rounds.get(event.round, ())
            names = ", ".join(one_line(timeline.calls[c].worker, NAME_CHARS) for c in planned)
            return f"round {event.round}: {count(len(planned), 'call')}: {names}"
        case RoundClosed() as event:
            left = f"; {', '.join(event.left)} go on" if event.left else ""
            return f"round {event.round} is closed{left}"
        case AnswerGiven():
            return "the answer is there"
        case event:
            return _of_run(event, timeline)


def _activated(event: RunActivated, before: list[Row]) -> str:
    """By whom a run is taken; that is no takeover where it had rested or comes back to the same."""
    name = one_line(event.conductor, NAME_CHARS)
    if event.epoch == 1:
        return f"taken by conductor {name}"
    earlier = (each.entry.event for each in reversed(before))
    last = next((each for each in earlier if isinstance(each, RunActivated | RunPaused)), None)
    took = isinstance(last, RunActivated) and last.conductor != event.conductor
    return f"taken {'over' if took else 'up again'} by conductor {name} (epoch {event.epoch})"


def _of_run(event: object, timeline: Timeline) -> str:
    match event:
        case SignalReceived():
            return f"signal: {signal_text(event)}"
        case RunPaused():
            return f"paused: {pause_text(event)}"
        case RunResumed():
            return "resumed"
        case BudgetExtended():
            return "budget extended"
        case RunFinished():
            limited = LIMIT_TEXTS.get(timeline.limited_by) if timeline.limited_by else ""
            return f"answered, incomplete: {limited}" if limited else "answered"
        case RunFailed():
            return f"failed: {event.reason}: {one_line(event.detail)}"
        case RunCancelled():
            why = f": {one_line(event.reason)}" if event.reason else ""
            return f"cancelled by {one_line(event.by)}{why}"
        case Archived():
            return f"archived: {one_line(event.manifest)}"
        case UnknownEvent():
            return f"an event of a newer version: {one_line(event.name, NAME_CHARS)}"
        case _:
            return ""


def _of_policy(event: PolicyAsked | PolicyReplied | DecisionRejected, content: bool) -> str:
    match event:
        case PolicyAsked():
            only = f", for the answer: {LIMIT_TEXTS[event.limited_by]}" if event.limited_by else ""
            return f"question {event.turn} to the {event.asker}{only}"
        case PolicyReplied() if event.status != "OK":
            return f"the policy could not be asked: {one_line(event.error)}"
        case PolicyReplied():
            parts = [f"reply {event.turn}"]
            parts += [duration(event.latency_ms)] if event.latency_ms else []
            parts += [spend(event.spend)] if spend(event.spend) else []
            said = _decided(event.decision, event.text) if content else ""
            return "  ".join(parts) + (f": {said}" if said else "")
        case DecisionRejected():
            detail = f": {one_line(event.detail)}" if content else ""
            return f"reply {event.turn} rejected ({event.reason}){detail}"


NOTED: Final[dict[NotedReason, str]] = {
    "late": "reported too late",
    "retried": "failed, is tried again",
    "hedged": "failed, another attempt goes on",
}
"""What became of an attempt whose report doesn't settle its call."""


def _decided(decision: Decision | None, text: str) -> str:
    if decision is None:
        return one_line(text)
    if decision.answer is not None:
        return one_line(decision.answer)
    if decision.accepts:
        return one_line(f"accepts {decision.answers or 'the last output'}")
    calls = (f"{c.worker}({arguments_text(c.arguments)})" for c in decision.calls)
    return one_line(", ".join(calls))


def _of_call(row: Row, timeline: Timeline, content: bool) -> str:
    planned = row.planned
    worker = one_line(row.worker, NAME_CHARS)
    asked = arguments_text(planned.arguments) if planned is not None and content else ""
    match row.entry.event:
        case AttemptStarted():
            text = f"{row.call}  {worker}  attempt {row.attempt} begins"
            return f"{text}  ({asked})" if asked else text
        case ReportNoted(why=why, usable=usable):
            became = NOTED[why]
            became += ", and is shown all the same" if usable else ""
            return f"{row.call}  {worker}  attempt {row.attempt} {became}"
        case CallSettled() as event:
            report = timeline.messages.get(event.report)
            got = ""
            if content and isinstance(report, Report):
                size = report.blob.size if report.blob else 0
                got = observed_text(report.value, size, planned.arguments if planned else {})
            elif content:
                got = observed_text(event.value, 0, {})
            known = report if isinstance(report, Report) else None
            of = f" of run {row.child}" if row.child and row.failed else ""
            return settled(
                (row.call, worker, f"{event.status}{of}"),
                known.latency_ms if known else 0,
                known.spend if known else NOTHING,
                asked=asked,
                got=got,
            )
        case _:
            return ""


def settled(
    call: tuple[str, str, str], latency_ms: int, spent: Spend, *, asked: str, got: str
) -> str:
    """A call that has settled, or not yet.

    Args:
        call: Its id, its worker and its status.
        latency_ms: Milliseconds of work, 0 for unknown.
        spent: What it spent.
        asked: What was said to its worker; "" where that is not shown.
        got: What came back, the same.
    """
    parts = [*call]
    parts += [duration(latency_ms)] if latency_ms else []
    parts += [spend(spent)] if spend(spent) else []
    text = "  ".join(parts)
    text += f"  ({asked})" if asked else ""
    return f"{text} -> {got}" if got else text


def set_off(row: Row, timeline: Timeline) -> str:
    """Who set an event off from outside: ``report of 2-0/1 by tool-1``; "" if it came of others."""
    if row.opener != row.number:
        return ""
    kind = row.cause.partition(":")[0]
    match kind, row.entry.event, timeline.message(row):
        case "start", RunStarted(parent=parent), _:
            return f"a call of run {parent.run}" if parent else "a task"
        case "fork", RunForked(by=by), _:
            return f"a fork by {one_line(by, NAME_CHARS)}" if by else "a fork"
        case "activation", RunActivated(conductor=conductor), _:
            return f"conductor {one_line(conductor, NAME_CHARS)}"
        case "policy", PolicyReplied(version=version), _:
            return f"reply by {one_line(version, NAME_CHARS)}" if version else "the policy's reply"
        case "inbox", _, Report() as report:
            by = f" by {one_line(report.by.replace('run:', 'run '), NAME_CHARS)}"
            return f"report of {report.call}/{report.attempt}{by if report.by else ''}"
        case "inbox", _, Signal() as signal:
            return f"signal by {one_line(signal.by.replace('run:', 'run '), NAME_CHARS)}"
        case "inbox", _, _:
            return "a message"
        case _:
            return "time" if row.cause else ""
