"""Which rule decides an event: for whoever has to look at it when a log and the rules disagree.

The names are checked, not believed: a test has runs of every kind decided, sees who emits each
event, and compares.
"""

from typing import Final, assert_never

from protocol.actions import Report
from protocol.commands import Command, Deadline, Fork, Inbox, PolicyReply
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    Archived,
    AttemptStarted,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
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
from protocol.state import RunState

SETTLERS: Final = {
    "PARSE_ERR": "protocol.rules.check_calls",
    "EXEC_ERR": "protocol.rules._start",
    "TIMEOUT": "protocol.rules.settle_rest",
    "OK": "protocol.rules.take_report",
}
"""Who settles a call without a report, by the status."""

OVERDUE: Final = "No report of attempt "
"""How the text of a call begins that was waited for in vain."""


def decider(command: Command | None, event: AnyEvent, before: RunState) -> str:
    """The dotted name of the rule that decides an event.

    Args:
        command: What was decided on.
        event: What was decided.
        before: The run at that moment.
    """
    match event:
        case RunStarted():
            return "protocol.run._start_run"
        case RunForked():
            return "protocol.run._fork_run"
        case RunActivated():
            return "protocol.run._activate"
        case PolicyAsked():
            return "protocol.rules.ask"
        case PolicyReplied():
            return "protocol.run._take_reply"
        case DecisionRejected():
            name = "_fork_run" if isinstance(command, Fork) else "_take_reply"
            return f"protocol.run.{name}"
        case RoundPlanned() | AnswerGiven() | RunFinished():
            return "protocol.run._act"
        case AttemptStarted():
            return "protocol.rules.begin"
        case ReportNoted():
            return "protocol.rules.take_report"
        case CallSettled():
            return _settler(event)
        case RoundClosed():
            return "protocol.awaited.close_round"
        case RunResumed() if isinstance(command, Inbox) and isinstance(command.message, Report):
            return "protocol.awaited.wait_for_people"
        case RunResumed() if isinstance(command, Deadline):
            return "protocol.awaited.give_up_people"
        case RunResumed() if _wished(command) == "replan":
            return "protocol.awaited.replan"
        case SignalReceived() | RunCancelled() | BudgetExtended() | RunResumed():
            return "protocol.run._take_signal"
        case RunPaused():
            return _pauser(command, event, before)
        case RunFailed():
            composed = before.asked is not None and before.asked.asker == "composer"
            if isinstance(command, PolicyReply) and composed:
                return "protocol.run._take_reply"
            return "protocol.rules.ask"
        case Archived():
            return "protocol.run._take"
        case UnknownEvent():
            return ""
        case _:
            assert_never(event)


def _wished(command: Command | None) -> str:
    match command:
        case Inbox(message=Signal(kind=kind)):
            return kind
        case _:
            return ""


def _settler(event: CallSettled) -> str:
    if event.report:
        return "protocol.rules.take_report"
    if isinstance(event.value, str) and event.value.startswith(OVERDUE):
        return "protocol.rules.settle_overdue"
    if event.status == "PARSE_ERR" and event.fault == "none":  # a reference failed since then
        return "protocol.rules._start"
    return SETTLERS[event.status]


def _pauser(command: Command | None, event: RunPaused, before: RunState) -> str:
    match event.reason:
        case "signal":
            return "protocol.run._take_signal"
        case "person":
            return "protocol.awaited.wait_for_people"
        case "kills_host":
            return "protocol.run._activate"
        case "policy_unavailable":
            return "protocol.run._take_reply"
        case "budget":
            overdue = isinstance(command, Deadline) and before.phase == "working"
            if overdue and event.detail == "wall":
                return "protocol.rules.settle_overdue"
            return "protocol.rules.ask"


def in_words(command: Command | None, cause: str) -> str:
    """What was decided on, for a person. Shows nothing of what an agent wrote."""
    match command:
        case Inbox(known, Signal(kind=kind, by=by)):
            return f"the signal {kind} by {by} (inbox:{known})"
        case Inbox(known, message):
            call, attempt = getattr(message, "call", ""), getattr(message, "attempt", 0)
            status = getattr(message, "status", "")
            return f"the report of call {call}, attempt {attempt}: {status} (inbox:{known})"
        case PolicyReply(turn):
            return f"the reply to question {turn}"
        case Deadline():
            return "that time had passed (deadline)"
        case _:
            said = {
                "start": "the task (start)",
                "fork": "the task of a fork (fork)",
                "activation": "a conductor taking the run over (activation)",
                "archive": "the run being archived (archive)",
            }
            return said.get(cause, cause)
