"""A state as a tree of names, and what changed between two of them.

The names are those of `protocol.edits` where an edit is possible, so that what is seen can be set:
``calls.1-0.value``, ``workers.search.timeout_ms``, ``budget.rounds``. The value of an observation
stands in the inbox and not in the state; here it stands with its call.

Two states that follow each other share nearly all of their parts, and a part that is the same
object is never looked into.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from protocol.actions import Json, Report
from protocol.state import CallState, RunState

HIDDEN: Final = "(content)"
"""Stands for what agents wrote where that is not asked for."""

_WROTE: Final = {
    ("answer",),
    ("decided_text",),
    ("decision",),
    ("calls", "*", "arguments"),
    ("calls", "*", "value"),
    ("turns", "*", "text"),
    ("turns", "*", "rejection", "detail"),
}
"""What agents write into a state."""

_SEEN: Final = ("task", "sees")
"""Of a child run, outputs of calls of the run above: their values were written by agents, too."""

_LONGEST: Final = max(*map(len, _WROTE), len(_SEEN) + 2)

Path = tuple[str, ...]
Reports = Mapping[str, Report]
"""By their hash, as `history.reports` gives them."""


class Change(NamedTuple):
    """A value that changed, or came, or went."""

    path: str
    """Names and dots."""
    before: Json
    """``msgspec.UNSET`` if it was not there."""
    after: Json
    """``msgspec.UNSET`` if it is there no more."""


def tree(state: RunState, reports: Reports, *, content: bool) -> dict[str, Json]:
    """The whole state, of dictionaries, lists and JSON's values only.

    Args:
        state: The state.
        reports: For the values of observations.
        content: Whether to show what agents wrote; else `HIDDEN` stands for it.
    """
    found = _Reader(reports, content).plain(state, ())
    assert isinstance(found, dict)
    return found


def part(state: RunState, path: str, reports: Reports, *, content: bool) -> Json:
    """The part of the tree that a path names; the rest of it is not made.

    Raises:
        LookupError: There is none. Its arguments: how far the path leads, the name that is not
            there, the names that are.
    """
    reader = _Reader(reports, content)
    names = path.split(".")
    found: Any = state
    for place, name in enumerate(names):
        parts = {} if reader.hides(tuple(names[:place])) else reader.parts(found)
        if isinstance(found, list | tuple):
            parts = {str(index): each for index, each in enumerate(found)}
        if parts is None or name not in parts:
            raise LookupError(".".join(names[:place]), name, list(parts or ()))
        found = parts[name]
    return reader.plain(found, tuple(names))


def changes(before: RunState, after: RunState, reports: Reports, *, content: bool) -> list[Change]:
    """What changed between two states, in the order of the state's fields."""
    return list(_Reader(reports, content).compare((), before, after))


class _Reader:
    def __init__(self, reports: Reports, content: bool) -> None:
        self._reports, self._content = reports, content

    def hides(self, path: Path) -> bool:
        """Whether what stands there is not shown."""
        return not self._content and _wrote(path)

    def plain(self, value: Any, path: Path) -> Json:
        if value and self.hides(path):
            return HIDDEN
        parts = self.parts(value)
        if parts is None:
            return _leaf(value)
        below = {name: self.plain(part, (*path, name)) for name, part in parts.items()}
        return list(below.values()) if isinstance(value, list | tuple) else below

    def compare(self, path: Path, before: Any, after: Any) -> Iterator[Change]:
        if before is after:
            return
        if path == ("turns",):
            yield from self._compare_turns(before, after)
            return
        old, new = (None, None) if self.hides(path) else (self.parts(before), self.parts(after))
        if old is None or new is None:
            if before != after:
                was, now = self._shown(before, path), self._shown(after, path)
                yield Change(".".join(path), was, now)
            return
        for name, part in old.items():
            other = new.get(name, msgspec.UNSET)
            if other is not part:
                yield from self.compare((*path, name), part, other)
        if len(new) > len(old) or not new.keys() <= old.keys():
            for name, part in new.items():
                if name not in old:
                    yield from self.compare((*path, name), msgspec.UNSET, part)

    def _compare_turns(self, before: list[Any], after: list[Any]) -> Iterator[Change]:
        """Without a name for each: there may be thousands, and one was added."""
        for index in range(max(len(before), len(after))):
            old = before[index] if index < len(before) else msgspec.UNSET
            new = after[index] if index < len(after) else msgspec.UNSET
            if old is not new:
                yield from self.compare(("turns", str(index)), old, new)

    def _shown(self, value: Any, path: Path) -> Json:
        return value if value is msgspec.UNSET else self.plain(value, path)

    def parts(self, value: Any) -> Mapping[str, Any] | None:
        """The named parts of a container; None for what has none."""
        match value:
            case dict():
                if value and not isinstance(next(iter(value)), str):
                    return {_name(key): part for key, part in value.items()}
                return value
            case CallState():
                return self._call(value)
            case RunState():
                return {name: getattr(value, name) for name in _STATE_FIELDS}
            case msgspec.Struct():
                return {name: getattr(value, name) for name in value.__struct_fields__}
            case set() | frozenset():
                return dict.fromkeys(sorted(map(_name, value)), True)
            case list() | tuple() if any(isinstance(each, _CONTAINERS) for each in value):
                return {str(index): part for index, part in enumerate(value)}
            case _:
                return None

    def _call(self, known: CallState) -> dict[str, Any]:
        call = known.call
        parts = {name: getattr(call, name) for name in _CALL_FIELDS}
        parts |= {name: getattr(known, name) for name in _CALL_STATE_FIELDS}
        report = self._reports.get(known.report)
        if report is not None:
            parts["value"] = report.blob if report.blob is not None else report.value
        return parts


def _fields(kind: type[msgspec.Struct], *but: str) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name not in but)


_STATE_FIELDS: Final = _fields(RunState, "pool", "segment")  # workers stand by their names
_CALL_FIELDS: Final = ("worker", "arguments", "after", "sees", "ref")
_CALL_STATE_FIELDS: Final = _fields(CallState, "call", "segment")
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, msgspec.Struct)


def _name(key: Any) -> str:
    """``2-0/1`` for an attempt, ``turn/3`` for a question."""
    if not isinstance(key, tuple):
        return str(key)
    call, attempt = key
    return f"{call or 'turn'}/{attempt}"


def _wrote(path: Path) -> bool:
    if len(path) > _LONGEST or not path:
        return False
    if path[:2] == _SEEN:
        return path[3:] == ("value",)
    if len(path) > 1:
        path = (path[0], "*", *path[2:])
    return path in _WROTE


def _leaf(value: Any) -> Json:
    return list(value) if isinstance(value, tuple) else value
