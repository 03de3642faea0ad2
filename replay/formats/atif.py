"""A run as an agent trajectory, ATIF 1.8.

=============================  ====================================================================
run, child run                 trajectory; an embedded subagent, named by its run id
the task                       the first step, of the user
a reply of the policy          an agent's step; without a model behind it, ``llm_call_count`` is 0
calls of a round               its ``tool_calls``, by the call's id
observations                   results of the *same* step, status and fault in ``extra``
what came after its round      results of a system step, before the reply that was shown them
a reply that is no decision    a step without tool calls, and a result without a call
signals, pauses, budgets       steps of the system
what a fork shares             steps with ``is_copied_context``
rewards, labels, outcome       ``extra`` of the trajectory, and of its final metrics
=============================  ====================================================================

All that ATIF has no field for stands under one key, ``podium``.
"""

from typing import Any, Final

from protocol.actions import Fault, Status
from protocol.decisions import WRITTEN, Decision, asked
from protocol.dialects.shared import STILL_OPEN
from protocol.events import (
    AnswerGiven,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RoundPlanned,
    RunCancelled,
    RunFailed,
    RunForked,
    RunPaused,
    RunResumed,
    RunStarted,
    SignalReceived,
)
from protocol.state import RunState
from replay.formats.common import KEY, Tree, iso, labels, ref, rewards, text
from replay.history import Entry, entries

SCHEMA: Final = "ATIF-v1.8"

_MODELS: Final = ("openai", "local")
"""What the name of a policy with a model behind it begins with, before the colon."""

_LATE: Final = "results of earlier calls"

Object = dict[str, Any]


def trajectory(tree: Tree, *, version: str, content: bool = False) -> Object:
    """The trajectory of a run, JSON-ready.

    Args:
        tree: The run, and those below it.
        version: Of Podium.
        content: Whether texts, arguments and values are in it; else the hash of each.
    """
    return _trajectory(tree, tree.log.run, version, content)


def _trajectory(tree: Tree, session: str, version: str, content: bool) -> Object:
    state = tree.log.state()
    steps = _Steps(tree, state, content)
    for entry in entries(tree.log):
        steps.take(entry)
    found: Object = {
        "schema_version": SCHEMA,
        "session_id": session,
        "trajectory_id": tree.log.run,
        "agent": _agent(state, version, content),
        "steps": steps.numbered(),
        "final_metrics": {
            "total_cost_usd": state.spent.cost / 1e6,
            "total_steps": len(steps.steps),
            "extra": {
                KEY: {
                    "tokens": state.spent.tokens,
                    "calls": state.spent.calls,
                    "rounds": state.round,
                    "rewards": {each.channel: each.value for each in rewards(tree.log)},
                }
            },
        },
        "extra": {KEY: _about(tree, state, content)},
    }
    if tree.below:
        found["subagent_trajectories"] = [
            _trajectory(child, session, version, content) for child in tree.below.values()
        ]
    return found


def _agent(state: RunState, version: str, content: bool) -> Object:
    agent: Object = {"name": "podium", "version": version}
    if model := _model(state):
        agent["model_name"] = model
    agent["tool_definitions"] = [
        {
            "type": "function",
            "function": {
                "name": worker.name,
                "parameters": worker.parameters,
                **({"description": worker.description} if content else {}),
            },
        }
        for worker in state.pool.workers
    ]
    agent["extra"] = {KEY: {"policy": state.policy.name, "dialect": state.policy.dialect}}
    return agent


def _about(tree: Tree, state: RunState, content: bool) -> Object:
    about: Object = {
        "run": tree.log.run,
        "status": state.outcome or state.phase,
        "limited_by": state.limited_by,
        "head": {"n": tree.log.head.n, "hash": tree.log.head.hash},
        "rewards": [
            {"channel": each.channel, "value": each.value, "by": each.by, "head": each.head}
            for each in rewards(tree.log)
        ],
        "labels": [
            {"key": each.key, "value": each.value if content else ref(each.value), "by": each.by}
            for each in labels(tree.log)
        ],
    }
    if state.parent is not None:
        parent = state.parent
        about["parent"] = {"run": parent.run, "call": parent.call, "attempt": parent.attempt}
    forked = tree.log.forked
    if forked is not None:
        about["origin"] = {"run": forked.origin.run, "events": forked.origin.events}
    return about


