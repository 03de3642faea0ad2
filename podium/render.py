"""A run as a tree of rounds and calls, made of its log. Pure."""

from typing import Final, Literal, TypeAlias

import msgspec

from podium.render_text import count, duration, money, one_line, value_text
from protocol.actions import Json, Kind, Report, Spend
from protocol.budgets import Limit
from protocol.codec import Commit
from protocol.decisions import asked
from protocol.events import (
    AttemptStarted,
    CallSettled,
    DecisionRejected,
    PolicyAsked,
    PolicyReplied,
    RoundPlanned,
    RunForked,
    RunPaused,
    SignalReceived,
)
from protocol.inbox import OURS, Label, Reward
from protocol.state import CallState, Outcome, Phase, RunState
from protocol.subjects import child_id
from replay.chain import RunLog
from replay.history import entries, reports

NAME_CHARS: Final = 64
"""Characters of a worker's name that are shown: a policy may have named one that is in no pool."""


def spend(spent: Spend) -> str:
    """Tokens and money; empty if there were none."""
    parts = [count(spent.tokens, "token")] if spent.tokens else []
    if spent.cost:
        parts.append(money(spent.cost))
    return " · ".join(parts)


CallLook: TypeAlias = Literal[
    "waiting", "running", "withdrawn", "OK", "PARSE_ERR", "EXEC_ERR", "TIMEOUT"
]


UNSETTLED: Final = ("waiting", "running", "withdrawn")
"""The looks of calls that have no result."""


class CallNode(msgspec.Struct, kw_only=True):
    """One call. Times are milliseconds since the epoch, 0 for not yet."""

    call: str
    worker: str
    kind: Kind
    status: CallLook
    """``waiting`` for another call, ``running`` (queued or worked on), ``withdrawn`` (its run ended
    without it), or how it settled."""
    fault: str
    attempts: int
    began: int
    settled: int
    latency_ms: int
    """Milliseconds of work, as its worker reports them."""
    spent: Spend
    child: str
    """The run that answers it, for a conductor."""
    by: str
    """The replica that worked."""
    arguments: dict[str, Json]
    value: Json
    blob_bytes: int
    """Size of a value that is not in the log itself."""
    shared: bool = False
    """Whether it settled in the log of the run that this one was forked from."""


class TurnNode(msgspec.Struct, kw_only=True):
    """One question to the policy, and the round that came of its reply."""

    turn: int
    asker: str
    asked: int
    replied: int = 0
    latency_ms: int = 0
    version: str = ""
    spent: Spend = Spend()
    error: str = ""
    """Why the policy could not be asked."""
    retry_at: int = 0
    reason: str = ""
    """Why its reply was rejected, as a word."""
    detail: str = ""
    text: str = ""
    """What the policy said beside its calls."""
    round: int = 0
    calls: list[CallNode] = []
    shared: bool = False
    """Whether all of it stands in the log of the run that this one was forked from."""


class RunTree(msgspec.Struct, kw_only=True):
    """A run as people look at it."""

    run: str
    task: str
    policy: str
    workers: int
    phase: Phase
    outcome: Outcome
    started: int
    ended: int
    last: int
    turns: list[TurnNode]
    signals: list[str]
    """What people said to the run, in words."""
    labels: list[Label]
    """What people said of it."""
    rewards: list[Reward]
    paused: str
    detail: str
    limited_by: Limit
    rounds: int
    spent: Spend
    parent: str
    forked_from: str
    """``RUN@EVENT``, for a fork."""
    reason: str
    """Why it was forked, if somebody said."""
    aside: int
    answer: str


class _Seen:
    """What is gathered of a run's events on the way to its tree."""

    def __init__(self) -> None:
        self.turns: list[TurnNode] = []
        self.signals: list[str] = []
        self.begun: dict[str, int] = {}
        """When each call began, milliseconds since the epoch."""
        self.settled: dict[str, int] = {}
        self.own: set[str] = set()
        """Calls of which something happened in the run's own log."""
        self.made_by: dict[str, str] = {}
        """The run that had each call made: for what a fork shares, its origin."""


