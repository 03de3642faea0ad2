"""The gold plan of a task: which roles have to do what, in which order, and what the answer is.

A text of a plan refers to values: ``$k`` is the task's k-th entity, ``#k`` the output of the plan's
k-th need, so that one plan serves a question whatever its entities are.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from protocol.actions import Json
from protocol.references import as_text
from trainer.gym.kinds import result

_REFERENCE: Final = re.compile(r"([$#])(\d+)")


class Need(msgspec.Struct, frozen=True):
    """One piece of work."""

    role: str
    text: str
    """What is given to it, with references: ``$1``, ``#1 / #2``."""

    @property
    def waits(self) -> tuple[int, ...]:
        """Numbers, from 1, of the needs whose outputs it takes."""
        found = _REFERENCE.findall(self.text)
        return tuple(dict.fromkeys(int(number) for sign, number in found if sign == "#"))


class Plan(msgspec.Struct, frozen=True):
    """All that a task takes."""

    needs: tuple[Need, ...]
    listed: str = ""
    """The answer, with references to outputs; empty where it is the last need's output."""

    @property
    def answer(self) -> str:
        """The answer, with references."""
        return self.listed or f"#{len(self.needs)}"

    @property
    def first(self) -> frozenset[str]:
        """Roles of what can be asked at once."""
        return frozenset(need.role for need in self.needs if not need.waits)

    @property
    def finals(self) -> tuple[int, ...]:
        """Numbers, from 1, of the needs whose outputs are the answer."""
        return Need("", self.answer).waits

    @property
    def depth(self) -> int:
        """Rounds of calls that it takes at least."""
        levels: list[int] = []
        for need in self.needs:
            levels.append(1 + max((levels[number - 1] for number in need.waits), default=0))
        return max(levels)


def filled(text: str, entities: Sequence[str], output: Callable[[int], str]) -> str:
    """A text of a plan with its references filled in.

    Args:
        text: With references.
        entities: The task's.
        output: Gives a need's output as text, by its number.
    """

    def value(match: re.Match[str]) -> str:
        number = int(match[2])
        return entities[number - 1] if match[1] == "$" else output(number)

    return _REFERENCE.sub(value, text)


def answer_of(plan: Plan, entities: Sequence[str], outputs: Sequence[Json]) -> Json:
    """The answer, of what each need gives: a value, or a text with several."""
    if not plan.listed:
        return outputs[-1]
    return filled(plan.listed, entities, lambda number: as_text(outputs[number - 1]))


def worked_out(plan: Plan, entities: Sequence[str]) -> tuple[Json, ...]:
    """What each need gives. Raises `kinds.ToolError`."""
    found: list[Json] = []
    for need in plan.needs:
        text = filled(need.text, entities, lambda number: as_text(found[number - 1]))
        found.append(result(need.role, text))
    return tuple(found)
