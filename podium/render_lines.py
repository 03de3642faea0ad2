"""A run told in plain lines, for pipes, logs and terminals without colours."""

from collections.abc import Iterator

from podium.render import CallNode, RunTree, TurnNode, call_text
from podium.render_text import count, duration, one_line
from podium.words import settled, told
from protocol.events import (
    AnswerGiven,
    AnyEvent,
    Archived,
    AttemptStarted,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RunActivated,
    UnknownEvent,
)
from replay.chain import RunLog
from replay.timeline import timeline


def story(log: RunLog, told_before: int = 0, *, content: bool = False) -> list[str]:
    """What has happened after the first ``told_before`` commits, a line for each event worth one.

    Args:
        log: The run's log.
        told_before: Commits that have been told before.
        content: Whether to show what agents wrote.
    """
    run = timeline(log)
    began = log.commits[0].at if log.commits else 0
    first = log.shared + sum(len(commit.events) for commit in log.commits[:told_before])
    return [
        f"{duration(row.entry.at - began):>9}  {told(row, run, content=content)}"
        for row in run.rows[first:]
        if _worth_a_line(row.entry.event)
    ]


def _worth_a_line(event: AnyEvent) -> bool:
    match event:
        case RunActivated(epoch=epoch):
            return epoch > 1
        case PolicyReplied(status=status):
            return status != "OK"
        case PolicyAsked() | AttemptStarted() | ReportNoted() | RoundClosed() | AnswerGiven():
            return False
        case Archived() | UnknownEvent():
            return False
        case _:
            return True


def _settled(call: CallNode, content: bool) -> str:
    asked, got = call_text(call, content=content) if content else ("", "")
    return settled(
        (call.call, call.worker, call.status), call.latency_ms, call.spent, asked=asked, got=got
    )


def tree_lines(run: RunTree, now: int, *, content: bool = False) -> list[str]:
    """A whole run as plain lines: for `runs show` in a pipe."""
    lines: list[str] = []
    for turn in run.turns:
        lines += _turn_lines(turn, now, content, ended=bool(run.outcome))
    return lines


def _turn_lines(turn: TurnNode, now: int, content: bool, *, ended: bool) -> Iterator[str]:
    if turn.error:
        yield f"policy failed: {one_line(turn.error)}"
    elif turn.reason:
        detail = f": {one_line(turn.detail)}" if content else ""
        yield f"reply {turn.turn} rejected ({turn.reason}){detail}"
    elif turn.round:
        yield f"round {turn.round}  {count(len(turn.calls), 'call')}"
        for call in turn.calls:
            yield f"  {_settled(call, content)}"
    elif not turn.replied and ended:
        yield f"the {turn.asker} had not replied"
    elif not turn.replied:
        yield f"asking the {turn.asker} for {duration(now - turn.asked)}"
    else:
        yield "answer"
