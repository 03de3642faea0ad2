"""What a question typed by a person is about: marked as the tasks are that the model learned from.

Pure functions of the text, by the lexer of the rules policy: names of places become entities, as
the workers know them, and so do numbers. What is not marked has to be words of those tasks. So
whoever reads a log finds the very prompt again from the question that stands in it.
"""

import re
from collections.abc import Set
from functools import lru_cache
from typing import Final, NamedTuple

from actors.policies.rules import names
from actors.policies.rules.lexer import MAX_QUESTION_CHARS, Piece, Token, pieces

MAX_MARKED: Final = 8
"""Marked things of a question: the most that a question of the gym is about."""

THING: Final = "$"
"""What stands for an entity among the words of a question."""

_WORD: Final = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_ROUNDING: Final = re.compile(r"\s*(?:decimal|place|digit)s?\b")
"""Behind a number that says how a result is to be given, and is nothing to be worked with."""

_ARTICLE: Final = re.compile(r"(?<!\w)the $", re.IGNORECASE)

_QUOTES: Final = "\"“`'"
"""A name in quotes is an odd one: the rules have a way with it."""


class Marked(NamedTuple):
    """A question, ready to be shown."""

    text: str
    """In which each entity stands just once, as `entities` has it."""
    entities: tuple[str, ...]
    """In the order of the text: names and numbers."""


class Unmarked(NamedTuple):
    """Why a question is none that the model was trained on."""

    why: str


def in_a_row(text: str, entities: tuple[str, ...] = ()) -> set[str]:
    """Each three words in a row of a question, folded, with its entities as `THING`.

    What begins and ends it counts as a word, and so do numbers and punctuation.
    """
    for entity in sorted(entities, key=len, reverse=True):
        text = text.replace(entity, f" {THING} ", 1)
    found = (THING if match[0] == THING else names.fold(match[0]) for match in _WORD.finditer(text))
    said = ["", *(each or "." for each in found), ""]
    return {" ".join(said[index : index + 3]) for index in range(len(said) - 2)}


def marked(text: str, known: frozenset[str]) -> Marked | Unmarked:
    """The question with its entities. Total and pure.

    Args:
        text: As a person typed it.
        known: What stands in a row in the questions that the model was trained on, see
            `in_a_row`.
    """
    words = _words(known)
    text = " ".join(text.split())
    if len(text) > MAX_QUESTION_CHARS:
        return Unmarked("it is too long")
    said: list[str] = []
    entities: list[str] = []
    end = 0
    for piece in pieces(_begun(text, words)):
        if (entity := _entity(text, piece, words)) is None:
            continue
        before = text[end : piece.start]
        if piece.tokens[0].known:  # the gym names countries without their article
            before = _ARTICLE.sub("", before)
        said += [before, entity]
        entities.append(entity)
        end = piece.end
    said.append(text[end:])
    if not entities:
        return Unmarked("it names nothing that is known")
    if len(entities) > MAX_MARKED:
        return Unmarked(f"it names {len(entities)} things, and at most {MAX_MARKED} are learned")
    whole = "".join(said)
    if twice := [each for each in entities if whole.count(each) != 1]:
        return Unmarked(f"{twice[0]} stands in it twice")
    if other := sorted(in_a_row(whole, tuple(entities)) - known):
        return Unmarked(f"nothing that was learned is worded so: '{_spoken(other[0])}'")
    return Marked(whole, tuple(entities))


def _spoken(words: str) -> str:
    """Some words as a person reads them: for what is named, dots."""
    return words.replace(THING, "…").strip()


@lru_cache(4)
def _words(known: frozenset[str]) -> frozenset[str]:
    return frozenset(word for each in known for word in each.split())


def _begun(text: str, known: Set[str]) -> str:
    """The text whose first word is no name because it begins the sentence."""
    first = re.match(r"[^\W\d_]+", text)
    if first is None or names.fold(first[0]) not in known:
        return text
    return text[0].lower() + text[1:] if len(text[0].lower()) == 1 else text


def _entity(text: str, piece: Piece, known: Set[str]) -> str | None:
    """What a piece of the text names; None if it is no entity."""
    match piece.tokens:
        case (Token("number", value),):
            asked = text[piece.end :]
            apart = not text[: piece.start].endswith("-") and not _ROUNDING.match(asked)
            return value if apart else None
        case (Token("name", value, is_country),):
            if is_country:
                return value
            words = {names.fold(match[0]) for match in _WORD.finditer(value)}
            named = any(char.isupper() for char in value) and not words <= known
            return value if named and text[piece.start] not in _QUOTES else None
        case _:
            return None
