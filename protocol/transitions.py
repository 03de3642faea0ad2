"""How each event changes the state, and in which phases it may be decided.

Total: an event that names a call nobody planned changes nothing, since what was recorded has
happened.
"""

from typing import Final, assert_never

import msgspec

from protocol import edits
from protocol.actions import NOTHING, Call, Pool, Spend, WorkerSpec
from protocol.budgets import extended
from protocol.decisions import Decision, Rejection
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    Archived,
    AttemptStarted,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
    Event,
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
from protocol.limits import FINAL_GRACE_MS, IDLE_WINDOW_MS, REPORT_GRACE_MS
from protocol.references import referred
from protocol.state import CallState, Outcome, Phase, RunState, TurnState
from protocol.traces import FIRST

_GOING: Final = frozenset[Phase]({"deciding", "working"})
_ALIVE: Final = frozenset[Phase]({"deciding", "working", "paused"})

LEGAL: Final[dict[type[Event], frozenset[Phase]]] = {
    RunStarted: frozenset({"new"}),
    RunForked: _ALIVE,
    RunActivated: _ALIVE,
    PolicyAsked: frozenset({"deciding"}),
    PolicyReplied: frozenset({"deciding", "paused"}),
    DecisionRejected: frozenset({"deciding", "paused"}),
    RoundPlanned: frozenset({"deciding"}),
    AttemptStarted: _GOING,
    CallSettled: _ALIVE,
    ReportNoted: _ALIVE,
    RoundClosed: frozenset({"working"}),
    SignalReceived: _ALIVE,
    RunPaused: _GOING,
    RunResumed: frozenset({"paused"}),
    BudgetExtended: _ALIVE,
    AnswerGiven: frozenset({"deciding"}),
    RunFinished: frozenset({"deciding"}),
    RunFailed: _GOING,
    RunCancelled: _ALIVE,
    Archived: frozenset({"ended"}),
}
"""The table of legal transitions: in which phases each event may be decided."""

_ONE_CALL: Final = Spend(calls=1)


def apply(s: RunState, event: AnyEvent) -> None:
    """Change a state that nobody else holds by one event."""
    match event:
        case AttemptStarted():
            _attempt_started(s, event)
        case CallSettled():
            _call_settled(s, event)
        case PolicyAsked():
            _policy_asked(s, event)
        case PolicyReplied():
            _policy_replied(s, event)
        case RoundPlanned():
            _round_planned(s, event)
        case RoundClosed():
            _round_closed(s, event)
        case ReportNoted():
            _report_noted(s, event)
        case DecisionRejected():
            s.rejections += 1
            s.decision = None
            rejection = Rejection(event.reason, event.detail)
            s.turns.append(TurnState(s.decided_text, rejection=rejection))
        case AnswerGiven():
            s.answer = (s.decision.answer if s.decision else None) or ""
            s.limited_by = event.limited_by
        case RunFinished():
            _ended(s, "finished", event.at)
        case RunStarted():
            _run_started(s, event)
        case RunForked():
            _run_forked(s, event)
        case RunActivated():
            _run_activated(s, event)
        case SignalReceived() | RunPaused() | RunResumed() | BudgetExtended():
            _steered(s, event)
        case RunFailed():
            s.fail_reason, s.detail = event.reason, event.detail
            _ended(s, "failed", event.at)
        case RunCancelled():
            s.detail = f"by {event.by}" + (f": {event.reason}" if event.reason else "")
            _ended(s, "cancelled", event.at)
        case Archived():
            # Where the log begins with it, this is all that is known of the run: that it has ended.
            s.archived, s.phase = event.manifest, "ended"
        case UnknownEvent():
            pass
        case _:
            assert_never(event)


def _run_started(s: RunState, event: RunStarted) -> None:
    s.run, s.task, s.pool, s.policy = event.run, event.task, event.pool, event.policy
    s.workers = event.pool.by_name()
    s.budget, s.parent, s.depth = event.budget, event.parent, event.depth
    s.priority, s.traceparent, s.redact = event.priority, event.traceparent, event.redact
    s.started_at, s.wall_deadline = event.at, event.at + event.budget.wall_ms
    s.phase = "deciding"


def _run_forked(s: RunState, event: RunForked) -> None:
    """The same run under another id, as if no time had passed and nobody had been asked."""
    s.run, s.origin, s.parent, s.priority = event.run, event.origin, None, event.priority
    s.traceparent, s.segment = "", FIRST  # a trace of its own
    s.epoch = s.activated_at = s.idle_activations = 0
    s.failures = s.retry_at = 0
    s.started_at = event.at
    left = event.origin.at
    if s.phase == "paused":
        left = s.paused_at
        s.phase = "working" if s.current else "deciding"
        s.pause_reason = s.pause_detail = ""
    later = max(0, event.at - left)
    s.wall_deadline += later
    for name in s.open:
        call = s.calls[name]
        s.calls[name] = msgspec.structs.replace(
            call,
            begun_at=call.begun_at + later,
            deadline=call.deadline + later,
            segment=0,
        )
    s.hedged = {name: (first, 0) for name, (first, _) in s.hedged.items()}
    s.strays.clear()  # whoever works on them answers another run
    _unask(s)
    if event.redact is not None:
        s.redact = (s.redact or event.redact).union(event.redact)
    if event.policy is not None:
        s.policy, s.policy_version = event.policy, ""
    if event.workers:
        _replace_workers(s, event.workers)
    for name in event.reopened:
        _reopen(s, name)
    for edit in event.edits:
        edits.apply(s, edit)


