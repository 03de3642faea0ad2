"""Runs for tests: builders, a run in memory driven by hand, a whole tree of runs, and strategies.

Nothing here is a mock: a `Driver` calls the rules as the conductor's shell does, on a clock of its
own. The strategies make any budget, any policy and any message, nonsense included.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgspec
from hypothesis import strategies as st

from protocol.actions import NOTHING, Fault, Json, Pool, Report, Spend, Status, WorkerSpec
from protocol.budgets import Budget, Extension
from protocol.codec import digest, encode
from protocol.commands import Activate, Command, Deadline, Inbox, PolicyReply, Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from protocol.events import AnyEvent
from protocol.inbox import Signal, SignalKind
from protocol.rules import Draft
from protocol.run import RULES, Ask, Make, Tell, Wait, due, step
from protocol.state import RunState
from protocol.subjects import run_id
from protocol.views import child_report, child_start, compose, view

AT: Final = 1_700_000_000_000
"""Milliseconds since the epoch at which tests begin."""

RUN: Final = run_id(b"a run for tests!")

NUMBER: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
"""A schema simple enough for a test to check arguments by itself."""

TOOL: Final = WorkerSpec(name="tool", parameters=NUMBER, attempts=2)
AGENT: Final = WorkerSpec(
    name="agent", kind="agent", parameters=NUMBER, reserve=Spend(tokens=50, cost=20), attempts=3
)
CHILD: Final = WorkerSpec(name="child", kind="conductor", attempts=1)
POOL: Final = Pool((TOOL, AGENT, CHILD))
POLICY: Final = PolicySpec(name="script", reserve=Spend(tokens=10, cost=3))


def begin(
    *,
    budget: Budget | None = None,
    pool: Pool = POOL,
    policy: PolicySpec = POLICY,
    task: str = "What is asked?",
    **more: Any,
) -> Start:
    """The command that begins a run."""
    budget = budget or Budget()
    return Start(run=RUN, task=Task(text=task), pool=pool, policy=policy, budget=budget, **more)


def planned(worker: str = "tool", n: Json = 1, **more: Any) -> PlannedCall:
    """A call that fits the workers of `POOL`."""
    return PlannedCall(worker, {"n": n}, **more)


def plan(*calls: PlannedCall, **more: Any) -> Reply:
    """A reply that asks for calls."""
    return Reply(decision=Decision(calls=calls), **more)


def answer(text: str = "42", **more: Any) -> Reply:
    """A reply that answers."""
    return Reply(decision=Decision(answer=text), **more)


def failure(*, retry: bool = True, error: str = "refused") -> Reply:
    """A policy that could not be asked."""
    return Reply(status="EXEC_ERR", error=error, retry=retry)


def inbox(message: Report | Signal) -> Inbox:
    """The message as it is read from an inbox."""
    return Inbox(digest(encode(message)), message)


class Driver:
    """One run in memory: every step is folded, every value of a report kept."""

    def __init__(self, start: Start | None = None, *, at: int = AT) -> None:
        self.at = at
        self.state = RunState()
        self.events: list[AnyEvent] = []
        self.values: dict[str, Json] = {}
        self.steps: list[tuple[RunState, list[Command], Draft]] = []
        """For each step: the state before it, what came in, and what was decided."""
        if start is not None:
            self.give(start, Activate("conductor", RULES))

    def give(self, *commands: Command, after_ms: int = 0) -> list[AnyEvent]:
        """Decide on commands in one step, some time later."""
        self.at += after_ms
        for command in commands:
            if isinstance(command, Inbox) and isinstance(command.message, Report):
                self.values[command.hash] = command.message.value
        draft = step(self.state, commands, self.at)
        self.steps.append((self.state, list(commands), draft))
        self.state = draft.state
        self.events += draft.events
        return draft.events

    def reply(self, reply: Reply, *, turn: int | None = None, after_ms: int = 0) -> list[AnyEvent]:
        """The reply to the open question, or to any other."""
        asked = self.state.asked
        number = turn if turn is not None else asked.turn if asked else 0
        return self.give(PolicyReply(number, reply), after_ms=after_ms)

    def report(self, call: str, **more: Any) -> list[AnyEvent]:
        """A report of the call's last attempt, or of another."""
        return self.give(inbox(self.report_of(call, **more)))

    def report_of(
        self,
        call: str,
        *,
        attempt: int | None = None,
        status: Status = "OK",
        fault: Fault = "none",
        value: Json = 1,
        spend: Spend = NOTHING,
        run: str = "",
    ) -> Report:
        """The report, without giving it."""
        known = self.state.calls.get(call)
        number = attempt if attempt is not None else known.attempt if known else 1
        return Report(
            run=run or self.state.run,
            call=call,
            attempt=number,
            status=status,
            fault=fault,
            value=value,
            spend=spend,
        )

    def lost(self, call: str, **more: Any) -> list[AnyEvent]:
        """A report that blames the infrastructure."""
        return self.report(call, status="EXEC_ERR", fault="infrastructure", **more)

    def signal(self, kind: SignalKind, **extension: int) -> list[AnyEvent]:
        """Somebody's wish, each a new one."""
        wish = Signal(
            id=str(len(self.events)),
            run=self.state.run,
            kind=kind,
            by="ada",
            extension=Extension(**extension),
        )
        return self.give(inbox(wish))

    def activate(self, after_ms: int = 0) -> list[AnyEvent]:
        """Another conductor takes the run over."""
        return self.give(Activate("another", RULES), after_ms=after_ms)

    def deadline(self, after_ms: int = 0) -> list[AnyEvent]:
        """Time passes."""
        return self.give(Deadline(), after_ms=after_ms)

    def wait(self) -> list[AnyEvent]:
        """Time passes until the run wanted to be woken, which must be some time."""
        (until,) = [effect.until for effect in due(self.state) if isinstance(effect, Wait)]
        self.at = max(self.at, until)
        return self.deadline()

    def composed(self) -> list[AnyEvent]:
        """The composer replies to the open question."""
        assert self.state.asked is not None
        assert self.state.asked.asker == "composer"
        return self.reply(compose(view(self.state, self.values, self.state.asked.limited_by)))


