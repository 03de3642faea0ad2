"""Who led to what: for each event, the earlier events that it came of, and the later ones of it.

An event comes of what it is *about*, and of what *set it off*.

===================  ===============================================================================
event                is about
===================  ===============================================================================
`RunForked`          the last event that the fork shares
`RunActivated`       the activation before it, or the beginning
`PolicyAsked`        the last event that left the run without a question and without a decision
`PolicyReplied`      the question, by its turn
`RoundPlanned`       the reply that decided it; so is `AnswerGiven`
`AttemptStarted`     the plan of its round, and the calls that it had to wait for; a further attempt
                     instead the report of the one before, or the fork that reopened the call
`CallSettled`        the attempt whose report counts; without a report, the last thing that became
                     of the call; so is `ReportNoted`
`RoundClosed`        what settled each of its calls
`RunResumed`         the pause
`Archived`           the end
===================  ===============================================================================

What set it off is the event before it among those that the same cause of the commit led to; events
that stand side by side (attempts started at once, calls settled for the same reason) share theirs.
The first event of a cause is set off from outside: by a worker, a person, a conductor, or time.

Two runs are joined where a conductor's call is answered by one: the attempt leads to the child's
beginning, the child's end to the call's settling. An event that all this says nothing of comes of
the one before it. Every edge leads from a smaller number to a larger one, or over to another run
by its beginning or its end: there are no circles.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from protocol.actions import Report, WorkerSpec
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    Archived,
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    Parent,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RoundPlanned,
    RunActivated,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunForked,
    RunPaused,
    RunResumed,
    RunStarted,
    SignalReceived,
)
from protocol.inbox import Signal
from protocol.subjects import child_id
from replay.chain import RunLog
from replay.timeline import Row, Timeline, timeline

_TURNING: Final = (
    RunStarted,
    RunForked,
    RunActivated,
    PolicyAsked,
    PolicyReplied,
    DecisionRejected,
    RoundPlanned,
    RoundClosed,
    RunResumed,
)
"""The last of these is why a run stands where it stands."""

Direction: TypeAlias = Literal["causes", "effects"]


class Node(NamedTuple):
    """An event of a run."""

    run: str
    number: int

    def __str__(self) -> str:
        return f"{self.run}@{self.number}"


class Found(NamedTuple):
    """An event that led to another, or that another led to."""

    node: Node
    steps: int
    """How far away; 0 for the event that was asked about."""
    near: tuple[Node, ...]
    """Its own neighbours in the same direction: what it came of, or what came of it."""


class Walk(NamedTuple):
    """What led to an event, or what it led to, as far as was asked."""

    found: list[Found]
    """The nearest first."""
    wanted: frozenset[str]
    """Runs that have to be known to say more."""
    more: int
    """Events that are known to belong to it, and are left out."""


class Link(NamedTuple):
    """An event of another run, by what it did."""

    run: str
    did: Literal["attempt", "end", "drop"]
    """Began an attempt, ended the run, or gave an attempt up."""
    call: str = ""
    attempt: int = 0


class Graph:
    """What led to what in one run.

    Args:
        log: The run.
        told: Its timeline, if that is at hand.
    """

    def __init__(self, log: RunLog, told: Timeline | None = None) -> None:
        self.run = log.run
        self.timeline = timeline(log) if told is None else told
        builder = _Builder(self.timeline)
        self.causes = [builder.take(row) for row in self.timeline.rows]
        """For each event, number 1 at place 0: the numbers of the events that it came of."""
        self.effects: list[list[int]] = [[] for _ in self.causes]
        """The same the other way."""
        for number, causes in enumerate(self.causes, 1):
            for each in causes:
                self.effects[each - 1].append(number)
        self._attempts, self._settled, self._end = builder.attempts, builder.settled, builder.end
        self._below, self._above = builder.below, builder.parent
        links = ((row.number, self._link(row)) for row in self.timeline.rows)
        self.links: dict[int, Link] = {number: link for number, link in links if link}
        """The events of other runs that events of this one came of."""

    def row(self, number: int) -> Row:
        """An event's row."""
        return self.timeline.rows[number - 1]

    def resolve(self, link: Link) -> int:
        """The number of the event of this run that is meant; 0 if there is none."""
        match link.did:
            case "attempt":
                return self._attempts.get((link.call, link.attempt), 0)
            case "drop":
                settled = self._settled.get(link.call, 0)
                return settled or self._end
            case "end":
                return self._end

    def around(self, number: int) -> list[str]:
        """The other runs in which an event may have effects."""
        row = self.row(number)
        match row.entry.event:
            case AttemptStarted(call=call, attempt=attempt):
                return [child for key, child in self._below.items() if key == (call, attempt)]
            case CallSettled(call=call, report=""):
                return [child for key, child in self._below.items() if key[0] == call]
            case _ if number == self._end:
                above = [self._above.run] if self._above else []
                return above + list(self._below.values())
            case _:
                return []

    def _link(self, row: Row) -> Link | None:
        if isinstance(row.entry.event, RunStarted):
            parent = row.entry.event.parent
            return Link(parent.run, "attempt", parent.call, parent.attempt) if parent else None
        match self.timeline.message(row):
            case Report(by=by) if by.startswith("run:"):
                return Link(by.removeprefix("run:"), "end")
            case Signal(by=by) if by.startswith("run:") and self._above:
                return Link(by.removeprefix("run:"), "drop", self._above.call, self._above.attempt)
            case _:
                return None