def _unask(s: RunState) -> None:
    """Take an open question back: it is asked again, under the same number."""
    if s.asked is None:
        return
    asked, s.asked = s.asked, None
    s.turn = asked.turn - 1
    _release(s, "", asked.turn, NOTHING)
    if asked.limited_by and asked.limited_by != "signal":
        s.final = ""


def _replace_workers(s: RunState, workers: tuple[WorkerSpec, ...]) -> None:
    others = {worker.name: worker for worker in workers}
    kept = [others.pop(worker.name, worker) for worker in s.pool.workers]
    s.pool = Pool((*kept, *others.values()))
    s.workers = s.pool.by_name()


def _reopen(s: RunState, name: str) -> None:
    """Take back that a call has settled, if no policy has been shown it."""
    old = s.calls.get(name)
    if old is None or old.status is None:
        return
    if (name, old.report) in s.news:  # it went on when its round was over
        s.news = tuple(each for each in s.news if each[0] != name)
        s.carried += (name,)
    elif name not in s.current:
        return
    s.calls[name] = CallState(old.call, old.attempt, noted=old.noted)
    s.unsettled += 1


def _run_activated(s: RunState, event: RunActivated) -> None:
    soon = event.at - s.activated_at < IDLE_WINDOW_MS
    s.idle_activations = s.idle_activations + 1 if soon else 1
    s.epoch, s.activated_at = event.epoch, event.at
    s.rules = int(event.rules) if event.rules.isdecimal() else 0
    _forget_question(s)  # whoever asked is gone, and the reply with it


def _forget_question(s: RunState) -> None:
    """A question that never gets its reply may have spent all it was allowed."""
    if s.asked is not None:
        _release(s, "", s.asked.turn, s.asked.reserve)
        s.asked = None


def _policy_asked(s: RunState, event: PolicyAsked) -> None:
    _forget_question(s)
    s.turn, s.asked, s.retry_at = event.turn, event, 0
    if s.news and s.turns:
        last = s.turns[-1]
        s.turns[-1] = msgspec.structs.replace(last, late=last.late + s.news)
        s.news = ()
    s.segment = s.segment.asked()
    _reserve(s, "", event.turn, event.reserve)
    if event.limited_by:
        s.final = event.limited_by


def _policy_replied(s: RunState, event: PolicyReplied) -> None:
    if s.asked is not None and s.asked.limited_by:
        s.finals += 1
    s.asked = None
    s.idle_activations = 0
    s.policy_version = event.version or s.policy_version
    _release(s, "", event.turn, event.spend)
    s.decision, s.decided_text = event.decision, event.text
    if event.decision is not None and (output := _accepted(s, event.decision)):
        s.decision, s.rejections = None, 0
        s.turns.append(TurnState(event.text, answers=output))
    if event.status == "OK":
        s.failures, s.last_error = 0, ""
    else:
        s.failures += 1
        s.last_error, s.retry_at = event.error, event.retry_at


def _accepted(s: RunState, decision: Decision) -> str:
    """What the answer is made of, see `TurnState.answers`, if the run has it; empty otherwise."""
    if not decision.accepts:
        return ""
    if not decision.answers:
        return last_output(s)
    names = referred(decision.answers, "output")
    there = bool(names) and not decision.last_answers and all(map(s.has_output, names))
    return decision.answers if there else ""


def last_output(s: RunState) -> str:
    """The last call that has succeeded, as they were planned; empty if none has."""
    succeeded = (name for name, call in reversed(s.calls.items()) if call.status == "OK")
    return next(succeeded, "")


def _round_planned(s: RunState, event: RoundPlanned) -> None:
    planned = s.decision.calls if s.decision else ()
    answers = s.decision.answers if s.decision else ""
    names = tuple(f"{event.round}-{index}" for index in range(len(planned)))
    for name, call in zip(names, planned, strict=True):
        after = tuple(names[i] for i in sorted({*call.after, *call.sees}) if 0 <= i < len(names))
        sees = tuple(names[i] for i in call.sees if 0 <= i < len(names))
        before = tuple(known for known in call.earlier if known in s.calls)
        s.calls[name] = CallState(
            Call(name, call.worker, call.arguments, before + after, before + sees, call.ref)
        )
    s.round, s.current, s.unsettled = event.round, names, len(s.carried) + len(names)
    if planned and s.decision and s.decision.last_answers:
        answers = names[-1]
    s.turns.append(TurnState(s.decided_text, event.round, names, answers=answers))
    s.decision, s.rejections, s.phase = None, 0, "working"


