"""What has to be true of a history, whatever went wrong in it.

Everything is read from what the simulated server holds at the end, and folded and decided again by
the rules; nothing is taken from the processes but what they believed and what they were told.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from podium.sim.scenario import PRICE, Job, decided, expected, made, number
from podium.sim.world import World
from protocol import subjects
from protocol.actions import NOTHING, Report
from protocol.budgets import short_of
from protocol.codec import Commit, decode_value, digest, encode
from protocol.decisions import Decision
from protocol.errors import PodiumError
from protocol.events import AttemptStarted, CallSettled, PolicyAsked
from protocol.inbox import Signal
from protocol.run import fold
from protocol.state import RunState
from protocol.views import child_report, view
from replay import history
from replay.chain import RunLog, Stored, assemble
from replay.forks import check_origin
from replay.redecide import redecide


class Logs:
    """The runs as the server holds them.

    Args:
        world: The history, over.
    """

    def __init__(self, world: World) -> None:
        self._streams = world.server.streams
        self.runs = {run: self._read(run) for run in sorted(world.begun)}
        for log in self.runs.values():
            if log.forked is not None:
                log.origin = self.runs.get(log.forked.origin.run)

    def _read(self, run: str) -> RunLog:
        stream = self._streams[subjects.log_stream(subjects.shard(run))]

        def stored(subject: str) -> list[Stored]:
            return [Stored(kept.seq, kept.data) for kept in stream.by_subject.get(subject, ())]

        return assemble(run, stored(subjects.commits(run)), stored(subjects.inbox(run)))

    def value(self, report: Report) -> object:
        """What a report carries, or the blob that it names."""
        if report.blob is None:
            return report.value
        chunks = self._streams[subjects.BLOBS].by_subject
        named = (subjects.blob(report.blob.sha256, number) for number in range(len(chunks)))
        data = b"".join(chunks[name][0].data for name in named if name in chunks)
        return decode_value(data)


def wrong(world: World) -> list[str]:
    """Everything that must not be, in words; empty for a sound history."""
    return list(_wrong(world))


def _wrong(world: World) -> Iterator[str]:
    yield from world.history.stuck
    yield from world.history.broken
    yield from world.doubts
    logs = Logs(world)
    for log in logs.runs.values():
        yield from chain(world, log)
        yield from redecided(log)
        yield from one_report_each(logs, log)
        yield from within_budget(log)
        yield from family(logs, log)
    for job in world.jobs:
        if job.run in logs.runs and not world.history.stuck:
            yield from outcome(logs, job)
    yield from signals_read(world, logs)
    yield from forks_apart(world, logs)
    yield from worked_once(world, logs)


def chain(world: World, log: RunLog) -> Iterator[str]:
    """Nothing set aside, and every commit that a conductor took for stored is in its place."""
    for aside in log.aside:
        yield f"run {log.run}: {aside.why} (set aside, at {aside.seq} of the {aside.where})"
    hashes = [commit.prev for commit in log.commits[1:]] + [log.head.hash]
    for n, known in sorted(world.believed.get(log.run, {}).items()):
        if n > len(hashes) or hashes[n - 1] != known:
            yield f"run {log.run}: commit {n} was taken for stored and is not in the log"


def redecided(log: RunLog) -> Iterator[str]:
    """The rules decide every commit again as it was decided."""
    prev = ""
    for again in redecide(log):
        commit = again.commit
        if commit.prev != prev:
            yield f"run {log.run}: commit {commit.n} doesn't follow the one before it"
        for step in again.steps:
            if step.problem:
                yield f"run {log.run}: commit {commit.n}: {step.problem}"
        if again.events != commit.events:
            yield f"run {log.run}: commit {commit.n} is decided otherwise"
        prev = digest(encode(commit))


def one_report_each(logs: Logs, log: RunLog) -> Iterator[str]:
    """Each call has settled once at most, by a report of its own that says what the worker gave."""
    reports, state = history.reports(log), log.state()
    settled = Counter(event.call for _, event in _events(log) if isinstance(event, CallSettled))
    for call, times in settled.items():
        if times != 1:
            yield f"run {log.run}, call {call}: {times} results count"
    for name, known in state.calls.items():
        if known.status is None or not known.report:
            continue
        report = reports.get(known.report)
        if report is None or report.call != name:
            yield f"run {log.run}, call {name}: the report that counts is not stored"
        elif report.status == "OK" and known.call.worker != "band":
            n, op = known.call.arguments["n"], known.call.arguments["op"]
            if number(logs.value(report)) != made(op, n):
                yield f"run {log.run}, call {name}: {op} of {n} is said to be {report.value}"
        if len(set(known.noted)) != len(known.noted):
            yield f"run {log.run}, call {name}: a report is billed twice"


def within_budget(log: RunLog) -> Iterator[str]:
    """Nothing is ever reserved beyond what is left."""
    state = log.origin.state(log.shared) if log.origin is not None else RunState()
    for commit in log.commits:
        for event in commit.events:
            state = fold(state, (event,))
            match event:
                case AttemptStarted():
                    limit = short_of(state.budget, state.committed, NOTHING)
                case PolicyAsked(reserve=reserve) if reserve != NOTHING:
                    limit = short_of(state.budget, state.committed, NOTHING)
                case _:
                    continue
            if limit:
                yield f"run {log.run}, commit {commit.n}: {state.committed} overruns its {limit}"


def family(logs: Logs, log: RunLog) -> Iterator[str]:
    """A run that ended has told its parent; one that has no answer, or waits, says why."""
    state = log.state()
    if state.outcome == "failed" and not (state.fail_reason and state.detail):
        yield f"run {log.run}: failed without a reason"
    if state.outcome == "cancelled" and not _signals(log, "cancel"):
        yield f"run {log.run}: cancelled, and nobody wanted that"
    if state.phase == "ended" and state.parent is not None and state.parent.run in logs.runs:
        told = digest(encode(child_report(state)))
        if told not in {entry.hash for entry in logs.runs[state.parent.run].inbox}:
            yield f"run {log.run}: its parent {state.parent.run} was never told"
    if state.phase == "paused" and not state.pause_reason:
        yield f"run {log.run}: paused without a reason"


def outcome(logs: Logs, job: Job) -> Iterator[str]:
    """A run whose answer nothing may change has the undisturbed one; others follow their log."""
    log = logs.runs[job.run]
    state = log.state()
    if job.exact:
        if state.outcome != "finished" or state.answer != expected(job):
            said = state.answer or state.detail
            yield f"run {job.run}: {state.outcome} {said!r}, undisturbed it is {expected(job)}"
    elif state.outcome == "finished" and not state.limited_by:
        shown = view(state, _values(logs, log))
        if decided(shown) != Decision(answer=state.answer):
            yield f"run {job.run}: answers {state.answer}, which doesn't follow from what it saw"


def _values(logs: Logs, log: RunLog) -> Mapping[str, object]:
    return {known: logs.value(said) for known, said in history.reports(log).items()}


def signals_read(world: World, logs: Logs) -> Iterator[str]:
    """Every signal that was acknowledged was read, unless the run ended before."""
    for run, said in world.progress.signals:
        log = logs.runs.get(run)
        if log is None:
            yield f"run {run}: was signalled and never began"
            continue
        known = {hash_ for hash_, signal in _signals(log).items() if signal.id == said}
        state = log.state()
        if not known:
            yield f"run {run}: signal {said} was acknowledged and is lost"
        elif state.phase != "ended" and not known <= state.signals:
            yield f"run {run}: signal {said} was never read"


def _signals(log: RunLog, kind: str = "") -> dict[str, Signal]:
    """The signals in a run's inbox, by hash."""
    found = ((entry.hash, entry.message) for entry in log.inbox)
    return {
        known: said for known, said in found if isinstance(said, Signal) and kind in ("", said.kind)
    }


