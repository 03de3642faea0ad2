"""The grammar of places: "Lyon", "the capital of Japan", "the country where Lyon is".

Recursive descent over tokens. Every rule takes a position and gives what it read and the position
after it, or None. Results are remembered by position, so that reading is linear however deep the
question is.
"""

from typing import Final, NamedTuple

from actors.policies.rules.lexer import Token
from actors.policies.rules.tree import (
    CapitalOf,
    CountryOf,
    CountryWithCapital,
    Entity,
    Fact,
    Named,
    Pick,
    Property,
    kind_of,
)

MAX_NESTING: Final = 8
"""Places within places. A question of more than three is a riddle; each one costs a round
besides."""

NUMERIC: Final[frozenset[str]] = frozenset({"population", "area", "density"})
"""Properties that can be compared and calculated with."""

END: Final = Token("end", "")
"""What stands after the last token."""

_LOCATING: Final = frozenset({"is", "lies", "belongs", "in", "to", "on"})
_LOCATING_FILLER: Final = frozenset({"located", "situated", "found", "part", "lie", "belong"})
_RELATIVE: Final = frozenset(
    {"where", "in", "which", "that", "whose", "with", "of", "containing", "contains", "has", "to"}
)


class Read(NamedTuple):
    """A place, and the position after it."""

    entity: Entity
    after: int


def size_property(entities: list[Entity]) -> Property:
    """What "larger" means: area of countries, else people (cities have no area in the data)."""
    return "area" if all(kind_of(entity) == "country" for entity in entities) else "population"


