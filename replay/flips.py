"""A single flipped bit isn't guessed: it is searched for.

Flipping it back gives the hash that was recorded, so what is found is what was written.
"""

from hashlib import sha256
from typing import Final, NamedTuple

from protocol.codec import HASH_CHARS

MAX_SEARCHED_BYTES: Final = 4_096
"""Bytes of a message in which a flipped bit is searched for. The search hashes the message once
per bit: about a quarter of a second for this many."""

MAX_SEARCHES: Final = 40
"""Messages of a run's commits, and as many of its inbox, in which a flipped bit is searched for: a
few seconds. A store that has lost more of one run has not lost it bit by bit."""


class Flip(NamedTuple):
    """A bit that was flipped."""

    byte: int
    """From 0."""
    bit: int
    data: bytes
    """The message as it was."""

    def words(self, found: bytes) -> str:
        """Which bit it is."""
        was, is_ = (bytes([each[self.byte]]) for each in (self.data, found))
        return f"bit {self.bit} of byte {self.byte} is flipped ({_letter(is_)} for {_letter(was)})"


def _letter(byte: bytes) -> str:
    text = byte.decode("latin-1")
    return repr(text) if text.isascii() and text.isprintable() else f"0x{byte.hex()}"


def flip_back(data: bytes, wanted: str) -> Flip | None:
    """The one bit that, flipped back, gives a message its recorded hash; None if there is none."""
    if len(data) > MAX_SEARCHED_BYTES or len(wanted) != HASH_CHARS:
        return None
    before = sha256()
    for place, byte in enumerate(data):
        rest = data[place + 1 :]
        for bit in range(8):
            state = before.copy()
            state.update(bytes((byte ^ 1 << bit,)) + rest)
            if state.hexdigest()[:HASH_CHARS] == wanted:
                return Flip(place, bit, data[:place] + bytes((byte ^ 1 << bit,)) + rest)
        before.update(data[place : place + 1])
    return None


class Search:
    """`flip_back`, so often and no more."""

    def __init__(self) -> None:
        self._left = MAX_SEARCHES

    def __call__(self, data: bytes, wanted: str) -> Flip | None:
        """See `flip_back`; None also when there were enough of them."""
        if len(data) > MAX_SEARCHED_BYTES or not self._left:
            return None
        self._left -= 1
        return flip_back(data, wanted)