class _Builder:
    """One pass over a run's rows."""

    def __init__(self, told: Timeline) -> None:
        self._told = told
        self._batch: list[Row] = []
        self.attempts: dict[tuple[str, int], int] = {}
        self.settled: dict[str, int] = {}
        self.below: dict[tuple[str, int], str] = {}
        """The runs that answer attempts."""
        self.parent: Parent | None = None
        self.end = 0
        self._conductors: set[str] = set()
        self._became: dict[str, int] = {}
        """The last thing that became of each call that has not settled."""
        self._plans: dict[int, int] = {}
        self._turning = self._owner = self._reply = self._pause = 0

    def take(self, row: Row) -> tuple[int, ...]:
        """What the next event came of."""
        if row.opener == row.number:
            self._batch.clear()
        causes = {self._set_off(row), *self._about(row)} - {0}
        if not causes and not isinstance(row.entry.event, RunStarted | SignalReceived):
            causes = {row.number - 1} - {0}
        self._batch.append(row)
        self._note(row)
        return tuple(sorted(causes))

    def _set_off(self, row: Row) -> int:
        for before in reversed(self._batch):
            if not _beside(before.entry.event, row.entry.event):
                return before.number
        return 0

    def _about(self, row: Row) -> Iterable[int]:
        match row.entry.event:
            case AttemptStarted(call=call):
                return self._began(call)
            case CallSettled(call=call, report=""):
                return (self._became.get(call) or self._plan(call),)
            case CallSettled(call=call, attempt=attempt) | ReportNoted(call=call, attempt=attempt):
                return (self.attempts.get((call, attempt), 0),)
            case RoundClosed(round=number):
                return [self.settled.get(call, 0) for call in self._told.rounds.get(number, ())]
            case PolicyAsked():
                return (self._turning,)
            case PolicyReplied():
                return (self._turning,)
            case RoundPlanned() | AnswerGiven():
                return (self._reply,)
            case RunActivated():
                return (self._owner,)
            case RunForked():
                return (row.number - 1,)
            case RunResumed():
                return (self._pause,)
            case RunPaused() | RunFailed() if not self._batch:
                return (self._turning,)
            case Archived():
                return (self.end,)
            case _:
                return ()

    def _plan(self, call: str) -> int:
        return self._plans.get(int(call.partition("-")[0]), 0)

    def _began(self, call: str) -> list[int]:
        if call in self._became:
            return [self._became[call]]
        planned = self._told.calls.get(call)
        others = planned.waits(int(call.partition("-")[0])) if planned else ()
        return [self._plan(call), *(self.settled.get(other, 0) for other in others)]

    def _note(self, row: Row) -> None:
        number = row.number
        match row.entry.event:
            case AttemptStarted(call=call, attempt=attempt):
                self.attempts[call, attempt] = self._became[call] = number
                if row.worker in self._conductors:
                    self.below[call, attempt] = child_id(row.entry.run, call, attempt)
            case ReportNoted(call=call, why="retried"):
                self._became[call] = number
            case CallSettled(call=call):
                self.settled[call] = number
            case RoundPlanned(round=planned):
                self._plans[planned] = number
            case PolicyReplied():
                self._reply = number
            case RunStarted() as event:
                self.parent, self._owner = event.parent, number
                self._learn(event.pool.workers)
            case RunForked() as event:
                self.parent, self._owner = None, number
                self._learn(event.workers)
                self._became.update(dict.fromkeys(event.reopened, number))
            case RunActivated():
                self._owner = number
            case RunPaused():
                self._pause = number
            case RunFinished() | RunFailed() | RunCancelled():
                self.end = number
            case _:
                pass
        if isinstance(row.entry.event, _TURNING):
            self._turning = number

    def _learn(self, workers: Iterable[WorkerSpec]) -> None:
        self._conductors |= {each.name for each in workers if each.kind == "conductor"}


