"""A run is a fold: the whole idea of Podium in one file.

::

    evolve(state, event) -> state          total and pure; never rejects a recorded event
    decide(state, commands, at) -> events  the rules: budgets, depth, the pool, parsing
    due(state) -> effects                  what should now be running

Nothing here reads a clock, a random number or an environment variable: all of that arrives inside
commands. So the conductor that runs, the one that recovers, a replay and a simulation are the same
three functions.

How a run moves::

    new --RunStarted--> deciding --RoundPlanned--> working --RoundClosed--> deciding
    deciding, working, paused --RunForked--> where it was, as another run
    deciding, working --RunPaused--> paused --RunResumed--> where it was
    deciding --RunFinished, RunFailed--> ended;  anywhere but new --RunCancelled--> ended

`transitions` says what each event changes, `rules` holds the rules one by one. A shell around the
three is a loop: start what is due, take what came in, decide, append, fold.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from protocol import traces
from protocol.actions import Report
from protocol.awaited import (
    REPEATS_ARE_NOTHING,
    close_round,
    give_up_people,
    hedge,
    replan,
    replans,
    wait_for_people,
)
from protocol.budgets import Limit
from protocol.commands import (
    Activate,
    Archive,
    Command,
    Deadline,
    Fork,
    Inbox,
    PolicyReply,
    Start,
    cause,
)
from protocol.decisions import Decision, Rejection, Reply
from protocol.dialects import parse, speaker
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    Archived,
    Asker,
    BudgetExtended,
    DecisionRejected,
    PolicyAsked,
    PolicyReplied,
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
)
from protocol.inbox import Signal
from protocol.limits import (
    FINAL_GRACE_MS,
    MAX_DETAIL_CHARS,
    MAX_IDLE_ACTIVATIONS,
    MAX_NAME_CHARS,
    MAX_POLICY_FAILURES,
    MAX_REPLY_BYTES,
    POLICY_BACKOFF_MS,
)
from protocol.references import OUTPUTS_ARE_FILLED
from protocol.replies import as_recorded, linked, referable, unacceptable
from protocol.rules import (
    NOT_WAITED_FOR,
    Draft,
    ask,
    check_calls,
    give_up_question,
    settle_overdue,
    settle_rest,
    start_ready,
    take_report,
)
from protocol.state import RunState
from protocol.transitions import LEGAL, apply

RULES: Final = "4"
"""Version of the rules, recorded with each activation. Raised whenever an old log would be decided
differently."""

MAX_SIGNALS: Final = 1_000
"""Signals that one run records. More are noise, and set aside."""


# -------------------------------------------------------------------------------- evolve


def evolve(state: RunState, event: AnyEvent) -> RunState:
    """The state after one more event.

    Never changes its argument, never refuses what was recorded.
    """
    return fold(state, (event,))


def fold(state: RunState, events: Iterable[AnyEvent]) -> RunState:
    """The state after several events: one copy, however many they are."""
    new = state.copy()
    for event in events:
        apply(new, event)
    return new


# -------------------------------------------------------------------------------- decide


def decide(state: RunState, commands: Iterable[Command], at: int) -> list[AnyEvent]:
    """The events that follow from these commands, in order.

    Deciding on them one by one gives the same.

    Args:
        state: The run as the log has it.
        commands: What came in, in the order in which it is to count.
        at: Milliseconds since the epoch.

    Raises:
        Internal: An event would break the table of legal transitions. A bug, whatever the input.
    """
    return step(state, commands, at).events


def step(state: RunState, commands: Iterable[Command], at: int) -> Draft:
    """`decide`, with the state that its events lead to and the causes that a commit records."""
    draft = Draft(state, at)
    feed(draft, commands)
    return draft


def feed(draft: Draft, commands: Iterable[Command]) -> None:
    """Decide on further commands within the same turn.

    A command that changes nothing is no cause.
    """
    for command in commands:
        before = len(draft.events)
        _take(draft, command)
        _advance(draft)
        if len(draft.events) > before:
            draft.causes.append(cause(command))


def _take(d: Draft, command: Command) -> None:
    """What a command says by itself."""
    if d.state.phase == "new":
        if isinstance(command, Start):
            _start_run(d, command)
        return
    if d.state.phase == "ended":
        if isinstance(command, Archive) and not d.state.archived:
            d.emit(Archived(manifest=command.manifest, head=command.head))
        return
    match command:
        case Inbox(digest, Report() as report):
            if report.run == d.state.run:
                before = len(d.events)
                take_report(d, digest, report)
                changed = len(d.events) > before or d.state.rules < REPEATS_ARE_NOTHING
                if d.state.pause_reason == "person" and changed:
                    wait_for_people(d)
        case Inbox(digest, Signal() as signal):
            if signal.run == d.state.run and digest not in d.state.signals:
                _take_signal(d, digest, signal)
        case PolicyReply(turn, reply, refused):
            asked = d.state.asked
            if asked is not None and asked.turn == turn:
                _take_reply(d, reply, asked, refused)
        case Activate():
            _activate(d, command)
        case Fork() if command.run != d.state.run:
            _fork_run(d, command)
        case Deadline():
            give_up_people(d)
            settle_overdue(d)
            give_up_question(d)
        case _:  # a second start or fork; rewards and labels, which no rule looks at
            pass


def _advance(d: Draft) -> None:
    """What follows by itself, until the run waits for somebody."""
    while True:
        s = d.state
        if s.phase == "working":
            if s.final:
                settle_rest(d, "Not waited for: somebody asked for the answer now.")
            elif d.at < s.wall_deadline:
                start_ready(d)
            if s.unsettled and not replans(d):
                wait_for_people(d)
                return
            close_round(d)
        elif s.phase != "deciding":
            return
        elif s.decision is not None:
            _act(d, s.decision)
        else:
            if s.carried and s.final:
                settle_rest(d, NOT_WAITED_FOR)
            elif s.carried and d.at < s.wall_deadline:
                start_ready(d)
            # A run that nobody has activated has nobody who could ask.
            if s.asked is None and s.epoch and d.at >= s.retry_at:
                ask(d)
            return


def _start_run(d: Draft, start: Start) -> None:
    above = traces.parse(start.traceparent)
    d.emit(
        RunStarted(
            run=start.run,
            task=start.task,
            pool=start.pool,
            policy=start.policy,
            budget=start.budget,
            at=d.at,
            parent=start.parent,
            depth=start.depth,
            priority=start.priority,
            traceparent=above.traceparent if above else "",
            redact=start.redact,
        )
    )


def _fork_run(d: Draft, fork: Fork) -> None:
    d.emit(
        RunForked(
            run=fork.run,
            origin=fork.origin,
            at=d.at,
            policy=fork.policy,
            workers=fork.workers,
            reopened=fork.reopened,
            edits=fork.edits,
            priority=fork.priority,
            by=fork.by[:MAX_NAME_CHARS],
            reason=fork.reason[:MAX_NAME_CHARS],
            redact=fork.redact,
        )
    )
    s = d.state
    if s.decision is not None and (problem := unacceptable(s.decision, s)):
        detail = problem.detail[:MAX_DETAIL_CHARS]
        d.emit(DecisionRejected(turn=s.turn, reason=problem.reason, detail=detail))
    check_calls(d)  # the origin may not have come to it, and workers may have been replaced


def _activate(d: Draft, command: Activate) -> None:
    s = d.state
    d.emit(
        RunActivated(epoch=s.epoch + 1, conductor=command.conductor, rules=command.rules, at=d.at)
    )
    if s.idle_activations > MAX_IDLE_ACTIVATIONS and s.phase != "paused":
        detail = f"{s.idle_activations} conductors took it over and none got any further"
        d.emit(RunPaused(reason="kills_host", detail=detail, at=d.at))


def _take_signal(d: Draft, digest: str, signal: Signal) -> None:
    s = d.state
    by, reason = signal.by[:MAX_NAME_CHARS], signal.reason[:MAX_NAME_CHARS]
    if len(s.signals) >= MAX_SIGNALS and signal.kind != "cancel":
        return
    d.emit(SignalReceived(signal=digest, kind=signal.kind, by=by, reason=reason))
    match signal.kind:
        case "cancel":
            d.emit(RunCancelled(by=by, reason=reason, at=d.at))
        case "extend":
            if s.parent is not None:
                return
            d.emit(BudgetExtended(by=signal.extension))
            if s.phase == "paused" and s.pause_reason == "budget":
                d.emit(RunResumed(at=d.at))
        case "pause":
            if s.phase == "paused" and s.pause_reason == "person":
                d.emit(RunResumed(at=d.at))  # else the person's answer would have it go on
            if s.phase != "paused":
                d.emit(RunPaused(reason="signal", detail=f"by {by}", at=d.at))
        case "resume" | "answer":
            if s.phase == "paused":
                d.emit(RunResumed(at=d.at))
        case "hedge":
            if s.phase in ("working", "deciding"):
                hedge(d, signal.call)
        case "replan":
            replan(d, signal.call)


def _take_reply(
    d: Draft, reply: Reply, asked: PolicyAsked, problem: Rejection | None = None
) -> None:
    s = d.state
    reply, size, unreadable = as_recorded(reply, asked.reserve)
    problem = problem or unreadable
    fits = size <= MAX_REPLY_BYTES
    failed = reply.status != "OK"
    decision: Decision | None = None
    if problem is None and not fits:
        text = f"The reply has {size} bytes; at most {MAX_REPLY_BYTES} are possible."
        problem = Rejection("too_large", text)
    elif problem is None and not failed:
        parsed = parse(speaker(s.policy, asked.asker), reply, s.pool, referable(s))
        if isinstance(parsed, Decision) and s.rules >= OUTPUTS_ARE_FILLED:
            parsed = linked(parsed, referable(s))
        decision = parsed if isinstance(parsed, Decision) else None
        problem = parsed if isinstance(parsed, Rejection) else unacceptable(parsed, s)
        if asked.asker == "composer" and decision is not None and decision.answer is None:
            problem = Rejection("answer_only", "The composer answers, and does nothing else.")
    retry_at = d.at + (POLICY_BACKOFF_MS << min(s.failures, 10)) if failed and reply.retry else 0
    d.emit(
        PolicyReplied(
            turn=asked.turn,
            status=reply.status,
            error=reply.error[:MAX_DETAIL_CHARS],
            text=reply.text if fits else reply.text[:MAX_DETAIL_CHARS],
            decision=decision,
            tool_calls=reply.tool_calls if decision is None and fits else (),
            spend=reply.spend,
            latency_ms=reply.latency_ms,
            version=reply.version[:MAX_DETAIL_CHARS],
            prompt=reply.prompt[:MAX_DETAIL_CHARS],
            retry_at=retry_at,
            usage=reply.usage,
            finish=reply.finish[:MAX_NAME_CHARS],
            sampled=reply.sampled if fits else None,
        )
    )
    if problem is not None and not failed:
        detail = problem.detail[:MAX_DETAIL_CHARS]
        d.emit(DecisionRejected(turn=asked.turn, reason=problem.reason, detail=detail))
    if s.phase != "deciding" or s.decision is not None:
        return
    if asked.asker == "composer":
        detail = "no answer could be composed of what was found"
        d.emit(RunFailed(reason="no_answer", detail=detail, at=d.at))
    elif failed and not s.final and (not reply.retry or s.failures >= MAX_POLICY_FAILURES):
        d.emit(RunPaused(reason="policy_unavailable", detail=s.last_error, at=d.at))


def _act(d: Draft, decision: Decision) -> None:
    """Plan the round that was decided, or end with the answer."""
    s = d.state
    if decision.answer is not None:
        d.emit(AnswerGiven(turn=s.turn, limited_by=s.final))
        d.emit(RunFinished(at=d.at))
        return
    d.emit(RoundPlanned(round=s.round + 1))
    check_calls(d)


# -------------------------------------------------------------------------------- due


class Ask(msgspec.Struct, frozen=True):
    """Ask the policy, or the composer."""

    turn: int
    asker: Asker
    limited_by: Limit


class Make(msgspec.Struct, frozen=True):
    """Have a worker make an attempt; for a conductor, begin the child run."""

    call: str
    attempt: int


class Withdraw(msgspec.Struct, frozen=True):
    """Take an attempt back that nobody waits for.

    Out of the queue, or from its worker; of a conductor, cancel the child run.
    """

    call: str
    attempt: int


class Wait(msgspec.Struct, frozen=True):
    """Look into the inbox at a time (milliseconds since the epoch), then say that it has passed."""

    until: int


class Tell(msgspec.Struct, frozen=True):
    """Report the run's end to the run that called it."""