def names(events: Iterable[AnyEvent]) -> list[str]:
    """The events' types, for a test that compares what happened."""
    return [type(event).__name__ for event in events]


PolicyFunction = Callable[[View], Reply]


def play(
    start: Start,
    policy: PolicyFunction,
    work: Callable[[Driver, str], Report | None],
    *,
    max_steps: int = 2_000,
) -> list[Driver]:
    """A run and all runs below it, each driven until it ends or pauses; the root comes last.

    Args:
        start: The root run.
        policy: The policy of every run.
        work: The report of a call's open attempt; None if it never reports.
        max_steps: Effects after which the run is taken to go round in circles.
    """
    driver = Driver(start)
    family: list[Driver] = []
    silent: set[tuple[str, int]] = set()
    for _ in range(max_steps):
        if driver.state.phase not in ("deciding", "working"):
            return [*family, driver]
        effect = next((item for item in due(driver.state) if _can_happen(item, silent)), None)
        match effect:
            case Ask(turn, asker, limited_by):
                shown = view(driver.state, driver.values, limited_by)
                driver.reply(compose(shown) if asker == "composer" else policy(shown), turn=turn)
            case Make(call, attempt):
                spec = driver.state.workers[driver.state.calls[call].call.worker]
                if spec.kind == "conductor":
                    below = play(child_start(driver.state, call), policy, work)
                    family += below
                    ended = below[-1].state
                    report = child_report(ended) if Tell() in due(ended) else None
                else:
                    report = work(driver, call)
                if report is None:
                    silent.add((call, attempt))
                else:
                    driver.give(inbox(report))
            case Wait(until):
                driver.at = max(driver.at, until)
                driver.deadline()
            case _:
                raise AssertionError(f"nothing is due in phase {driver.state.phase}")
    raise AssertionError(f"no end after {max_steps} steps: {driver.state}")


def _can_happen(effect: object, silent: set[tuple[str, int]]) -> bool:
    if isinstance(effect, Make):
        return (effect.call, effect.attempt) not in silent
    return isinstance(effect, Ask | Wait)


# -------------------------------------------------------------------------------- strategies

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
    rounds=st.integers(2, 6),
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
)

FAIR_PLANS: Final = st.lists(
    st.builds(planned, st.sampled_from(["tool", "agent", "child"])), min_size=1, max_size=5
).map(lambda calls: plan(*calls))

REPLIES: Final[st.SearchStrategy[Reply]] = st.one_of(
    *[FAIR_PLANS] * 6,
    st.lists(PLANNED, max_size=5).map(lambda calls: plan(*calls)),
    st.sampled_from(
        [
            answer(),
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
        "reply", "report", "signal", "deadline", "activate", "again", "foreign", "wait", "nothing"
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
        + ["report"] * 9
        + ["signal", "deadline", "wait", "activate", "again", "again", "foreign"]
    ),
    which=st.integers(0, 50),
    reply=REPLIES,
    status=st.sampled_from(["OK", "OK", "PARSE_ERR", "EXEC_ERR", "EXEC_ERR", "TIMEOUT"]),
    fault=st.sampled_from(["none", "worker", "infrastructure", "infrastructure", "policy"]),
    part=st.integers(0, 100),
    signal=st.sampled_from(
        ["cancel", "answer", "pause", *["extend", "resume"] * 4]  # so that most runs go on
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
        match move.kind:
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
            case "nothing":
                return []

    def _reply(self, move: Move) -> list[Command]:
        asked = self.state.asked
        if asked is None:
            return [PolicyReply(move.which, move.reply)]
        reply = move.reply
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
        waiting = [*self.state.open.items(), *sorted(self.state.strays)]
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