class EntityParser:
    """Reads places out of the tokens of one sentence."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self._memo: dict[int, Read | None] = {}
        self._depth = 0

    def at(self, i: int) -> Token:
        """The token at ``i``; `END` behind the last."""
        return self.tokens[i] if i < len(self.tokens) else END

    def is_word(self, i: int, *words: str) -> bool:
        """Whether one of these structural words stands at ``i``."""
        token = self.at(i)
        if token.kind == "marker" and token.value == "where":
            return "where" in words
        return token.kind == "word" and token.value in words

    def skip_words(self, i: int, *words: str) -> int:
        """The position after any of these words, repeated."""
        while self.is_word(i, *words):
            i += 1
        return i

    def is_property(self, i: int, name: str) -> bool:
        """Whether this property is named at ``i``."""
        return self.at(i).kind == "property" and self.at(i).value == name

    def entity(self, i: int) -> Read | None:
        """The place that begins at ``i``, as long as it can be read."""
        if i in self._memo:
            return self._memo[i]
        if self._depth >= MAX_NESTING:
            return None
        self._depth += 1
        read = self._base(i)
        while read is not None and self.at(read.after).kind == "possessive":
            if not self.is_property(read.after + 1, "capital"):
                break
            if kind_of(read.entity) == "city":
                break
            read = Read(CapitalOf(read.entity), read.after + 2)
        self._depth -= 1
        self._memo[i] = read
        return read

    def _base(self, i: int) -> Read | None:
        match self.at(i).kind:
            case "name":
                return self._named(i, self.at(i).known)
            case "continent" if self.at(i).value == "Antarctica":
                return Read(Named("Antarctica", "country"), i + 1)
            case "city":
                after = self.skip_words(i + 1, "of", "called", "named")
                if self.at(after).kind == "name":
                    return self._named(after, known=False, kind="city")
            case "country":
                return self._country(i + 1)
            case "property" if self.at(i).value == "capital":
                return self._capital(i + 1)
            case "compare":
                return self._pick(i)
        return None

    def _named(self, i: int, known: bool, kind: str = "") -> Read:
        token = self.at(i)
        if known:
            return Read(Named(token.value, "country"), i + 1)
        city: Named = Named(token.value, "city" if kind == "city" else "either")
        after = self.at(i + 2)
        if after.kind == "name" and after.known:
            inside = self.is_word(i + 1, "in")
            comma = self.at(i + 1) == Token("separator", ",") and self._over(i + 3)
            if inside or comma:
                return Read(Named(token.value, "city", within=after.value), i + 3)
        enclosed = self.at(i + 1).kind == "open" and self.at(i + 3).kind == "close"
        if enclosed and after.kind == "name" and after.known:
            return Read(Named(token.value, "city", within=after.value), i + 4)
        return Read(city, i + 1)

    def _over(self, i: int) -> bool:
        """Whether nothing that matters stands at ``i`` and after it."""
        rest = self.tokens[i:]
        return all(token.kind in {"filler", "end"} or token.value in _LOCATING for token in rest)

    def _capital(self, i: int) -> Read | None:
        after = self.skip_words(i, "of", "in", "for")
        read = self.entity(after) if after > i else None
        if read is None or kind_of(read.entity) == "city":
            return None
        return Read(CapitalOf(read.entity), read.after)

    def _country(self, i: int) -> Read | None:
        """What stands after the word "country"."""
        if self.at(i).kind == "possessive" and self.is_property(i + 1, "capital"):
            after = self.skip_words(i + 2, "is")
            if self.at(after).kind == "name":
                return Read(CountryWithCapital(self.at(after).value), after + 1)
            return None
        named = self.skip_words(i, "called", "named", "of")
        if self.at(named).kind == "name" and not self._relation_follows(named + 1):
            token = self.at(named)
            if token.known:
                return Read(Named(token.value, "country"), named + 1)
            if self.is_word(named - 1, "of"):
                return Read(CountryOf(Named(token.value, "city")), named + 1)
            return Read(Named(token.value, "country"), named + 1)
        if named > i and self.at(named).kind == "city":
            read = self.entity(named)
            return Read(CountryOf(read.entity), read.after) if read else None
        return self._relative(i)

    def _relation_follows(self, i: int) -> bool:
        return self.is_word(i, "is", "lies", "belongs", "as")

    def _relative(self, i: int) -> Read | None:
        """A relative clause after "country": "whose capital is X", "where X lies"."""
        after = self.skip_words(i, *_RELATIVE)
        if self.is_property(after, "capital"):
            named = self.skip_words(after + 1, "is", "called", "named", "of", "being")
            if self.at(named).kind == "name":
                return Read(CountryWithCapital(self.at(named).value), named + 1)
            return None
        read = self.entity(after)
        if read is None:
            return None
        as_capital = self.skip_words(read.after, "as", "its", "is", "for")
        if self.is_property(as_capital, "capital") and isinstance(read.entity, Named):
            end = self.skip_words(as_capital + 1, "of")
            if self.at(end).kind not in {"name", "country"}:
                return Read(CountryWithCapital(read.entity.name), end)
            return None
        end = read.after
        while self.is_word(end, *_LOCATING) or self.at(end).value in _LOCATING_FILLER:
            end += 1
        relative = {self.at(k).value for k in range(i, after)}
        containing = {"where", "in", "which", "that", "to", "containing", "contains"}
        located = bool(relative & containing) or end > read.after
        if located and kind_of(read.entity) != "country":
            return Read(CountryOf(read.entity), end)
        return None

    def _pick(self, i: int) -> Read | None:
        """As in "the larger of A and B", "the most populous of A, B and C"."""
        direction, _, name = self.at(i).value.partition(":")
        after = i + 1
        if self.at(after).kind == "property":
            name, after = self.at(after).value, after + 1
        if self.at(after).kind in {"country", "city"}:
            after += 1
        if not self.is_word(after, "of", "between"):
            return None
        entities, end = self.entity_list(after + 1)
        if len(entities) < 2:
            return None
        chosen = size_property(entities) if name in {"", "size"} else name
        if not name or chosen not in NUMERIC:
            return None
        facts = tuple(Fact(entity, chosen) for entity in entities)  # type: ignore[arg-type]
        return Read(Pick(facts, largest=direction == "up"), end)

    def entity_list(self, i: int) -> tuple[list[Entity], int]:
        """Places joined by commas, "and" and "or", and the position after the last."""
        entities: list[Entity] = []
        end = i
        while (read := self.entity(i)) is not None:
            entities.append(read.entity)
            i = end = read.after
            while self.at(i).kind == "separator":
                i += 1
            if i == end:
                break
            i = self.skip_words(i, "of")
        return entities, end
