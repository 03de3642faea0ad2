"""The monitor: sees that something goes wrong while it does, and wishes for what would help.

It watches what a conductor writes to the logs of its runs, and posts signals like anybody else: to
hedge a call that takes far longer than its worker's calls did, to have the policy asked meanwhile,
or to pause a run that goes round in circles. So the log says what was wished, why, and what came of
it, and a replay needs no monitor.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from protocol.actions import Json
from protocol.codec import encode
from protocol.errors import PodiumError
from protocol.events import AnyEvent, CallSettled, RoundClosed
from protocol.inbox import Signal, SignalKind
from protocol.limits import MAX_NAME_CHARS
from protocol.state import RunState
from protocol.views import observation

if TYPE_CHECKING:
    from actors.run_shell import RunShell

logger = logging.getLogger("podium.monitor")

BY: Final = "monitor"
"""Who gives its signals."""

PAST: Final = 200
"""Calls of one worker that are remembered: the last minutes of a busy one."""

LEAST: Final = 20
"""Calls after which a worker's past says something: its slowest is about the slowest of twenty."""

PERCENTILE: Final = 0.95
"""Of a worker's past calls are faster than one that is a straggler. A twentieth of the calls is
tried twice, then: what Dean and Barroso ("The Tail at Scale", 2013) call a hedged request."""

TIMES_MEDIAN: Final = 2.5
"""Times the median beyond which a call is a straggler, too: where a twentieth of all calls is slow,
the percentile is one of the slow ones or of the others by chance."""

LEAST_MS: Final = 20
"""Milliseconds that any call may take: below it, a second attempt would hardly be faster."""

CIRCLES: Final = 5
"""Rounds, all but the first of which ask for what was asked before and get the same, before a run
is paused."""

KNOWN: Final = 24
"""Rounds back that are looked at: a circle of several steps is one, too."""

BARREN: Final = 8
"""Rounds in a row in which nothing succeeds before a run is paused."""


