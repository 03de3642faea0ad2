"""What `verify` finds: one struct for everything that can be wrong with a run's log, in words."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from protocol.actions import Json

Kind: TypeAlias = Literal["damaged", "diverged", "newer", "aside"]
"""``damaged``: the store doesn't hold what was written. ``diverged``: the rules of today, or the
prompt, aren't those that wrote the log. ``newer``: written by a later version, which has to check
it. ``aside``: a message that doesn't count; the run itself is sound."""

What: TypeAlias = Literal[
    "flipped",
    "changed",
    "unreadable",
    "removed",
    "out_of_order",
    "cut",
    "rewritten",
    "order",
    "inbox_removed",
    "inbox_changed",
    "judged",
    "blob_removed",
    "blob_changed",
    "origin",
    "rules",
    "state",
    "prompt",
    "unknown_event",
    "unknown_message",
    "duplicate",
    "stale_writer",
    "foreign",
    "archived",
]
"""A word for programs. ``rewritten``: the log goes on from another commit than it once did.
``order``: a commit that chains, but whose time or epoch goes back.
``judged``: a reward or a label names a head that the log doesn't have."""

SHOWN_CHARS: Final = 60
"""Characters of one value in a problem's words: it names a difference, it doesn't tell a story."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and the likely cause, in words."""

    run: str
    kind: Kind
    what: What
    where: str
    """Such as ``commit 12`` or ``event 57, CallSettled of call 1-0``."""
    expected: str = ""
    found: str = ""
    likely: str = ""
    """The likely cause."""
    function: str = ""
    """For a divergence: the rule that decides the event, by its dotted name."""
    cause: str = ""
    """For a divergence: what was decided on."""
    event: int = 0
    """The number of the event in the run's history, so that ``RUN@event`` names it; 0 for none."""
    commit: int = 0
    """The number of the commit in the run's own log; 0 for none."""
    seq: int = 0
    """Where in the stream; 0 for nowhere."""
    follows: int = 0
    """How many further differences of the same commit follow from it."""
    values: tuple[Json, Json] | None = None
    """What was expected and found where that may be what an agent wrote, and ``expected`` and
    ``found`` only describe it."""


class Difference(NamedTuple):
    """The first place at which two messages differ."""

    path: str
    """Such as ``decision.calls.0.worker``; "" for the whole."""
    expected: Json
    found: Json


class _Absent:
    """Stands for a field or an item that isn't there."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()

TOLD: Final = frozenset(
    {"status", "fault", "why", "kind", "asker", "limited_by", "call", "attempt", "report", "signal"}
    | {"reason", "rules", "type", "prompt", "version", "sha256", "run", "conductor", "worker"}
)
"""Names of the fields whose texts come from our own code or are ids: they may be shown anywhere."""


def difference(expected: Any, found: Any) -> Difference | None:
    """The first difference between two messages, field by field; None if they are equal."""
    return _differ(expected, found, ())


def _differ(a: Any, b: Any, path: tuple[str, ...]) -> Difference | None:
    for name, one, other in _parts(a, b):
        found = _differ(one, other, (*path, name))
        if found is not None:
            return found
    if type(a) is type(b) and (a == b or isinstance(a, msgspec.Struct | dict | list | tuple)):
        return None
    return Difference(".".join(path), _plain(a), _plain(b))


def _parts(a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """What two values of one type are made of, side by side."""
    if type(a) is not type(b):
        return
    if isinstance(a, msgspec.Struct):
        for name in a.__struct_fields__:
            yield name, getattr(a, name), getattr(b, name)
    elif isinstance(a, dict):
        for name in [*a, *(name for name in b if name not in a)]:
            yield str(name), a.get(name, ABSENT), b.get(name, ABSENT)
    elif isinstance(a, list | tuple):
        for index, (one, other) in enumerate(zip_longest(a, b, fillvalue=ABSENT)):
            yield str(index), one, other


def _plain(value: Any) -> Any:
    """As JSON has it: an event of a newer writer has no other form."""
    if value is ABSENT:
        return value
    return msgspec.json.decode(msgspec.json.encode(value))


def told(path: str, value: Any) -> str:
    """A value in words that show nothing of what an agent wrote."""
    name = next((part for part in reversed(path.split(".")) if not part.isdecimal()), "")
    match value:
        case _Absent():
            return "nothing"
        case str() if name in TOLD:
            return repr(short(value))
        case str():
            return f"a text of {len(value)} characters"
        case dict():
            return f"an object of {len(value)} fields"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return msgspec.json.encode(value).decode()


def short(text: str) -> str:
    """A text, cut to what a problem shows of it."""
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def json(value: Any) -> Json:
    """A side of a difference, for `Problem.values`."""
    return None if value is ABSENT else value
