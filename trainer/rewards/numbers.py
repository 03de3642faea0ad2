"""Numbers in a text, as people and models write them.

::

    67,391,582   67 391 582   67.391.582   67'391'582   thousands, by any blank
    5.89   5,89   .5                                    decimals; a lone comma before three digits
                                                        stands for thousands, but not in 0,125
    -3   −3   $5   -$5                                  signs; with a blank behind it, it is a dash
    1.2e6   1.2 × 10^6   1.2·10⁶   67.4 million         powers
    12 %   12 percent                                   a percentage, told apart

A digit that belongs to a word (``Q3``, ``GPT-5``, ``km²``) or a version (``1.2.3``) is no number.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_CHARS: Final = 20_000
"""Characters at the end of a text in which numbers are looked for: its conclusion stands there."""

_WORDS: Final = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

_SUPERSCRIPTS: Final = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))

_RAISED: Final = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")

_BLANKS: Final = "\u00a0\u202f\u2007\u2009 "
"""Between thousands."""

_NUMBER: Final = re.compile(
    rf"""
    (?<![\w.^])(?<![A-Za-z]-)                             # of no word, power or version
    (?:(?<!\d)(?P<sign>[-+\u2212]))?(?:[$€£¥]\s?)?
    (?:
      (?P<comma>   (?!0)\d{{1,3}}(?:,\d{{3}}){{1,10}}(?:\.\d{{1,400}})?(?!\d|,\d) )
    | (?P<other>   \d{{1,3}}(?:(?P<by>[{_BLANKS}'’_])\d{{3}})(?:(?P=by)\d{{3}}){{0,9}}
                   (?:[.,]\d{{1,400}})?(?!\d) )
    | (?P<dot>     \d{{1,3}}(?:\.\d{{3}}){{1,10}},\d{{1,400}}(?!\d)
                 | \d{{1,3}}(?:\.\d{{3}}){{2,10}}(?!\d|\.\d) )
    | (?P<decimal> (?<!\d,)\d{{1,400}},\d{{1,400}}(?!\d|,\d) )
    | (?P<plain>   \d{{1,400}}(?:\.\d{{1,400}})?(?!\d|\.\d) | \.\d{{1,400}}(?!\d|\.\d) )
    )
    (?: [eE](?P<e>[-+]?\d{{1,3}})(?!\w) | \s?[x×*·]\s?10(?:\^|\*\*)(?P<ten>-?\d{{1,3}}) )?
    (?: \s?(?P<percent>%|per\s?cent\b) | \s(?P<word>{"|".join(_WORDS)})\b )?
    (?!(?:st|nd|rd|th)\b)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Each part is bounded, so the time is linear in the text."""


class Found(NamedTuple):
    """A number, and how it stood there."""

    value: float
    percent: bool = False


def numbers(text: str) -> Iterator[Found]:
    """The numbers of a text, in their order, as far as they are finite."""
    text = text[-MAX_CHARS:]
    if not text.isascii():
        text = _RAISED.sub(_lowered, text)
        text = "".join(map(_digit, text))
    for found in _NUMBER.finditer(text):
        value = _value(found)
        if value is not None:
            yield value


def _lowered(found: re.Match[str]) -> str:
    return "^" + "".join(_SUPERSCRIPTS[char] for char in found[0])


def _digit(char: str) -> str:
    """A digit of any script as the one we write."""
    if char.isascii() or unicodedata.category(char) != "Nd":
        return char
    return str(unicodedata.decimal(char))


def _value(found: re.Match[str]) -> Found | None:
    parts = found.groupdict()
    if (text := parts["comma"]) is not None:
        text = text.replace(",", "")
    elif (text := parts["other"]) is not None:
        text = text.replace(parts["by"], "").replace(",", ".")
    elif (text := parts["dot"]) is not None:
        text = text.replace(".", "").replace(",", ".")
    elif (text := parts["decimal"]) is not None:
        text = text.replace(",", ".")
    else:
        text = parts["plain"]
    sign = "-" if parts["sign"] in ("-", "\u2212") else ""
    power = parts["e"] or parts["ten"] or "0"
    value = float(f"{sign}{text}e{power}") * _WORDS.get((parts["word"] or "").lower(), 1.0)
    if value in (float("inf"), float("-inf")):
        return None
    return Found(value, bool(parts["percent"]))
