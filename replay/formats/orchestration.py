"""A run and all runs below it as one orchestration trace (the schema of arXiv 2605.02801).

A temporal interaction graph: events of agents, and edges that say why. Times are seconds since the
first event.

==========================  =======================================================================
a reply of the policy       ``orchestrator_decision`` of the run's conductor
an attempt                  ``tool_call``; to an agent ``message``; of a child run ``spawn``
what counts for a call      ``tool_result``; of an agent or a child run ``return``
a round that has closed     ``aggregate``
the end of a child run      ``return``, then ``despawn``; of the root, ``return`` to the user
a signal of a person        ``human_intervention``
a pause that nobody wished  ``safety_event``
==========================  =======================================================================

Events may carry keys of their own; ours stand under ``podium``. Content is named by its hash
(``content_ref``), and stands there too where it is asked for.
"""

from typing import Any, Final

from protocol.actions import Fault, Status
from protocol.events import (
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunPaused,
    RunStarted,
    SignalReceived,
)
from protocol.state import RunState
from replay.formats.common import KEY, Tree, ref, rewards, text
from replay.history import Entry, entries

USER: Final = "user"

Object = dict[str, Any]


def trace(tree: Tree, *, content: bool = False) -> Object:
    """The trace of a run, JSON-ready.

    Args:
        tree: The run, and those below it.
        content: Whether texts, arguments and values are in it besides their hashes.
    """
    graph = _Graph(content)
    walk = _Walk(graph, tree, "")
    walk.all()
    graph.events.sort(key=lambda event: event["t"])  # stable: cause before effect
    start = graph.events[0]["t"] if graph.events else 0
    for event in graph.events:
        event["t"] = (event["t"] - start) / 1_000
    state = tree.log.state()
    types = [event["type"] for event in graph.events]
    return {
        "trace_id": tree.log.run,
        "task_id": ref(state.task.text),
        "system": "podium",
        "topology": "hierarchical" if tree.below else "centralized",
        "events": graph.events or [_nothing(tree)],
        "edges": graph.edges,
        "rewards": {each.channel: each.value for each in rewards(tree.log)},
        "costs": {
            "tokens": state.spent.tokens,
            "wall_clock_s": max(0, tree.log.head.at - state.started_at) / 1_000
            if state.started_at
            else 0.0,
            "tool_calls": types.count("tool_call"),
            "messages": types.count("message"),
        },
    }


def _nothing(tree: Tree) -> Object:
    """The one event of a run that has not begun."""
    agent = _conductor(tree.log.run)
    return {"id": f"{tree.log.run}@0", "t": 0.0, "type": "message", "agent": USER, "to": agent}


def _conductor(run: str) -> str:
    return f"conductor/{run}"


class _Graph:
    """Events and edges, as they are found."""

    def __init__(self, content: bool) -> None:
        self.content = content
        self.events: list[Object] = []
        self.edges: list[Object] = []
        self.by_id: dict[str, Object] = {}

    def add(self, entry: Entry, run: str, kind: str, agent: str, **more: Any) -> str:
        """One more event; its id."""
        name = base = f"{run}@{entry.number}"
        number = 1
        while name in self.by_id:
            name, number = f"{base}.{number}", number + 1
        event: Object = {"id": name, "t": entry.at, "type": kind, "agent": agent}
        about: Object = {"event": entry.kind, **more.pop("about", {})}
        if "value" in more:
            value = more.pop("value")
            event["content_ref"] = ref(value)
            if self.content:
                about["content"] = text(value)
        event.update({key.rstrip("_"): value for key, value in more.items()})
        event[KEY] = about
        self.events.append(event)
        self.by_id[name] = event
        return name

    def edge(self, source: str, target: str, kind: str) -> None:
        """Why an event happened; nothing where the cause isn't there."""
        if source and target:
            self.edges.append({"src": source, "dst": target, "type": kind})


