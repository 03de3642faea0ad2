"""A small grammar of phrases: ``[the |]population of [a|any] country`` stands for four texts.

Alternatives stand in brackets, separated by bars, and may be nested. Hundreds of wordings are
composed of a few lines, and each of them can be drawn, counted or listed.
"""

import functools
import random
from collections.abc import Iterator
from typing import TypeAlias

_Part: TypeAlias = "str | tuple[_Series, ...]"
_Series: TypeAlias = "tuple[_Part, ...]"


@functools.cache
def parsed(pattern: str) -> _Series:
    """The parts of a pattern: texts, and alternatives of parts. Raises `ValueError`."""
    series, end = _series(pattern, 0, nested=False)
    if end != len(pattern):
        raise ValueError(f"a bracket closes that was never opened, at {end} of {pattern!r}")
    return series


def _series(pattern: str, at: int, *, nested: bool) -> tuple[_Series, int]:
    parts: list[_Part] = []
    text = ""
    while at < len(pattern):
        sign = pattern[at]
        if sign == "[":
            alternatives: list[_Series] = []
            parts += [text] if text else []
            text = ""
            while True:
                inner, at = _series(pattern, at + 1, nested=True)
                alternatives.append(inner)
                if at >= len(pattern):
                    raise ValueError(f"a bracket of {pattern!r} is never closed")
                if pattern[at] == "]":
                    break
            parts.append(tuple(alternatives))
        elif sign == "]" or (sign == "|" and nested):
            break
        else:
            text += sign
        at += 1
    return (*parts, *([text] if text else [])), at


def draw(pattern: str, rng: random.Random) -> str:
    """One of the texts; of alternatives each is as likely as any other."""
    return _drawn(parsed(pattern), rng)


def _drawn(series: _Series, rng: random.Random) -> str:
    texts = (
        part if isinstance(part, str) else _drawn(part[int(rng.random() * len(part))], rng)
        for part in series
    )
    return "".join(texts)


def every(pattern: str) -> Iterator[str]:
    """All texts, some perhaps twice."""
    yield from _every(parsed(pattern))


def _every(series: _Series) -> Iterator[str]:
    if not series:
        yield ""
        return
    head, rest = series[0], series[1:]
    for after in list(_every(rest)):
        if isinstance(head, str):
            yield head + after
        else:
            for alternative in head:
                yield from (before + after for before in _every(alternative))
