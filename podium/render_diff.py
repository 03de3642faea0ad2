"""Two runs side by side, for people: what differs in words, and both in a table."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podium.render_text import count, duration, money, one_line, value_text
from protocol.actions import Json
from replay.diff import ABSENT, Diff, Difference, Pair, Step
from replay.sides import NEVER, Side

SIDE_BY_SIDE: Final = 100
"""Columns of a terminal in which two runs stand beside each other; in fewer, one below the
other."""

AGENTS: Final = frozenset({"task", "arguments", "value", "answer"})
"""What agents and users wrote: shown on demand."""

SET: Final = frozenset({"task", "pool", "policy", "budget"})
"""What a run began with: told place by place."""

NAMES: Final = {
    "rejections": "replies that were rejected",
    "order": "what it waited for",
    "arguments": "its arguments",
    "status": "its status",
    "value": "its value",
    "attempts": "attempts",
}

TOTALS: Final = {
    "attempts": "attempts in all",
    "tokens": "tokens in all",
    "cost": "cost in all",
    "time": "time in all",
}

CELL_CHARS: Final = 400
"""Characters of one value in the table; all of it is in `--json`."""


class Row(NamedTuple):
    """One line of the table."""

    mark: str
    """``=`` or ``≠``; empty where only time differs, or for what belongs to the row above."""
    label: str
    a: str
    b: str


def first_words(diff: Diff, *, content: bool) -> str:
    """Where two runs part, in a line."""
    first = diff.first
    if first is None:
        return "no difference but time" if diff.all() else "no difference"
    where = f"round {first.round}" if first.round else "the run"
    if first.call_a or first.call_b:
        where += f", call {_calls(first)} ({one_line(first.worker)})"
    name = NAMES.get(first.what, first.what)
    if first.what in AGENTS and not content:
        return f"first difference: {where}: {name} {_at(first)}"
    (part, one, other), *others = _parts(first)
    name += f" {part}" if part else ""
    more = f", and {len(others)} more of the {first.what}" if others else ""
    return (
        f"first difference: {where}: {name}: {one}{_event(first.event_a)} "
        f"against {other}{_event(first.event_b)}{more}"
    )


def _calls(found: Difference) -> str:
    names = [name for name in (found.call_a, found.call_b) if name]
    return " / ".join(dict.fromkeys(names))


def _at(found: Difference) -> str:
    events = [f"event {n}" if n != NEVER else "nowhere" for n in (found.event_a, found.event_b)]
    return f"({events[0]} against {events[1]})"


def _event(number: int) -> str:
    return f" (event {number})" if number != NEVER else ""


def _parts(found: Difference) -> list[tuple[str, str, str]]:
    """Each place in which they differ, with what is there in either: a pool's workers, say."""
    if found.what not in SET:
        return [("", _text(found, found.a), _text(found, found.b))]
    return [(path, _set(a), _set(b)) for path, a, b in _leaves(found.a, found.b)]


def _leaves(a: Json, b: Json, path: str = "") -> Iterator[tuple[str, Json, Json]]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys() and a:
        for key in a:
            yield from _leaves(a[key], b[key], f"{path}.{one_line(key)}" if path else one_line(key))
    else:
        yield path, a, b


def _set(value: Json) -> str:
    """What was set; a whole worker is told by what it is."""
    if isinstance(value, dict) and "adapter" in value:
        return one_line(str(value["adapter"] or value.get("kind")), CELL_CHARS)
    return one_line(value_text(value), CELL_CHARS)


def _text(found: Difference, value: Json) -> str:
    return cell(found.what, value)


def cell(what: str, value: Json) -> str:
    """A value as it stands in the table."""
    match what, value:
        case "time", int():
            return duration(value)
        case "cost", int():
            return money(value)
        case "status", "":
            return "not settled"
        case "rejections", []:
            return "none"
        case "decision", list():
            return _workers(value)
        case _, {"sha256": str(sha), "size": int(size)}:
            return f"({size:,} bytes, in the blob {sha[:8]}…)"
        case _:
            return one_line(value_text(value), CELL_CHARS)


