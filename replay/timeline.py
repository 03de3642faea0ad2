"""What happened when: a row for each event of a run, with what it is about and what it came of.

Pure, and one pass over the history. Who puts a row into words is `podium.words`.
"""

from typing import Final, NamedTuple

import msgspec

from protocol.budgets import Limit
from protocol.decisions import Decision, PlannedCall
from protocol.events import (
    AnswerGiven,
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    PolicyReplied,
    ReportNoted,
    RoundPlanned,
    RunCancelled,
    RunFailed,
    RunForked,
    RunPaused,
    RunStarted,
)
from protocol.inbox import Message
from protocol.state import RunState
from protocol.subjects import child_id
from replay.attribution import attributed
from replay.chain import RunLog
from replay.history import Entry, entries

CAUSES: Final = ("start", "fork", "activation", "policy", "inbox", "deadline")
"""What can move a run, as a commit names it; of some, more follows after a colon."""


class Row(NamedTuple):
    """One event of a run."""

    entry: Entry
    cause: str
    """What it came of, as its commit names it: ``policy:3``, ``inbox:<hash>``, ``deadline`` …"""
    opener: int
    """The number of the first event that the same cause led to."""
    call: str = ""
    """The call it is about, if it is about one."""
    attempt: int = 0
    worker: str = ""
    """That call's worker, as the policy named it."""
    planned: PlannedCall | None = None
    """That call as it stood then: a fork may have changed what it asks."""
    child: str = ""
    """The run that was to answer it, where it has settled and a run was."""
    status: str = ""
    """How a call settled, or a reply came."""
    failed: bool = False
    """Whether something went wrong or was stopped here."""

    @property
    def number(self) -> int:
        """Its number in the run's history."""
        return self.entry.number

    @property
    def kind(self) -> str:
        """The event's type."""
        return self.entry.kind


class Timeline(msgspec.Struct):
    """A run's rows, and what one needs to put them into words."""

    run: str
    messages: dict[str, Message]
    """The inbox by hash, that of what a fork shares included."""
    rows: list[Row] = []
    calls: dict[str, PlannedCall] = {}
    """What was planned, by the id of the call; in a fork, with what it changed."""
    rounds: dict[int, tuple[str, ...]] = {}
    """The calls of each round."""
    limited_by: Limit = ""
    """Why the answer is incomplete, if it is."""

    @property
    def began(self) -> int:
        """When the first event happened, milliseconds since the epoch; 0 without one."""
        return self.rows[0].entry.at if self.rows else 0

    def since(self, row: Row) -> int:
        """Milliseconds from the beginning to an event."""
        return max(0, row.entry.at - self.began)

    def message(self, row: Row) -> Message | None:
        """The inbox message that set an event off, if one did and the log has it."""
        kind, _, known = row.cause.partition(":")
        return self.messages.get(known) if kind == "inbox" and row.opener == row.number else None


def timeline(log: RunLog, history: list[Entry] | None = None) -> Timeline:
    """The timeline of a run, what a fork shares included."""
    history = entries(log) if history is None else history
    found = Timeline(log.run, {m.hash: m.message for each in log.lineage() for m in each.inbox})
    decision: Decision | None = None
    conductors: set[str] = set()
    last: dict[str, int] = {}
    for entry, (cause, opener) in zip(history, attributed(history), strict=True):
        call, attempt, status, failed, child = "", 0, "", False, ""
        match entry.event:
            case AttemptStarted() | ReportNoted() as event:
                call, attempt = event.call, event.attempt
                last[call] = max(attempt, last.get(call, 0))
            case CallSettled() as event:
                call, attempt, status = event.call, event.attempt, event.status
                failed = status != "OK"
                if call in last and call in found.calls and found.calls[call].worker in conductors:
                    child = child_id(entry.run, call, last[call])
            case RunStarted(pool=pool):
                conductors = {each.name for each in pool.workers if each.kind == "conductor"}
            case PolicyReplied() as event:
                decision, status = event.decision, event.status
                failed = status != "OK"
            case RoundPlanned(round=number):
                _plan(found, number, decision)
            case AnswerGiven(limited_by=limit):
                found.limited_by = limit
            case RunForked(workers=workers, edits=edits):
                conductors |= {each.name for each in workers if each.kind == "conductor"}
                if any(each.path.startswith("calls.") for each in edits):
                    _edit(found, log.state(entry.number))
            case DecisionRejected() | RunFailed() | RunPaused() | RunCancelled():
                failed = True
            case _:
                pass
        planned = found.calls.get(call)
        about = (call, attempt, planned.worker if planned else "", planned, child)
        found.rows.append(Row(entry, cause, opener, *about, status, failed))
    return found


def _plan(found: Timeline, number: int, decision: Decision | None) -> None:
    planned = decision.calls if decision is not None else ()
    named = {f"{number}-{index}": call for index, call in enumerate(planned)}
    found.calls.update(named)
    found.rounds[number] = tuple(named)


def _edit(found: Timeline, state: RunState) -> None:
    """Take on what a fork's edits made of the calls."""
    for name, known in state.calls.items():
        if name in found.calls:
            arguments = known.call.arguments
            found.calls[name] = msgspec.structs.replace(found.calls[name], arguments=arguments)
