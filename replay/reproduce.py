"""One attempt of a run, as its log has it: what is needed to make it again, and to compare.

Pure: whoever makes it again, and fetches what stands in blobs, is elsewhere.
"""

from difflib import unified_diff
from typing import Final

import msgspec

from protocol.actions import Call, Fault, Json, Report, Status, WorkerSpec
from protocol.errors import NotFound
from protocol.events import AttemptStarted, CallSettled
from protocol.state import RunState
from replay.chain import RunLog
from replay.history import Entry, entries, reports

MAX_NAMED: Final = 12
"""Calls that an error lists of those that there are."""

CONTEXT_LINES: Final = 3
"""Lines of a value around each line that differs."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    status: Status
    fault: Fault
    value: Json

    def differs(self, other: "Result") -> list[str]:
        """Which of its fields are not those of another."""
        names = ("status", "fault", "value")
        return [name for name in names if getattr(self, name) != getattr(other, name)]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a call, or a call that was never started."""

    state: RunState
    """The run at the moment when the attempt was started; of a call that never was, when it had
    settled."""
    call: Call
    attempt: int
    """Its number; 0 for a call that was never started."""
    event: int
    """The number of the event that started it, or settled the call."""
    spec: WorkerSpec | None
    """None if the policy called a worker that there is not."""
    settled: CallSettled | None
    """How the call ended, if it has."""
    report: Report | None
    """What the worker said of this attempt, if it did."""

    @property
    def place(self) -> str:
        """``RUN/CALL/ATTEMPT``."""
        name = f"{self.state.run}/{self.call.id}"
        return f"{name}/{self.attempt}" if self.attempt else name

    @property
    def counts(self) -> bool:
        """Whether the call ended with this attempt."""
        return self.settled is not None and self.settled.attempt == self.attempt


def tried(log: RunLog, call: str, attempt: int | None = None) -> Tried:
    """The attempt of a call: the one that counts, or the last one, if none is named.

    Raises:
        NotFound: There is no such call, or no such attempt of it.
    """
    state = log.state()
    if call not in state.calls:
        some = ", ".join(list(state.calls)[:MAX_NAMED]) or "none"
        more = f" and {len(state.calls) - MAX_NAMED} more" if len(state.calls) > MAX_NAMED else ""
        raise NotFound(f"run {log.run} has no call {call}", hint=f"its calls are: {some}{more}")
    started: dict[int, Entry] = {}
    settled: Entry | None = None
    for entry in entries(log):
        match entry.event:
            case AttemptStarted(call=name, attempt=number) if name == call:
                started[number] = entry
            case CallSettled(call=name) if name == call:
                settled = entry
            case _:
                pass
    end = settled.event if settled is not None and isinstance(settled.event, CallSettled) else None
    if attempt is None:
        attempt = (
            end.attempt if end is not None and end.attempt in started else max(started, default=0)
        )
    elif attempt not in started:
        there = ", ".join(map(str, started)) or "none: its worker was never started"
        raise NotFound(
            f"call {log.run}/{call} has no attempt {attempt}", hint=f"its attempts are: {there}"
        )
    begun = started.get(attempt) or settled
    if begun is None:
        raise NotFound(
            f"call {log.run}/{call} was never started: it waits for others",
            hint=f"look at it: podium runs show {log.run}",
        )
    then = log.state(begun.number)
    return Tried(
        state=then,
        call=then.calls[call].call,
        attempt=attempt,
        event=begun.number,
        spec=then.workers.get(then.calls[call].call.worker),
        settled=end,
        report=_report(log, call, attempt, end),
    )


def _report(log: RunLog, call: str, attempt: int, settled: CallSettled | None) -> Report | None:
    """What the worker said of the attempt: the report that counts, or the first that came."""
    found = reports(log)
    if settled is not None and settled.attempt == attempt and settled.report in found:
        return found[settled.report]
    for report in found.values():
        if (report.call, report.attempt) == (call, attempt):
            return report
    return None


def diff(recorded: Result, made: Result) -> list[str]:
    """What differs, line by line, as ``diff -u`` says it; nothing if nothing does."""
    if not recorded.differs(made):  # 1 and 1.0 are written differently, and are no difference
        return []
    before, after = (_lines(result) for result in (recorded, made))
    found = unified_diff(before, after, "recorded", "reproduced", lineterm="", n=CONTEXT_LINES)
    return list(found)


def _lines(result: Result) -> list[str]:
    data = msgspec.json.encode(result, order="deterministic")
    return msgspec.json.format(data, indent=2).decode().splitlines()
