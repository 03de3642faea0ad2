"""The rules about calls, budgets and questions: what `run.decide` applies, one small function each.

Every function takes a `Draft`, looks at its state, and emits events. Nothing else changes the
state.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from protocol.actions import NOTHING, Call, Fault, Report, Spend, Status, WorkerSpec
from protocol.budgets import Budget, Limit, short_of
from protocol.dialects import UNREADABLE
from protocol.dialects.naming import aliases
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
    MAX_DETAIL_CHARS,
    MAX_REJECTIONS,
)
from protocol.references import OUTPUTS_ARE_FILLED, reference, referred
from protocol.replies import SHOWN_NAME_CHARS
from protocol.schemas import misfit, unfilled_misfit
from protocol.state import CallState, RunState
from protocol.transitions import LEGAL, apply, patience

LATE_IS_SHOWN: Final = 2
"""The version of the rules from which on a policy is shown what came too late for its round."""

SELF_CALLS_END: Final = 2
"""The version of the rules from which on a run may not begin one of its own task again."""

CHILDREN_SEE: Final = 3
"""The version of the rules from which on a run below another is given what its call sees: it may be
of the same task, then. From it on, too, a child run gets a share of what its worker's reserve does
not say."""

NOT_WAITED_FOR: Final = "Not waited for: only an answer is possible."
"""Of a call that goes on when the run's last question is asked."""

MAX_FINAL_ASKS: Final = 2
"""Replies to a question for the final answer that may be no answer before the composer writes it:
one mistake is forgiven."""

MAX_NOTED_REPORTS: Final = 8
"""Reports billed for one call that didn't settle it. More than its attempts can give are somebody's
noise, and set aside."""

_CHILD_SHARE: Final = 2
"""A child run without a declared reserve gets one part in so many of what is left."""


ONE_CALL: Final = Spend(calls=1)


_encode: Final = msgspec.json.Encoder().encode


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
    if s.committed.calls >= s.budget.calls or not s.budget.parallel:
        return "calls"
    return short_of(s.budget, s.committed, s.policy.reserve, kept=s.policy.reserve)


def ask(d: Draft) -> None:
    """Ask the policy; at a limit: for the final answer, or have one composed, pause, or fail.

    Where the policy has made an output the answer, the composer gives that, whatever the limits.
    """
    s = d.state
    if _answered(s):
        d.emit(
            PolicyAsked(turn=s.turn + 1, asker="composer", limited_by="", reserve=NOTHING, at=d.at)
        )
        return
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
        if not any(call.status == "OK" or call.late for call in s.calls.values()):
            detail = f"nothing was found before the limit ({limit}) was reached"
            if s.last_error:
                detail += f"; the policy last failed with: {s.last_error}"
            d.emit(RunFailed(reason="no_answer", detail=detail, at=d.at))
            return
    if limit:
        settle_rest(d, NOT_WAITED_FOR)
    d.emit(
        PolicyAsked(
            turn=s.turn + 1,
            asker=asker,
            limited_by=limit,
            reserve=reserve,
            at=d.at,
        )
    )


def _answered(s: RunState) -> bool:
    """Whether the last decision made outputs the answer, and there are those outputs."""
    answers = s.turns[-1].answers if s.turns else ""
    if names := referred(answers, "output"):
        return all(map(s.has_output, names))
    call = s.calls.get(answers)
    return call is not None and call.status == "OK"


def give_up_question(d: Draft) -> None:
    """Ask otherwise when the policy has not replied by the end of the run's time and its grace."""
    s = d.state
    if s.phase != "deciding" or s.asked is None or s.asked.asker != "policy":
        return
    if d.at >= s.wall_deadline + FINAL_GRACE_MS:
        ask(d)


def _may_pause(s: RunState, limit: Limit) -> bool:
    extendable = limit in ("rounds", "calls", "tokens", "cost", "wall")
    return extendable and s.parent is None and s.budget.on_limit == "pause"


# -------------------------------------------------------------------------------- calls


def settle(d: Draft, call: str, status: Status, fault: Fault, text: str) -> None:
    """Settle a call without a report."""
    value = text[:MAX_DETAIL_CHARS]
    d.emit(CallSettled(call=call, status=status, fault=fault, value=value))


def check_calls(d: Draft) -> None:
    """Settle at once what can't be dispatched.

    It costs nothing, and the policy is told how to mend it.
    """
    for name in d.state.current:
        call = d.state.calls[name]
        if call.status is None and (problem := _problem(d.state, call)):
            settle(d, name, "PARSE_ERR", "policy", problem)


