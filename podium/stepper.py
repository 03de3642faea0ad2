"""Stepping through a run: where one stands, where to go next, and what is to be seen there. Pure.

The shells around it are `podium.screen` (keys in a terminal) and `podium.cli.replay` (commands line
by line, and JSON).
"""

from collections.abc import Callable
from typing import Final, NamedTuple, get_args

import msgspec

from podium.render import spend
from podium.render_text import count
from podium.shown import change_text, event_json, state_lines
from podium.words import set_off, told
from protocol.actions import Report
from protocol.errors import NotFound, Usage
from protocol.events import AnyEvent
from protocol.state import RunState
from replay.chain import RunLog
from replay.differences import Change, changes
from replay.film import Film
from replay.history import entries
from replay.timeline import CAUSES, Row, timeline

KINDS: Final = ("type", "worker", "status", "cause")
"""What a breakpoint can look at."""

TYPES: Final[dict[str, str]] = {
    name.lower(): name for name in sorted(each.__name__ for each in get_args(AnyEvent))
}
"""The types of events, by their names in small letters."""

STATUSES: Final = ("OK", "PARSE_ERR", "EXEC_ERR", "TIMEOUT")


class Breakpoint(NamedTuple):
    """Where to stop: ``type=CallSettled``, ``worker=search``, ``status=TIMEOUT``, ``cause=inbox``.

    A cause may be a kind of them, or one: ``policy``, ``policy:3``.
    """

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}={self.value}"

    def stops(self, row: Row) -> bool:
        """Whether it stops at an event."""
        match self.kind:
            case "type":
                seen: str = row.kind
            case "worker":
                seen = row.worker
            case "status":
                seen = row.status
            case _:
                seen = row.cause if ":" in self.value else row.cause.partition(":")[0]
        return seen == self.value


def breakpoint_of(text: str) -> Breakpoint:
    """The breakpoint that a text means. Raises `Usage`."""
    kind, given, value = text.partition("=")
    kind, value = kind.strip().lower(), value.strip()
    if kind not in KINDS or not given or not value:
        raise Usage(
            f"{text!r} is no breakpoint",
            hint=f"give KIND=VALUE, where KIND is {', '.join(KINDS[:-1])} or {KINDS[-1]}",
        )
    if kind == "type":
        value = event_type(value)
    elif kind == "status" and value.upper() not in STATUSES:
        raise Usage(f"there is no status {value!r}", hint=f"one is {', '.join(STATUSES)}")
    elif kind == "status":
        value = value.upper()
    elif kind == "cause" and value.partition(":")[0] not in CAUSES:
        raise Usage(f"there is no cause {value!r}", hint=f"one is {', '.join(CAUSES)}")
    return Breakpoint(kind, value)


def event_type(text: str) -> str:
    """The type of events that a text means, in whatever letters. Raises `Usage`."""
    found = TYPES.get(text.strip().lower())
    if found is None:
        raise Usage(
            f"there is no type of event {text!r}", hint=f"one is {', '.join(TYPES.values())}"
        )
    return found


