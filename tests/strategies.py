"""Strategies: any budget, any policy, any message, and a `World` in which any of it may happen.

Sense and nonsense in such a mixture that most runs get somewhere and everything is met.
"""

from typing import Any, Final, Literal

import msgspec
from hypothesis import strategies as st

from protocol.actions import NOTHING, Fault, Json, Report, Spend, Status
from protocol.budgets import Budget, Extension
from protocol.commands import Activate, Command, Deadline, PolicyReply, Start
from protocol.decisions import Decision, PlannedCall, Reply
from protocol.events import AnyEvent
from protocol.inbox import Signal, SignalKind
from protocol.references import reference
from protocol.run import RULES, Wait, due
from protocol.views import compose, view
from tests.runs import (
    AT,
    RUN,
    Driver,
    answer,
    failure,
    inbox,
    plan,
    planned,
)

JSON: Final[st.SearchStrategy[Json]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
"""Any value that a message can hold."""

TEXTS: Final = st.sampled_from(["", "1-0", "1-1", "2-0", "tool", "agent", "child", RUN, "x"])
"""Texts that mean something somewhere."""

BUDGETS: Final = st.builds(
    Budget,
    rounds=st.integers(0, 4),
    calls=st.integers(0, 8),
    parallel=st.integers(0, 4),
    depth=st.integers(0, 3),
    tokens=st.integers(0, 600),
    cost=st.integers(0, 300),
    wall_ms=st.integers(0, 2_000_000),
    on_limit=st.sampled_from(["answer", "pause"]),
)

ROOMY: Final = st.builds(
    Budget,
    rounds=st.sampled_from([1, 2, 2, 3, 4, 6]),
    calls=st.integers(6, 40),
    parallel=st.integers(1, 5),
    depth=st.integers(1, 3),
    tokens=st.integers(150, 2_000),
    cost=st.integers(100, 1_000),
    wall_ms=st.integers(200_000, 4_000_000),
    on_limit=st.sampled_from(["answer", "pause"]),
)
"""Budgets with which something can be done before a limit is reached."""

ARGUMENTS: Final[st.SearchStrategy[dict[str, Json]]] = st.sampled_from(
    [{"n": 1}, {"n": 2}, {"n": "1"}, {}, {"n": 1, "m": 1}, {"__unreadable__": "{n:"}, {"n": True}]
)

PLANNED: Final = st.builds(
    PlannedCall,
    worker=st.sampled_from(["tool", "tool", "agent", "child", "nobody", ""]),
    arguments=ARGUMENTS,
    after=st.lists(st.integers(0, 4), max_size=1).map(tuple),
    sees=st.lists(st.sampled_from([0, 1, 1, 2, -1]), max_size=1).map(tuple),
    earlier=st.sampled_from([(), (), (), ("1-0",), ("1-1", "2-0"), ("9-9",)]),
)

FAIR_PLANS: Final = st.lists(
    st.builds(planned, st.sampled_from(["tool", "agent", "child"])), min_size=1, max_size=5
).map(lambda calls: plan(*calls))

ONE: Final = reference("1-0", "output")
TWO: Final = reference("1-1", "output")

REPLIES: Final[st.SearchStrategy[Reply]] = st.one_of(
    *[FAIR_PLANS] * 6,
    st.lists(PLANNED, max_size=5).map(lambda calls: plan(*calls)),
    st.sampled_from(
        [
            answer(),
            Reply(decision=Decision(last_answers=True)),
            Reply(decision=Decision(calls=(planned(), planned("agent")), last_answers=True)),
            Reply(decision=Decision(answer="both", last_answers=True)),
            Reply(decision=Decision(answers=f"{ONE}, {ONE}")),
            Reply(decision=Decision(calls=(planned(), planned(n=ONE)), answers=ONE)),
            plan(planned(n=ONE), planned("child", ONE), planned("agent", TWO)),
            answer(" "),
            failure(),
            failure(retry=False),
            Reply(text="I can't decide."),
            Reply(decision=Decision((planned(),), "both")),
            plan(*[planned()] * 65),
            Reply(text="x" * 200_000),
            Reply(text="\ud800"),
            Reply(decision=Decision(calls=(planned(n=float("nan")),))),
            Reply(decision=Decision(calls=(planned(n=object()),))),
            Reply(decision=Decision(answer=3)),  # type: ignore[arg-type]
        ]
    ),
)
"""What a policy may say: some sense, much nonsense."""


class Move(msgspec.Struct, frozen=True):
    """Something that may happen to a run, made concrete by `World` when it does."""

    kind: Literal[
        "reply", "report", "reports", "signal", "deadline", "activate", "again", "foreign", "wait"
    ]
    which: int = 0
    reply: Reply = Reply()
    status: Status = "OK"
    fault: Fault = "none"
    part: int = 0
    """Hundredths of what is reserved that a report says are spent."""
    signal: SignalKind = "pause"
    extension: Extension = Extension()
    after_ms: int = 0


MOVES: Final = st.builds(
    Move,
    kind=st.sampled_from(
        ["reply"] * 6
        + ["report"] * 7
        + ["reports"] * 2
        + ["signal", "deadline", "wait", "activate", "again", "again", "foreign"]
    ),
    which=st.integers(0, 50),
    reply=REPLIES,
    status=st.sampled_from(["OK", "OK", "PARSE_ERR", "EXEC_ERR", "EXEC_ERR", "TIMEOUT"]),
    fault=st.sampled_from(["none", "worker", "infrastructure", "infrastructure", "policy"]),
    part=st.integers(0, 100),
    signal=st.sampled_from(
        ["cancel", "answer", "pause", "replan", *["extend", "resume", "hedge"] * 4]  # most go on
    ),
    extension=st.builds(
        Extension, rounds=st.integers(0, 2), calls=st.integers(0, 2), wall_ms=st.integers(0, 9_999)
    ),
    after_ms=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1, 500, 500, 5_000, 5_000, 70_000, 400_000]),
)