Effect: TypeAlias = Ask | Make | Withdraw | Wait | Tell


def due(state: RunState) -> list[Effect]:
    """What should now be running.

    Every effect is idempotent, by its own fields and the run's id.
    """
    effects: list[Effect] = [Withdraw(call, attempt) for call, attempt in sorted(state.strays)]
    if state.phase == "ended":
        if state.parent is not None:
            effects.append(Tell())
        return effects
    if state.phase == "paused" and state.pause_reason == "person" and state.open:
        effects.append(Wait(min(state.calls[call].deadline for call in state.open)))
    if state.phase not in ("deciding", "working"):
        return effects
    effects += [Make(call, attempt) for call, attempt in state.open.items()]
    effects += [Make(call, attempt) for call, (attempt, _) in state.hedged.items()]
    until = [state.calls[call].deadline for call in state.open]
    asked, wall = state.asked, state.wall_deadline
    if state.open or state.phase == "working":
        until.append(wall)
    if asked is not None:
        effects.append(Ask(asked.turn, asked.asker, asked.limited_by))
        if asked.asker == "policy":  # the composer replies at once
            until.append(wall + FINAL_GRACE_MS)
    elif state.retry_at and state.phase == "deciding":
        until.append(state.retry_at)
    if until:
        effects.append(Wait(min(until)))
    return effects


__all__ = [
    "LEGAL",
    "RULES",
    "Ask",
    "Effect",
    "Make",
    "Tell",
    "Wait",
    "Withdraw",
    "decide",
    "due",
    "evolve",
    "feed",
    "fold",
    "step",
]