class Stepper:
    """Somebody who stands at an event of a run, and walks.

    Args:
        log: The run.
        content: Whether to show what agents wrote.

    Raises:
        NotFound: The run has no events yet.
    """

    def __init__(self, log: RunLog, *, content: bool) -> None:
        history = entries(log)
        if not history:
            raise NotFound(
                f"run {log.run} has no events yet",
                hint=f"wait until a conductor takes it: podium runs watch {log.run}",
            )
        self.run, self.content = log.run, content
        self.film = Film(log, history)
        self.timeline = timeline(log, history)
        self.breakpoints: list[Breakpoint] = []
        self.at = 1
        """The event at which one stands."""
        self.sought = ""
        """What was searched for last."""
        self._reports = {
            known: message
            for known, message in self.timeline.messages.items()
            if isinstance(message, Report)
        }

    def __len__(self) -> int:
        return len(self.film)

    @property
    def row(self) -> Row:
        """The event at which one stands."""
        return self.timeline.rows[self.at - 1]

    # ------------------------------------------------------------------ to walk

    def go(self, number: int) -> str:
        """Go to an event, or to the nearest there is. Says why, if it is not that one."""
        self.at = min(max(1, number), len(self))
        if number > len(self):
            return "this is the last event"
        return "this is the first event" if number < 1 else ""

    def step(self, count: int) -> str:
        """Go so many events on, or back."""
        return self.go(self.at + count)

    def failure(self, direction: int = 1) -> str:
        """Go to the next failure, or back to the one before."""
        return self._seek(lambda row: row.failed, direction, "failure")

    def to_breakpoint(self, direction: int = 1) -> str:
        """Go to the next event at which a breakpoint stops, or back to the one before."""
        if not self.breakpoints:
            return "there is no breakpoint: b type=CallSettled sets one"
        return self._seek(self.stops, direction, "event that a breakpoint stops at")

    def search(self, text: str) -> str:
        """Go to the next event whose line has a text in it; the text of before, if it is empty."""
        self.sought = text or self.sought
        wanted = self.sought.lower()
        if not wanted:
            return "there is nothing to search for"
        return self._seek(lambda row: wanted in self.line(row).lower(), 1, f"{self.sought!r}")

    def _seek(self, wanted: Callable[[Row], bool], direction: int, what: str) -> str:
        rows = self.timeline.rows
        beyond = len(rows) + 1 if direction > 0 else 0
        for number in range(self.at + direction, beyond, direction):
            if wanted(rows[number - 1]):
                self.at = number
                return ""
        return f"there is no {what} {'after' if direction > 0 else 'before'} this event"

    def stops(self, row: Row) -> bool:
        """Whether a breakpoint stops at an event."""
        return any(each.stops(row) for each in self.breakpoints)

    def change_breakpoints(self, text: str) -> str:
        """``KIND=VALUE`` adds one, ``-KIND=VALUE`` removes it, ``-`` removes all; says which are.

        Raises:
            Usage: It is none.
        """
        text = text.strip()
        if text == "-":
            self.breakpoints.clear()
        elif text.startswith("-"):
            gone = breakpoint_of(text[1:])
            self.breakpoints = [each for each in self.breakpoints if each != gone]
        elif text and (added := breakpoint_of(text)) not in self.breakpoints:
            self.breakpoints.append(added)
        return "breakpoints: " + (", ".join(map(str, self.breakpoints)) or "none")

    # ------------------------------------------------------------------ to see

    def line(self, row: Row) -> str:
        """An event's line: its type, and what it says."""
        return f"{row.kind:<16}  {told(row, self.timeline, content=self.content)}"

    @property
    def state(self) -> RunState:
        """The state after the event at which one stands."""
        return self.film.state(self.at)

    def changed(self) -> list[Change]:
        """What that event changed."""
        before = self.film.state(self.at - 1)
        return changes(before, self.state, self._reports, content=self.content)

    def changed_lines(self) -> list[str]:
        """The same, in words."""
        return [change_text(each) for each in self.changed()] or ["nothing changed"]

    def state_lines(self) -> list[str]:
        """The state in short: what is set, and of the calls only those of the open round."""
        return list(state_lines(self.state, self._reports, content=self.content))

    def event_lines(self) -> list[str]:
        """What the event came of, and the event as JSON."""
        by = set_off(self.row, self.timeline)
        came = f"commit {self.row.entry.n} of {self.row.entry.run}, {self.row.cause or 'no cause'}"
        event = event_json(self.row, self.timeline, content=self.content)
        shown = msgspec.json.encode(event)
        text = msgspec.json.format(shown, indent=2).decode()
        return [f"{came}: {by}" if by else came, *text.splitlines()]

    def status(self) -> str:
        """The state in a line."""
        state = self.state
        settled = sum(1 for call in state.awaited if state.calls[call].status is not None)
        parts: list[str] = [state.outcome or state.phase]
        parts += [f"round {state.round}"] if state.round else []
        if state.awaited:
            parts.append(f"{settled} of {count(len(state.awaited), 'call')} settled")
        parts += [spend(state.spent)] if spend(state.spent) else []
        if state.pause_reason:
            parts.append(state.pause_reason)
        return " · ".join(parts)
