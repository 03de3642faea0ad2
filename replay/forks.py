"""Forks: where one begins, and how its log is joined with the one it was forked from.

A fork shares the first events of its origin's log and copies none of them. `attach` is what every
`EventLog.read` does last; the rest is pure.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from protocol.errors import InvalidData, NotFound, Usage
from protocol.events import (
    AnswerGiven,
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    Origin,
    PolicyAsked,
    PolicyReplied,
    RoundClosed,
    RoundPlanned,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    SignalReceived,
)
from protocol.state import RunState
from replay.chain import Aside, RunLog, archived_before, hash_at
from replay.history import Entry, entries

if TYPE_CHECKING:
    from replay.log import EventLog

Read: TypeAlias = Callable[[str, int], Awaitable[RunLog]]
"""Reads one run's own log, without what it shares: so many commits of it at least, if it has them
anywhere."""

MAX_GENERATIONS: Final = 32
"""Forks of forks: each one costs a further read, whoever looks at the run."""


class Elsewhere(NotFound):
    """What a fork shares is in an archive that was not read: nothing is wrong with it."""


def origin_at(log: RunLog, at: int, history: list[Entry] | None = None) -> Origin:
    """What a fork at an event shares: the first ``at`` events of a run.

    A fork of a fork at an event that the latter shares is a fork of their common origin.

    Raises:
        Usage: There is no such event, or nothing can go on from there.
    """
    history = entries(log) if history is None else history
    if not 1 <= at <= len(history):
        raise Usage(
            f"run {log.run} has no event {at}: it has {len(history)}",
            hint=f"choose one from: podium timeline {log.run}",
        )
    if log.state(at).phase == "ended":
        raise Usage(
            f"run {log.run} has ended by event {at}: nothing goes on from there",
            hint=f"fork before its end: `podium timeline {log.run}` shows its events",
        )
    last = history[at - 1]
    owner = next(each for each in log.lineage() if each.run == last.run)
    if sum(1 for _ in owner.lineage()) > MAX_GENERATIONS:
        raise Usage(
            f"run {log.run} is a fork of a fork, {MAX_GENERATIONS} times over",
            hint="fork one of its origins instead",
        )
    return Origin(run=owner.run, events=at, commit=last.n, hash=hash_at(owner, last.n), at=last.at)


async def attach(read: Read, found: RunLog) -> None:
    """Read what a fork shares, and put it in its place. What can't be had is said as set aside.

    Args:
        read: Reads one run's own log.
        found: The log of a fork; any other is left as it is.
    """
    if found.origin is not None or found.set_aside["origin"]:
        return
    log = found
    for _ in range(MAX_GENERATIONS):
        if log.forked is None:
            return
        try:
            if log.origin is None:  # else whoever read it has found it already
                log.origin = await origin_of(read, log.run, log.forked.origin)
        except Elsewhere as error:
            _not_attached(found, error.message, "archived")
            return
        except (InvalidData, NotFound) as error:
            _not_attached(found, error.message)
            return
        log = log.origin
    if log.forked is not None:
        _not_attached(found, f"it is a fork of a fork, more than {MAX_GENERATIONS} times over")


async def begin(log: "EventLog", run: str, origin: Origin) -> RunLog:
    """The log that a fork without a log of its own begins with.

    Raises:
        NotFound, InvalidData: See `check_origin`.
        Usage: Nothing can go on from that event.
    """
    read = await log.read(origin.run, origin.commit)
    check_origin(run, origin, read)
    if origin_at(read, origin.events) != origin:
        raise InvalidData(f"run {run} was to be forked from run {origin.run} at an event not there")
    return read


def detach(log: RunLog) -> None:
    """Undo `attach`: for whoever can look in more places."""
    log.origin = None
    log.aside = [each for each in log.aside if each.where not in ("origin", "archived")]
    log.set_aside.pop("origin", None)


def _not_attached(found: RunLog, why: str, where: Literal["origin", "archived"] = "origin") -> None:
    found.origin = None  # a part of it would be taken for the whole
    found.aside.append(Aside(0, where, why))
    found.set_aside["origin"] = 1


async def origin_of(read: Read, run: str, origin: Origin) -> RunLog:
    """The own log of the run with which a fork begins. Raises as `check_origin`."""
    log = await read(origin.run, origin.commit)
    check_origin(run, origin, log)
    return log


def check_origin(run: str, origin: Origin, log: RunLog) -> None:
    """See that a log holds what a fork shares with it.

    Raises:
        NotFound: It isn't there, or ends too early; as `Elsewhere`, if it is archived.
        InvalidData: It isn't what it was when the run was forked.
    """
    if archived_before(log):
        raise Elsewhere(
            f"run {run} was forked from run {origin.run}, which is archived in "
            f"{log.state().archived}",
            hint="name that archive: [archive] url in podium.toml",
        )
    if log.head.n < origin.commit:
        raise NotFound(
            f"run {run} was forked from run {origin.run} at its commit {origin.commit}, and that "
            f"run's log ends with commit {log.head.n}",
            hint="restore that run from the archive or a replica",
        )
    there = hash_at(log, origin.commit)
    if there != origin.hash:
        raise InvalidData(
            f"run {run} was forked from run {origin.run} at its commit {origin.commit}, which has "
            f"the hash {there}, not {origin.hash}",
            hint=f"`podium verify {origin.run}` says what is wrong with it",
        )


class Failure(NamedTuple):
    """Where a run went wrong for good, and what a rerun does about it."""

    at: int
    """The event after which the rerun goes on."""
    reopened: tuple[str, ...]
    """Calls that are made again; none if it is the policy that is asked again."""
    event: int
    """The event that failed."""


def failure(log: RunLog, history: list[Entry] | None = None) -> Failure | None:
    """The earliest failure of a run that nothing after it made good; None if there is none.

    A failed call is made good by a later one of the same worker with the same arguments that
    succeeds; a failed or rejected reply of the policy by the next one that is followed. What could
    not be sent, or was given up because somebody wanted the answer early, is no failure.
    """
    history = entries(log) if history is None else history
    state = log.state()
    good = [call.call for call in state.calls.values() if call.status == "OK"]

    def mended(name: str) -> bool:
        failed = state.calls[name].call
        return any(
            (call.worker, call.arguments) == (failed.worker, failed.arguments) for call in good
        )

    asked, first, early = 0, 0, False
    failed: list[str] = []
    policy: Failure | None = None

    def again(at: int) -> Failure:
        return Failure(at, seeing(state, failed), first)

    for entry in history:
        match entry.event:
            case PolicyAsked():
                asked = entry.number
            case RoundPlanned() | AnswerGiven():
                policy = None
            case DecisionRejected() | PolicyReplied(status="PARSE_ERR" | "EXEC_ERR" | "TIMEOUT"):
                policy = policy or Failure(asked - 1, (), entry.number)
            case CallSettled(status=status) as settled if status != "OK":
                lost = settled.fault == "infrastructure" and not early
                if (settled.attempt or lost) and not mended(settled.call):
                    first = first or entry.number
                    failed.append(settled.call)
            case SignalReceived(kind="answer"):
                early = True
            case RoundClosed() | RunCancelled() if failed:
                return again(entry.number - 1)
            case RunFinished() | RunFailed():  # it was decided without those that went on
                failed.clear()
            case _:
                pass
    return again(len(history)) if failed else policy


def seeing(state: RunState, calls: Iterable[str]) -> tuple[str, ...]:
    """Settled calls, and those that were shown what came of them: all in order."""
    found = set(calls)
    while more := {n for n, each in state.calls.items() if found & set(each.call.sees)} - found:
        found |= more
    return tuple(name for name, known in state.calls.items() if name in found and known.status)


def again_from(log: RunLog, call: str, history: list[Entry] | None = None) -> Failure:
    """Where a call that has settled, well or not, is made again.

    Raises:
        Usage: There is no such call, or it has not settled.
    """
    history = entries(log) if history is None else history
    state = log.state()
    known = state.calls.get(call)
    if known is None or known.status is None:
        there = ", ".join(name for name, each in state.calls.items() if each.status is not None)
        raise Usage(
            f"run {log.run} has no call {call} that has settled",
            hint=f"name one of: {there}" if there else f"wait: podium runs watch {log.run}",
        )
    settled, at = 0, len(history)
    for entry in history:
        match entry.event:
            case CallSettled(call=name) if name == call:
                settled = entry.number
            case RoundClosed() | RunCancelled() if settled:
                at = entry.number - 1
                break
            case _:
                pass
    return Failure(at, seeing(log.state(at), [call]), settled)


def moment(log: RunLog, text: str, history: list[Entry] | None = None) -> int:
    """The event after which a fork goes on, as people name it.

    Args:
        log: The run.
        text: The event's number; a call's id, for the event before its first attempt; or ``end``,
            for the last from which something else may come: of a run that has ended, the one
            before its last question or before its cancellation.
        history: Its events.

    Raises:
        Usage: It names none.
    """
    history = entries(log) if history is None else history
    if text.isdecimal():
        return int(text)
    if text == "end":
        return _end(log, history)
    for entry in history:
        match entry.event:
            case AttemptStarted(call=call) | CallSettled(call=call) if call == text:
                return entry.number - 1
            case _:
                pass
    raise Usage(
        f"run {log.run} has no event {text!r}, and no call of that name was started",
        hint=f"give a number, a call such as 1-0, or end: podium timeline {log.run}",
    )


def _end(log: RunLog, history: list[Entry]) -> int:
    outcome = log.state().outcome
    if not outcome:
        return len(history)
    for entry in reversed(history):
        match entry.event:
            case SignalReceived(kind="cancel") if outcome == "cancelled":
                return entry.number - 1
            case PolicyAsked() if outcome != "cancelled":
                return entry.number - 1
            case RoundClosed() | RunStarted() if outcome == "failed":
                return entry.number
            case _:
                pass
    return len(history)