def tree(log: RunLog) -> RunTree:
    """The tree of a run."""
    state, seen = log.state(), _seen(log)
    known_reports = reports(log)
    by_round: dict[str, list[CallNode]] = {}
    said = [entry.message for entry in log.inbox]
    for call, known in state.calls.items():
        report = known_reports.get(known.report)
        times = (seen.begun.get(call, 0), seen.settled.get(call, 0))
        node = _call(state, known, report, times, seen.made_by.get(call, log.run))
        node.shared = log.origin is not None and call in seen.settled and call not in seen.own
        by_round.setdefault(call.partition("-")[0], []).append(node)
    for turn in seen.turns:
        turn.calls = by_round.get(str(turn.round), [])
        turn.shared = turn.shared and all(call.shared for call in turn.calls)
    return RunTree(
        run=log.run,
        task=state.task.text,
        policy=state.policy.name,
        workers=len(state.pool.workers),
        phase=state.phase,
        outcome=state.outcome,
        started=state.started_at,
        ended=state.ended_at,
        last=log.head.at,
        turns=seen.turns,
        signals=seen.signals,
        labels=[each for each in said if isinstance(each, Label) and each.key not in OURS],
        rewards=[each for each in said if isinstance(each, Reward)],
        paused=state.pause_reason if state.phase == "paused" else "",
        detail=state.pause_detail if state.phase == "paused" else state.detail,
        limited_by=state.limited_by,
        rounds=state.round,
        spent=state.spent,
        parent=state.parent.run if state.parent else "",
        forked_from=f"{state.origin.run}@{state.origin.events}" if state.origin else "",
        reason=log.forked.reason if log.forked else "",
        aside=log.set_aside.total(),
        answer=state.answer,
    )


def _seen(log: RunLog) -> _Seen:
    """When each call began and settled, what was signalled, and the turns without their calls."""
    seen = _Seen()
    turns = seen.turns
    for entry in entries(log):
        own = entry.run == log.run
        match entry.event:
            case RunForked() as event:
                _forked(seen, event)
            case AttemptStarted() as event:
                seen.begun.setdefault(event.call, entry.at)
                seen.made_by[event.call] = entry.run
                seen.own |= {event.call} if own else set()
            case CallSettled() as event:
                seen.settled[event.call] = entry.at
                seen.own |= {event.call} if own else set()
            case SignalReceived() as event:
                seen.signals.append(signal_text(event))
            case PolicyAsked() as event:
                if turns and not turns[-1].replied and turns[-1].turn == event.turn:
                    turns.pop()  # a fork asks again what its origin had asked
                turns.append(TurnNode(turn=event.turn, asker=event.asker, asked=entry.at))
            case PolicyReplied() as event if turns:
                _replied(turns[-1], event, entry.commit)
                turns[-1].shared = not own
            case DecisionRejected() as event if turns:
                turns[-1].reason, turns[-1].detail = event.reason, event.detail
            case RoundPlanned() as event if turns:
                turns[-1].round = event.round
            case _:
                pass
    return seen


def _forked(seen: _Seen, event: RunForked) -> None:
    """The clock of what a fork has to do itself begins with it."""
    for call in event.reopened:
        seen.begun.pop(call, None)
        seen.settled.pop(call, None)
    for call in seen.begun.keys() - seen.settled.keys():
        seen.begun[call], seen.made_by[call] = event.at, event.run


def _replied(turn: TurnNode, event: PolicyReplied, commit: Commit) -> None:
    turn.replied, turn.latency_ms = commit.at, event.latency_ms
    turn.version, turn.spent, turn.text = event.version, event.spend, event.text
    if event.status != "OK":
        turn.error = event.error or event.status
        turn.retry_at = event.retry_at


def _call(
    state: RunState, known: CallState, report: Report | None, times: tuple[int, int], run: str
) -> CallNode:
    call = known.call.id
    spec = state.workers.get(known.call.worker)
    kind: Kind = spec.kind if spec else "tool"
    value = known.value if report is None else report.value
    return CallNode(
        call=call,
        worker=one_line(known.call.worker, NAME_CHARS),
        kind=kind,
        status=known.status or _unsettled(state, known),
        fault=known.fault,
        attempts=known.attempt,
        began=times[0],
        settled=times[1],
        latency_ms=report.latency_ms if report else 0,
        spent=report.spend if report else Spend(),
        child=child_id(run, call, known.attempt) if kind == "conductor" and known.attempt else "",
        by=report.by if report else "",
        arguments=known.call.arguments,
        value=value,
        blob_bytes=report.blob.size if report and report.blob else 0,
    )