class World(Driver):
    """A run to which moves happen. Reports and replies spend no more than was reserved for them."""

    def __init__(self, start: Start, *, at: int = AT) -> None:
        super().__init__(at=at)
        self._given: list[Command] = []
        self._billed: dict[tuple[str, int], Spend] = {}
        self.give(start)

    def give(self, *commands: Command, after_ms: int = 0) -> list[AnyEvent]:
        """As `Driver.give`; what was given can happen again."""
        self._given += commands
        return super().give(*commands, after_ms=after_ms)

    def happen(self, *moves: Move) -> list[AnyEvent]:
        """All of these in one step."""
        self.at += max((move.after_ms for move in moves), default=0)
        return self.give(*(command for move in moves for command in self.commands(move)))

    def commands(self, move: Move) -> list[Command]:
        """The move as commands; none if there is nothing that it could happen to."""
        kind = move.kind
        if self.state.phase == "paused" and move.which % 3 == 0:
            kind, move = "signal", msgspec.structs.replace(move, signal="resume")
        match kind:
            case "reply":
                return self._reply(move)
            case "report":
                return self._report(move)
            case "signal":
                wish = Signal(
                    id=f"{len(self.events)}/{move.which}",
                    run=self.state.run,
                    kind=move.signal,
                    by="ada",
                    extension=move.extension,
                    call=self._open(move.which),
                )
                return [inbox(wish)]
            case "deadline":
                return [Deadline()]
            case "wait":
                for effect in due(self.state):
                    if isinstance(effect, Wait):
                        self.at = max(self.at, effect.until)
                return [Deadline()]
            case "activate":
                return [Activate("another", RULES)]
            case "again":
                return [self._given[move.which % len(self._given)]] if self._given else []
            case "foreign":
                return self._foreign(move)
            case "reports":
                return [
                    inbox(self.report_of(name, attempt=number, value=move.which))
                    for name, number in self.state.open.items()
                ]

    def _open(self, which: int) -> str:
        """A call that goes on, or one that there is not."""
        names = [*self.state.open, "9-9"]
        return names[which % len(names)]

    def _reply(self, move: Move) -> list[Command]:
        asked = self.state.asked
        if asked is None:
            return [PolicyReply(move.which, move.reply)]
        reply = move.reply
        if asked.limited_by and move.which % 2 == 0:
            reply = answer()
        if asked.asker == "composer":
            shown = view(self.state, self.values, asked.limited_by)
            reply = reply if move.which % 10 == 0 else compose(shown)
        spend = _part(asked.reserve, move.part)
        return [PolicyReply(asked.turn, msgspec.structs.replace(reply, spend=spend))]

    def _report(self, move: Move) -> list[Command]:
        started = [
            (name, number)
            for name, call in self.state.calls.items()
            for number in range(1, call.attempt + 1)
        ]
        if not started:
            return []
        hedged = [(name, first) for name, (first, _) in self.state.hedged.items()]
        waiting = [*self.state.open.items(), *hedged, *sorted(self.state.strays)]
        name, number = (waiting or started)[move.which % len(waiting or started)]
        if move.which % 7 == 0:
            name, number = started[move.which % len(started)]
        # Whatever an attempt reports, in however many reports, is within what it had reserved.
        left = self.state.reserves.get((name, number), NOTHING)
        known = self._billed.get((name, number))
        spend = _part(left if known is None else NOTHING, move.part)
        report = self.report_of(
            name,
            attempt=number,
            status=move.status,
            fault=move.fault,
            value=move.which,
            spend=spend,
        )
        self._billed[name, number] = spend
        return [inbox(report)]

    def _foreign(self, move: Move) -> list[Command]:
        wrong: list[Report | Signal] = [
            self.report_of("9-9", attempt=1),
            self.report_of("1-0", attempt=99),
            self.report_of("1-0", attempt=0),
            self.report_of("1-0", run="another"),
            Signal(id="1", run="another", kind="cancel", by="ada"),
        ]
        return [inbox(wrong[move.which % len(wrong)])]


