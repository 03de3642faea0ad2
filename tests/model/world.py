"""The real decision code on interned logs: each log, message and effect becomes a small number.

A log is a node of a tree; its parent is the log without the last commit. Folds and decisions are
made by `protocol.run` once for each node and command, then remembered: a visit costs look-ups only.
"""

from typing import Final, NamedTuple

from protocol.actions import Pool, Report, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Activate, Command, Deadline, Inbox, PolicyReply, Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task
from protocol.events import AnyEvent, CallSettled, ReportNoted
from protocol.inbox import Signal
from protocol.limits import IDLE_WINDOW_MS
from protocol.run import RULES, Make, Tell, Withdraw, due, feed, fold, step
from protocol.state import RunState
from protocol.subjects import child_id
from protocol.views import child_report, child_start
from tests.model.rules import Mix

ROOT_RUN: Final = "0000000000000"
CALL: Final = "1-0"
CHILD_RUN: Final = child_id(ROOT_RUN, CALL, 1)
RUNS: Final = (ROOT_RUN, CHILD_RUN)

LONG_MS: Final = 10**9
"""Milliseconds: so long that time matters only where the model lets a deadline pass."""

LOST: Final = "was lost"
"""Ends the hash of a report that tells of no work: it bills the whole reserve all the same."""

BUDGETS: Final = (
    "a child's budget is not within its parent's",
    "a child is begun with two budgets",
)
"""What can be wrong when a child run is begun."""

ONE_TOKEN: Final = Spend(tokens=1)

NORMAL: Final = 0
ACTIVATION: Final = 1
DEADLINE: Final = 2
FIRST: Final = 3
"""What a turn is made for; it says how far the clock has moved."""


class EffectKey(NamedTuple):
    """An effect without the struct: ``make``, ``withdraw`` or ``tell``."""

    kind: str
    call: str = ""
    attempt: int = 0


class Node:
    """One log: its last commit, and all that the model asks of it, worked out once."""

    __slots__ = (
        "asked",
        "at",
        "billed",
        "depth",
        "effects",
        "ended",
        "events",
        "known",
        "opened",
        "parent",
        "paused",
        "run",
        "settled",
        "state",
        "wrong",
    )

    def __init__(self, run: int, parent: int, state: RunState, events: tuple[AnyEvent, ...]):
        self.run = run
        self.parent = parent
        self.state = state
        self.events = events
        self.at = 0
        self.depth = 0
        self.ended = state.phase == "ended"
        self.paused = state.phase == "paused"
        self.asked = state.asked is not None
        self.opened = tuple(state.open.items())
        self.known: set[str] = set(state.signals)
        for call in state.calls.values():
            self.known.update(call.noted)
        self.settled: tuple[str, ...] = ()
        self.billed: tuple[CallSettled | ReportNoted, ...] = ()
        self.effects: tuple[int, ...] = ()
        self.wrong = ""