def _problem(s: RunState, call: CallState) -> str:
    spec = s.workers.get(call.call.worker)
    if spec is None:
        names = ", ".join(aliases(s.policy, s.pool).values()) or "none"
        return f"There is no worker {call.call.worker[:SHOWN_NAME_CHARS]!r}. There are: {names}."
    if UNREADABLE in call.call.arguments:
        raw = call.call.arguments[UNREADABLE]
        name = _called(s, spec)
        return f"The arguments are no JSON object: {raw!r}. Give one, as {name} declares it."
    size = len(_encode(call.call.arguments))
    if size > MAX_ARGUMENTS_BYTES:
        return f"The arguments have {size} bytes; at most {MAX_ARGUMENTS_BYTES} are possible."
    if spec.kind == "conductor" and (s.budget.depth <= 0 or s.depth >= MAX_DEPTH):
        name = _called(s, spec)
        return f"{name} would start a run below this one, and no further level is allowed."
    if spec.kind == "conductor" and s.rules >= SELF_CALLS_END and _asks_itself(s, call):
        more = "Give it a part of the task, or inputs that say what is known by now"
        more += "." if s.rules < CHILDREN_SEE else ", or let it see that."
        name = _called(s, spec)
        return f"{name} would start a run of this very task, which would do so again. {more}"
    if outputs := _references(s, call.call):
        missing = _missing(s, call, outputs, begins=call.open)
        return missing or unfilled_misfit(spec.parameters, call.call.arguments)
    return misfit(spec.parameters, call.call.arguments)


def _missing(s: RunState, call: CallState, names: list[str], *, begins: bool) -> str:
    """Which output its arguments refer to that can't be put in, whatever happens; "" for none.

    Args:
        s: The run.
        call: The call.
        names: What its arguments refer to.
        begins: Whether its turn has come: until then, calls of its round may yet give theirs.
    """
    for name in names:
        text = reference(name[:SHOWN_NAME_CHARS], "output")
        if name not in s.calls or name == call.call.id:
            return f"There is no {text}: refer to a call that was made, by its id."
        if name not in call.call.sees:
            return f"The call does not see {text}: name that call among what it sees."
        ended = s.calls[name].status is not None and (begins or name not in s.current)
        if ended and not s.has_output(name):
            return _no_output(s, name)
    return ""


def _no_output(s: RunState, name: str) -> str:
    text = reference(name, "output")
    return (
        f"There is no {text}: that call ended with {s.calls[name].status}. Have it made again, or "
        "do without it."
    )


def _references(s: RunState, call: Call) -> list[str]:
    """The calls whose outputs are put into the arguments of this one."""
    return referred(call.arguments, "output") if s.rules >= OUTPUTS_ARE_FILLED else []


def _asks_itself(s: RunState, call: CallState) -> bool:
    if s.rules >= CHILDREN_SEE and call.call.sees:
        return False
    arguments = call.call.arguments
    inputs = arguments.get("inputs") or {}
    return bool(arguments.get("task") == s.task.text and inputs == s.task.inputs)


def _called(s: RunState, spec: WorkerSpec) -> str:
    """What the policy knows a worker as."""
    return aliases(s.policy, s.pool).get(spec.name, spec.name)


def ready(s: RunState) -> Iterator[CallState]:
    """The calls that have not been begun, and wait for no other: each as it is when its turn comes.

    What is settled on the way counts for those behind it. Every recorded order hangs on that.
    """
    return (
        call
        for call in map(s.calls.__getitem__, s.awaited)
        if call.status is None
        and not call.open
        and all(s.calls[other].status is not None for other in call.call.after)
    )


def start_ready(d: Draft) -> None:
    """Start every call that waits for nothing, as far as the budget allows."""
    while _start_some(d):
        pass


def _start_some(d: Draft) -> bool:
    """Whether a call was settled instead of started: another that waits for it may start now."""
    s = d.state
    settled = False
    if s.unsettled == len(s.open):
        return settled
    for call in ready(s):
        if full(s):
            break
        settled = _start(d, call) or settled
    return settled


