r"""Checks: how the answer of a task is judged, as ``Task.check`` says it.

::

    {"kind": "exact", "answer": "Paris", "also": ["Paris, France"], "wrong": ["Lyon"]}
    {"kind": "number", "answer": 5.89, "tolerance": 0.005}
    {"kind": "program", "code": "exec(answer)\nassert double(21) == 42"}
    {"kind": "judge", "worker": "reviewer", "answer": "Because it was cheaper.", "rubric": "..."}

``exact`` and ``number`` are pure: they are looked at again whenever a rollout is scored. What a
``program`` or a ``judge`` says is kept as a reward in the run's inbox (`judging`), so that scoring
is pure there, too.
"""

import ast
import re
import sys
import unicodedata
from typing import Annotated, Final, TypeAlias

import msgspec

from protocol.actions import Json
from protocol.decisions import Task
from protocol.errors import InvalidData
from trainer.rewards.numbers import numbers

AROUND_WORDS: Final = 24
"""Words that may stand around an exact answer: a sentence. More would let a text that names
everything be right."""

MAX_CODE_CHARS: Final = 65_536
"""Characters of a program that checks."""

_SLACK: Final = 1e-9
"""Relative: 0.1 + 0.2 is 0.3."""

NOWHERE: Final = sys.maxsize
"""The place of what is not there."""

_ASIDE: Final = re.compile(r"\([^()]{0,400}\)|\[[^\[\]]{0,400}\]")
"""What is said in passing."""

_SPLIT: Final = re.compile(r"[\W_]+")


class _Check(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="kind",
    forbid_unknown_fields=True,
):
    """The base of all checks."""


class Exact(_Check, frozen=True, kw_only=True, tag="exact"):
    """A text: its words stand in the answer, in their order and with nothing between them.

    Case, accents and punctuation don't count, nor do a few words around it.
    """

    answer: Annotated[str, msgspec.Meta(min_length=1)]
    also: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """Other texts that are right."""
    wrong: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """The other candidates, where there are some: of all that an answer names, the first counts."""
    around: Annotated[int, msgspec.Meta(ge=0)] = AROUND_WORDS
    """Words that the answer may have besides; 0 for none."""


class Number(_Check, frozen=True, kw_only=True, tag="number"):
    """A number: the last one that stands in the answer is near enough.

    What stands in parentheses is looked at only where there is no other number. A percentage may be
    written as ``12 %`` or as ``0.12``, whichever ``answer`` is.
    """

    answer: float
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Part of ``answer`` by which it may differ; where that is 0, the difference itself."""


class Program(_Check, frozen=True, kw_only=True, tag="program"):
    """Python code, run in a sandbox that the answer may be run in, too.

    It finds the answer's text as ``answer`` and the task's inputs as ``inputs``. If it ends with an
    expression, that says how right the answer is: a truth, or a number from 0 to 1; else coming to
    the end is right. What raises, exits or takes too long is wrong.
    """

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CODE_CHARS)]


class Judge(_Check, frozen=True, kw_only=True, tag="judge"):
    """A worker that reads task and answer, and gives a score from 0 to 1."""

    worker: Annotated[str, msgspec.Meta(min_length=1)]
    """Its name, in the pool in which judges are looked for."""
    answer: str = ""
    """The right answer, if there is one to compare with."""
    rubric: str = ""
    """What it is to look at."""


Check: TypeAlias = Exact | Number | Program | Judge

PURE: Final = (Exact, Number)


def check_of(task: Task) -> Check | None:
    """How the answer of a task is checked; None if it says nothing of it.

    Raises:
        InvalidData: It says it in a form that is none; the message names the field.
    """
    return None if task.check is None else read(task.check)


def read(value: Json) -> Check:
    """The check of such a form. Raises `InvalidData`."""
    try:
        check: Check = msgspec.convert(value, Check)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"the task's check is none: {_named(str(error))}",
            hint='write it as {"kind": "exact", "answer": "…"}, or as number, program or judge: '
            "docs/rewards.md",
        ) from None
    if isinstance(check, Program):
        _check_code(check.code)
    if isinstance(check, Exact) and not all(map(_comparable, (check.answer, *check.also))):
        raise InvalidData(
            "the task's check is none: an answer of blanks alone - at `check.answer`",
            hint="say what is right",
        )
    return check


def _named(problem: str) -> str:
    """A complaint with the path of the field within the task."""
    return problem.replace("`$", "`check") if "`$" in problem else f"{problem} - at `check`"


def _check_code(code: str) -> None:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidData(
            f"the task's check is none: its code is no Python ({error}) - at `check.code`",
            hint="try it: python -m py_compile FILE",
        ) from None


def _comparable(text: str) -> bool:
    return bool(text.strip())


def right(check: Exact | Number, answer: str) -> bool:
    """Whether an answer is right, by a check that needs nobody. Pure."""
    match check:
        case Exact():
            return _named_in(check, answer)
        case Number():
            return _near(check, answer)


def words(text: str) -> list[str]:
    """A text as it is compared: without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(char for char in plain if not unicodedata.combining(char))
    return _SPLIT.sub(" ", bare).split()


def _named_in(check: Exact, answer: str) -> bool:
    said = words(answer)

    def place(text: str) -> int:
        """Where a text stands among the words; beyond all of them if it does not."""
        wanted = words(text)
        if not wanted:  # signs alone
            return 0 if text.strip() == answer.strip() else NOWHERE
        starts = range(len(said) - len(wanted) + 1)
        return next((i for i in starts if said[i : i + len(wanted)] == wanted), NOWHERE)

    right_ones = (check.answer, *check.also)
    fitting = [text for text in right_ones if len(said) - len(words(text)) <= check.around]
    first = min(map(place, fitting), default=NOWHERE)
    return first < NOWHERE and first <= min(map(place, check.wrong), default=NOWHERE)


def _near(check: Number, answer: str) -> bool:
    found = list(numbers(_ASIDE.sub(" ", answer))) or list(numbers(answer))
    if not found:
        return False
    last = found[-1]
    tried = (last.value, last.value / 100) if last.percent else (last.value,)
    scale = abs(check.answer) or 1.0
    allowed = check.tolerance * scale + _SLACK * scale
    return any(abs(value - check.answer) <= allowed for value in tried)
