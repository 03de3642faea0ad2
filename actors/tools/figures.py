"""One figure from the documents: the number that a few words ask for, and the sentence it is in.

A search finds passages; of their sentences the one counts that shares most words with the query,
and of its numbers the one beside those words, or before a unit that the query names.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from actors.tools.library import STOP_WORDS, library

MAX_PASSAGES: Final = 5
"""Passages whose sentences are looked at: the right one is among the first two, nearly always."""

STEM_CHARS: Final = 5
"""Characters by which word forms are taken for one word (deep, deepest)."""

UNIT_WORDS: Final = 3
"""Words after a number among which its unit is looked for ("million square kilometres")."""

UNIT_WEIGHT: Final = 3.0
"""A unit that is asked for says as much as three words that a sentence shares with the query."""

ASIDE_WEIGHT: Final = 0.5
"""A word of the query in the passage or its title, but not in the sentence."""

NAME_WEIGHT: Final = 1.0
"""What a word with a capital counts besides: names tell more than others."""

SCALES: Final = {"million": 10**6, "billion": 10**9}

_SMALL: Final = """
    two three four five six seven eight nine ten eleven twelve thirteen fourteen
"""

SMALL: Final = {word: number for number, word in enumerate(_SMALL.split(), 2)}
"""Numbers that are written as words."""

_NUMBER: Final = re.compile(
    rf"(?<![\w.,])(\d{{1,3}}(?:,\d{{3}})+|\d+)(\.\d+)?(?![\w])|\b({'|'.join(SMALL)})\b",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"(?<=[.!?:])\s+(?=[A-Z0-9])")


class Figure(NamedTuple):
    """A number that was found."""

    value: int | float
    sentence: str
    document: str


class NoFigure(ValueError):
    """Nothing in the documents fits; the text says what to do."""


def figure(folder: Path, query: str) -> Figure:
    """The figure of ``folder`` that fits a query best. Raises `NoFigure`."""
    wanted = _stems(query)
    names = _stems(" ".join(word for word in query.split() if word[:1].isupper()))
    best: tuple[float, int] | None = None
    found: Figure | None = None
    order = 0
    for passage in library(folder).search(query, MAX_PASSAGES):
        around = _stems(f"{passage.title} {passage.text}") & wanted
        for sentence in _SENTENCE.split(passage.text):
            inside = _stems(sentence) & wanted
            shared = len(inside) + NAME_WEIGHT * len(inside & names)
            shared += ASIDE_WEIGHT * (len(around - inside) + len((around - inside) & names))
            for value, score in _numbers(sentence, wanted):
                order -= 1
                if best is None or (shared + score, order) > best:
                    best = (shared + score, order)
                    found = Figure(value, sentence, passage.document)
    if found is None:
        raise NoFigure(f'The documents have no figure for "{query}". Use other words.')
    return found


def _numbers(sentence: str, wanted: set[str]) -> Iterator[tuple[int | float, float]]:
    """Each number of a sentence, and how well what stands around it fits."""
    for match in _NUMBER.finditer(sentence):
        after = re.findall(r"\w+", sentence[match.end() :].casefold())[: UNIT_WORDS + 1]
        value: int | float
        if match[3]:
            value = SMALL[match[3].casefold()]
        elif match[2]:
            value = float(match[1].replace(",", "") + match[2])
        else:
            value = int(match[1].replace(",", ""))
        if after and after[0] in SCALES:
            value = round(value * SCALES[after[0]], 6)
            value = int(value) if float(value).is_integer() else value
            after = after[1:]
        unit = bool(_stems(" ".join(after[:UNIT_WORDS])) & wanted)
        before = re.findall(r"\w+", sentence[: match.start()].casefold())[-8:]
        near = len(_stems(" ".join(before)) & wanted)
        yield value, UNIT_WEIGHT * unit + 0.25 * near


def _stems(text: str) -> set[str]:
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return {word[:STEM_CHARS] for word in words if word not in STOP_WORDS}
