"""The rules about calls, budgets and questions: what `run.decide` applies, one small function each.

Every function takes a `Draft`, looks at its state, and emits events. Nothing else changes the
state.
"""

from typing import Final

import msgspec

from protocol.actions import NOTHING, Fault, Report, Spend, Status, WorkerSpec
from protocol.budgets import Budget, Limit, short_of
from protocol.decisions import Decision, Rejection
from protocol.errors import Internal
from protocol.events import (
    AnyEvent,
    Asker,
    AttemptStarted,
    CallSettled,
    NotedReason,
    PolicyAsked,
    ReportNoted,
    RunFailed,
    RunPaused,
)
from protocol.limits import (
    FINAL_GRACE_MS,
    MAX_ARGUMENTS_BYTES,
    MAX_DEPTH,
    MAX_REJECTIONS,
    MAX_ROUND_CALLS,
    REPORT_GRACE_MS,
)
from protocol.schemas import misfit
from protocol.state import CallState, RunState
from protocol.transitions import LEGAL, apply

MAX_FINAL_ASKS: Final = 2
"""Times a policy is asked for the final answer before the composer writes it: one mistake is
forgiven."""

MAX_NOTED_REPORTS: Final = 8
"""Reports billed for one call. More than its attempts can give are somebody's noise, and set
aside."""

_CHILD_SHARE: Final = 2
"""A child run without a declared reserve gets one part in so many of what is left."""


class Draft:
    """A state that is being decided upon, the events so far, and what they were decided on."""

    __slots__ = ("at", "causes", "events", "state")

    def __init__(self, state: RunState, at: int) -> None:
        self.state = state.copy()
        self.events: list[AnyEvent] = []
        self.causes: list[str] = []
        self.at = at

    def emit(self, event: AnyEvent) -> None:
        """Add an event and see its effect at once."""
        if self.state.phase not in LEGAL[type(event)]:
            raise Internal(
                f"run {self.state.run}: {type(event).__name__} was decided in phase "
                f"{self.state.phase!r}, where it is not legal",
                hint="this is a bug: please report it with the run's log",
            )
        apply(self.state, event)
        self.events.append(event)


# -------------------------------------------------------------------------------- questions


def limit_reached(s: RunState, at: int) -> Limit:
    """The limit because of which only an answer is accepted now, or ""."""
    if s.final:
        return s.final
    if at >= s.wall_deadline:
        return "wall"
    if s.round >= s.budget.rounds:
        return "rounds"
    if s.rejections >= MAX_REJECTIONS:
        return "rejections"
    if s.committed.calls >= s.budget.calls:
        return "calls"
    return short_of(s.budget, s.committed, s.policy.reserve, kept=s.policy.reserve)


def ask(d: Draft) -> None:
    """Ask the policy; at a limit: for the final answer, or have one composed, pause, or fail."""
    s = d.state
    limit = limit_reached(s, d.at)
    if limit and not s.final and _may_pause(s, limit):
        d.emit(RunPaused(reason="budget", detail=limit, at=d.at))
        return
    asker: Asker = "policy"
    reserve = s.policy.reserve
    if limit and (
        s.finals >= MAX_FINAL_ASKS
        or d.at >= s.wall_deadline + FINAL_GRACE_MS
        or short_of(s.budget, s.committed, reserve)
    ):
        asker, reserve = "composer", NOTHING
        if not any(call.status == "OK" for call in s.calls.values()):
            detail = f"nothing was found before the limit ({limit}) was reached"
            if s.last_error:
                detail += f"; the policy last failed with: {s.last_error}"
            d.emit(RunFailed(reason="no_answer", detail=detail, at=d.at))
            return
    d.emit(
        PolicyAsked(
            turn=s.turn + 1,
            asker=asker,
            limited_by=limit,
            reserve=reserve,
            at=d.at,
        )
    )


def _may_pause(s: RunState, limit: Limit) -> bool:
    extendable = limit in ("rounds", "calls", "tokens", "cost", "wall")
    return extendable and s.parent is None and s.budget.on_limit == "pause"


def acceptable(decision: Decision | Rejection, s: RunState) -> Decision | Rejection:
    """The decision, unless its shape or the moment forbids it."""
    if isinstance(decision, Rejection):
        return decision
    if decision.answer is None and not decision.calls:
        return Rejection("not_a_decision", "The reply holds neither calls nor an answer. Give one.")
    if decision.calls and decision.answer is not None:
        return Rejection("not_a_decision", "The reply holds calls and an answer. Give one of them.")
    if not decision.calls:
        return decision
    if s.final:
        return Rejection("answer_only", "No more calls are possible. Answer with what is known.")
    if len(decision.calls) > MAX_ROUND_CALLS:
        text = f"{len(decision.calls)} calls at once; at most {MAX_ROUND_CALLS} are possible."
        return Rejection("too_many_calls", text)
    if problem := _graph_problem(decision):
        return Rejection("bad_graph", problem)
    return decision


def _graph_problem(decision: Decision) -> str:
    """Why the calls can't be put into an order, or ""."""
    needs = [{*call.after, *call.sees} for call in decision.calls]
    everything = set(range(len(needs)))
    for index, wanted in enumerate(needs):
        if not wanted <= everything:
            return f"Call {index} waits for a call that is not in this decision."
    done: set[int] = set()
    while ready := {i for i in everything - done if needs[i] <= done}:
        done |= ready
    circle = sorted(everything - done)
    return f"Calls {circle} wait for each other in a circle." if circle else ""


# -------------------------------------------------------------------------------- calls


