"""One run as it is compared with another: the decisions that were followed, and what came of them.

Pure. What a fork replaced stands at the event that replaced it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.actions import NOTHING, Json, Report, Spend
from protocol.decisions import Decision
from protocol.events import (
    AnswerGiven,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
    PolicyReplied,
    ReportNoted,
    RoundPlanned,
    RunForked,
)
from protocol.state import CallState, RunState
from replay.chain import RunLog
from replay.history import Entry, reports

NEVER: Final = 0
"""The event of what did not happen: events are numbered from 1."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as one of the runs has it."""

    call: str
    worker: str
    arguments: dict[str, Json]
    order: tuple[tuple[int, ...], tuple[int, ...]]
    """Places of the calls that it waited for, and of those that it saw."""
    status: str
    """Empty while it has not settled."""
    value: Json
    """For a large one, ``{"sha256", "size"}``; for a child run, without the id of that."""
    attempts: int
    tokens: int
    cost: int
    """Micro-dollars."""
    time: int
    """Milliseconds of work."""
    planned: int
    """Number of the event that planned it."""
    settled: int
    """Number of the event that settled it, or `NEVER`."""


class Turn(msgspec.Struct, kw_only=True, eq=False):
    """A decision that was followed, in one run."""

    event: int = NEVER
    """Number of the reply's event."""
    decision: Decision = Decision()
    rejected: tuple[str, ...] = ()
    """Why replies before it were not followed, and how the policy failed."""
    rejected_at: tuple[int, ...] = ()
    """Numbers of the events that say so."""
    names: tuple[str, ...] = ()
    tokens: int = 0
    """Of all replies up to this one; so are the two below."""
    cost: int = 0
    time: int = 0
    calls: list[Side] = []


class OneRun(msgspec.Struct, kw_only=True):
    """One of the runs."""

    state: RunState
    turns: list[Turn]
    set_at: dict[str, int]
    """The event that gave the task, pool, policy and budget as they are."""
    last: int
    """Number of its last event, if it has ended or rests; else `NEVER`."""
    outcome: str
    took: int
    """Milliseconds."""


class _Walk:
    """Goes through the events of a run and gathers its turns."""

    def __init__(self, log: RunLog, history: list[Entry]) -> None:
        self.state = log.state()
        self.reports = reports(log)
        self.turns: list[Turn] = []
        self.set_at = dict.fromkeys(("task", "pool", "policy", "budget"), 1)
        self.planned: dict[str, int] = {}
        self.settled: dict[str, int] = {}
        self.spent: dict[str, Spend] = {}
        """What each call had spent when it settled; late reports are in the run's total."""
        self.open_turn = Turn()
        for entry in history:
            self._take(entry)
        rest = self.open_turn
        if rest.event or rest.rejected:  # replies of which nothing has come
            self.turns.append(rest)
        for turn in self.turns:
            turn.calls = [self._side(name) for name in turn.names if name in self.state.calls]

    def _take(self, entry: Entry) -> None:
        turn = self.open_turn
        match entry.event:
            case RunForked() as event:
                self._forked(entry, event)
            case PolicyReplied() as event:
                turn.tokens += event.spend.tokens
                turn.cost += event.spend.cost
                turn.time += event.latency_ms
                if event.status != "OK":
                    self._rejected(entry, event.status)
                elif event.decision is not None:
                    turn.decision, turn.event = event.decision, entry.number
            case DecisionRejected() as event:
                turn.decision, turn.event = Decision(), NEVER
                self._rejected(entry, event.reason)
            case RoundPlanned() as event:
                turn.names = tuple(f"{event.round}-{i}" for i in range(len(turn.decision.calls)))
                self.planned.update(dict.fromkeys(turn.names, turn.event))
                self._followed()
            case AnswerGiven():
                self._followed()
            case CallSettled() as event:
                self.spent[event.call] = self.spent.get(event.call, NOTHING) + event.spend
                self.settled[event.call] = entry.number
            case ReportNoted() as event if event.call not in self.settled:
                self.spent[event.call] = self.spent.get(event.call, NOTHING) + event.spend
            case BudgetExtended():
                self.set_at["budget"] = entry.number
            case _:
                pass

    def _followed(self) -> None:
        self.turns.append(self.open_turn)
        self.open_turn = Turn()

    def _rejected(self, entry: Entry, why: str) -> None:
        turn = self.open_turn
        turn.rejected = (*turn.rejected, why)
        turn.rejected_at = (*turn.rejected_at, entry.number)

    def _forked(self, entry: Entry, event: RunForked) -> None:
        """What a fork replaces is as it is from there on."""
        for name in event.reopened:
            self.settled.pop(name, None)
        if event.policy is not None:
            self.set_at["policy"] = entry.number
        if event.workers:
            self.set_at["pool"] = entry.number
        for edit in event.edits:
            head, *rest = edit.path.split(".")
            if head == "calls" and rest:
                given = self.settled if rest[0] in self.settled else self.planned
                given[rest[0]] = entry.number
            else:
                self.set_at["pool" if head == "workers" else head] = entry.number

    def _side(self, name: str) -> Side:
        known = self.state.calls[name]
        spent = self.spent.get(name, NOTHING)
        counted = self.reports.get(known.report)
        return Side(
            call=name,
            worker=known.call.worker,
            arguments=known.call.arguments,
            order=(_places(known.call.after), _places(known.call.sees)),
            status=known.status or "",
            value=self._value(known, counted),
            attempts=known.attempt,
            tokens=spent.tokens,
            cost=spent.cost,
            time=counted.latency_ms if counted else 0,
            planned=self.planned.get(name, NEVER),
            settled=self.settled.get(name, NEVER),
        )

    def _value(self, known: CallState, report: Report | None) -> Json:
        if report is None:
            return known.value
        if report.blob is not None:
            return {"sha256": report.blob.sha256, "size": report.blob.size}
        spec = self.state.workers.get(known.call.worker)
        if spec is None or spec.kind != "conductor":
            return report.value
        return _nameless(report.value, report.by.removeprefix("run:"))


def _places(names: Iterable[str]) -> tuple[int, ...]:
    return tuple(int(name.partition("-")[2]) for name in names)


def _nameless(value: Json, child: str) -> Json:
    """What a child run says, without its id: that is another in every run."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "run"}
    return value.replace(child, "…") if isinstance(value, str) and child else value


def one_run(log: RunLog, history: list[Entry]) -> OneRun:
    """The run whose events these are."""
    walk = _Walk(log, history)
    state = walk.state
    limited = f", limited by {state.limited_by}" if state.limited_by else ""
    rests = state.phase in ("ended", "paused")
    return OneRun(
        state=state,
        turns=walk.turns,
        set_at=walk.set_at,
        last=len(history) if rests else NEVER,
        outcome=f"{state.outcome or state.phase}{limited}" if rests else "at work",
        took=max(0, (state.ended_at or log.head.at) - state.started_at),
    )
