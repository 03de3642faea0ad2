"""The rules about calls that go on: beside a question, beside a second attempt, with a person."""

from typing import Final

from protocol.actions import UNHOSTED
from protocol.budgets import short_of
from protocol.events import RoundClosed, RunPaused, RunResumed
from protocol.rules import ONE_CALL, Draft, begin, full, limit_reached, ready, reservation
from protocol.state import RunState

PEOPLE_ARE_LEFT: Final = 3
"""The version of the rules from which on the policy of a run that is paused for a person can be
asked meanwhile."""

REPEATS_ARE_NOTHING: Final = 3
"""The version of the rules from which on a run that is paused for a person stays so when a report
comes that changes nothing."""

HEDGES_COUNT: Final = 3
"""The version of the rules from which on a second attempt is one of those that a worker allows."""


def hedge(d: Draft, name: str) -> None:
    """Try a call a second time while the first attempt goes on, if that may be and is affordable.

    Whichever reports first counts. An attempt is hedged once, and only where its worker allows it.
    """
    s = d.state
    call = s.calls.get(name)
    if call is None or name not in s.open or name in s.hedged or full(s):
        return
    spec = s.workers[call.call.worker]
    if s.rules >= HEDGES_COUNT and call.attempt >= spec.attempts:
        return
    reserve = reservation(s, spec)
    if not spec.hedge or spec.kind in UNHOSTED or s.final or d.at >= s.wall_deadline:
        return
    if not short_of(s.budget, s.committed, reserve + ONE_CALL, kept=s.policy.reserve):
        begin(d, call, reserve)


def replans(d: Draft) -> bool:
    """Whether the policy is to be asked although calls go on.

    Only while it could still plan something: the last question waits for all that was begun.
    """
    s = d.state
    if s.policy.replan_on != "failure" or limit_reached(s, d.at):
        return False
    settled = (name for name, report in s.news if not report or report != s.calls[name].late)
    return any(s.calls[name].status not in (None, "OK") for name in (*s.current, *settled))


def replan(d: Draft, name: str) -> None:
    """Have the policy asked while calls go on, because of one of them; without a name, of any.

    That goes for a run which is paused for people, too: what they are asked stays open, and the
    answer is shown with the next question after it came.
    """
    s = d.state
    if s.rules >= PEOPLE_ARE_LEFT:
        name = name or next(iter(s.open), "")
        if s.pause_reason == "person" and name in s.open:
            d.emit(RunResumed(at=d.at))
    if s.phase == "working" and name in s.open and not limit_reached(s, d.at):
        close_round(d)


def asked_people(s: RunState) -> list[str]:
    """The calls that wait for a person."""
    return [name for name in s.open if s.workers[s.calls[name].call.worker].kind == "person"]


def wait_for_people(d: Draft) -> None:
    """Pause a run in which only people are waited for, and let it go on when others can."""
    s = d.state
    asked = asked_people(s)
    alone = bool(asked) and len(asked) == len(s.open)
    in_time = all(d.at < s.calls[name].deadline for name in asked)
    if s.phase == "working" and alone and in_time:
        d.emit(RunPaused(reason="person", detail=f"asked in {', '.join(asked)}", at=d.at))
    elif s.phase == "paused" and s.pause_reason == "person" and not (alone and not _moves(d)):
        d.emit(RunResumed(at=d.at))


def give_up_people(d: Draft) -> None:
    """Let a run go on that is paused for people of whom one has not answered in time."""
    s = d.state
    if s.phase != "paused" or s.pause_reason != "person":
        return
    if any(d.at >= s.calls[name].deadline for name in asked_people(s)):
        d.emit(RunResumed(at=d.at))


def _moves(d: Draft) -> bool:
    """Whether something follows although nobody else has answered."""
    return replans(d) or any(True for _ in ready(d.state))


def close_round(d: Draft) -> None:
    """Close the round. Calls that have not settled go on."""
    d.emit(RoundClosed(round=d.state.round, left=left(d.state)))


def left(s: RunState) -> tuple[str, ...]:
    """The calls that have not settled."""
    return tuple(name for name in s.awaited if s.calls[name].status is None)
