"""Texts and numbers as people read them.

What an agent or a tool has written may hold escape sequences that would move the cursor or forge a
line, so no text reaches a terminal but through `clean` or `one_line`.
"""

import unicodedata
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

MAX_SHOWN_CHARS: Final = 2_000
"""Characters of one value that are ever laid out: more than the widest terminal shows in a line."""

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that are never shown: controls, directional overrides, half characters."""

_JOINERS: Final = "\u200c\u200d"
"""Format characters that scripts and emoji are written with; they can't mislead."""


def clean(text: str) -> str:
    """The text with nothing in it that could steer a terminal; its lines are kept."""
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(c for c in text if c == "\n" or c in _JOINERS or not _unsafe(c))


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE


def one_line(text: str, limit: int = MAX_SHOWN_CHARS) -> str:
    """The text on one line, at most ``limit`` characters."""
    text = " ".join(clean(text[: 4 * MAX_SHOWN_CHARS]).split())
    return text if len(text) <= limit else f"{text[: max(0, limit - 1)]}…"


def value_text(value: Any, *, apart_from: tuple[Any, ...] = ()) -> str:
    """A JSON value on one line, as a person writes it.

    Args:
        value: The value.
        apart_from: What the reader sees beside it already; an object's fields that only repeat one
            of these are left out.
    """
    match value:
        case dict():
            fields = {key: item for key, item in value.items() if item not in apart_from}
            if "value" in fields:  # what most tools call their result: nobody reads past the rest
                fields = {"value": fields.pop("value"), **fields}
            text = ", ".join(f"{key}: {_inner(item)}" for key, item in fields.items())
        case _:
            text = _inner(value)
    return one_line(text)


def _inner(value: Any) -> str:
    match value:
        case str():
            return value.strip() or '""'
        case bool() | None:
            return msgspec.json.encode(value).decode()
        case int():
            return f"{value:,}" if abs(value) >= 10_000 else str(value)
        case float():
            return f"{value:,.10g}"
        case list() if value and all(isinstance(item, str | int | float) for item in value):
            return "[" + ", ".join(_inner(item) for item in value[:50]) + "]"
        case _:
            return msgspec.json.encode(value).decode()


def duration(milliseconds: int) -> str:
    """A length of time: ``12 ms``, ``3.4 s``, ``2 min 05 s``, ``3 h 10 min``."""
    if milliseconds < 1_000:
        return f"{max(0, milliseconds)} ms"
    seconds = milliseconds / 1_000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def moment(milliseconds: int) -> str:
    """A time, milliseconds since the epoch, in UTC: ``2026-07-01 12:00:00.250Z``."""
    try:
        when = datetime.fromtimestamp(milliseconds / 1_000, UTC)
    except (ValueError, OverflowError, OSError):  # a deadline may lie beyond all calendars
        return f"{milliseconds:,}"
    return f"{when:%Y-%m-%d %H:%M:%S}.{milliseconds % 1_000:03}Z"


def ago(milliseconds: int) -> str:
    """How long ago, roughly: ``47 s ago``, ``4 min ago``, ``3 h ago``, ``12 d ago``."""
    seconds = max(0, milliseconds) // 1_000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def money(micro: int) -> str:
    """Micro-dollars as dollars, with as many digits as say something."""
    if micro == 0:
        return "$0"
    if micro >= 100_000:
        return f"${micro / 1e6:,.2f}"
    return f"${micro / 1e6:.6f}".rstrip("0")


def count(number: int, noun: str) -> str:
    """``1 round``, ``3 rounds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
