"""A run told in plain lines, for pipes, logs and terminals without colours."""

from collections.abc import Iterator

from podium.render import (
    CallNode,
    RunTree,
    TurnNode,
    call_text,
    fork_text,
    pause_text,
    signal_text,
    spend,
    tree,
)
from podium.render_text import count, duration, one_line
from protocol.codec import Commit
from protocol.events import (
    AnyEvent,
    BudgetExtended,
    CallSettled,
    DecisionRejected,
    PolicyReplied,
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
from protocol.views import LIMIT_TEXTS
from replay.chain import RunLog


def story(log: RunLog, told: int = 0, *, content: bool = False) -> list[str]:
    """What has happened after the first ``told`` commits, a line for each event worth one.

    Args:
        log: The run's log.
        told: Commits that have been told before.
        content: Whether to show what agents wrote.
    """
    run = tree(log)
    calls = {call.call: call for turn in run.turns for call in turn.calls}
    lines = []
    for commit in log.commits[told:]:
        for event in commit.events:
            since = max(0, commit.at - run.started)
            lines += [f"{duration(since):>9}  {text}" for text in _told(event, run, calls, content)]
    return lines


def commit_story(commit: Commit, run: RunTree) -> list[str]:
    """The names of a commit's events, for who wants all of them."""
    since = duration(max(0, commit.at - run.started))
    names = ", ".join(type(event).__name__ for event in commit.events)
    return [f"{since:>9}  {commit.n}: {names}"]


def _told(
    event: AnyEvent, run: RunTree, calls: dict[str, CallNode], content: bool
) -> Iterator[str]:
    match event:
        case RunStarted():
            yield f"run {event.run} begins: {one_line(event.task.text)}"
        case RunForked():
            yield f"run {event.run} begins, {fork_text(run)}"
        case RunActivated() if event.epoch > 1:
            yield f"taken over by another conductor (epoch {event.epoch})"
        case PolicyReplied() if event.status != "OK":
            yield f"the policy could not be asked: {one_line(event.error)}"
        case DecisionRejected():
            detail = f": {one_line(event.detail)}" if content else ""
            yield f"reply {event.turn} rejected ({event.reason}){detail}"
        case RoundPlanned():
            planned = [c for c in calls.values() if c.call.startswith(f"{event.round}-")]
            names = ", ".join(call.worker for call in planned)
            yield f"round {event.round}: {count(len(planned), 'call')}: {names}"
        case CallSettled():
            yield _settled(calls[event.call], content)
        case SignalReceived():
            yield f"signal: {signal_text(event)}"
        case RunPaused():
            yield f"paused: {pause_text(event)}"
        case RunResumed():
            yield "resumed"
        case BudgetExtended():
            yield "budget extended"
        case RunFinished():
            limited = LIMIT_TEXTS.get(run.limited_by) if run.limited_by else ""
            yield f"answered, incomplete: {limited}" if limited else "answered"
        case RunFailed():
            yield f"failed: {event.reason}: {one_line(event.detail)}"
        case RunCancelled():
            why = f": {one_line(event.reason)}" if event.reason else ""
            yield f"cancelled by {one_line(event.by)}{why}"
        case _:
            pass


def _settled(call: CallNode, content: bool) -> str:
    asked, got = call_text(call, content=content)
    parts = [call.call, call.worker, call.status]
    if call.latency_ms:
        parts.append(duration(call.latency_ms))
    if spend(call.spent):
        parts.append(spend(call.spent))
    text = "  ".join(parts)
    if content:
        text += f"  ({asked})" if asked else ""
        text += f" -> {got}" if got else ""
    return text


def tree_lines(run: RunTree, now: int, *, content: bool = False) -> list[str]:
    """A whole run as plain lines: for `runs show` in a pipe."""
    lines: list[str] = []
    for turn in run.turns:
        lines += _turn_lines(turn, now, content)
    return lines


def _turn_lines(turn: TurnNode, now: int, content: bool) -> Iterator[str]:
    if turn.error:
        yield f"policy failed: {one_line(turn.error)}"
    elif turn.reason:
        detail = f": {one_line(turn.detail)}" if content else ""
        yield f"reply {turn.turn} rejected ({turn.reason}){detail}"
    elif turn.round:
        yield f"round {turn.round}  {count(len(turn.calls), 'call')}"
        for call in turn.calls:
            yield f"  {_settled(call, content)}"
    elif not turn.replied:
        yield f"asking the {turn.asker} for {duration(now - turn.asked)}"
    else:
        yield "answer"
