"""Events, states and changes: as rows for programs, and as lines for people.

What agents wrote is in them only on request (``content``).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from podium.render_text import moment, one_line, value_text
from podium.words import set_off, told
from protocol.actions import Json, Report
from protocol.events import PolicyAsked
from protocol.state import CallState, RunState
from replay.differences import HIDDEN, Change, tree
from replay.timeline import Row, Timeline

ABSENT: Final = "–"
"""Stands for a value that is not there."""

SHORT_CHARS: Final = 60
"""Characters of one of the two values of a change: both fit on a line of most terminals."""

_WROTE: Final = {
    "PolicyReplied": ("text", "decision", "tool_calls", "sampled"),
    "DecisionRejected": ("detail",),
    "CallSettled": ("value",),
    "UnknownEvent": ("raw",),
}
"""Fields of events that agents write; of an event of a newer version, nobody knows."""

_APART: Final = ("run", "task", "workers", "parent", "origin", "turns", "signals")
"""Of a state in short, what is left out: it stands elsewhere, or is long."""


_EMPTY: Final[tuple[Json, ...]] = (None, 0, "", {}, [])
"""What says nothing. False equals 0."""

_OBSERVED: Final = {"value", "arguments", "inputs"}
"""Below these even nothing says something."""

_TIMES: Final = {
    name
    for kind in (RunState, CallState, PolicyAsked)
    for name in kind.__struct_fields__
    if name == "at" or name.endswith(("_at", "deadline"))
}
"""Fields that are milliseconds since the epoch."""


_STILL: Final = (
    "epoch",
    "activated_at",
    "started_at",
    "wall_deadline",
    "budget",
    "policy",
    "priority",
    "depth",
)
"""What hardly ever changes, and comes last."""


def event_json(row: Row, timeline: Timeline, *, content: bool) -> dict[str, Json]:
    """An event as the log has it; with content, also the report that it names."""
    event: dict[str, Json] = msgspec.to_builtins(row.entry.event)
    if not content:
        hidden = (name for name in _WROTE.get(row.kind, ()) if event.get(name))
        return _without_outputs(event | dict.fromkeys(hidden, HIDDEN))
    report = timeline.messages.get(getattr(row.entry.event, "report", ""))
    if isinstance(report, Report):
        event["value"] = report.value if report.blob is None else msgspec.to_builtins(report.blob)
        event["by"] = report.by
    return event


def _without_outputs(event: dict[str, Json]) -> dict[str, Json]:
    """A child run's beginning, without what calls of the run above gave."""
    task = event.get("task", {})
    if "sees" not in task:
        return event
    seen = [{**each, "value": HIDDEN} for each in task["sees"]]
    return event | {"task": {**task, "sees": seen}}


def row_json(row: Row, timeline: Timeline, iso: str | None, *, content: bool) -> dict[str, Any]:
    """An event's row.

    Args:
        row: The event.
        timeline: The timeline in which it stands.
        iso: When it happened.
        content: Whether to show what agents wrote.
    """
    return {
        "event": f"{timeline.run}@{row.number}",
        "number": row.number,
        "log": row.entry.run,
        "commit": row.entry.n,
        "at": iso,
        "since_ms": timeline.since(row),
        "type": row.kind,
        "cause": row.cause or None,
        "by": set_off(row, timeline) or None,
        "call": row.call or None,
        "attempt": row.attempt or None,
        "worker": row.worker or None,
        "status": row.status or None,
        "failed": row.failed,
        "text": told(row, timeline, content=content),
    }


def change_json(change: Change) -> dict[str, Json]:
    """A change; what was not there has no key."""
    both = {"before": change.before, "after": change.after}
    shown = {name: value for name, value in both.items() if value is not msgspec.UNSET}
    return {"path": change.path, **shown}


def change_text(change: Change) -> str:
    """``calls.2-0.status: null → OK``."""
    before, after = _short(change.path, change.before), _short(change.path, change.after)
    path = one_line(change.path)
    if change.before is msgspec.UNSET:
        return f"{path}: {after}"
    return f"{path}: {before} → {after}"


def _short(path: str, value: Json) -> str:
    return one_line(_text(path, _without_empty(value)), SHORT_CHARS)


def _text(path: str, value: Json) -> str:
    """A value of a state; a time as one."""
    if value is msgspec.UNSET:
        return ABSENT
    if value == "":
        return '""'
    if type(value) is int and value and path.rpartition(".")[2] in _TIMES:
        return moment(value)
    return value_text(value)


def _without_empty(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if part not in _EMPTY}


def state_lines(state: RunState, reports: Mapping[str, Report], *, content: bool) -> Iterator[str]:
    """A state in short: what is set, and of the calls only those of the open round."""
    near = {*state.awaited, *state.open}
    short = msgspec.structs.replace(
        state, calls={name: call for name, call in state.calls.items() if name in near}
    )
    whole = tree(short, reports, content=content)
    moving = {name: part for name, part in whole.items() if name not in _APART + _STILL}
    yield from lines(moving | {name: whole[name] for name in _STILL})


def lines(value: Json, path: str = "") -> Iterator[str]:
    """A tree as lines of a path and a value; what is empty, zero or null is left out."""
    match value:
        case dict() if value:
            for name, part in value.items():
                yield from lines(part, f"{path}.{name}" if path else str(name))
        case list() if any(isinstance(each, dict | list) for each in value):
            for index, part in enumerate(value):
                yield from lines(part, f"{path}.{index}" if path else str(index))
        case None:
            pass
        case _ if path and value in _EMPTY and not _OBSERVED & {*path.split(".")}:
            pass
        case _:
            text = _text(path, value)
            yield f"{one_line(path)}: {text}" if path else text
