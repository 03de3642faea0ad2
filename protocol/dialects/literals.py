"""Python list literals within a model's text: named lists of integers, strings and lists of them.

Nothing is evaluated and no parser of Python's is asked: what it accepts differs between versions,
and it warns, overflows or runs out of memory where a text is made for that. Here a literal is a
list of decimal integers and quoted strings, with lists one level within; everything else is none.
"""

import re
from typing import Final, TypeAlias

Item: TypeAlias = int | str | list[int | str]
"""What such a list holds."""

MAX_INTEGER_DIGITS: Final = 9
"""Digits of an integer: worker and step numbers have three."""

MAX_BROKEN: Final = 16
"""Lists of these names that may begin and never end well before a text is given up: a text of
nothing else would be read again and again."""

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:(?P<mark>[\[\],])|(?P<integer>-?[0-9]+)"""
    r"""|(?P<long>'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3})"""
    r"""|(?P<text>'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"))""",
    re.DOTALL,
)

_ESCAPE: Final = re.compile(
    r"""\\(?:(?P<hex>x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"""
    r"""|(?P<octal>[0-7]{1,3})|(?P<other>.))""",
    re.DOTALL,
)

_ESCAPES: Final = {
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


def named_lists(text: str, names: tuple[str, ...]) -> dict[str, list[Item]]:
    """The lists that a text gives these names: ``name = [...]``, or with a colon, as JSON does.

    Of several of one name the last counts: a model may think aloud before it decides.
    """
    head = re.compile(rf"""(?<!\w)({"|".join(names)})["']?[ \t]*[=:]\s*(?=\[)""")
    found: dict[str, list[Item]] = {}
    at = broken = 0
    while broken < MAX_BROKEN and (begun := head.search(text, at)):
        at = begun.end()
        if (read := _list(text, at)) is None:
            broken += 1
        else:
            found[begun[1]], at = read
    return found


def written(value: str) -> str:
    """A string as a literal that `named_lists` reads back."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _list(text: str, at: int) -> tuple[list[Item], int] | None:
    """The list that begins here, and where it ends."""
    outer: list[Item] = []
    inner: list[int | str] | None = None
    depth, wanted = 0, True
    while token := _TOKEN.match(text, at):
        at = token.end()
        match token["mark"]:
            case "[" if depth == 0 or (depth == 1 and wanted):
                depth += 1
                if depth == 2:
                    inner = []
                    outer.append(inner)
                wanted = True
            case "]":
                depth, inner, wanted = depth - 1, None, False
                if depth == 0:
                    return outer, at
            case "," if not wanted:
                wanted = True
            case None if wanted and (value := _value(token)) is not None:
                (outer if inner is None else inner).append(value)
                wanted = False
            case _:
                return None
    return None


def _value(token: re.Match[str]) -> int | str | None:
    if (integer := token["integer"]) is not None:
        return int(integer) if len(integer) <= MAX_INTEGER_DIGITS else None
    if (long := token["long"]) is not None:
        return _unescaped(long[3:-3])
    return _unescaped(token["text"][1:-1])


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_escaped, text).encode("utf-8", "replace").decode()


def _escaped(found: re.Match[str]) -> str:
    if (code := found["hex"]) is not None:
        number = int(code[1:], 16)
        return chr(number) if number < 0x110000 else "\ufffd"
    if (octal := found["octal"]) is not None:
        return chr(int(octal, 8))
    return _ESCAPES.get(found["other"], found[0])
