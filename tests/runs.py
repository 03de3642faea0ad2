"""Runs for tests: builders, a run in memory driven by hand, and a whole tree of runs.

Nothing here is a mock: a `Driver` calls the rules as the conductor's shell does, on a clock of its
own. What may happen to a run by chance is in `tests.strategies`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

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

    def signal(self, kind: SignalKind, call: str = "", **extension: int) -> list[AnyEvent]:
        """Somebody's wish, each a new one."""
        wish = Signal(
            id=str(len(self.events)),
            run=self.state.run,
            kind=kind,
            by="ada",
            extension=Extension(**extension),
            call=call,
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


def started(*calls: PlannedCall, **more: Any) -> Driver:
    """A run whose first round is at work."""
    driver = Driver(begin(**more))
    driver.reply(plan(*(calls or (planned(),))))
    return driver


def settled(driver: Driver, call: str) -> tuple[str | None, str]:
    """How a call ended and who is at fault."""
    state = driver.state.calls[call]
    return state.status, state.fault


def last(driver: Driver, kind: type) -> Any:
    """The last event of a type."""
    return [event for event in driver.events if isinstance(event, kind)][-1]


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
                    below = play(child_start(driver.state, call, driver.values), policy, work)
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