def _beside(one: AnyEvent, other: AnyEvent) -> bool:
    """Whether two events of one cause stand side by side, so that neither led to the other."""
    match one, other:
        case AttemptStarted(), AttemptStarted() | CallSettled(report=""):
            return True
        case CallSettled(report=""), CallSettled(report=""):
            return True
        case _:
            return False


def walk(start: Node, direction: Direction, graphs: Mapping[str, Graph | None], limit: int) -> Walk:
    """What led to an event, or what it led to, over all the runs that are known.

    Args:
        start: The event; its run has to be known.
        direction: Which of the two.
        graphs: Runs by their id; None for one that can't be had.
        limit: Events at most, the nearest first.
    """
    wanted: set[str] = set()
    seen = {start: 0}
    queue = [start]
    found: list[Found] = []
    for node in queue:  # grows as it is gone through
        if len(found) >= limit:
            break
        near = _near(node, direction, graphs, wanted)
        found.append(Found(node, seen[node], near))
        for each in near:
            if each not in seen:
                seen[each] = seen[node] + 1
                queue.append(each)
    return Walk(found, frozenset(wanted), len(queue) - len(found))


def _near(
    node: Node, direction: Direction, graphs: Mapping[str, Graph | None], wanted: set[str]
) -> tuple[Node, ...]:
    graph = graphs[node.run]
    assert graph is not None
    if direction == "causes":
        near = [Node(node.run, each) for each in reversed(graph.causes[node.number - 1])]
        link = graph.links.get(node.number)
        for other in _known([link.run] if link else [], graphs, wanted):
            number = other.resolve(link) if link else 0
            near += [Node(other.run, number)] if number else []
        return tuple(near)
    near = [Node(node.run, each) for each in graph.effects[node.number - 1]]
    mine = {node.run, graph.row(node.number).entry.run}
    for other in _known(graph.around(node.number), graphs, wanted):
        near += [
            Node(other.run, number)
            for number, link in other.links.items()
            if link.run in mine and graph.resolve(link) == node.number
        ]
    return tuple(near)


def _known(
    runs: Iterable[str], graphs: Mapping[str, Graph | None], wanted: set[str]
) -> list[Graph]:
    """The runs that are known; of the others it is said that they are wanted."""
    known: list[Graph] = []
    for run in runs:
        if run not in graphs:
            wanted.add(run)
        elif (graph := graphs[run]) is not None:
            known.append(graph)
    return known
