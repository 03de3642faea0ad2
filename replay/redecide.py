"""Deciding again: a run's recorded causes, through the rules of today.

A commit names what it was decided on (`protocol.commands`); the content of each cause stands in the
log. So every turn can be repeated: the same state, the same commands, and whatever the rules make
of them now. Each turn begins with the *recorded* state, so that one divergence is one finding.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from protocol.actions import Pool
from protocol.codec import Commit
from protocol.commands import (
    Activate,
    Archive,
    Command,
    Deadline,
    Fork,
    Inbox,
    PolicyReply,
    Start,
)
from protocol.decisions import PolicySpec, Rejection, Reply
from protocol.dialects import render, speaker
from protocol.errors import PodiumError
from protocol.events import (
    AnyEvent,
    Archived,
    DecisionRejected,
    PolicyReplied,
    RunActivated,
    RunForked,
    RunStarted,
)
from protocol.inbox import Message
from protocol.rules import Draft
from protocol.run import feed, fold
from protocol.state import RunState
from replay.chain import RunLog

NOT_KEPT: Final = frozenset({"unreadable", "too_large"})
"""Reasons for which a reply is rejected that the log, which could not keep it, can't show again."""

LATE: Final = PolicyReply(0, Reply())
"""What came too late to say anything by itself: the rules only saw that time had passed."""

_T = TypeVar("_T", bound=msgspec.Struct)


class Step(NamedTuple):
    """One cause of a commit, and what follows from it."""

    cause: str
    """As the commit names it."""
    command: Command | None
    """Rebuilt from the log; None if it can't be."""
    before: RunState
    """The state in which it is decided on."""
    events: tuple[AnyEvent, ...]
    """What today's rules make of it."""
    problem: str = ""
    """Why it could not be rebuilt, or decided on."""


class Decided(NamedTuple):
    """One commit, decided again."""

    commit: Commit
    first: int
    """The number of its first event in the run's history."""
    before: RunState
    """The state as the log has it before."""
    after: RunState
    """And after."""
    steps: tuple[Step, ...]
    decided: RunState
    """The state to which today's rules lead."""

    @property
    def events(self) -> tuple[AnyEvent, ...]:
        """What today's rules make of all its causes."""
        return tuple(event for step in self.steps for event in step.events)


def redecide(log: RunLog) -> Iterator[Decided]:
    """Decide every commit of a run's own log again, in order.

    What a fork shares is its origin's: decide that one again for it.
    """
    inbox = {entry.hash: entry.message for entry in log.inbox}
    state = log.origin.state(log.shared) if log.origin is not None else RunState()
    first = log.shared + 1
    for commit in log.commits:
        after = fold(state, commit.events)
        steps, decided = _steps(state, commit, inbox)
        yield Decided(commit, first, state, after, steps, decided)
        state, first = after, first + len(commit.events)


def _steps(
    state: RunState, commit: Commit, inbox: Mapping[str, Message]
) -> tuple[tuple[Step, ...], RunState]:
    draft = Draft(state, commit.at)
    steps: list[Step] = []
    for cause in commit.causes:
        before, count = draft.state.copy(), len(draft.events)
        command, problem = _rebuilt(cause, commit.events[count:], before, inbox)
        if command is not None:
            try:
                feed(draft, [command])
            except PodiumError as error:
                problem = error.message
        steps.append(Step(cause, command, before, tuple(draft.events[count:]), problem))
    return tuple(steps), draft.state


def _rebuilt(
    cause: str, events: Sequence[AnyEvent], state: RunState, inbox: Mapping[str, Message]
) -> tuple[Command | None, str]:
    kind, _, rest = cause.partition(":")
    if kind == "inbox":
        message = inbox.get(rest)
        if message is None:
            return None, f"the inbox message {rest} is not in the log"
        return Inbox(rest, message), ""
    found = command(cause, events, state)
    if found is None:
        return None, f"{cause!r} is no cause that this version knows"
    return found, ""


def command(cause: str, events: Sequence[AnyEvent], state: RunState) -> Command | None:
    """The command that a cause other than an inbox message names; None for an unknown one.

    Args:
        cause: As the commit names it.
        events: What is recorded from that cause on.
        state: The run at that moment.
    """
    kind, _, rest = cause.partition(":")
    for event in events:
        match kind, event:
            case "start", RunStarted():
                return _of(Start, event)
            case "fork", RunForked():
                return _of(Fork, event)
            case "activation", RunActivated():
                return Activate(event.conductor, event.rules)
            case "archive", Archived():
                return _of(Archive, event)
            case "policy", PolicyReplied() if str(event.turn) == rest:
                asker = state.asked.asker if state.asked is not None else "policy"
                reply = recorded_reply(event, speaker(state.policy, asker), state.pool)
                return PolicyReply(event.turn, reply, _refused(events, event.turn))
            case _:
                pass
    others: dict[str, Command] = {
        "deadline": Deadline(),
        "start": LATE,
        "fork": LATE,
        "policy": LATE,
    }
    return others.get(kind)


def recorded_reply(said: PolicyReplied, policy: PolicySpec, pool: Pool) -> Reply:
    """The reply, as far as the log has it: of one that was parsed, what it was parsed from."""
    reply = _of(Reply, said)
    if said.decision is not None and policy.dialect == "openai":
        calls = render(policy, said.decision, pool).tool_calls
        reply = msgspec.structs.replace(reply, decision=None, tool_calls=calls)
    return msgspec.structs.replace(reply, retry=said.status == "OK" or said.retry_at > 0)


def _refused(events: Sequence[AnyEvent], turn: int) -> Rejection | None:
    """Why the log did not keep all of a reply, if it didn't."""
    for event in events:
        if isinstance(event, DecisionRejected) and event.turn == turn and event.reason in NOT_KEPT:
            return Rejection(event.reason, event.detail)
    return None


def _of(kind: type[_T], event: msgspec.Struct) -> _T:
    """The command whose fields an event has recorded."""
    shared = set(kind.__struct_fields__) & set(event.__struct_fields__)
    return kind(**{name: getattr(event, name) for name in shared})