class Past:
    """How long the last calls of one worker took, from when they were begun until they counted."""

    def __init__(self) -> None:
        self.took: deque[int] = deque(maxlen=PAST)
        """Milliseconds of each, the last one last."""
        self._limit: int | None = None

    def add(self, took_ms: int) -> None:
        """One more call, milliseconds."""
        self.took.append(took_ms)
        self._limit = None

    @property
    def limit_ms(self) -> int | None:
        """Milliseconds beyond which a call is a straggler; None while too little is known."""
        if len(self.took) < LEAST:
            return None
        if self._limit is None:
            took = sorted(self.took)
            slow = took[min(len(took) - 1, int(len(took) * PERCENTILE))]
            self._limit = max(LEAST_MS, min(slow, round(TIMES_MEDIAN * took[len(took) // 2])))
        return self._limit


def watched(state: RunState, call: str) -> bool:
    """Whether anything would be done about a call that takes too long: else nobody need look."""
    worker = state.workers[state.calls[call].call.worker]
    return worker.hedge or state.policy.replan_on == "straggler"


def straggling(state: RunState, call: str) -> SignalKind | None:
    """What helps against a call that takes too long, if that is wanted."""
    if call not in state.open or call in state.hedged or state.final:
        return None
    known = state.calls[call]
    worker = state.workers[known.call.worker]
    if worker.hedge and known.attempt < worker.attempts:
        return "hedge"
    if state.policy.replan_on == "straggler" and state.phase == "working":
        return "replan"
    return None


def circling(state: RunState, values: Mapping[str, Json]) -> str:
    """Why the last rounds of a run got it nowhere; "" if they may have.

    Args:
        state: The run.
        values: Values by the hash of their report.
    """
    rounds = [turn.calls for turn in state.turns[-KNOWN:] if turn.calls]
    over = [names for names in rounds if all(state.calls[name].status for name in names)]
    tried = over[-BARREN:]
    if len(tried) == BARREN and not any(_found(state, names) for names in reversed(tried)):
        return f"nothing has succeeded in {BARREN} rounds"
    known = [name for names in over[: 1 - CIRCLES] for name in names]
    last = [name for names in reversed(over[1 - CIRCLES :]) for name in names]
    if not known or any(not _known(state, name, known, values) for name in last):
        return ""
    workers = ", ".join(dict.fromkeys(state.calls[name].call.worker for name in last))
    return f"{CIRCLES} rounds have asked {workers} for the same and got the same"


def _found(state: RunState, names: Iterable[str]) -> bool:
    """Whether one of these calls has succeeded, be it late."""
    return any(state.calls[name].status == "OK" or state.calls[name].late for name in names)


def _known(state: RunState, name: str, before: Iterable[str], values: Mapping[str, Json]) -> bool:
    """Whether a call has asked for what one before had asked for, and got the same."""
    asked = state.calls[name]
    return any(
        (known := state.calls[other]).status == asked.status
        and known.call.worker == asked.call.worker
        and known.call.arguments == asked.call.arguments
        and _value(state, other, values) == _value(state, name, values)
        for other in before
    )


def _value(state: RunState, name: str, values: Mapping[str, Json]) -> Json:
    seen = observation(state, name, values)
    return seen.value if seen is not None else None


class Monitor:
    """Watches the runs of one conductor."""

    def __init__(self) -> None:
        self.past: dict[str, Past] = {}
        """By the worker's name."""
        self._since: WeakKeyDictionary[RunShell, dict[tuple[str, int], int]] = WeakKeyDictionary()
        """Attempts that are looked after, and when each was begun, milliseconds since the epoch."""
        self._warned: WeakKeyDictionary[RunShell, int] = WeakKeyDictionary()
        """Runs that it has had paused, and in which round."""
        self._tasks: set[asyncio.Task[None]] = set()

    def begun(self, shell: "RunShell", calls: Iterable[tuple[str, int]]) -> None:
        """These attempts have been sent, or sent again: look after each once, as a straggler."""
        state = shell.state
        for call, attempt in calls:
            past = self.past.get(state.calls[call].call.worker)
            if past is None or past.limit_ms is None or straggling(state, call) is None:
                continue
            since = self._since.setdefault(shell, {})
            if (call, attempt) in since:
                continue
            at = since[call, attempt] = state.calls[call].begun_at
            wait_s = max(0, at + past.limit_ms - shell.host.clock()) / 1_000
            # A run that is gone is not kept by it.
            asyncio.get_running_loop().call_later(
                wait_s, self._look, ref(shell), call, attempt, past.limit_ms
            )

    def saw(self, shell: "RunShell", before: RunState, events: Sequence[AnyEvent], at: int) -> None:
        """A commit of the run is in its log: what it says of its workers, and of the run."""
        for event in events:
            if isinstance(event, CallSettled):
                if event.report and event.status == "OK" and event.call in before.open:
                    self._counted(shell, before, event.call, at)
            elif isinstance(event, RoundClosed):
                self._closed(shell, event.round)

    def _counted(self, shell: "RunShell", before: RunState, call: str, at: int) -> None:
        """A call has succeeded: its worker's past is one call longer."""
        if not watched(before, call):
            return
        worker = before.calls[call].call.worker
        if worker not in self.past:
            self.past[worker] = Past()
        self.past[worker].add(max(0, at - self._begun_at(shell, before, call)))

    def _begun_at(self, shell: "RunShell", state: RunState, call: str) -> int:
        """When the first of the attempts that a call goes on in was begun.

        Taking the hedge's time would have a worker seem faster with every straggler that it has.
        """
        first, _ = state.hedged.get(call, (state.open[call], 0))
        return self._since.get(shell, {}).pop((call, first), state.calls[call].begun_at)

    def _closed(self, shell: "RunShell", number: int) -> None:
        """Pause a run that gets nowhere; one below another has to answer: who would resume it?

        Whoever has it go on gives it as many rounds again.
        """
        if number < self._warned.get(shell, 0) + CIRCLES or shell.state.final:
            return
        if why := circling(shell.state, shell.values):
            self._warned[shell] = number
            kind: SignalKind = "pause" if shell.state.parent is None else "answer"
            self._wish(shell, kind, "", f"round-{number}", why)

    def _look(self, of: "ReferenceType[RunShell]", call: str, attempt: int, limit_ms: int) -> None:
        shell = of()
        if shell is None or shell.over.is_set() or shell.state.open.get(call) != attempt:
            return
        state = shell.state
        kind = straggling(state, call)
        if kind is not None:
            why = f"call {call} takes longer than {limit_ms} ms, as few of its worker's calls did"
            self._wish(shell, kind, call, f"{call}/{attempt}", why)

    def _wish(self, shell: "RunShell", kind: SignalKind, call: str, name: str, why: str) -> None:
        signal = Signal(
            id=f"{BY}/{kind}/{name}",
            run=shell.run,
            kind=kind,
            by=BY,
            reason=why[:MAX_NAME_CHARS],
            call=call,
        )
        task = asyncio.create_task(self._post(shell, signal), name="wish")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, shell: "RunShell", signal: Signal) -> None:
        try:
            await shell.assure()
            await shell.host.log.post(shell.run, encode(signal))
        except PodiumError as error:  # it would have helped, and nothing hangs on it
            logger.warning("run %s: %s was not wished for: %s", shell.run, signal.kind, error)

    async def close(self) -> None:
        """Wish for nothing more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
