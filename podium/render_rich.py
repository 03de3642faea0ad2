"""A run as a live tree in a terminal, and tables, by rich.

All text of others goes in as `Text`, which rich never reads as markup, and only after `render`
has cleaned it.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from podium.render import (
    CallNode,
    RunTree,
    TurnNode,
    call_text,
    fork_text,
    judged_text,
    spend,
    summary,
    took,
)
from podium.render_text import count, duration, money, one_line
from protocol.views import LIMIT_TEXTS

SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

FRAME_MS: Final = 100
"""Milliseconds of one picture of the spinner."""

ARGUMENTS_SHARE: Final = 0.5
"""Of a call's line, the most that its arguments take while its value needs room."""

GAP: Final = 2
"""Blanks between two columns of a table."""

MIN_WIDE: Final = 20
"""Columns that are left to a table's widest column, however narrow the terminal."""

MAX_REASON_LINES: Final = 6
"""Lines of one failed call's text; all of it is in `--json`."""

FAILED: Final = ("PARSE_ERR", "EXEC_ERR", "TIMEOUT")

STYLES: Final = {
    "OK": ("✓", "green"),
    "PARSE_ERR": ("✗", "yellow"),
    "EXEC_ERR": ("✗", "red"),
    "TIMEOUT": ("⏱", "red"),
    "waiting": ("·", "dim"),
    "withdrawn": ("■", "dim"),
}
"""How a call's status looks. `running` is the spinner."""

IDLE: Final = ("waiting", "withdrawn")

OUTCOMES: Final = {
    "finished": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("■", "yellow"),
    "paused": ("⏸", "yellow"),
}


def run_picture(
    run: RunTree,
    now: int,
    *,
    content: bool,
    width: int,
    height: int | None = None,
    own: bool = False,
) -> RenderableType:
    """The run, as it stands.

    Args:
        run: The run.
        now: Milliseconds since the epoch: what is under way is shown with its time so far.
        content: Whether to show what agents wrote.
        width: Columns of the terminal.
        height: Lines that it may take; older rounds are folded to fit. None for all of it.
        own: Whether to leave out what a fork shares.
    """
    now = run.ended or now  # after which nothing takes time
    lines: list[Text] = [_title(run, width)]
    if run.forked_from:
        lines.append(_line((fork_text(run), "dim")))
    whole = height is None
    turns = [turn for turn in run.turns if not (own and turn.shared)]
    bodies = [_turn(turn, now, run, content=content, width=width, whole=whole) for turn in turns]
    if height is not None:
        bodies = _fitted(bodies, max(1, height - len(lines) - len(_ending(run, now)) - 1))
    for body in bodies:
        lines += body
    lines += _ending(run, now)
    return Group(*lines)


def _fitted(bodies: list[list[Text]], room: int) -> list[list[Text]]:
    """The bodies in so many lines: older ones folded to their first line, then counted."""
    bodies = [body for body in bodies if body]
    for index in range(len(bodies) - 1):
        if sum(map(len, bodies)) > room:
            bodies[index] = bodies[index][:1]
    left_out = 0
    while len(bodies) > 1 and sum(map(len, bodies)) + bool(left_out) > room:
        left_out += 1
        bodies.pop(0)
    if left_out:
        bodies.insert(0, [_line((f"… {count(left_out, 'round')} before", "dim"))])
    if bodies and sum(map(len, bodies)) > room:
        bodies[-1] = bodies[-1][: room - sum(map(len, bodies[:-1]))]
    return bodies


def _title(run: RunTree, width: int) -> Text:
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(run.run, style="bold cyan")
    head.append("  ")
    head.append(one_line(run.task, max(20, width - len(run.run) - 4)), style="bold")
    return head


def _turn(
    turn: TurnNode, now: int, run: RunTree, *, content: bool, width: int, whole: bool
) -> list[Text]:
    if turn.error:
        return [_line(("✗ ", "red"), (f"policy failed: {one_line(turn.error)}", ""))]
    if turn.reason:
        text = f"reply rejected ({turn.reason})"
        text += f": {one_line(turn.detail)}" if content else ""
        return [_line(("✗ ", "yellow"), (text, ""))]
    if not turn.replied:
        if run.outcome:
            return [_line(("■ ", "dim"), (f"the {turn.asker} had not replied", "dim"))]
        since = now - turn.asked
        who = "asking the policy" if turn.asker == "policy" else "writing the answer"
        waited = f" {duration(since)}" if since >= 1_000 else ""
        return [_line((f"{_frame(now)} ", "cyan"), (who, ""), (waited, "dim"))]
    if not turn.round:
        return []
    calls = _calls(turn.calls, now, content=content, width=width, whole=whole)
    return [_round(turn, now), *calls]


def _round(turn: TurnNode, now: int) -> Text:
    parts = [count(len(turn.calls), "call")]
    calls = [call for call in turn.calls if turn.shared or not call.shared]
    begun = [call.began for call in calls if call.began]
    if begun and all(call.settled for call in calls):
        parts.append(duration(max(call.settled for call in calls) - min(begun)))
    elif begun:
        parts.append(duration(now - min(begun)))
    thought = f"policy {duration(turn.latency_ms)}" if turn.latency_ms >= 100 else ""
    parts += filter(None, (thought, spend(turn.spent)))
    return _line((f"round {turn.round}", "bold"), ("  " + " · ".join(parts), "dim"))


