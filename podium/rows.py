"""What is shown of a run: a line in the list, what came of it, whom it waits for. Pure."""

from collections.abc import Iterable

import msgspec

from actors.waking import wakes
from protocol.actions import Spend
from protocol.state import Outcome, Phase, RunState
from replay.chain import RunLog


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line about a run. Times are milliseconds since the epoch, 0 for not yet."""

    run: str
    phase: Phase
    """``new`` is queued: no conductor has taken it."""
    outcome: Outcome
    """Empty until the run has ended."""
    task: str
    """The task's text, as the user wrote it."""
    policy: str
    rounds: int
    calls: int
    """Attempts, those of child runs included."""
    spent: Spend
    started: int
    ended: int
    last: int
    """When its last commit was made."""
    limited_by: str
    """Which limit made the answer early or incomplete."""
    paused: str
    """Why it is paused; empty if it isn't."""
    detail: str
    """More about a pause, a failure or a cancellation."""
    waits_for: str
    """Whom the run waits for now."""
    parent: str
    """The run whose call it answers, if any."""
    forked_from: str
    """``RUN@EVENT``, for a fork."""
    aside: int
    """Messages of its log that don't count."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run."""

    run: str
    outcome: Outcome
    answer: str
    limited_by: str
    detail: str
    spent: Spend
    rounds: int
    calls: int
    took_ms: int

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.outcome == "finished"

    def __str__(self) -> str:
        return self.answer if self.ok else f"run {self.run} {self.outcome}: {self.detail}"


def row(log: RunLog) -> RunRow:
    """The line about a run."""
    state = log.state()
    return RunRow(
        run=log.run,
        phase=state.phase,
        outcome=state.outcome,
        task=state.task.text,
        policy=state.policy.name,
        rounds=state.round,
        calls=state.spent.calls,
        spent=state.spent,
        started=state.started_at,
        ended=state.ended_at,
        last=log.head.at,
        limited_by=state.limited_by,
        paused=state.pause_reason if state.phase == "paused" else "",
        detail=_detail(state),
        waits_for="a conductor" if wakes(log, state) else waits_for(state),
        parent=state.parent.run if state.parent else "",
        forked_from=f"{state.origin.run}@{state.origin.events}" if state.origin else "",
        aside=log.set_aside.total(),
    )


def _detail(state: RunState) -> str:
    if state.phase == "paused":
        return state.pause_detail
    gone = state.phase == "ended" and not state.outcome  # all that is here is where it is
    return f"in {state.archived}" if gone else state.detail


def result_of(state: RunState) -> Result:
    """What came of a run that has ended."""
    return Result(
        run=state.run,
        outcome=state.outcome,
        answer=state.answer,
        limited_by=state.limited_by,
        detail=state.detail,
        spent=state.spent,
        rounds=state.round,
        calls=state.spent.calls,
        took_ms=max(0, state.ended_at - state.started_at),
    )


def waits_for(state: RunState) -> str:
    """Whom a run waits for: a run that stands still has a reason."""
    match state.phase:
        case "new":
            return "a conductor"
        case "paused":
            return f"a signal ({state.pause_reason})"
        case "deciding":
            return f"the {state.asked.asker}" if state.asked else "its next try of the policy"
        case "working":
            return _names(state.calls[call].call.worker for call in state.open)
        case _:
            return ""


def _names(workers: Iterable[str]) -> str:
    counts: dict[str, int] = {}
    for worker in workers:
        counts[worker] = counts.get(worker, 0) + 1
    return ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in counts.items())