def _round_closed(s: RunState, event: RoundClosed) -> None:
    s.phase, s.current = "deciding", ()
    s.carried, s.unsettled = event.left, len(event.left)
    if event.left and s.turns:
        turn = s.turns[-1]
        left = tuple(name for name in turn.calls if name in event.left)
        s.turns[-1] = msgspec.structs.replace(turn, left=left)


def patience(spec: WorkerSpec) -> int:
    """Milliseconds from the start of an attempt until nobody waits for its report any more."""
    grace = REPORT_GRACE_MS + (FINAL_GRACE_MS if spec.kind == "conductor" else 0)
    return spec.wait_ms + spec.timeout_ms + grace


def _attempt_started(s: RunState, event: AttemptStarted) -> None:
    old = s.calls.get(event.call)
    if old is None or old.status is not None:
        return
    if old.open:
        s.hedged[event.call] = s.open[event.call], old.segment
    s.segment = segment = s.segment.tried()
    spec = s.workers.get(old.call.worker)
    begun_at = event.deadline - (patience(spec) if spec is not None else 0)
    s.calls[event.call] = CallState(
        old.call,
        event.attempt,
        True,
        begun_at,
        event.deadline,
        noted=old.noted,
        segment=segment.number,
    )
    s.open[event.call] = event.attempt
    s.spent += _ONE_CALL
    _reserve(s, event.call, event.attempt, event.reserve)


def _call_settled(s: RunState, event: CallSettled) -> None:
    old = s.calls.get(event.call)
    if old is None or old.status is not None:
        return
    noted = (*old.noted, event.report) if event.report else old.noted
    s.calls[event.call] = CallState(
        old.call,
        old.attempt,
        False,
        old.begun_at,
        old.deadline,
        event.status,
        event.fault,
        event.report,
        event.value,
        noted,
    )
    counted = event.attempt if event.report else 0
    for attempt in (s.open.pop(event.call, 0), s.hedged.pop(event.call, (0, 0))[0]):
        if attempt and attempt != counted:
            s.strays.add((event.call, attempt))
    if event.call in s.carried:
        s.carried = tuple(name for name in s.carried if name != event.call)
        s.news += ((event.call, event.report),)
        s.unsettled -= 1
    elif event.call in s.current:
        s.unsettled -= 1
    if event.report:
        s.idle_activations = 0
        _release(s, event.call, event.attempt, event.spend)


def _report_noted(s: RunState, event: ReportNoted) -> None:
    old = s.calls.get(event.call)
    if old is None:
        return
    noted, open_, segment = (*old.noted, event.report), old.open, old.segment
    if event.why == "retried":
        open_ = False
        s.open.pop(event.call, None)
    elif event.why == "hedged" and event.call in s.hedged:
        first, begun_in = s.hedged.pop(event.call)
        if event.attempt != first:
            s.open[event.call], segment = first, begun_in
    s.calls[event.call] = msgspec.structs.replace(
        old,
        noted=noted,
        open=open_,
        late=event.report if event.usable else old.late,
        segment=segment,
    )
    if event.usable:
        s.news += ((event.call, event.report),)
    s.strays.discard((event.call, event.attempt))
    s.idle_activations = 0
    _release(s, event.call, event.attempt, event.spend)


def _reserve(s: RunState, call: str, attempt: int, spend: Spend) -> None:
    """Hold what an attempt, or the question that is the attempt of no call, may spend."""
    if spend != NOTHING:
        s.reserved += spend - s.reserves.get((call, attempt), NOTHING)
        s.reserves[call, attempt] = spend


def _release(s: RunState, call: str, attempt: int, spend: Spend) -> None:
    """The report is in: what was reserved becomes what was spent."""
    if s.reserves:
        held = s.reserves.pop((call, attempt), NOTHING)
        if held != NOTHING:
            s.reserved -= held
    if spend != NOTHING:
        s.spent += spend


def _steered(s: RunState, event: SignalReceived | RunPaused | RunResumed | BudgetExtended) -> None:
    match event:
        case SignalReceived():
            s.signals |= {event.signal}
            s.idle_activations = 0
            if event.kind == "answer":
                s.final = s.final or "signal"
        case RunPaused():
            s.phase, s.paused_at = "paused", event.at
            s.pause_reason, s.pause_detail = event.reason, event.detail
            s.segment = s.segment.paused(event.at)
        case RunResumed():
            s.wall_deadline += max(0, event.at - s.paused_at)
            s.phase = "working" if s.current else "deciding"
            s.pause_reason = s.pause_detail = ""
            s.idle_activations = s.failures = s.retry_at = 0
            s.segment = s.segment.resumed(event.at)
        case BudgetExtended():
            s.budget = extended(s.budget, event.by)
            s.wall_deadline += event.by.wall_ms


def _ended(s: RunState, outcome: Outcome, at: int) -> None:
    s.phase, s.outcome, s.ended_at = "ended", outcome, at
    s.strays.update(s.open.items())
    s.strays.update((call, attempt) for call, (attempt, _) in s.hedged.items())
    s.open.clear()
    s.hedged.clear()
    s.asked = None
