"""A small model's tokenizer, without the library: byte-level BPE and tokens that were added.

It reads ``tokenizer.json`` as `trainer.small.vocabulary` makes it, and cuts every text as the
library does, which a property test holds for all characters that this Python's Unicode knows; a
later one is cut as a symbol. Conversations are written as the model's template has them: a control
token for the role, the content, a control token for its end.
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidData

END: Final = "<|end|>"
"""Ends every message."""

REMEMBERED: Final = 4_096
"""Words whose pieces are remembered: descriptions and statuses come again and again."""

_SPACE: Final = r"[^\S\x1c-\x1f]"
"""White space, as Unicode has it; Python counts four control characters besides."""

_OTHER: Final = r"(?:[^\s\w]|[_\x1c-\x1f])"
"""What is no letter, no number and no space."""

_WORD: Final = re.compile(
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?{_OTHER}+|{_SPACE}+(?!\S|[\x1c-\x1f])|{_SPACE}+"
)
"""How GPT-2 cuts a text into words; numbers are taken out before."""


class Words:
    """The tokenizer in a folder of Transformers. Raises `InvalidData` if it can't be read."""

    def __init__(self, folder: Path) -> None:
        try:
            said: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
            self._ids: dict[str, int] = dict(said["model"]["vocab"])
            self._rank = {tuple(pair): rank for rank, pair in enumerate(said["model"]["merges"])}
            added = said["added_tokens"]
            self.control = tuple(each["content"] for each in added if each["special"])
            self._single = {each["content"] for each in added if each["single_word"]}
            self._added = {each["content"]: int(each["id"]) for each in added}
            self._end = self._added[END]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InvalidData(
                f"the tokenizer in {folder} can't be read: {type(error).__name__}: {error}",
                hint="it has to be a folder as `make conductor` writes it",
            ) from None
        ordinary = self._added.keys() - set(self.control)
        longest = sorted(ordinary, key=lambda each: (-len(each), each))
        self._find = re.compile("|".join(map(re.escape, longest)))
        self._texts = {number: text for text, number in (*self._ids.items(), *self._added.items())}
        self._cut = lru_cache(REMEMBERED)(self._merged)

    def prompt(self, messages: Iterable[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation whose next message is the model's."""
        ids: list[int] = []
        for each in messages:
            ids += [self._added[f"<|{each['role']}|>"], *self.ids(each["content"]), self._end]
        return [*ids, self._added["<|assistant|>"]]

    def ids(self, text: str) -> list[int]:
        """Ids of a text, in which no control token can be spelled."""
        for token in self.control:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        found: list[int] = []
        begin = 0
        for match in self._find.finditer(text):
            whole = not (_wordy(text[: match.start()][-1:]) or _wordy(text[match.end() :][:1]))
            if match[0] not in self._single or whole:
                found += [*self._plain(text[begin : match.start()]), self._added[match[0]]]
                begin = match.end()
        return [*found, *self._plain(text[begin:])]

    def text(self, ids: Sequence[int]) -> str:
        """What ids spell."""
        pieces = "".join(self._texts[each] for each in ids)
        data = b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in pieces)
        return data.decode(errors="replace")

    def _plain(self, text: str) -> Iterator[int]:
        for part in _parts(text):
            alone = part[:1] and unicodedata.category(part[0])[0] == "N"
            for word in [part] if alone else _WORD.findall(part):
                yield from self._cut(word)

    def _merged(self, word: str) -> tuple[int, ...]:
        pieces = [_CHARS[byte] for byte in word.encode("utf-8", "replace")]
        while len(pieces) > 1:
            pairs = list(itertools.pairwise(pieces))
            best = min(pairs, key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            made: list[str] = []
            for piece in pieces:
                if made and (made[-1], piece) == best:
                    made[-1] += piece
                    continue
                made.append(piece)
            pieces = made
        return tuple(self._ids[piece] for piece in pieces)


def _parts(text: str) -> Iterator[str]:
    """Each number's character alone, and what stands between."""
    begin = 0
    for index, char in enumerate(text):
        if unicodedata.category(char)[0] == "N":
            yield text[begin:index]
            yield char
            begin = index + 1
    yield text[begin:]


def _wordy(char: str) -> bool:
    """Whether it is part of a word, as Unicode has it: letters, marks, digits and joiners."""
    kind = unicodedata.category(char) if char else ""
    return kind[:1] in _WORDY or kind in _WORDY or char in _JOINERS


_WORDY: Final = frozenset({"L", "M", "Nd", "Nl", "Pc"})
_JOINERS: Final = frozenset({"\u200c", "\u200d"})


def _alphabet() -> dict[int, str]:
    """A character that can be printed for each byte, as GPT-2 has them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {
        byte: chr(256 + index) for index, byte in enumerate(other)
    }


_CHARS: Final = _alphabet()
_BYTES: Final = {char: byte for byte, char in _CHARS.items()}