class _Steps:
    """The steps of one run, as its events are read."""

    def __init__(self, tree: Tree, state: RunState, content: bool) -> None:
        self.tree, self.state, self.content = tree, state, content
        self.steps: list[Object] = []
        self._asker = "policy"
        self._replied: Object | None = None
        """The step of the last reply, until something has come of it."""
        self._decision: Decision | None = None
        self._by_call: dict[str, Object] = {}
        self._left: set[str] = set()
        """The calls that went on when their round was closed."""
        self._news: list[Object] = []
        """Results that came when their round was over, and no question has shown yet."""
        self._last: Entry | None = None

    def numbered(self) -> list[Object]:
        """All steps; one of the user where nothing has happened yet."""
        if self._last is not None:
            self._hear(self._last)
        steps = self.steps or [{"source": "user", "message": ""}]
        return [{"step_id": number, **step} for number, step in enumerate(steps, 1)]

    def _shown(self, value: Any) -> str:
        return text(value) if self.content else ref(value)

    def _add(self, entry: Entry, step: Object) -> Object:
        if entry.run != self.tree.log.run:
            step["is_copied_context"] = True
        step["timestamp"] = iso(entry.at)
        self.steps.append(step)
        return step

    def take(self, entry: Entry) -> None:
        """One more event."""
        self._last = entry
        match entry.event:
            case RunStarted() as started:
                said = self._shown(started.task.text)
                self._add(entry, {"source": "user", "message": said})
            case PolicyAsked() as question:
                self._asker = question.asker
                self._hear(entry)
            case PolicyReplied() as replied:
                self._reply(entry, replied)
            case DecisionRejected() as rejected if self._replied is not None:
                result = {
                    "content": self._shown(rejected.detail),
                    "extra": {KEY: {"status": "PARSE_ERR", "reason": rejected.reason}},
                }
                self._replied["observation"] = {"results": [result]}
                self._replied = None
            case RoundPlanned() as planned:
                self._plan(planned)
            case AnswerGiven() if self._replied is not None and self._decision is not None:
                self._replied["message"] = self._shown(self._decision.answer or "")
                self._replied = None
            case CallSettled() as settled:
                self._settle(entry, settled, settled.status, settled.fault)
            case ReportNoted(usable=True) as noted:
                self._left.add(noted.call)  # its round has been told that it failed
                self._settle(entry, noted, "OK", "none")
            case RoundClosed() as closed:
                self._close(closed)
            case _:
                self._system(entry)

    def _reply(self, entry: Entry, replied: PolicyReplied) -> None:
        about: Object = {"turn": replied.turn, "asker": self._asker, "status": replied.status}
        if replied.version:
            about["version"] = replied.version
        if replied.prompt:
            about["prompt"] = replied.prompt
        if replied.error:
            about["error"] = self._shown(replied.error)
        by_policy = self._asker == "policy" and replied.version != WRITTEN
        modelled = by_policy and bool(_model(self.state))
        step: Object = {
            "source": "agent",
            "message": self._shown(replied.text) if replied.text else "",
            "llm_call_count": int(modelled),
            "extra": {KEY: about},
        }
        if modelled:
            if replied.version:
                step["model_name"] = replied.version
            step["metrics"] = {
                "cost_usd": replied.spend.cost / 1e6,
                "extra": {KEY: {"tokens": replied.spend.tokens, "latency_ms": replied.latency_ms}},
            }
        self._replied, self._decision = self._add(entry, step), replied.decision

    def _plan(self, planned: RoundPlanned) -> None:
        step, decision = self._replied, self._decision
        if step is None or decision is None:
            return
        step["extra"][KEY]["round"] = planned.round
        calls: list[Object] = []
        for index, call in enumerate(decision.calls):
            name = f"{planned.round}-{index}"
            shown = call.arguments if self.content else {"$ref": ref(call.arguments)}
            made = {"tool_call_id": name, "function_name": call.worker, "arguments": shown}
            if after := call.waits(planned.round):
                made["extra"] = {KEY: {"after": list(after)}}
            calls.append(made)
            self._by_call[name] = step
        step["tool_calls"] = calls
        self._replied = None

    def _close(self, closed: RoundClosed) -> None:
        """Say of each call that goes on what the policy is shown in place of its result."""
        for name in closed.left:
            step = self._by_call.get(name)
            if step is not None and name not in self._left:
                _observe(step, {"source_call_id": name, "content": STILL_OPEN})
        self._left.update(closed.left)

    def _hear(self, entry: Entry) -> None:
        """What came when its round was over: a result has to stand in the step of its call."""
        if self._news:
            step: Object = {"source": "system", "message": _LATE}
            step["observation"] = {"results": self._news}
            self._add(entry, step)
            self._news = []

    def _settle(
        self, entry: Entry, settled: CallSettled | ReportNoted, status: Status, fault: Fault
    ) -> None:
        step = self._by_call.get(settled.call)
        if step is None:
            return
        if settled.report:
            value = self.tree.values.get(settled.report)
        else:
            value = settled.value if isinstance(settled, CallSettled) else None
        about: Object = {
            "status": status,
            "fault": fault,
            "attempt": settled.attempt,
            "tokens": settled.spend.tokens,
            "cost_usd": settled.spend.cost / 1e6,
            "settled": iso(entry.at),
        }
        if settled.report:
            about["report"] = settled.report
        result: Object = {"content": self._shown(value), "extra": {KEY: about}}
        child = self.tree.child(entry.run, settled.call, settled.attempt)
        if child is not None:
            result["subagent_trajectory_ref"] = [{"trajectory_id": child.log.run}]
        if settled.call in self._left:
            about["call"] = settled.call
            self._news.append(result)
        else:
            _observe(step, {"source_call_id": settled.call, **result})

    def _system(self, entry: Entry) -> None:
        """What happened to the run from outside, in a word; why, where content is asked for."""
        why = ""
        match entry.event:
            case SignalReceived() as signal:
                said, why = f"signal: {signal.kind}", signal.reason
            case RunPaused() as paused:
                said, why = f"paused: {paused.reason}", paused.detail
            case RunResumed():
                said = "resumed"
            case BudgetExtended():
                said = "budget extended"
            case RunForked() as forked:
                said, why = f"forked from {forked.origin.run}", forked.reason
            case RunFailed() as failed:
                said, why = f"failed: {failed.reason}", failed.detail
            case RunCancelled() as cancelled:
                said, why = "cancelled", cancelled.reason
            case _:
                return
        message = f"{said} ({why})" if why and self.content else said
        about = {"event": entry.number, "type": entry.kind}
        self._add(entry, {"source": "system", "message": message, "extra": {KEY: about}})


def _model(state: RunState) -> str:
    """The model behind the policy; empty for none."""
    kind, _, model = asked(state.policy.name).partition(":")
    return model if kind in _MODELS else ""


def _observe(step: Object, result: Object) -> None:
    """Add a result to those of a step."""
    step.setdefault("observation", {"results": []})["results"].append(result)