def _part(whole: Spend, hundredths: int) -> Spend:
    """So much of it, rounded down."""
    return Spend(
        whole.tokens * hundredths // 100,
        whole.cost * hundredths // 100,
        whole.calls * hundredths // 100,
    )


def arbitrary(kind: Any) -> st.SearchStrategy[Any]:
    """Any well-typed value of a type that messages are made of."""
    return _arbitrary(msgspec.inspect.type_info(kind))


_LEAVES: Final[dict[type, st.SearchStrategy[Any]]] = {
    msgspec.inspect.AnyType: JSON,
    msgspec.inspect.NoneType: st.none(),
    msgspec.inspect.BoolType: st.booleans(),
    msgspec.inspect.BytesType: st.binary(max_size=12),
    msgspec.inspect.StrType: TEXTS | st.text(max_size=5),
    msgspec.inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    msgspec.inspect.RawType: st.just(msgspec.Raw(b'{"type":"Newer"}')),
}


def _arbitrary(info: Any) -> st.SearchStrategy[Any]:
    match info:
        case msgspec.inspect.IntType():
            low = info.ge if info.ge is not None else -3
            return st.integers(max(low, -3), 5) | st.integers(max(low, 0), 10**15)
        case msgspec.inspect.LiteralType():
            return st.sampled_from(info.values)
        case msgspec.inspect.UnionType():
            return st.one_of([_arbitrary(kind) for kind in info.types])
        case msgspec.inspect.VarTupleType():
            return st.lists(_arbitrary(info.item_type), max_size=3).map(tuple)
        case msgspec.inspect.DictType():
            return st.dictionaries(TEXTS, _arbitrary(info.value_type), max_size=2)
        case msgspec.inspect.StructType():
            fields = {field.name: _arbitrary(field.type) for field in info.fields}
            return st.builds(info.cls, **fields)
        case _:
            return _LEAVES[type(info)]