def _calls(
    calls: Sequence[CallNode], now: int, *, content: bool, width: int, whole: bool
) -> list[Text]:
    names = max((len(call.worker) for call in calls), default=0)
    ends = [_end(call, now) for call in calls]
    tail = max(map(len, ends), default=0)
    lines = []
    for index, (call, end) in enumerate(zip(calls, ends, strict=True)):
        guide = "└ " if index == len(calls) - 1 else "├ "
        glyph, style = STYLES.get(call.status, (_frame(now), "cyan"))
        head = Text(guide, style="dim", no_wrap=True, overflow="crop")
        head.append(f"{glyph} ", style=style)
        head.append(call.worker.ljust(names), style="dim" if call.status in IDLE else "")
        head.append("  ")
        room = width - head.cell_len - tail - 3
        head.append_text(_said(call, content, max(0, room)))
        head.pad_right(max(0, width - head.cell_len - tail - 1))
        head.append(end.rjust(tail), style="dim")
        lines.append(head)
        if whole and content and call.status in FAILED:
            lines += _reason(call, room, "  " if index == len(calls) - 1 else "│ ", width)
    return lines


def _reason(call: CallNode, room: int, guide: str, width: int) -> list[Text]:
    """All of why a call failed, where its line had no room for it."""
    asked, got = call_text(call, content=True)
    if len(asked) + len(call.status) + len(got) + len(" →  ") <= room:
        return []
    folded = textwrap.wrap(got, max(MIN_WIDE, width - 6), max_lines=MAX_REASON_LINES)
    return [_line((guide, "dim"), (f"    {text}", STYLES[call.status][1])) for text in folded]


def _said(call: CallNode, content: bool, room: int) -> Text:
    asked, got = call_text(call, content=content)
    said = Text(no_wrap=True)
    failed = call.status in FAILED
    if failed:
        got = f"{call.status} {got}".rstrip()
    arrow = " → " if got else ""
    limit = room
    if len(asked) + len(arrow) + len(got) > room and got:
        limit = max(int(room * ARGUMENTS_SHARE), room - len(arrow) - len(got))
    said.append(one_line(asked, limit), style="dim")
    said.append(arrow, style="dim")
    if call.child:
        got = f"{got} (run {call.child})".strip()
    said.append(got, style=STYLES[call.status][1] if failed else "")
    said.truncate(room, overflow="ellipsis")
    return said


def _end(call: CallNode, now: int) -> str:
    parts = []
    if call.attempts > 1:
        parts.append(f"attempt {call.attempts}")
    if call.spent.cost:
        parts.append(money(call.spent.cost))
    if call.settled and call.latency_ms:
        parts.append(duration(call.latency_ms))
    else:
        time = took(call, now)
        parts += [duration(time)] if time is not None and (call.settled or time >= 100) else []
    return "  ".join(parts)


def _ending(run: RunTree, now: int) -> list[Text]:
    lines = [_line(("» ", "yellow"), (signal, "dim")) for signal in run.signals]
    lines += [_line(("« ", "yellow"), (said, "dim")) for said in judged_text(run)]
    state = run.outcome or run.phase
    glyph, style = OUTCOMES.get(state, (_frame(now), "cyan"))
    said = {"paused": f"paused ({run.paused})", "new": "waits for a conductor"}.get(state, state)
    last = _line((f"{glyph} ", style), (said, style), (f"  {summary(run, now)}", "dim"))
    lines.append(last)
    if run.limited_by:
        why = LIMIT_TEXTS.get(run.limited_by, run.limited_by)
        lines.append(_line(("! ", "yellow"), (f"incomplete: {why}", "yellow")))
    if run.detail:
        detail = Text("  ")
        detail.append(one_line(run.detail), style=style)
        lines.append(detail)
    return lines


def _line(*parts: tuple[str, str]) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for part, style in parts:
        text.append(part, style=style)
    return text


def _frame(now: int) -> str:
    return SPINNER[now // FRAME_MS % len(SPINNER)]


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    wide: str = "",
    *,
    cut: int | None = None,
) -> Table:
    """A table without lines.

    Args:
        headings: Of the columns; one that ends in ``>`` is set to the right.
        rows: Texts; cleaned here.
        wide: The heading of the column that takes what is left of the line, and is folded.
        cut: Columns of the terminal, to cut off the wide column instead of folding it.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    room = None
    for index, heading in enumerate(headings):
        name = heading.rstrip(">")
        width = max((cell_len(row[index]) for row in cells), default=0)
        is_wide = name == wide
        if is_wide and cut is not None:
            others = [
                max(cell_len(h.rstrip(">")), *(cell_len(r[i]) for r in cells), 0)
                for i, h in enumerate(headings)
                if i != index
            ]
            room = max(MIN_WIDE, cut - sum(others) - GAP * len(headings))
        made.add_column(
            name,
            justify="right" if heading.endswith(">") else "left",
            no_wrap=not is_wide or cut is not None,
            min_width=None if is_wide else width,
            overflow="fold" if is_wide else "ellipsis",
            ratio=1 if is_wide and cut is None else None,
        )
    for row in cells:
        made.add_row(
            *(
                _cell(one_line(cell, room) if room and heading == wide else cell)
                for heading, cell in zip(headings, row, strict=True)
            )
        )
    return made


def _cell(text: str) -> Text:
    """A cell: a word of ours in its colour, anything else as it is."""
    return Text(text, style=_WORDS.get(text, ""))


_WORDS: Final = {
    "ok": "green",
    "finished": "green",
    "warning": "yellow",
    "paused": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "working": "cyan",
    "deciding": "cyan",
}
"""Words of ours that have a colour wherever they stand alone in a cell."""
