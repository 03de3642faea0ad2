"""Two runs side by side: where they first differ, and in what.

Pure. Runs are aligned by round; within a round, calls by worker and arguments, then by worker, then
by place. What a fork shares with the other is the same by being the same, so that the first
difference of a fork is what was replaced in it or came after. Times are shown, and are no
difference that counts.
"""

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import MAX_COUNT, Json
from replay.chain import RunLog
from replay.history import Entry, entries
from replay.sides import NEVER, OneRun, Side, Turn, one_run

What: TypeAlias = Literal[
    "task",
    "pool",
    "policy",
    "budget",
    "rejections",
    "decision",
    "worker",
    "arguments",
    "order",
    "status",
    "value",
    "attempts",
    "tokens",
    "cost",
    "outcome",
    "answer",
    "time",
]
"""In what two runs can differ. ``time`` (milliseconds) never counts."""

_RANK: Final[dict[str, int]] = {
    name: place
    for place, name in enumerate(
        ("task", "pool", "policy", "budget", "rejections", "decision", "worker", "arguments")
    )
}
"""Which of several differences at one event is named first; the rest follow in their order."""

ABSENT: Final = "(none)"
"""Stands for a round or a call that only the other run has."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in which the runs differ."""

    what: What
    round: int
    """0 for the run as a whole."""
    call_a: str
    call_b: str
    worker: str
    a: Json
    b: Json
    event_a: int
    """Number of the event from which on it shows, in the first run; or `NEVER`."""
    event_b: int

    @property
    def counts(self) -> bool:
        """Whether the runs differ because of it."""
        return self.what != "time"

    @property
    def key(self) -> tuple[int, int, int]:
        """What it is sorted by: the same whichever run comes first."""
        known = [number for number in (self.event_a, self.event_b) if number != NEVER]
        return (min(known, default=MAX_COUNT), _RANK.get(self.what, len(_RANK)), self.round)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A call of one run and what stands for it in the other."""

    a: Side | None
    b: Side | None
    differences: tuple[Difference, ...]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A decision of both runs that was followed, and what came of it."""

    number: int
    """Of the round; the answer has the one after the last."""
    differences: tuple[Difference, ...]
    """Of the decision itself."""
    pairs: tuple[Pair, ...]

    def all(self) -> list[Difference]:
        """Those of its calls, too."""
        return [*self.differences, *(each for pair in self.pairs for each in pair.differences)]


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs, compared."""

    a: str
    b: str
    shared: int
    """How many events they have in common, as forks have."""
    head: tuple[Difference, ...]
    """In what they were asked, and with what."""
    steps: tuple[Step, ...]
    end: tuple[Difference, ...]
    """In what came of them."""

    def all(self) -> list[Difference]:
        """Every difference, the first one first, those that don't count last."""
        every = [*self.head, *(each for step in self.steps for each in step.all()), *self.end]
        return sorted(every, key=lambda each: (not each.counts, *each.key))

    @property
    def first(self) -> Difference | None:
        """Where they part; None if they don't."""
        return next((each for each in self.all() if each.counts), None)


def diff(a: RunLog, b: RunLog) -> Diff:
    """Compare two runs, whatever they are."""
    history_a, history_b = entries(a), entries(b)
    one, other = one_run(a, history_a), one_run(b, history_b)
    count = max(len(one.turns), len(other.turns))
    return Diff(
        a=a.run,
        b=b.run,
        shared=_shared(history_a, history_b),
        head=_head(one, other),
        steps=tuple(
            _step(number + 1, _nth(one.turns, number), _nth(other.turns, number))
            for number in range(count)
        ),
        end=_end(one, other),
    )


def _shared(a: list[Entry], b: list[Entry]) -> int:
    count = 0
    for one, other in zip(a, b, strict=False):
        if (one.run, one.n, one.place) != (other.run, other.n, other.place):
            break
        count += 1
    return count


def _nth(turns: list[Turn], number: int) -> Turn | None:
    return turns[number] if number < len(turns) else None


# ------------------------------------------------------------------------------- both


def _form(value: Json) -> bytes:
    """What makes two JSON values the same: for Python, 1 and True are, too."""
    return msgspec.json.encode(value, order="deterministic")


def _compare(
    values: Iterable[tuple[What, Json, Json]],
    events: tuple[int, int],
    *,
    number: int = 0,
    calls: tuple[str, str] = ("", ""),
    worker: str = "",
) -> list[Difference]:
    """A difference for each of these that isn't the same in both."""
    return [
        Difference(
            what=what,
            round=number,
            call_a=calls[0],
            call_b=calls[1],
            worker=worker,
            a=a,
            b=b,
            event_a=events[0],
            event_b=events[1],
        )
        for what, a, b in values
        if _form(a) != _form(b)
    ]


def _head(a: OneRun, b: OneRun) -> tuple[Difference, ...]:
    pools = [{spec.name: _fields(spec) for spec in each.state.pool.workers} for each in (a, b)]
    values: list[tuple[What, Json, Json]] = [
        ("task", *_unlike(_fields(a.state.task), _fields(b.state.task))),
        ("pool", *_unlike(*pools)),
        ("policy", *_unlike(_fields(a.state.policy), _fields(b.state.policy))),
        ("budget", *_unlike(_fields(a.state.budget), _fields(b.state.budget))),
    ]
    found: list[Difference] = []
    for value in values:
        found += _compare([value], (a.set_at[value[0]], b.set_at[value[0]]))
    return tuple(found)