def forks_apart(world: World, logs: Logs) -> Iterator[str]:
    """A fork has what it shares, comes to the same end, and nothing of it is its parent's."""
    jobs = {job.run: job for job in world.jobs}
    for forked in world.progress.forks:
        log, job = logs.runs.get(forked.fork), jobs[forked.run]
        if log is None or log.forked is None:
            yield f"run {forked.fork}: was forked from run {forked.run} and never began"
            continue
        parent = logs.runs[forked.run]
        try:
            check_origin(log.run, log.forked.origin, parent)
        except PodiumError as error:
            yield f"run {log.run}: {error.message}"
        state = log.state()
        if job.exact and (state.outcome, state.answer) != ("finished", expected(job)):
            said = state.answer or state.detail
            yield f"fork {log.run} of run {parent.run}: {state.outcome} {said!r}"
        named = forked.fork.encode()
        if any(named in encode(commit) for commit in parent.commits):
            yield f"run {parent.run}: its log names its fork {log.run}"


def worked_once(world: World, logs: Logs) -> Iterator[str]:
    """No reservation pays for work that was done twice, and all work is on the bill.

    A restarted server has forgotten which calls were taken; a conductor whose clock is late makes
    a call again that has expired in its queue. Each of these allows one time more.
    """
    restarts = world.history.met["restart"] + world.history.met["skew"]
    done: Counter[str] = Counter()
    for (run, call, attempt), times in sorted(world.worked.items()):
        if times > 1 + restarts:
            yield f"run {run}, call {call}, attempt {attempt}: worked on {times} times"
        done[run] += times * PRICE.tokens
    for run, tokens in done.items():
        billed = logs.runs[run].state().committed.tokens
        if billed < tokens and not restarts:
            yield f"run {run}: {tokens} tokens were spent, and {billed} are on its bill"


def _events(log: RunLog) -> Iterator[tuple[Commit, object]]:
    return ((commit, event) for commit in log.commits for event in commit.events)
