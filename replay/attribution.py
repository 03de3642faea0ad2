"""Which cause of a commit led to which of its events, by the events alone.

A commit names its causes in order, and each has led to at least one event. Most begin with an
event that names them: a report's hash, a question's number, the start of the run. What time led to
is known by what could not have followed otherwise. Nothing is decided again, so this holds for a
log of any age and costs no copy of a state; `redecide` gives the same where today's rules agree.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from protocol.codec import Commit
from protocol.events import (
    AnyEvent,
    CallSettled,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RoundPlanned,
    RunActivated,
    RunFailed,
    RunForked,
    RunPaused,
    RunStarted,
    SignalReceived,
)
from replay.history import Entry


class Attributed(NamedTuple):
    """What an event came of."""

    cause: str
    """As its commit names it, such as ``policy:3``; "" where the commit names none."""
    opener: int
    """The number of the first event that the same cause led to."""


def attributed(history: Iterable[Entry]) -> Iterator[Attributed]:
    """What each event of a history came of, in order. The history is from the first event on."""
    where = _Where()
    commit: Commit | None = None
    left: Iterator[str] = iter(())
    upcoming: str | None = None
    cause, opener = "", 0
    for entry in history:
        if entry.commit is not commit:
            commit, left = entry.commit, iter(entry.commit.causes)
            cause, upcoming = next(left, ""), next(left, None)
            opener = entry.number
        elif upcoming is not None and where.opens(upcoming, entry.event):
            cause, upcoming, opener = upcoming, next(left, None), entry.number
        where.see(entry.event)
        yield Attributed(cause, opener)


class _Where:
    """As much of a run's state as tells what time has led to."""

    __slots__ = ("asked", "working")

    def __init__(self) -> None:
        self.working = False
        """Whether a round is open."""
        self.asked = False
        """Whether a question is."""

    def see(self, event: AnyEvent) -> None:
        match event:
            case RoundPlanned():
                self.working = True
            case RoundClosed():
                self.working = False
            case PolicyAsked():
                self.asked = True
            case PolicyReplied() | RunActivated() | RunForked():
                self.asked = False
            case _:
                pass

    def opens(self, cause: str, event: AnyEvent) -> bool:
        """Whether an event is the first that a cause led to; others stand before it."""
        kind, _, rest = cause.partition(":")
        match kind, event:
            case "start", RunStarted():
                return True
            case "fork", RunForked():
                return True
            case "activation", RunActivated():
                return True
            case "policy", PolicyReplied(turn=turn):
                return str(turn) == rest
            case "inbox", CallSettled(report=known) | ReportNoted(report=known):
                return known == rest
            case "inbox", SignalReceived(signal=known):
                return known == rest
            case "deadline", CallSettled(report="", status="TIMEOUT"):
                return True
            case "deadline", RunPaused(reason="budget"):
                return self.working or self.asked
            case "deadline", PolicyAsked() | RunFailed():
                return self.asked
            case _:
                return False