class World:
    """Interning tables of one exploration."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.nodes: list[Node] = []
        self.messages: list[Inbox] = []
        self.message_names: list[str] = []
        self.effects: list[EffectKey] = []
        self._message_ids: dict[tuple[object, ...], int] = {}
        self._effect_ids: dict[EffectKey, int] = {}
        self._decided: dict[tuple[int, tuple[int, ...], int], tuple[AnyEvent, ...]] = {}
        self._children: dict[tuple[int, int, tuple[int, ...], int, int], int] = {}
        self._told: dict[int, int] = {}
        self.child_started: Start | None = None
        self.roots = tuple(self._add(Node(run, 0, RunState(), ())) for run in range(2))

    # ------------------------------------------------------------------------------------ messages

    def report(self, run: int, call: str, attempt: int, fault: bool, serial: int) -> int:
        """The report of the ``serial``-th time that somebody worked on an attempt."""
        key = ("report", run, call, attempt, fault, serial)
        if key not in self._message_ids:
            name = f"report {call}.{attempt} #{serial}" + (" (fault)" if fault else "")
            name = name if serial else f"{call}.{attempt} {LOST}"
            report = Report(
                run=RUNS[run],
                call=call,
                attempt=attempt,
                status="EXEC_ERR" if fault else "OK",
                fault="infrastructure" if fault else "none",
                spend=ONE_TOKEN,
                by=str(serial),
            )
            self._intern(key, Inbox(f"{run} {name}", report), name)
        return self._message_ids[key]

    def signal(self, run: int, kind: str, nr: int) -> int:
        """A signal; ``nr`` tells one wish from the next, 9 is the parent's cancel."""
        key = ("signal", run, kind, nr)
        if key not in self._message_ids:
            by = "run" if nr == 9 else "user"
            signal = Signal(id=f"{nr}", run=RUNS[run], kind=kind, by=by)  # type: ignore[arg-type]
            self._intern(key, Inbox(f"{run} {kind} {nr}", signal), f"signal {kind}")
        return self._message_ids[key]

    def told(self, node: int) -> int:
        """What an ended child run tells its parent: the real report, the same for the same log."""
        if node not in self._told:
            key = ("told", node)
            report = child_report(self.nodes[node].state)
            name = f"end of the child run ({self.nodes[node].state.outcome})"
            self._told[node] = self._intern(key, Inbox(f"told {node}", report), name)
        return self._told[node]

    def _intern(self, key: tuple[object, ...], message: Inbox, name: str) -> int:
        number = len(self.messages)
        self._message_ids[key] = number
        self.messages.append(message)
        self.message_names.append(name)
        return number

    def answers(self, message: int, run: int, call: str, attempt: int) -> bool:
        """Whether a message is a report of the attempt."""
        found = self.messages[message].message
        return isinstance(found, Report) and (found.run, found.call, found.attempt) == (
            RUNS[run],
            call,
            attempt,
        )

    # --------------------------------------------------------------------------------------- logs

    def turn(self, node: int, messages: tuple[int, ...], mode: int) -> bool:
        """Whether a conductor that believes in this log would append anything."""
        return bool(self._decide(node, messages, mode))

    def commit(self, node: int, messages: tuple[int, ...], mode: int, nonce: int) -> int:
        """The log with the commit that is decided on it.

        The nonce tells apart what two conductors would write alike, as their names and clocks do in
        reality.
        """
        key = (node, 0, messages, mode, nonce)
        found = self._children.get(key)
        if found is None:
            events = self._decide(node, messages, mode)
            found = self._children[key] = self._extend(node, events, self._at(node, mode))
        return found

    def _extend(self, on: int, events: tuple[AnyEvent, ...], at: int) -> int:
        parent = self.nodes[on]
        child = Node(parent.run, on, fold(parent.state, events), events)
        child.at, child.depth = max(at, parent.at), parent.depth + 1
        counted = [e.call for e in events if isinstance(e, CallSettled)]
        child.settled = (*parent.settled, *counted)
        bills = [e for e in events if isinstance(e, CallSettled | ReportNoted) and e.report]
        child.billed = (*parent.billed, *bills)
        child.effects = tuple(
            self._effect(EffectKey(type(e).__name__.lower(), *self._of(e)))
            for e in due(child.state)
            if isinstance(e, Make | Withdraw | Tell)
        )
        child.wrong = self._broken(child)
        return self._add(child)

    def epoch(self, node: int) -> int:
        """The last activation in a log."""
        return self.nodes[node].state.epoch

    def ancestor(self, node: int, depth: int) -> int:
        """The log of that many commits that this one goes on from; itself if it has fewer."""
        while self.nodes[node].depth > depth:
            node = self.nodes[node].parent
        return node

    def make_bit(self, call: str, attempt: int) -> int:
        """The bit of the effect that dispatches an attempt."""
        return 1 << self._effect(EffectKey("make", call, attempt))

    def graft(self, on: int, node: int) -> int:
        """The log ``on`` with the last commit of another: what only a hole in the rules gives."""
        key = (on, node, (), -1, 0)
        if key not in self._children:
            commit = self.nodes[node]
            self._children[key] = self._extend(on, commit.events, commit.at)
        return self._children[key]

    @staticmethod
    def _of(effect: Make | Withdraw | Tell) -> tuple[()] | tuple[str, int]:
        return () if isinstance(effect, Tell) else (effect.call, effect.attempt)

    def _effect(self, key: EffectKey) -> int:
        if key not in self._effect_ids:
            self._effect_ids[key] = len(self.effects)
            self.effects.append(key)
        return self._effect_ids[key]

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    @staticmethod
    def _broken(node: Node) -> str:
        """What is wrong with a log by itself."""
        if len(set(node.settled)) < len(node.settled):
            return "two results count for one call"
        spent, limit = node.state.committed, node.state.budget
        if spent.tokens - _billed_twice(node) > limit.tokens or spent.calls > limit.calls:
            return "a budget is overrun"
        return ""

    def _decide(self, node: int, messages: tuple[int, ...], mode: int) -> tuple[AnyEvent, ...]:
        key = (node, messages, mode)
        found = self._decided.get(key)
        if found is None:
            found = self._decided[key] = self._really_decide(node, messages, mode)
        return found

    def _really_decide(
        self, node: int, messages: tuple[int, ...], mode: int
    ) -> tuple[AnyEvent, ...]:
        here = self.nodes[node]
        at = self._at(node, mode)
        commands: list[Command] = []
        if mode in {ACTIVATION, FIRST}:
            if here.state.phase == "new":
                commands.append(self._start(here.run))
            commands.append(Activate("c", RULES))
        if self.mix.endpoint and mode == NORMAL and not messages and here.state.asked:
            commands.append(PolicyReply(here.state.asked.turn, _reply(here.state)))
        commands += [self.messages[message] for message in messages]
        if mode == DEADLINE:
            commands.append(Deadline())
        draft = step(here.state, commands, at)
        if self.mix.endpoint or mode == ACTIVATION:
            return tuple(draft.events)
        while draft.state.asked is not None:
            feed(draft, [PolicyReply(draft.state.asked.turn, _reply(draft.state))])
        return tuple(draft.events)

    def _at(self, node: int, mode: int) -> int:
        here = self.nodes[node]
        if mode in {ACTIVATION, FIRST} and not self.mix.quick:
            return here.at + IDLE_WINDOW_MS
        if mode == DEADLINE:
            state = here.state
            return max([here.at, *(state.calls[name].deadline for name in state.open)])
        return here.at

    def _start(self, run: int) -> Start:
        if run == 1:
            assert self.child_started is not None
            return self.child_started
        mix = self.mix
        helper = WorkerSpec(
            name="sub",
            kind="conductor",
            reserve=Spend(tokens=1, calls=1),
            timeout_ms=LONG_MS,
            attempts=1,
        )
        tool = WorkerSpec(name="tool", reserve=ONE_TOKEN, timeout_ms=LONG_MS, attempts=2)
        asks = 0 if not mix.endpoint else 2 + mix.faults.crash + mix.faults.freeze
        asks += 0 if not mix.endpoint else mix.faults.lapse
        return Start(
            run=ROOT_RUN,
            task=Task(text="t", inputs={"deep": mix.child}),
            pool=Pool((helper, tool)),
            policy=PolicySpec(name="p", reserve=ONE_TOKEN if mix.endpoint else Spend()),
            budget=Budget(
                calls=2,
                tokens=(2 if mix.faults.infra else 1) + asks,
                depth=1,
                wall_ms=100 * LONG_MS,
            ),
        )

    def begin_child(self, parent: int) -> str:
        """Carve the child's budget as the real code does; what is wrong with it, or ""."""
        state = self.nodes[parent].state
        start = child_start(state, CALL, {})
        held = state.reserves.get((CALL, 1), Spend())
        if start.budget.calls > held.calls or start.budget.tokens > held.tokens:
            return BUDGETS[0]
        if self.child_started is None:
            self.child_started = start
        same = (start.run, start.budget) == (self.child_started.run, self.child_started.budget)
        return "" if same else BUDGETS[1]


def _reply(state: RunState) -> Reply:
    """The script: a call first, an answer once something was observed or only that is accepted."""
    assert state.asked is not None
    spend = state.asked.reserve
    if state.turns or state.asked.limited_by:
        return Reply(decision=Decision(answer="done"), spend=spend)
    name = "sub" if state.depth == 0 and _deep(state) else "tool"
    return Reply(decision=Decision(calls=(PlannedCall(name, {"task": "s"}),)), spend=spend)


def _deep(state: RunState) -> bool:
    """Whether the root run calls a child run: its task says so."""
    return bool(state.task.inputs.get("deep"))


def _billed_twice(node: Node) -> int:
    """Tokens of attempts that were given up as lost, and whose worker reported after all."""
    reports = [(e.call, e.attempt, e.report) for e in node.billed]
    lost = {(call, attempt) for call, attempt, report in reports if report.endswith(LOST)}
    real = {(call, attempt) for call, attempt, report in reports if not report.endswith(LOST)}
    return len(lost & real)