def _workers(names: list[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    shown = (one_line(name) if n == 1 else f"{one_line(name)} ×{n}" for name, n in counts.items())
    return "calls " + ", ".join(shown) if counts else "nothing"


def rows(diff: Diff, *, content: bool) -> list[Row]:
    """The table's lines: all rounds, those that are the same on one line each."""
    found = [row for each in diff.head for row in _head(each, content)]
    for step in diff.steps:
        found += _step(step, content)
    for each in diff.end:
        name = TOTALS.get(each.what, each.what)
        found.append(_row(each, content)._replace(label=name))
    return found


def _head(found: Difference, content: bool) -> list[Row]:
    if found.what in AGENTS and not content:
        return [_row(found, content)]
    mark = "≠" if found.counts else ""
    return [Row(mark, f"{found.what} {path}".rstrip(), a, b) for path, a, b in _parts(found)]


def _row(found: Difference, content: bool, indent: str = "") -> Row:
    mark = "≠" if found.counts else ""
    if found.what in AGENTS and not content:
        return Row(mark, f"{indent}{found.what}", "…", "…")
    return Row(mark, f"{indent}{found.what}", _text(found, found.a), _text(found, found.b))


def _step(step: Step, content: bool) -> Iterator[Row]:
    label = f"round {step.number}"
    said = next((each for each in step.differences if each.what == "decision"), None)
    one, other = (
        _workers([side.worker for pair in step.pairs if (side := getattr(pair, name))])
        for name in ("a", "b")
    )
    if not step.pairs:
        one = other = "answer"
    if said is not None:
        one, other = _text(said, said.a), _text(said, said.b)
    counted = [each for each in step.all() if each.counts]
    yield Row("≠" if said is not None else "" if counted else "=", label, one, other)
    yield from (
        _row(each, content, "  ")
        for each in step.differences
        if each.what != "decision" and (each.counts or each.what == "time")
    )
    if counted:
        for pair in step.pairs:
            yield from _pair(pair, content)


def _pair(pair: Pair, content: bool) -> Iterator[Row]:
    names = [side.call for side in (pair.a, pair.b) if side]
    workers = [one_line(side.worker) for side in (pair.a, pair.b) if side]
    label = f"  {' / '.join(dict.fromkeys(names))} {' / '.join(dict.fromkeys(workers))}"
    counted = [each for each in pair.differences if each.counts]
    yield Row("≠" if counted else "=", label, _side(pair.a), _side(pair.b))
    for each in counted:
        if each.what not in ("worker", "status"):
            yield _row(each, content, "    ")._replace(mark="")


def _side(side: Side | None) -> str:
    if side is None:
        return ABSENT
    took = f"  {duration(side.time)}" if side.time else ""
    return f"{side.status or 'not settled'}{took}"


def picture(diff: Diff, *, content: bool, width: int) -> RenderableType:
    """Both runs: the first difference, then side by side where the terminal is wide enough."""
    lines = rows(diff, content=content)
    words = Text(first_words(diff, content=content), style="bold" if diff.first else "")
    shared = f"they share {count(diff.shared, 'event')}" if diff.shared else ""
    head = [words, *([Text(shared, style="dim")] if shared else [])]
    body = _beside(diff, lines) if width >= SIDE_BY_SIDE else _below(diff, lines)
    return Group(*head, Text(""), body)


def _beside(diff: Diff, lines: list[Row]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    made.add_column("", no_wrap=True)
    made.add_column("", max_width=40, overflow="fold")
    made.add_column(diff.a, overflow="fold", ratio=1)
    made.add_column(diff.b, overflow="fold", ratio=1)
    for row in lines:
        made.add_row(*(Text(text, style=_style(row)) for text in row))
    return made


def _below(diff: Diff, lines: list[Row]) -> Group:
    shown = [Text(f"A  {diff.a}", style="dim"), Text(f"B  {diff.b}", style="dim")]
    for row in lines:
        head = f"{row.mark or ' '} {row.label}"
        if row.a == row.b and row.mark != "≠":
            shown.append(Text(f"{head}  {row.a}", style=_style(row)))
            continue
        shown.append(Text(head, style=_style(row)))
        shown += [Text(f"      {name}  {text}") for name, text in (("A", row.a), ("B", row.b))]
    return Group(*shown)


def _style(row: Row) -> str:
    return {"≠": "yellow", "=": "dim"}.get(row.mark, "")
