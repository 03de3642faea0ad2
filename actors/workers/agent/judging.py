"""The best of several answers, by the scores that a reviewer gave them: pure functions.

The reviewer is a model and only scores; the answer that is given back is the one that stands in the
log, word for word.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from actors.ports import Attempt
from protocol.actions import Json

SHOWN: Final = 5
"""Names that an error lists of those that there are."""

MAX_SCORE: Final = 1_000_000
"""The largest score that is taken for one, whatever scale a role asks for."""

MAX_CHARS: Final = 20_000
"""Characters at the end of a reply in which the scores are looked for: each ``{`` is a try."""

_OPENING: Final = re.compile(r"\{")


class Judged(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which answer is the best, and by what."""

    best: Json
    """The answer."""
    name: str
    """Whose it is: the call's id, or ``answer 1``."""
    scores: dict[str, float]
    why: str = ""
    ties: tuple[str, ...] = ()
    """Other answers with the same score; of them the first counts."""


def given(attempt: Attempt) -> dict[str, Json]:
    """The answers that stand in the call itself, by the names under which they are shown."""
    answers = attempt.arguments.get("answers")
    return named(answers if isinstance(answers, list) else [])


def named(answers: Iterable[Json]) -> dict[str, Json]:
    """Answers that stand in a call, by the names under which they are shown and compared."""
    return {f"answer {number}": value for number, value in enumerate(answers, 1)}


def candidates(attempt: Attempt) -> dict[str, Json]:
    """The answers to compare, by name: what the call sees and is OK, then what it was given."""
    seen = {call: value for call, value in attempt.sees.items() if call not in attempt.failed}
    return seen | given(attempt)


def best(reply: str, answers: Mapping[str, Json]) -> Judged | str:
    """The best answer by a reviewer's reply; or what is wrong with the reply.

    Args:
        reply: The reviewer's text, which holds ``{"scores": {name: number}, "why": text}``.
        answers: The answers by name, at least one.
    """
    for found in _objects(reply):
        scores = found.get("scores")
        if isinstance(scores, dict):
            return _judged(scores, found.get("why"), answers)
    return 'it holds no JSON object {"scores": {name: number}, "why": text}'


def _judged(given: dict[str, Json], why: Json, answers: Mapping[str, Json]) -> Judged | str:
    scores = {
        name: float(score) for name, score in given.items() if name in answers and _is_number(score)
    }
    missing = [name for name in answers if name not in scores]
    if missing:
        more = ", …" if len(missing) > SHOWN else ""
        return f"it has no number as the score of {', '.join(missing[:SHOWN])}{more}"
    top = max(scores.values())
    first, *ties = [name for name in answers if scores[name] == top]
    reason = why if isinstance(why, str) else ""
    return Judged(answers[first], first, scores, reason, tuple(ties))


def _is_number(value: Json) -> bool:
    # A score out of all proportion is none; NaN compares to nothing.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -MAX_SCORE <= value <= MAX_SCORE


def _objects(text: str) -> Iterator[dict[str, Json]]:
    """The JSON objects in a text, the last one first: models think aloud before they decide."""
    text = text[-MAX_CHARS:]
    decoder = json.JSONDecoder()
    for place in reversed([found.start() for found in _OPENING.finditer(text)]):
        try:
            value, _ = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        yield value
