"""Text to tokens: words are looked up in the lexicon; a capitalised word not in it is a name."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

from actors.policies.rules import lexicon, names

MAX_QUESTION_CHARS: Final = 1_000
"""Characters of a question that is planned. Longer ones are stories, and no grammar of ours reads
those."""

MAX_TOKENS: Final = 160
"""Tokens of one sentence: bounds the depth and the time of parsing."""

MAX_LOWER_NAME_WORDS: Final = 4
"""Words of a name that is written in lower case."""

LONGEST_PHRASE: Final = max(lexicon.LONGEST_PHRASE, *map(len, names.COUNTRIES))
"""Words of the longest phrase in any table."""

T = TypeVar("T")

_RAW: Final = re.compile(
    r"""
    (?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)
  | (?P<quoted>"[^"]+"|“[^”]+”|`[^`]+`|(?<!\w)'[^']+'(?!\w))
  | (?P<word>(?:[^\W\d_]\.){2,}|St\.|[^\W\d_][^\W\d_]*(?:['’](?!s\b)[^\W\d_]+)*(?:[0-9]\b)?)
  | (?P<possessive>['’]s\b|(?<=s)['’](?!\w))
  | (?P<symbol>\*\*|//|\S)
    """,
    re.VERBOSE,
)

_OPERATORS: Final = {
    "+": "+",
    "-": "-",
    "–": "-",
    "−": "-",
    "*": "*",
    "×": "*",
    "/": "/",
    "÷": "/",
    "^": "**",
    "**": "**",
    "//": "//",
    "%": "%",
}

_ARTICLES: Final = frozenset({"a", "an", "the"})

_ABOUT: Final = frozenset({"what", "who", "where", "it", "that", "which", "how"})
"""Words after which 's is a short form of "is"."""


class Token(NamedTuple):
    """A meaningful piece of a question."""

    kind: str
    """name, continent, number, operator, open, close, possessive, end, unknown, or a kind of the
    lexicon."""
    value: str
    known: bool = False
    """For a name: it is the name of a country."""


class Piece(NamedTuple):
    """Where tokens were read from, in the text."""

    start: int
    end: int
    tokens: tuple[Token, ...]


class _Raw(NamedTuple):
    kind: str
    text: str
    start: int
    end: int

    @property
    def capitalised(self) -> bool:
        return self.kind == "word" and self.text[0].isupper()


def tokens(text: str) -> list[Token]:
    """All tokens of a text; a sentence ends with a token of kind ``end``."""
    return [token for piece in pieces(text) for token in piece.tokens]


def pieces(text: str) -> list[Piece]:
    """The same, with the places that they were read from."""
    raw = [
        _Raw(match.lastgroup or "symbol", match.group(), match.start(), match.end())
        for match in _RAW.finditer(text)
    ]
    return list(_Lexer(text, raw).run())


class _Lexer:
    def __init__(self, text: str, raw: list[_Raw]) -> None:
        self.text = text
        self.raw = raw
        self.words = tuple(names.fold(piece.text) for piece in raw)
        self.lower_case = not any(c.isupper() for c in text[1:])
        self.out: list[Token] = []

    def run(self) -> Iterator[Piece]:
        i = 0
        while i < len(self.raw):
            said = len(self.out)
            after = self._step(i)
            yield Piece(self.raw[i].start, self.raw[after - 1].end, tuple(self.out[said:]))
            i = after

    def _step(self, i: int) -> int:
        piece = self.raw[i]
        match piece.kind:
            case "number":
                self.out.append(Token("number", piece.text.replace(",", "")))
            case "quoted":
                self.out.append(Token("name", piece.text[1:-1].strip()))
            case "possessive":
                short = i > 0 and self.words[i - 1] in _ABOUT
                self.out.append(Token("word", "is") if short else Token("possessive", "'s"))
            case "word":
                return self._word(i)
            case _:
                self._symbol(i)
        return i + 1

    def _symbol(self, i: int) -> None:
        symbol = self.raw[i].text
        before = self.raw[i - 1].kind if i else ""
        after = self.raw[i + 1].kind if i + 1 < len(self.raw) else ""
        if symbol in _OPERATORS:
            hyphen = symbol in "-–" and before == "word" and after == "word"
            if not hyphen or self._spaced(i):
                self.out.append(Token("operator", _OPERATORS[symbol]))
        elif symbol in ".?!":
            self.out.append(Token("end", symbol))
        elif symbol in ",;:…":
            self.out.append(Token("separator", ","))
        elif symbol in "()":
            self.out.append(Token("open" if symbol == "(" else "close", symbol))
        elif symbol != "=" or after:
            self.out.append(Token("unknown", symbol))

    def _spaced(self, i: int) -> bool:
        return self.raw[i].start > self.raw[i - 1].end

    def _word(self, i: int) -> int:
        country, country_end = self._longest(i, names.COUNTRIES)
        meaning, meaning_end = self._longest(i, lexicon.PHRASES)
        continent, continent_end = self._longest(i, names.CONTINENTS)
        if self.raw[i].text in {"US", "U.S.", "America"} and not continent:
            country, country_end = "United States", i + 1
        if country and country_end >= max(meaning_end, continent_end):
            return self._country(i, country, country_end)
        if continent and continent_end >= meaning_end:
            self.out.append(Token("continent", continent))
            return continent_end
        if meaning:
            if self.words[i] in _ARTICLES and meaning_end == i + 1:
                return meaning_end
            self.out += [Token(kind, value) for kind, value in meaning]
            return meaning_end
        if self.words[i] in names.DEMONYMS and (self.raw[i].capitalised or self.lower_case):
            self.out.append(Token("name", names.DEMONYMS[self.words[i]], known=True))
            self.out.append(Token("possessive", "'s"))
            return i + 1
        return self._name(i)

    def _country(self, i: int, country: str, end: int) -> int:
        """A country, or a city whose name begins like one: Mexico City, Jersey City."""
        if end < len(self.raw) and self._continues(end):
            return self._name(i)
        self.out.append(Token("name", country, known=True))
        return end

    def _name(self, i: int) -> int:
        if self.raw[i].capitalised:
            end = i + 1
            while end < len(self.raw):
                if self._continues(end):
                    end += 1
                elif self._connected(end):
                    end += 2
                else:
                    break
            self.out.append(Token("name", self._slice(i, end)))
            return end
        if not self.lower_case:
            self.out.append(Token("unknown", self.raw[i].text))
            return i + 1
        end = i + 1
        while end < len(self.raw) and end - i < MAX_LOWER_NAME_WORDS and self._plain(end):
            end += 1
        if end < len(self.raw) and self.words[end] == "city":
            end += 1
        self.out.append(Token("name", self._slice(i, end)))
        return end

    def _continues(self, i: int) -> bool:
        """Whether raw token ``i`` is a further word of the name before it."""
        piece = self.raw[i]
        if piece.kind == "symbol" and piece.text in "-–" and not self._spaced(i):
            return i + 1 < len(self.raw) and self.raw[i + 1].kind == "word"
        if piece.kind != "word":
            return False
        glued = self.raw[i - 1].text in {"-", "–"} and not self._spaced(i)
        tail = self.words[i] in names.NAME_TAILS
        if tail and self.lower_case:
            return True
        _, meaning_end = self._longest(i, lexicon.PHRASES)
        return glued or (piece.capitalised and (tail or meaning_end == i))

    def _connected(self, i: int) -> bool:
        after = i + 1
        return (
            self.words[i] in names.CONNECTORS
            and after < len(self.raw)
            and self.raw[after].capitalised
            and self._continues(after)
            and self._longest(after, names.COUNTRIES)[0] is None
        )

    def _plain(self, i: int) -> bool:
        """Whether raw token ``i`` is a word that nothing is known of."""
        if self.raw[i].kind != "word":
            return False
        tables = (lexicon.PHRASES, names.COUNTRIES, names.CONTINENTS)
        known = any(self._longest(i, table)[0] is not None for table in tables)
        return not known or (self.words[i] in names.CONNECTORS and self._plain_after(i))

    def _plain_after(self, i: int) -> bool:
        return i + 1 < len(self.raw) and self.raw[i + 1].kind == "word" and self._plain(i + 1)

    def _slice(self, start: int, end: int) -> str:
        return " ".join(self.text[self.raw[start].start : self.raw[end - 1].end].split())

    def _longest(self, i: int, table: Mapping[tuple[str, ...], T]) -> tuple[T | None, int]:
        """The meaning of the longest phrase of ``table`` at ``i``, and where it ends."""
        best: T | None = None
        best_end = i
        words: list[str] = []
        for j in range(i, len(self.raw)):
            if self.raw[j].kind == "symbol" and self.raw[j].text in "-–":
                continue
            if self.raw[j].kind not in {"word", "number"} or len(words) >= LONGEST_PHRASE:
                break
            words.append(self.words[j])
            found = table.get(tuple(words))
            if found is not None:
                best, best_end = found, j + 1
        return best, best_end
