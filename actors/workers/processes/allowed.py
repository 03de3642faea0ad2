"""What a `shell` worker may start: a list of programs and beginnings of command lines. Pure.

A command is allowed if one entry of the list allows it. Programs are compared by their very text,
so that ``./git`` and ``/tmp/git`` are not ``git``.
"""

import os
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeAlias

import msgspec

from protocol.actions import Json
from protocol.errors import InvalidData
from protocol.schemas import searching

SHOWN: Final = 60
"""Entries named to a policy; a list that long is for no reader any more."""

Texts: TypeAlias = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry in full. A text is a program, a list the beginning of a command line."""

    argv: Texts
    """The program, and the arguments that have to follow it, just so."""
    args: str | None = None
    """A pattern that each further argument has to match as a whole; None for anything."""
    most: int | None = None
    """How many further arguments there may be; None for any number."""


Entry: TypeAlias = str | Texts | Rule


class Allowed:
    """A list of what may be started.

    Args:
        entries: At least one.

    Raises:
        InvalidData: An entry can't be meant: no program, a relative path, no pattern.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._rules = [(rule, _search(rule)) for rule in map(_rule, entries)]
        if not self._rules:
            raise InvalidData(
                "The list of allowed commands is empty.",
                hint='Say what may be started: allow = ["ls", ["git", "log"]]',
            )
        self.programs = list(dict.fromkeys(rule.argv[0] for rule, _ in self._rules))
        """What may be started, by name or path, in the order of the list."""

    def allows(self, argv: Sequence[str]) -> bool:
        """Whether a command may be started."""
        return any(_fits(rule, search, argv) for rule, search in self._rules)

    def free(self) -> list[str]:
        """Programs that may be given any arguments at all."""
        return [
            rule.argv[0]
            for rule, _ in self._rules
            if len(rule.argv) == 1 and rule.args is None and rule.most is None
        ]

    def text(self) -> str:
        """The list as a policy reads it."""
        said = [f"`{_said(rule)}`" for rule, _ in self._rules[:SHOWN]]
        more = len(self._rules) - len(said)
        return "; ".join(said) + (f"; and {more} more" if more else "")


def _rule(entry: Entry) -> Rule:
    match entry:
        case Rule():
            rule = entry
        case str():
            rule = Rule(argv=(entry,))
        case _:
            rule = Rule(argv=entry)
    program = rule.argv[0]
    if not program or any("\0" in part for part in rule.argv):
        raise InvalidData(f"{list(rule.argv)!r} names no program.", hint='Such as "git".')
    if "/" in program and not os.path.isabs(program):
        raise InvalidData(
            f"The allowed program {program!r} is a relative path: what stands there depends on "
            "the folder.",
            hint="Give a name that is looked up on PATH, or an absolute path.",
        )
    if rule.most is not None and rule.most < 0:
        raise InvalidData(f"most = {rule.most} of {program!r} is below 0.", hint="most = 0: none.")
    return rule


def _search(rule: Rule) -> Callable[[Json], bool] | None:
    if rule.args is None:
        return None
    search = searching(f"^(?:{rule.args})$")
    if search is None or searching(rule.args) is None:  # by itself: "a)|(b" would end the group
        raise InvalidData(
            f"args = {rule.args!r} of {rule.argv[0]!r} is no pattern that can be searched for in "
            "linear time.",
            hint="A regular expression without look-around: '[^-].*' is whatever is no option.",
        )
    return search


def _fits(rule: Rule, search: Callable[[Json], bool] | None, argv: Sequence[str]) -> bool:
    more = argv[len(rule.argv) :]
    if tuple(argv[: len(rule.argv)]) != rule.argv:
        return False
    if rule.most is not None and len(more) > rule.most:
        return False
    return search is None or all(search(each) for each in more)


def _said(rule: Rule) -> str:
    words = [*rule.argv]
    if rule.most == 0:
        return " ".join(words)
    each = "ARG" if rule.args is None else f"ARG matching /{rule.args}/"
    most = "" if rule.most is None else f", {rule.most} at most"
    return f"{' '.join(words)} [{each} ...{most}]"