class _Walk:
    """One run of the tree."""

    def __init__(self, graph: _Graph, tree: Tree, cause: str) -> None:
        self.graph, self.tree = graph, tree
        self.state: RunState = tree.log.state()
        self.run = tree.log.run
        self.me = _conductor(self.run)
        self.cause = cause
        """The event that began it, in the run above."""
        self.end = ""
        """The event with which it ended, for the run above."""
        self._last = ""
        self._kind = "temporal"
        self._decided = ""
        self._sent: dict[str, str] = {}
        """The event that sent each call's last attempt."""
        self._came: dict[str, str] = {}
        """The event with which each call came back."""
        self._ends: dict[str, str] = {}
        """By call, the event with which its child run ended."""
        self._round: list[str] = []
        self._risk = ""

    def all(self) -> None:
        """Every event of the run, and of those below it where they begin."""
        for entry in entries(self.tree.log):
            self._take(entry)

    def _next(self, name: str) -> None:
        """Join an event with the one before it in this run."""
        self.graph.edge(self._last, name, self._kind)
        self.graph.edge(self._risk, name, "safety_flow")
        self._last, self._kind, self._risk = name, "temporal", ""

    def _add(self, entry: Entry, kind: str, agent: str, **more: Any) -> str:
        return self.graph.add(entry, self.run, kind, agent, **more)

    def _take(self, entry: Entry) -> None:
        match entry.event:
            case RunStarted() as started:
                above = _conductor(started.parent.run) if started.parent is not None else USER
                name = self._add(entry, "message", above, to=self.me, value=started.task.text)
                self.graph.edge(self.cause, name, "spawn")
                self._next(name)
            case PolicyReplied() as replied:
                self._decide(entry, replied)
            case DecisionRejected() as rejected if self._decided:
                self.graph.by_id[self._decided][KEY]["rejected"] = rejected.reason
            case AttemptStarted() as attempt:
                self._send(entry, attempt)
            case CallSettled() as settled:
                self._settle(entry, settled, settled.status, settled.fault)
            case ReportNoted(usable=True) as noted:
                self._settle(entry, noted, "OK", "none")
            case RoundClosed() as closed:
                name = self._add(
                    entry, "aggregate", self.me, role="orchestrator", about={"round": closed.round}
                )
                for each in self._round:
                    self.graph.edge(each, name, "aggregate")
                self._round = []
                self._last, self._kind = name, "causal"
            case SignalReceived() as signal if not signal.by.startswith("run:"):
                name = self._add(
                    entry,
                    "human_intervention",
                    signal.by or USER,
                    to=self.me,
                    about={"kind": signal.kind},
                )
                self._next(name)
            case RunPaused() as paused if paused.reason != "signal":
                name = self._add(entry, "safety_event", self.me, about={"reason": paused.reason})
                self._next(name)
                self._risk = name
            case RunFinished() | RunFailed() | RunCancelled():
                self._finish(entry)
            case _:
                pass

    def _decide(self, entry: Entry, replied: PolicyReplied) -> None:
        about = {"turn": replied.turn, "status": replied.status, "version": replied.version}
        self._decided = self._add(
            entry,
            "orchestrator_decision",
            self.me,
            role="orchestrator",
            value=_said(replied),
            about=about,
        )
        self._next(self._decided)

    def _send(self, entry: Entry, attempt: AttemptStarted) -> None:
        known = self.state.calls.get(attempt.call)
        if known is None:
            return
        call, worker = known.call, self.state.workers.get(known.call.worker)
        child = self.tree.child(entry.run, attempt.call, attempt.attempt)
        about = {"call": attempt.call, "attempt": attempt.attempt}
        more: Object = {"value": call.arguments, "about": about, "from": self.me}
        if worker is not None and worker.kind == "conductor":
            run = child.log.run if child is not None else f"{self.run}/{attempt.call}"
            name = self._add(entry, "spawn", self.me, to=_conductor(run), **more)
        elif worker is not None and worker.kind == "agent":
            name = self._add(entry, "message", self.me, to=call.worker, **more)
        else:
            name = self._add(entry, "tool_call", self.me, to=call.worker, tool=call.worker, **more)
        self.graph.edge(self._sent.get(attempt.call, "") or self._decided, name, "causal")
        for before in call.after:
            self.graph.edge(self._came.get(before, ""), name, "tool_dependency")
        self._sent[attempt.call] = name
        if child is not None:
            below = _Walk(self.graph, child, name)
            below.all()
            self._ends[attempt.call] = below.end

    def _settle(
        self, entry: Entry, settled: CallSettled | ReportNoted, status: Status, fault: Fault
    ) -> None:
        known = self.state.calls.get(settled.call)
        if known is None:
            return
        worker = self.state.workers.get(known.call.worker)
        if settled.report:
            value = self.tree.values.get(settled.report)
        else:
            value = settled.value if isinstance(settled, CallSettled) else None
        about = {"call": settled.call, "status": status, "fault": fault}
        more: Object = {"to": self.me, "value": value, "about": about}
        sent = self._sent.get(settled.call, "")
        name = self._ends.get(settled.call, "")
        if name:
            pass  # the child run's own last event
        elif worker is None or worker.kind == "tool":
            name = self._add(
                entry, "tool_result", known.call.worker, tool=known.call.worker, **more
            )
            self.graph.edge(sent, name, "tool_dependency")
        else:
            name = self._add(entry, "return", known.call.worker, **more)
            self.graph.edge(sent, name, "return")
        self._came[settled.call] = name
        self._round.append(name)

    def _finish(self, entry: Entry) -> None:
        parent = self.state.parent
        above = _conductor(parent.run) if parent is not None else USER
        about = {"status": self.state.outcome, "limited_by": self.state.limited_by}
        value = self.state.answer if self.state.outcome == "finished" else self.state.detail
        name = self._add(entry, "return", self.me, to=above, value=value, about=about)
        self._next(name)
        self.graph.edge(self.cause, name, "return")
        self.end = name
        if parent is not None:
            gone = self._add(entry, "despawn", self.me)
            self.graph.edge(name, gone, "temporal")


def _said(replied: PolicyReplied) -> Any:
    """What stands for a reply: its decision, or the text of one that is none."""
    if replied.decision is None or replied.decision.accepts:
        accepted = replied.decision.answers if replied.decision is not None else ""
        return replied.text or accepted or replied.error
    if replied.decision.answer is not None:
        return replied.decision.answer
    return [{"worker": call.worker, "arguments": call.arguments} for call in replied.decision.calls]
