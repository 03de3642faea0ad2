"""Looking for secrets quickly: what a message must hold for one to be in it, and a value's forms.

Nearly every message holds none, and all that is paid for those is one pass of an automaton that
looks for everything at once. It only ever says where nothing is: the patterns of `secret_forms` and
of the configuration decide.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote, quote_plus

import msgspec

from protocol.schemas import searching
from protocol.secret_forms import JOINED, parts

MIN_SECRET_CHARS: Final = 6
"""Characters of the shortest secret that is looked for by its value. A shorter one stands in half
of all texts by chance."""

MAX_ANCHOR_CHARS: Final = 64
"""Characters of a value that the quick look looks for, from its beginning: enough to stand nowhere
by chance, and few enough for an automaton of hundreds of values."""

MAX_LOOKS: Final = 64
"""Looks that are kept: one takes milliseconds to make, and most redactors of a process share it."""

Look: TypeAlias = Callable[[str], bool]
"""Whether a text may hold something. Never wrong in saying no."""

_CASES: Final = {"i": "iI\u0130\u0131", "s": "sS\u017f", "k": "kK\u212a"}
"""The letters of ASCII that Python takes for the same, whatever their case, as others, too."""


def variants(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each secret in the forms in which programs write it, the longest first."""
    found: dict[str, str] = {}
    for stand_in, value in values.items():
        raw = value.encode("utf-8", "replace")
        if len(value) < MIN_SECRET_CHARS or raw.decode() != value:  # no JSON can hold the latter
            continue
        forms = {
            value,
            json.dumps(value)[1:-1],
            json.dumps(value, ensure_ascii=False)[1:-1],
            repr(value)[1:-1],
            quote(raw, safe=""),
            quote(raw),
            quote_plus(raw),
            b64encode(raw).decode(),
        }
        for form in forms:
            found.setdefault(form, stand_in)
    return sorted(found.items(), key=lambda item: (-len(item[0]), item[0]))


def looking(
    texts: Iterable[str], names: Iterable[str] = (), parameters: Iterable[str] = ()
) -> Look:
    """A look at a text, or at JSON in which it stands.

    Args:
        texts: Texts, just as they are.
        names: Names in the sense of `secret_forms.words`.
        parameters: Names before a ``=``.
    """
    return _looking(tuple(texts), tuple(names), tuple(parameters))


@lru_cache(MAX_LOOKS)
def _looking(texts: tuple[str, ...], names: tuple[str, ...], parameters: tuple[str, ...]) -> Look:
    raw = dict.fromkeys(texts)
    encoded = (msgspec.json.encode(text)[1:-1].decode() for text in raw)
    alternatives = [_literal(text[:MAX_ANCHOR_CHARS]) for text in dict.fromkeys((*raw, *encoded))]
    alternatives += map(_named, names)
    alternatives += [f"{_named(name)}=" for name in parameters]
    if not alternatives:
        return lambda text: False
    found = searching("|".join(alternatives))
    if found is None:  # more than an automaton can hold: every text is looked into
        return lambda text: True
    search = found

    def look(text: str) -> bool:
        try:
            return search(text)
        except ValueError:  # half of a surrogate pair
            return True

    return look


def _literal(text: str) -> str:
    """A pattern for a text."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _named(name: str) -> str:
    """A pattern for a name in any case: wider than that of `secret_forms.words`, if anything."""
    return JOINED.join("".join(map(_folded, part)) for part in parts(name))


def _folded(char: str) -> str:
    if not char.isascii():
        return "(?s:.)"
    if char in '"\\' or char < " ":  # JSON writes it as up to six characters
        return "(?s:.{1,6})"
    if char.isalpha():
        return f"[{_CASES.get(char.lower(), char.lower() + char.upper())}]"
    return _literal(char)