def settle(d: Draft, call: str, status: Status, fault: Fault, text: str) -> None:
    """Settle a call without a report."""
    d.emit(CallSettled(call=call, status=status, fault=fault, value=text))


def check_calls(d: Draft) -> None:
    """Settle at once what can't be dispatched.

    It costs nothing, and the policy is told how to mend it.
    """
    for name in d.state.current:
        if problem := _problem(d.state, d.state.calls[name]):
            settle(d, name, "PARSE_ERR", "policy", problem)


def _problem(s: RunState, call: CallState) -> str:
    spec = s.workers.get(call.call.worker)
    if spec is None:
        return f"There is no worker {call.call.worker!r}. There are: {', '.join(s.workers)}."
    size = len(msgspec.json.encode(call.call.arguments))
    if size > MAX_ARGUMENTS_BYTES:
        return f"The arguments have {size} bytes; at most {MAX_ARGUMENTS_BYTES} are possible."
    if spec.kind == "conductor" and (s.budget.depth <= 0 or s.depth >= MAX_DEPTH):
        return f"{spec.name} would start a run below this one, and no further level is allowed."
    return misfit(spec.parameters, call.call.arguments)


def start_ready(d: Draft) -> None:
    """Start every call that waits for nothing, as far as the budget allows."""
    s = d.state
    if s.unsettled == len(s.open):
        return
    for name in s.current:
        call = s.calls[name]
        if call.status is not None or call.open:
            continue
        if any(s.calls[other].status is None for other in call.call.after):
            continue
        if len(s.open) >= s.budget.parallel:
            return
        _start(d, call)


def _start(d: Draft, call: CallState) -> None:
    s = d.state
    spec = s.workers[call.call.worker]
    reserve = reservation(s, spec)
    need = reserve + Spend(calls=1)
    if limit := short_of(s.budget, s.committed, need, kept=s.policy.reserve):
        if not s.open:  # else wait: a report may release what is reserved for it
            text = f"Not started: it might spend more than is left of the run's budget ({limit})."
            settle(d, call.call.id, "EXEC_ERR", "policy", text)
        return
    deadline = d.at + spec.wait_ms + spec.timeout_ms + REPORT_GRACE_MS
    if spec.kind == "conductor":
        deadline += FINAL_GRACE_MS
    d.emit(
        AttemptStarted(
            call=call.call.id, attempt=call.attempt + 1, deadline=deadline, reserve=reserve
        )
    )


def reservation(s: RunState, spec: WorkerSpec) -> Spend:
    """The most that one attempt may spend.

    A child run that declares nothing gets a share of what is left.
    """
    if spec.kind != "conductor" or spec.reserve != NOTHING:
        return spec.reserve
    left = s.committed
    return Spend(
        tokens=max(0, s.budget.tokens - left.tokens) // _CHILD_SHARE,
        cost=max(0, s.budget.cost - left.cost) // _CHILD_SHARE,
        calls=max(0, s.budget.calls - left.calls) // _CHILD_SHARE,
    )


def child_budget(s: RunState, call: CallState) -> Budget:
    """The budget of the child run that an open call begins.

    Carved out of this run's, and never more than was reserved.
    """
    spec = s.workers[call.call.worker]
    carved = s.reserves.get((call.call.id, call.attempt), NOTHING)
    return Budget(
        rounds=s.budget.rounds,
        calls=carved.calls,
        parallel=s.budget.parallel,
        depth=s.budget.depth - 1,
        tokens=carved.tokens,
        cost=carved.cost,
        wall_ms=min(spec.timeout_ms, max(0, s.wall_deadline - s.started_at)),
        on_limit="answer",
    )


def take_report(d: Draft, digest: str, report: Report) -> None:
    """Settle the call with its report, try it again, or note the report for the bill.

    A report that is known, or of an attempt that was never started, changes nothing.
    """
    s = d.state
    call = s.calls.get(report.call)
    if call is None or not 1 <= report.attempt <= call.attempt:
        return
    if digest in call.noted or len(call.noted) >= MAX_NOTED_REPORTS:
        return

    def note(why: NotedReason) -> None:
        d.emit(
            ReportNoted(
                call=report.call,
                attempt=report.attempt,
                report=digest,
                why=why,
                spend=report.spend,
            )
        )

    if call.status is not None:
        note("late")
        return
    current = call.open and report.attempt == call.attempt
    if report.status != "OK" and not current:
        note("late")
        return
    spec = s.workers[call.call.worker]
    more = call.attempt < spec.attempts and not limit_reached(s, d.at)
    if report.fault == "infrastructure" and report.status != "OK" and more:
        note("retried")
        return
    d.emit(
        CallSettled(
            call=report.call,
            attempt=report.attempt,
            status=report.status,
            fault=report.fault,
            report=digest,
            spend=report.spend,
        )
    )


def settle_overdue(d: Draft) -> None:
    """Settle what has run out of time. Only after a look into the inbox."""
    s = d.state
    if d.at >= s.wall_deadline:
        settle_rest(d, "The run's time was used up before it reported.")
        return
    for name, attempt in list(s.open.items()):
        if s.calls[name].deadline <= d.at:
            text = f"No report of attempt {attempt} came before its deadline."
            settle(d, name, "TIMEOUT", "infrastructure", text)


def settle_rest(d: Draft, why: str) -> None:
    """Settle every call of the round that still is open or was never started."""
    for name in d.state.current:
        call = d.state.calls[name]
        if call.status is None:
            settle(d, name, "TIMEOUT", "infrastructure" if call.open else "none", why)