def _start(d: Draft, call: CallState) -> bool:
    """Start a call, or leave it until a report releases what it needs, or settle it: then True."""
    s = d.state
    spec = s.workers[call.call.worker]
    if missing := _missing(s, call, _references(s, call.call), begins=True):
        # Nobody could know when it was asked for.
        settle(d, call.call.id, "PARSE_ERR", "none", missing)
        return True
    reserve = reservation(s, spec)
    need = reserve + ONE_CALL
    if limit := short_of(s.budget, s.committed, need, kept=s.policy.reserve):
        if s.open:
            return False
        fault: Fault = "infrastructure" if call.attempt else "policy"
        again = "tried again" if call.attempt else "started"
        text = f"Not {again}: it might spend more than is left of the run's budget ({limit})."
        settle(d, call.call.id, "EXEC_ERR", fault, text)
        return True
    begin(d, call, reserve)
    return False


def full(s: RunState) -> bool:
    """Whether as many attempts are made at a time as may be."""
    return len(s.open) + len(s.hedged) >= s.budget.parallel


def begin(d: Draft, call: CallState, reserve: Spend) -> None:
    """Begin the next attempt of a call."""
    number = call.attempt + 1
    deadline = d.at + patience(d.state.workers[call.call.worker])
    d.emit(AttemptStarted(call=call.call.id, attempt=number, deadline=deadline, reserve=reserve))


def reservation(s: RunState, spec: WorkerSpec) -> Spend:
    """The most that one attempt may spend.

    A child run gets a share of what is left, of all that its worker's reserve does not say.
    """
    declared = spec.reserve
    if spec.kind != "conductor" or (declared != NOTHING and s.rules < CHILDREN_SEE):
        return declared
    taken = s.committed + s.policy.reserve + ONE_CALL
    return Spend(
        tokens=declared.tokens or max(0, s.budget.tokens - taken.tokens) // _CHILD_SHARE,
        cost=declared.cost or max(0, s.budget.cost - taken.cost) // _CHILD_SHARE,
        calls=declared.calls or max(0, s.budget.calls - taken.calls) // _CHILD_SHARE,
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
        depth=max(0, s.budget.depth - 1),
        tokens=carved.tokens,
        cost=carved.cost,
        wall_ms=min(spec.timeout_ms, max(0, s.wall_deadline - call.begun_at)),
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
    if digest in call.noted:
        return

    def note(why: NotedReason, *, usable: bool = False) -> None:
        d.emit(
            ReportNoted(
                call=report.call,
                attempt=report.attempt,
                report=digest,
                why=why,
                spend=report.spend,
                usable=usable,
            )
        )

    current = s.waits_for(report.call, report.attempt)
    if call.status is not None or (report.status != "OK" and not current):
        if len(call.noted) < MAX_NOTED_REPORTS:
            unseen = s.rules >= LATE_IS_SHOWN and call.status != "OK" and not call.late
            note("late", usable=unseen and report.status == "OK")
        return
    if report.status != "OK" and report.fault == "infrastructure":
        if report.call in s.hedged:
            note("hedged")
            return
        if _may_retry(d, call, report):
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


def _may_retry(d: Draft, call: CallState, report: Report) -> bool:
    """Whether one more attempt is allowed, in time, and affordable once this one is billed."""
    s = d.state
    spec = s.workers.get(call.call.worker)
    if spec is None or call.attempt >= spec.attempts or s.final:
        return False
    now = s.paused_at if s.phase == "paused" else d.at  # a pause doesn't count
    if now >= s.wall_deadline:
        return False
    held = s.reserves.get((report.call, report.attempt), NOTHING)
    committed = s.committed - held + report.spend
    need = reservation(s, spec) + ONE_CALL
    return not short_of(s.budget, committed, need, kept=s.policy.reserve)


def settle_overdue(d: Draft) -> None:
    """Settle what has run out of time. Only after a look into the inbox."""
    s = d.state
    if s.phase != "working" and not (s.phase == "deciding" and s.carried):
        return
    if d.at >= s.wall_deadline:
        if s.phase == "working" and not s.final and _may_pause(s, "wall"):
            d.emit(RunPaused(reason="budget", detail="wall", at=d.at))
        else:
            settle_rest(d, "The run's time was used up before it reported.")
        return
    for name, attempt in list(s.open.items()):
        if s.calls[name].deadline <= d.at:
            text = f"No report of attempt {attempt} came before its deadline."
            settle(d, name, "TIMEOUT", "infrastructure", text)


def settle_rest(d: Draft, why: str) -> None:
    """Settle every call that still is open or was never started."""
    for name in d.state.awaited:
        call = d.state.calls[name]
        if call.status is None:
            settle(d, name, "TIMEOUT", "infrastructure" if call.open else "none", why)