def _unsettled(state: RunState, known: CallState) -> CallLook:
    if state.phase == "ended":
        return "withdrawn"
    return "running" if known.attempt else "waiting"


def signal_text(event: SignalReceived) -> str:
    """``cancel by anna: too slow``."""
    why = f": {one_line(event.reason, 200)}" if event.reason else ""
    return f"{event.kind} by {one_line(event.by, 64)}{why}"


def judged_text(run: RunTree) -> list[str]:
    """What was said of the run: ``label good = true, by anna``, a line each."""
    labels = [
        f"label {one_line(each.key, 64)} = {value_text(each.value)}, by {one_line(each.by, 64)}"
        for each in run.labels
    ]
    rewards = [
        f"reward {one_line(each.channel, 64)} = {each.value:g}, by {one_line(each.by, 64)}"
        for each in run.rewards
    ]
    return [*labels, *rewards]


def fork_text(run: RunTree) -> str:
    """``forked from yspt9@23, with 2 rounds of it: another prompt``; empty for no fork."""
    if not run.forked_from:
        return ""
    shared = sum(turn.shared and turn.round > 0 for turn in run.turns)
    text = f"forked from {run.forked_from}"
    text += f", with {count(shared, 'round')} of it" if shared else ""
    return text + (f": {one_line(run.reason, 200)}" if run.reason else "")


def pause_text(event: RunPaused) -> str:
    """Why a run is paused."""
    return f"{event.reason}: {one_line(event.detail, 300)}" if event.detail else event.reason


def call_text(call: CallNode, *, content: bool) -> tuple[str, str]:
    """What is said to a call's worker, and what came back: each on one line.

    Args:
        call: The call.
        content: False leaves out all that agents wrote.
    """
    if not content:
        return call.call, call.fault if call.fault != "none" else ""
    asked = arguments_text(call.arguments)
    if call.status in UNSETTLED:
        return asked, ""
    return asked, observed_text(call.value, call.blob_bytes, call.arguments)


def arguments_text(arguments: dict[str, Json]) -> str:
    """What is said to a call's worker, on one line."""
    return ", ".join(
        f"{one_line(key, 40)}: {value_text(value)}" for key, value in arguments.items()
    )


def observed_text(value: Json, blob_bytes: int, arguments: dict[str, Json]) -> str:
    """What came back, on one line, without what only repeats the arguments.

    Args:
        value: The value, if it is in the log itself.
        blob_bytes: Its size, if it is not.
        arguments: Of the call.
    """
    if blob_bytes:
        return f"({blob_bytes:,} bytes, in a blob)"
    return value_text(value, apart_from=tuple(arguments.values()))


def took(call: CallNode, now: int) -> int | None:
    """Milliseconds from a call's first attempt until it settled, or until now if it goes on."""
    if not call.began or call.status == "withdrawn":
        return None
    return max(0, (call.settled or now) - call.began)


def deciders(run: RunTree) -> list[str]:
    """The versions of the policies that made the run's decisions, each once."""
    said = (turn.version for turn in run.turns if turn.asker == "policy" and not turn.error)
    return list(dict.fromkeys(filter(None, said)))


def decided(run: RunTree) -> str:
    """Who decided, for a policy that is several: ``the rules (it is worded otherwise: …)``."""
    from actors.policies.conductor import BY_RULES, NAME

    made = [turn for turn in run.turns if turn.version]
    if asked(run.policy) != NAME or not made:
        return ""
    shares = [turn.text.startswith(BY_RULES) for turn in made]
    who = "the conductor" if not shares[0] else ""
    if not any(shares):
        return who
    first = made[shares.index(True)].text.removeprefix(BY_RULES)
    why = one_line(first.partition("\n")[0])
    return f"{f'{who}, then ' if who else ''}the rules ({why})"


def summary(run: RunTree, now: int) -> str:
    """``2 rounds · 3 calls · 1.9 s``."""
    parts = [count(run.rounds, "round"), count(run.spent.calls, "call")]
    if run.started:
        parts.append(duration((run.ended or now) - run.started))
    if spend(run.spent):
        parts.append(spend(run.spent))
    return " · ".join(parts)
