"""What is wrong with a run's inbox: messages that its commits name and that aren't there any more.

A commit names each message that it was decided on by its hash, and so do the events that follow
from it. So what counts can't be changed or lost without being found out. Where a message stands
says nothing: its identity is its hash. What nobody acted on is named nowhere, and can't be checked.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from protocol.actions import Report
from protocol.codec import decode_message, digest
from protocol.errors import InvalidData
from protocol.events import CallSettled, ReportNoted, RunForked, SignalReceived
from protocol.inbox import Label, Message, Reward, Signal
from replay.chain import Aside, Stored, read_inbox
from replay.damage import RESTORE, Damage, Piece
from replay.flips import Search
from replay.problems import Problem, difference

MAX_SEARCHED: Final = 20
"""Messages of an inbox in which a flipped bit is searched for, for each one that is missing: those
that look like it come first."""


class _Named(NamedTuple):
    """A message that a commit was decided on."""

    n: int
    event: CallSettled | ReportNoted | SignalReceived | None
    """What followed from it, if that says what it was."""

    def words(self) -> str:
        """What it was."""
        match self.event:
            case CallSettled(call=call, attempt=attempt) | ReportNoted(call=call, attempt=attempt):
                return f"the report of call {call}, attempt {attempt}"
            case SignalReceived(kind=kind, by=by):
                return f"the signal {kind} by {by}"
            case _:
                return "a message"

    def fits(self, message: Message) -> bool:
        """Whether a message could be this one."""
        match self.event, message:
            case (CallSettled() | ReportNoted()) as event, Report():
                return (event.call, event.attempt) == (message.call, message.attempt)
            case SignalReceived(kind=kind), Signal():
                return kind == message.kind
            case _:
                return False


def inbox_damage(run: str, found: Damage, inbox: list[Stored]) -> list[Problem]:
    """All that is wrong with the inbox of a run, given what is left of its commits."""
    named = _named(found)
    there = {digest(stored.data) for stored in inbox}
    left = [stored for stored in inbox if digest(stored.data) not in named]
    problems: list[Problem] = []
    blamed: set[int] = set()
    search = Search()
    for wanted, each in named.items():
        if wanted not in there:
            problem = _lost(run, wanted, each, [s for s in left if s.seq not in blamed], search)
            blamed.add(problem.seq)
            problems.append(problem)
    problems += _newer(run, named, inbox)
    heads = {head for piece in found.pieces.values() for head in (piece.hash, *_follows(piece))}
    for stored in left:
        entry = read_inbox(run, stored)
        if isinstance(entry, Aside):
            if stored.seq not in blamed:
                problems.append(_foreign(run, entry))
        elif isinstance(entry.message, Reward | Label) and not found.archived:
            head = entry.message.head
            if head and head not in heads:
                problems.append(_judged(run, stored.seq, head))
    return problems


def _newer(run: str, named: dict[str, _Named], inbox: list[Stored]) -> list[Problem]:
    """Messages that are what they were, on which a commit was decided, and that can't be read."""
    unread = ((digest(each.data), read_inbox(run, each)) for each in inbox)
    return [
        Problem(
            run=run,
            kind="newer",
            what="unknown_message",
            where=f"inbox message {known}",
            commit=named[known].n,
            seq=entry.seq,
            expected="a message that this version knows",
            found=entry.why,
            likely="it has the hash that the commit names, so a newer version of Podium wrote and "
            "read it: verify the run with that one; the commit can't be checked by this one",
        )
        for known, entry in unread
        if known in named and isinstance(entry, Aside)
    ]


def _follows(piece: Piece) -> tuple[str, ...]:
    """Hashes that a commit names: that of the one before it, and of what a fork shares."""
    if piece.commit is None:
        return ()
    shared = (e.origin.hash for e in piece.commit.events if isinstance(e, RunForked))
    return (piece.commit.prev, *shared)


def _named(found: Damage) -> dict[str, _Named]:
    """The messages that commits name, by hash; commits whose bytes were changed name nothing."""
    changed = {each.commit for each in found.problems if each.what in ("changed", "unreadable")}
    named: dict[str, _Named] = {}
    for n, piece in sorted(found.pieces.items()):
        commit = piece.mended or piece.commit
        if commit is None or n in changed:
            continue
        events = {
            (each.signal if isinstance(each, SignalReceived) else each.report): each
            for each in commit.events
            if isinstance(each, CallSettled | ReportNoted | SignalReceived)
        }
        for cause in commit.causes:
            kind, _, wanted = cause.partition(":")
            if kind == "inbox":
                named.setdefault(wanted, _Named(n, events.get(wanted)))
        for wanted, event in events.items():
            if wanted:
                named.setdefault(wanted, _Named(n, event))
    return named


def _lost(run: str, wanted: str, named: _Named, left: list[Stored], search: Search) -> Problem:
    """What became of a message that isn't there under its hash."""
    where = f"inbox message {wanted}"
    expected = f"{named.words()}, on which commit {named.n} was decided"
    for stored in _likely_first(named, left)[:MAX_SEARCHED]:
        flip = search(stored.data, wanted)
        if flip is not None:
            return Problem(
                run=run,
                kind="damaged",
                what="inbox_changed",
                where=where,
                commit=named.n,
                seq=stored.seq,
                expected=expected,
                found=f"the message at {stored.seq}, with the hash {digest(stored.data)}",
                likely=f"{flip.words(stored.data)}{_at(flip.data, stored.data)}: flipped back, it "
                f"has the recorded hash; bad memory or a bad disk: {RESTORE}",
            )
    for stored in left:
        message = _message(stored)
        if message is not None and named.fits(message):
            return Problem(
                run=run,
                kind="damaged",
                what="inbox_changed",
                where=where,
                commit=named.n,
                seq=stored.seq,
                expected=expected,
                found=f"another one, at {stored.seq}, with the hash {digest(stored.data)}",
                likely="its bytes were changed in the store, or it was written again and lost "
                f"before; {RESTORE}",
            )
    return Problem(
        run=run,
        kind="damaged",
        what="inbox_removed",
        where=where,
        commit=named.n,
        expected=expected,
        found="no message with that hash",
        likely="it was removed from the store, or the broker holds it back because its own "
        f"checksum fails; {RESTORE}",
    )


def _likely_first(named: _Named, left: Iterable[Stored]) -> list[Stored]:
    """Unreadable ones and those that fit come first."""

    def rank(stored: Stored) -> int:
        message = _message(stored)
        return 1 if message is None else 0 if named.fits(message) else 2

    return sorted(left, key=rank)


def _message(stored: Stored) -> Message | None:
    try:
        return decode_message(stored.data)
    except InvalidData:
        return None


def _at(was: bytes, is_: bytes) -> str:
    try:
        found = difference(decode_message(was), decode_message(is_))
    except InvalidData:
        return ""
    return f", in {found.path}" if found is not None and found.path else ""


def _judged(run: str, seq: int, head: str) -> Problem:
    return Problem(
        run=run,
        kind="damaged",
        what="judged",
        where=f"the message at {seq} of the inbox",
        seq=seq,
        expected=f"a commit with the hash {head}: up to there the run was judged",
        found="no such commit",
        likely="the log was cut, or written anew, after it was judged; or whoever judged it named "
        "the head of another one",
    )


def _foreign(run: str, aside: Aside) -> Problem:
    return Problem(
        run=run,
        kind="aside",
        what="foreign",
        where=f"the message at {aside.seq} of the inbox",
        seq=aside.seq,
        expected="a message for this run",
        found=aside.why,
        likely="somebody else writes to the broker, see docs/foreign-messages.md",
    )
