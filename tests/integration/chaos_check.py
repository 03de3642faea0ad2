"""What has to be true of a run's log, whatever was killed while it was written."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from protocol.actions import Report
from protocol.codec import Commit, digest, encode
from protocol.commands import Activate, Command, Deadline, Inbox, PolicyReply, Start
from protocol.decisions import Reply
from protocol.events import CallSettled, PolicyReplied, ReportNoted, RunActivated, RunStarted
from protocol.inbox import Signal
from protocol.run import fold, step
from protocol.state import RunState
from replay.chain import RunLog
from replay.jetstream_log import JetStreamLog
from tests.integration import chaos_pool


class Found(msgspec.Struct):
    """What the logs of many runs say together."""

    runs: int = 0
    children: int = 0
    commits: int = 0
    activations: int = 0
    calls: int = 0
    reports: int = 0
    noted: int = 0
    """Reports recorded as late, or as tried again."""
    unread: int = 0
    """Reports that nobody had to look at: a copy, or after the run's end."""


async def check(log: JetStreamLog, run: str, answer: str, found: Found) -> None:
    """Read a run and its children, and fail if anything in them is wrong."""
    read = await log.read(run)
    state = read.state()
    assert state.outcome == "finished", f"run {run}: {state.phase} {state.outcome} {state.detail}"
    assert state.answer == answer, f"run {run} answers {state.answer}, undisturbed it is {answer}"
    assert not state.limited_by
    one_report_each(read)
    verifies(read)
    found.runs += 1
    count(read, found)


def one_report_each(log: RunLog) -> None:
    """Each call has settled once, by a report that stands in the inbox and has the right value."""
    reports = {entry.hash: entry.message for entry in log.inbox}
    events = [event for commit in log.commits for event in commit.events]
    settled = [event for event in events if isinstance(event, CallSettled)]
    state = log.state()
    assert Counter(event.call for event in settled) == Counter(dict.fromkeys(state.calls, 1))
    for event in settled:
        report = reports.get(event.report)
        assert isinstance(report, Report), f"run {log.run}, call {event.call}: no such report"
        assert (report.call, report.attempt) == (event.call, event.attempt)
        call = state.calls[event.call].call
        if call.worker != "band":
            make = {"grow": chaos_pool.grown, "shift": chaos_pool.shifted}[call.worker]
            assert report.value == make(call.arguments["n"])


def verifies(log: RunLog) -> None:
    """Nothing foreign, a whole chain, and the rules decide again what they decided then."""
    assert not log.aside, f"run {log.run}: {log.aside}"
    prev, inbox, state = "", {entry.hash: entry.message for entry in log.inbox}, RunState()
    for n, commit in enumerate(log.commits, 1):
        assert (commit.n, commit.prev) == (n, prev)
        commands = [command(cause, commit, inbox) for cause in commit.causes]
        draft = step(state, commands, commit.at)
        assert tuple(draft.events) == commit.events, f"run {log.run}, commit {n}: decided otherwise"
        state = fold(state, commit.events)
        assert state == draft.state, f"run {log.run}, commit {n}: folded otherwise"
        prev = digest(encode(commit))
    assert prev == log.head.hash


def command(cause: str, commit: Commit, inbox: Mapping[str, object]) -> Command:
    """The command that a cause names, from what the log has of it."""
    kind, _, rest = cause.partition(":")
    events = commit.events
    if kind == "inbox":
        message = inbox[rest]
        assert isinstance(message, Report | Signal)
        return Inbox(rest, message)
    if kind == "deadline":
        return Deadline()
    if kind == "activation":
        activated = next(event for event in events if isinstance(event, RunActivated))
        return Activate(activated.conductor, activated.rules)
    if kind == "policy":
        said = next(e for e in events if isinstance(e, PolicyReplied) and e.turn == int(rest))
        shared = set(Reply.__struct_fields__) & set(PolicyReplied.__struct_fields__)
        reply = Reply(**{name: getattr(said, name) for name in shared})
        return PolicyReply(said.turn, reply)
    assert kind == "start"
    begun = next(event for event in events if isinstance(event, RunStarted))
    shared = set(Start.__struct_fields__) & set(RunStarted.__struct_fields__)
    return Start(**{name: getattr(begun, name) for name in shared})


def count(log: RunLog, found: Found) -> None:
    """Add a run to the sums."""
    state = log.state()
    events = [event for commit in log.commits for event in commit.events]
    known = {each for call in state.calls.values() for each in call.noted}
    reports = [entry.hash for entry in log.inbox if isinstance(entry.message, Report)]
    found.children += state.parent is not None
    found.commits += len(log.commits)
    found.activations += sum(isinstance(event, RunActivated) for event in events)
    found.calls += len(state.calls)
    found.reports += len(reports)
    found.noted += sum(isinstance(event, ReportNoted) for event in events)
    found.unread += sum(each not in known for each in reports) + len(reports) - len(set(reports))
