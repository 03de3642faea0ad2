"""References: ``${secret:NAME}`` and ``${output:CALL}`` stand for what is put in later.

A reference may stand anywhere inside a text: a secret's of a call's arguments or of a worker's
options, an output's of a call's arguments or of an answer. The log, the queues and every prompt
hold the reference. A secret's value is held by workers alone, and put in if the worker's entry in
the pool declares the name. An output is that of another call of the same run: a policy refers to
what was found and never has to copy it.

All references of a value are filled in one pass, so what is put in is never looked through again:
an output can't spell a secret's reference.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import Json
from protocol.limits import MAX_NESTING

Kind: TypeAlias = Literal["secret", "output"]
"""What a reference stands for."""

Put: TypeAlias = Callable[[str], str]
"""What stands in place of the reference of a name."""

NAME_PATTERN: Final = r"[A-Za-z][A-Za-z0-9_]{0,63}"
"""Names of secrets: what can be part of an environment variable's name, and a file's."""

OPENINGS: Final[Mapping[Kind, str]] = {"secret": "${secret:", "output": "${output:"}

OUTPUTS_ARE_FILLED: Final = 4
"""The version of the rules from which on a call's arguments may refer to outputs."""

MAX_REFERENCE_CHARS: Final = 216
"""Characters of the longest text that is taken for a reference, whatever it names."""

REFERENCE: Final = re.compile(r"\$\{(secret|output):([^{}]{0,200})\}")
"""A reference; its groups are what it stands for, and what should be a name."""

_NAME: Final = re.compile(NAME_PATTERN)


def reference(name: str, kind: Kind = "secret") -> str:
    """The text that stands for a secret, or for the output of a call."""
    return f"{OPENINGS[kind]}{name}}}"


def is_name(name: str) -> bool:
    """Whether a secret can be called that."""
    return _NAME.fullmatch(name) is not None


def refers(value: Json, kind: Kind = "secret") -> bool:
    """Whether there may be a reference in a JSON value."""
    return _refers(value, OPENINGS[kind], 0)


def _refers(value: Json, opening: str, depth: int) -> bool:
    match value:
        case str():
            return opening in value
        case dict() if depth <= MAX_NESTING:
            items = iter(value.values())
        case list() | tuple() if depth <= MAX_NESTING:
            items = iter(value)
        case _:
            return False
    for item in items:
        if opening in item if isinstance(item, str) else _refers(item, opening, depth + 1):
            return True
    return False


def referred(value: Json, kind: Kind = "secret") -> list[str]:
    """What the references in a JSON value name, in order, each once; also what is no name."""
    if not refers(value, kind):
        return []
    found: dict[str, None] = {}

    def note(name: str) -> str:
        found[name] = None
        return ""

    _filled(value, {kind: note}, 0)
    return list(found)


def filled(value: Json, secret: Put | None = None, output: Put | None = None) -> Json:
    """``value`` with what these give in place of each reference in its texts.

    Keys of objects stay as they are, and references of a kind that nothing is given for. What is
    nested deeper than any value may be, too.

    Args:
        value: JSON.
        secret: By the name of a secret.
        output: By the id of a call.
    """
    put: dict[Kind, Put] = {}
    if secret is not None:
        put["secret"] = secret
    if output is not None:
        put["output"] = output
    return _filled(value, put, 0)


def _filled(value: Json, put: Mapping[Kind, Put], depth: int) -> Json:
    match value:
        case str():
            if not any(OPENINGS[kind] in value for kind in put):
                return value
            return REFERENCE.sub(lambda found: _one(found, put), value)
        case dict() if depth <= MAX_NESTING:
            return {key: _filled(item, put, depth + 1) for key, item in value.items()}
        case list() | tuple() if depth <= MAX_NESTING:
            return [_filled(item, put, depth + 1) for item in value]
        case _:
            return value


def _one(found: re.Match[str], put: Mapping[Kind, Put]) -> str:
    kind: Kind = "output" if found[1] == "output" else "secret"
    known = put.get(kind)
    return found[0] if known is None else known(found[2])


def plain(value: Json) -> str:
    """The text that stands for a value where it is referred to.

    Of an object its ``value``, else its ``answer``: what is said beside it explains it.
    """
    if isinstance(value, dict):
        value = next((value[key] for key in ("value", "answer") if key in value), value)
    return as_text(value)


def as_text(value: Json) -> str:
    """A value as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
