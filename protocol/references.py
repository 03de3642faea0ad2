"""References to secrets: ``${secret:NAME}`` stands for a value that only a worker ever holds.

A reference may stand anywhere inside a text of a call's arguments or of a worker's options. The
log, the queues and every prompt hold the reference; the worker's process puts the value in right
before the work begins, if its entry in the pool declares the name.
"""

import re
from collections.abc import Callable
from typing import Final

from protocol.actions import Json
from protocol.limits import MAX_NESTING

NAME_PATTERN: Final = r"[A-Za-z][A-Za-z0-9_]{0,63}"
"""Names of secrets: what can be part of an environment variable's name, and a file's."""

OPENING: Final = "${secret:"

MAX_REFERENCE_CHARS: Final = 216
"""Characters of the longest text that is taken for a reference, whatever it names."""

REFERENCE: Final = re.compile(r"\$\{secret:([^{}]{0,200})\}")
"""A reference; its group is what should be a name."""

_NAME: Final = re.compile(NAME_PATTERN)


def reference(name: str) -> str:
    """The text that stands for a secret."""
    return f"{OPENING}{name}}}"


def is_name(name: str) -> bool:
    """Whether a secret can be called that."""
    return _NAME.fullmatch(name) is not None


def refers(value: Json, depth: int = 0) -> bool:
    """Whether there may be a reference in a JSON value."""
    match value:
        case str():
            return OPENING in value
        case dict() if depth <= MAX_NESTING:
            items = iter(value.values())
        case list() | tuple() if depth <= MAX_NESTING:
            items = iter(value)
        case _:
            return False
    for item in items:
        if OPENING in item if isinstance(item, str) else refers(item, depth + 1):
            return True
    return False


def referred(value: Json) -> list[str]:
    """What the references in a JSON value name, in order, each once; also what is no name."""
    if not refers(value):
        return []
    found: dict[str, None] = {}

    def note(name: str) -> str:
        found[name] = None
        return ""

    filled(value, note)
    return list(found)


def filled(value: Json, secret: Callable[[str], str]) -> Json:
    """``value`` with ``secret(name)`` in place of each reference in its texts.

    Keys of objects stay as they are. What is nested deeper than any value may be, too.
    """
    return _filled(value, secret, 0)


def _filled(value: Json, secret: Callable[[str], str], depth: int) -> Json:
    match value:
        case str():
            if OPENING not in value:
                return value
            return REFERENCE.sub(lambda match: secret(match[1]), value)
        case dict() if depth <= MAX_NESTING:
            return {key: _filled(item, secret, depth + 1) for key, item in value.items()}
        case list() | tuple() if depth <= MAX_NESTING:
            return [_filled(item, secret, depth + 1) for item in value]
        case _:
            return value
