"""What is trained on and what is kept for tests: decided by hashes, never by chance.

Each wording of a question, entity, name, description and make-up of a pool is on one side, for
ever, by the SHA-256 of its key. A set says for each of them which side its episodes draw from. And
each whole question, entities and all, is either one that training may ask or one that tests may.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

Aspect: TypeAlias = Literal["question", "entity", "name", "description", "pool"]

HELD_OUT_OF: Final = 5
"""One in so many is held out."""

TESTED_OF: Final = 20
"""One whole question in so many may be asked by tests, and by no training set."""


MAX_TRIES: Final = 10_000
"""Draws for one thing of a set: one in five is held out, and two things may be at once."""

T = TypeVar("T")


class Exhausted(RuntimeError):
    """A set has nothing of what is to be drawn."""


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def held_out(aspect: Aspect, key: str) -> bool:
    """Whether it is kept out of training."""
    return _digest(f"{aspect}:{key}") % HELD_OUT_OF == 0


def for_tests(question: str) -> bool:
    """Whether a whole question, entities and all, is one for tests only."""
    return _digest(f"asked:{question}") % TESTED_OF == 0


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """From which side the episodes of a set draw."""

    name: str
    tested: bool = True
    """Whether it is for tests: its questions are never asked in training."""
    held_out: frozenset[Aspect] = frozenset()
    """What it draws from the side that training never sees."""
    new_words: bool = False
    """Whether descriptions and names are of words that training never has."""

    def drawn(self, aspect: Aspect, draw: Callable[[], T], key: Callable[[T], str]) -> T:
        """The first of some draws that its episodes may have.

        Args:
            aspect: What is drawn.
            draw: Draws one.
            key: What of it decides whether it is held out.

        Raises:
            Exhausted: It holds out too much.
        """
        for _ in range(MAX_TRIES):
            found = draw()
            if self.admits(aspect, key(found)):
                return found
        raise Exhausted(f"the set {self.name!r} has no {aspect} of this kind")

    def admits(self, aspect: Aspect, key: str) -> bool:
        """Whether its episodes may have this."""
        return held_out(aspect, key) == (aspect in self.held_out)


_SETS: Final = (
    Set(name="train", tested=False),
    Set(name="seen"),
    Set(name="held-out-questions", held_out=frozenset({"question"})),
    Set(name="held-out-entities", held_out=frozenset({"entity"})),
    Set(name="held-out-names", held_out=frozenset({"name"})),
    Set(name="held-out-descriptions", held_out=frozenset({"description"})),
    Set(name="unseen-pools", held_out=frozenset({"name", "description", "pool"})),
    Set(name="unseen-words", new_words=True),
)

SETS: Final[Mapping[str, Set]] = {each.name: each for each in _SETS}
"""``train``; ``seen`` is like it, with other questions; each other holds one thing out, and
``unseen-pools`` names, descriptions, prices and make-up of the pool, all at once."""
