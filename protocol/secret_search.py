"""Looking for secrets quickly: what a message must hold for one to be in it, and a value's forms.

Nearly every message holds none, and all that is paid for those is the search for a few short texts.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias
from urllib.parse import quote, quote_plus

import msgspec

from protocol.secret_forms import Form

MIN_SECRET_CHARS: Final = 6
"""Characters of the shortest secret that is looked for by its value. A shorter one stands in half
of all texts by chance."""

Anchors: TypeAlias = list[tuple[str, tuple[str, ...]]]
"""Texts that are looked for, by something that several of them have."""

_STEMS: Final = ("token", "key", "pass", "sig", "earer", "gh", "IA", "k_")
"""What several anchors have, and most texts have not: half of the searches are saved."""

_LOWER: Final = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in range(256))


def flattened(data: bytes) -> str:
    """Bytes as a text in small letters, without the marks between words."""
    return data.translate(_LOWER, b"-_. ").decode("utf-8", "replace")


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


def holds(text: str, anchors: Anchors) -> bool:
    """Whether a text holds one of the anchors."""
    for stem, members in anchors:
        if stem in text and (not members or any(each in text for each in members)):
            return True
    return False


def _by_stem(texts: list[str]) -> Anchors:
    left, found = dict.fromkeys(texts), []
    for stem in _STEMS:
        members = tuple(text for text in left if stem in text)
        if len(members) > 1:
            found.append((stem, members))
            left = {text: None for text in left if text not in members}
    return [*found, *((text, ()) for text in left)]


def anchors(forms: tuple[Form, ...], values: list[str]) -> Anchors:
    """Texts of which JSON that holds a form or a value has at least one."""
    texts = [anchor for form in forms for anchor in form.anchors]
    texts += [msgspec.json.encode(value)[1:-1].decode() for value in values]
    return _by_stem(_shortest(texts))


def flat_anchors(names: tuple[str, ...], parameters: tuple[str, ...]) -> Anchors:
    """Likewise for names, in small letters and without the marks between words."""
    texts = [*names, *(f"{name}=" for name in parameters)]
    return _by_stem(_shortest(re.sub(r"[-_. ]", "", text.lower()) for text in texts))


def _shortest(texts: Iterable[str]) -> list[str]:
    """The texts, but for those that hold another of them."""
    every = list(dict.fromkeys(texts))
    return [text for text in every if not any(o != text and o in text for o in every)]
