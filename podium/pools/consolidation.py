"""Workers that make one of several answers: `majority` and `cross-check`.

They compare what their call sees of others, and what they are given as ``answers``. A pool has them
by ``modules = ["podium.pools.consolidation"]``. Both are plain code: they compare answers, and
understand none. For answers in prose there are the roles of `actors.workers.agent.roles`.
"""

import re
import unicodedata
from collections.abc import Hashable, Mapping
from decimal import Context, Decimal
from typing import Any, Final

from actors.workers import Seen, tool
from actors.workers.agent.judging import named
from protocol.actions import Json

DIGITS: Final = 12
"""Significant digits by which fractions are compared: what floating point adds is no difference."""

MAX_DISAGREEMENTS: Final = 50
"""Disagreements that are told: whoever reads more reads the answers."""

_ROUND: Final = Context(prec=DIGITS)

_NUMBER: Final = re.compile(
    r"[-+]?(\d{1,3}([,_ '\u00a0\u202f]\d{3})+|\d+)?(\.\d+)?([eE][-+]?\d{1,3})?"
)
"""A number as people and programs write it, with separators between groups of three digits."""

_MINUS: Final = "\u2212"
"""The minus sign of typesetting, which models write in prose."""

_SEPARATORS: Final = re.compile(r"[,_ '\u00a0\u202f]")

_RESULT: Final = re.compile(r"^\W*(?:final answer|answer|result)\W*:[\s*]*(.+)$", re.IGNORECASE)
"""The line in which our roles, and many models, say the result by itself: with its sign, brackets
and quotes, whatever stands in bold."""

_QUOTES: Final = "\"'`*\u201c\u201d\u2018\u2019\u00ab\u00bb"


@tool(name="majority", timeout_s=10)
def majority(seen: Seen, answers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Votes: which of several answers to one question most agree on, and who does not.

    Equal are answers that differ in case, spaces, the form of numbers or the text before a last
    line "Result: …". Of a tie the first counts, and the others are named.

    Args:
        seen: What the call sees of others.
        answers: The answers, as far as the call does not see them.
    """
    votes = _answers(seen, answers, at_least=1)
    groups: dict[Hashable, list[str]] = {}
    for name, value in votes.items():
        groups.setdefault(alike(value), []).append(name)
    ranked = sorted(groups.values(), key=len, reverse=True)
    winners = [names for names in ranked if len(names) == len(ranked[0])]
    return {
        "answer": votes[ranked[0][0]],
        "votes": len(ranked[0]),
        "of": len(votes),
        "majority": len(ranked[0]) * 2 > len(votes),
        "tie": [votes[names[0]] for names in winners[1:]],
        "groups": [{"answer": votes[names[0]], "from": names} for names in ranked],
        "failed": sorted(seen.failed),
    }


@tool(name="cross-check", timeout_s=10)
def cross_check(seen: Seen, answers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Compares several answers to one question, and names each place where they disagree.

    Objects and lists are compared part by part, texts and numbers as votes are: without case,
    spaces and the form of numbers.

    Args:
        seen: What the call sees of others.
        answers: The answers, as far as the call does not see them.
    """
    compared = _answers(seen, answers, at_least=2)
    found = disagreements(compared)
    return {
        "agree": not found,
        "of": len(compared),
        "disagreements": found[:MAX_DISAGREEMENTS],
        "more": max(0, len(found) - MAX_DISAGREEMENTS),
        "failed": sorted(seen.failed),
    }


def _answers(seen: Seen, answers: tuple[str, ...], at_least: int) -> dict[str, Json]:
    """The answers by name. Raises `ValueError` if there are too few."""
    found = {name: essence(value) for name, value in (dict(seen) | named(answers)).items()}
    if len(found) < at_least:
        failed = f", and {len(seen.failed)} failed" if seen.failed else ""
        raise ValueError(
            f"{len(found)} answers are there{failed}, and {at_least} are needed: let the call see "
            "calls that are OK, or give it `answers`"
        )
    return found


def essence(value: Json) -> Json:
    """The answer in what a worker has said: without the way there, the run, the streams."""
    match value:
        case {"answer": answer, **rest} if rest.keys() <= {"run", "limited_by"}:
            return essence(answer)  # of a conductor
        case {"best": best, "name": _, "scores": _}:
            return essence(best)  # of a reviewer
        case {"stdout": str(printed), "stderr": _, "result": result}:
            return printed.strip() if result is None else result  # of a sandbox
        case str():
            lines = [line for line in value.strip().splitlines() if line.strip()]
            last = _RESULT.match(lines[-1].strip()) if lines else None
            return last[1].strip().strip("*").strip() if last else value.strip()
        case _:
            return value


def alike(value: Json) -> Hashable:
    """What equal answers have in common."""
    match value:
        case bool() | None:
            return ("word", str(value).casefold())
        case int() | float():
            return ("number", _number(str(value)))
        case str():
            text = unicodedata.normalize("NFKC", value).casefold().replace(_MINUS, "-")
            text = " ".join(text.strip(_QUOTES + " \t\n").rstrip(".!").strip(_QUOTES).split())
            number = _number(text)
            return ("word", text) if number is None else ("number", number)
        case dict():
            return ("object", tuple(sorted((key, alike(item)) for key, item in value.items())))
        case _:
            return ("list", tuple(alike(item) for item in value))


def _number(text: str) -> Decimal | None:
    if not any(character.isdecimal() for character in text) or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(_SEPARATORS.sub("", text))
    return number if number == number.to_integral_value() else _ROUND.plus(number)


def disagreements(answers: Mapping[str, Json], at: str = "$") -> list[dict[str, Json]]:
    """Each place where not all answers say the same: where it is, and who says what."""
    values = list(answers.values())
    found: list[dict[str, Json]] = []
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            part = {name: value[key] for name, value in answers.items() if key in value}
            missing = [name for name in answers if name not in part]
            if missing:
                found.append({"at": f"{at}.{key}", "values": part, "missing": missing})
            else:
                found += disagreements(part, f"{at}.{key}")
    elif all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        for index in range(len(values[0])):
            part = {name: value[index] for name, value in answers.items()}
            found += disagreements(part, f"{at}[{index}]")
    elif len({alike(value) for value in values}) > 1:
        found.append({"at": at, "values": dict(answers)})
    return found
