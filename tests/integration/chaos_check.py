"""What has to be true of a run's log, whatever was killed while it was written."""

from collections import Counter

import msgspec

from protocol.actions import Report
from protocol.events import CallSettled, ReportNoted, RunActivated
from replay.chain import RunLog
from replay.jetstream_log import JetStreamLog
from replay.verify import verify_run
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
    verified = await verify_run(log, run)
    assert verified.problems == (), f"run {run}: {verified.problems}"
    assert verified.decided == len(read.commits)
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