def _fields(struct: msgspec.Struct) -> dict[str, Json]:
    """Every field, also one that has its default."""
    names = struct.__struct_fields__
    return {name: msgspec.to_builtins(getattr(struct, name)) for name in names}


def _unlike(a: dict[str, Json], b: dict[str, Json]) -> tuple[Json, Json]:
    """What differs of two objects, key by key, down to what is no object."""
    one: dict[str, Json] = {}
    other: dict[str, Json] = {}
    for key in sorted({*a, *b}):
        x, y = a.get(key, ABSENT), b.get(key, ABSENT)
        if _form(x) == _form(y):
            continue
        if isinstance(x, dict) and isinstance(y, dict):
            x, y = _unlike(x, y)
        one[key], other[key] = x, y
    return one, other


def _step(number: int, a: Turn | None, b: Turn | None) -> Step:
    one, other = a or Turn(), b or Turn()
    events = (one.event, other.event)
    found = _compare(
        [("rejections", one.rejected, other.rejected)],
        _parting(one, other),
        number=number,
    )
    values: list[tuple[What, Json, Json]] = [("decision", _said(a), _said(b))]
    if a is not None and b is not None:
        answers = one.decision.answer, other.decision.answer
        values += [("answer", *answers)] if None not in answers else []
        values += [
            ("tokens", one.tokens, other.tokens),
            ("cost", one.cost, other.cost),
            ("time", one.time, other.time),
        ]
    found += _compare(values, events, number=number)
    return Step(
        number=number,
        differences=tuple(found),
        pairs=tuple(_pairs(number, one.calls, other.calls, events)),
    )


def _parting(a: Turn, b: Turn) -> tuple[int, int]:
    """The events of the first replies that were rejected in one run, and not so in the other."""
    longest = max(len(a.rejected), len(b.rejected))
    same = (a.rejected[i : i + 1] == b.rejected[i : i + 1] for i in range(longest))
    at = next((i for i, alike in enumerate(same) if not alike), 0)
    one, other = (turn.rejected_at[at : at + 1] or (turn.event,) for turn in (a, b))
    return one[0], other[0]


def _said(turn: Turn | None) -> Json:
    """What was decided, without its details."""
    if turn is None:
        return ABSENT
    if turn.decision.answer is not None:
        return "answer"
    return [call.worker for call in turn.decision.calls]


def _pairs(number: int, a: list[Side], b: list[Side], events: tuple[int, int]) -> list[Pair]:
    partner = _aligned(a, b)
    place = {j: i for i, j in partner.items()}
    pairs = [_pair(number, a[i], b[j], place) for i, j in partner.items()]
    for left in (side for i, side in enumerate(a) if i not in partner):
        lacks = _compare(
            [("worker", left.worker, ABSENT)],
            (left.planned, events[1]),
            number=number,
            calls=(left.call, ""),
            worker=left.worker,
        )
        pairs.append(Pair(a=left, b=None, differences=tuple(lacks)))
    for left in (side for j, side in enumerate(b) if j not in place):
        lacks = _compare(
            [("worker", ABSENT, left.worker)],
            (events[0], left.planned),
            number=number,
            calls=("", left.call),
            worker=left.worker,
        )
        pairs.append(Pair(a=None, b=left, differences=tuple(lacks)))
    return pairs


def _aligned(a: list[Side], b: list[Side]) -> dict[int, int]:
    """Places in ``a`` and what stands for each in ``b``.

    By worker and arguments, then by worker, then in order.
    """

    def same(side: Side) -> object:
        return side.worker, _form(side.arguments)

    def worker(side: Side) -> object:
        return side.worker

    def any_(_side: Side) -> object:
        return None

    partner: dict[int, int] = {}
    for key in (same, worker, any_):
        taken = set(partner.values())
        free: dict[object, list[int]] = {}
        for j, side in enumerate(b):
            if j not in taken:
                free.setdefault(key(side), []).append(j)
        for i, side in enumerate(a):
            if i not in partner and free.get(key(side)):
                partner[i] = free[key(side)].pop(0)
    return dict(sorted(partner.items()))


def _pair(number: int, a: Side, b: Side, place: dict[int, int]) -> Pair:
    worker = a.worker if a.worker == b.worker else f"{a.worker} / {b.worker}"
    calls = (a.call, b.call)
    as_in_a = [sorted(place.get(j, -1) for j in names) for names in b.order]
    order_b = a.order if as_in_a == [sorted(names) for names in a.order] else b.order
    asked = _compare(
        [
            ("worker", a.worker, b.worker),
            ("arguments", a.arguments, b.arguments),
            ("order", a.order, order_b),
        ],
        (a.planned, b.planned),
        number=number,
        calls=calls,
        worker=worker,
    )
    got = _compare(
        [
            ("status", a.status, b.status),
            ("value", a.value, b.value),
            ("attempts", a.attempts, b.attempts),
            ("tokens", a.tokens, b.tokens),
            ("cost", a.cost, b.cost),
            ("time", a.time, b.time),
        ],
        (a.settled, b.settled),
        number=number,
        calls=calls,
        worker=worker,
    )
    return Pair(a=a, b=b, differences=(*asked, *got))


def _end(a: OneRun, b: OneRun) -> tuple[Difference, ...]:
    one, other = a.state, b.state
    values: list[tuple[What, Json, Json]] = [
        ("outcome", a.outcome, b.outcome),
        ("attempts", one.spent.calls, other.spent.calls),
        ("tokens", one.spent.tokens, other.spent.tokens),
        ("cost", one.spent.cost, other.spent.cost),
        ("time", a.took, b.took),
    ]
    return tuple(_compare(values, (a.last, b.last)))
