"""A user's hand on the runs: begin them, signal them, judge them; and all that a reader does.

A client holds nothing of its own. All that it says is in the log and the task queue before it
returns, and all that it shows is read from the log, so any number of clients see the same.
"""

import os
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec

from actors import tracing
from actors.ports import Clock
from actors.queues import Queue
from actors.waking import queue_again
from podium.checks import (
    check_beginning,
    check_fork,
    check_inputs,
    check_run,
    check_start,
    check_times,
    check_told,
    in_range,
)
from podium.log_reader import LOOK_S, LogReader
from podium.people import answered
from podium.places import Places
from protocol import subjects
from protocol.actions import Json, Pool, WorkerSpec
from protocol.budgets import Budget, Extension
from protocol.codec import encode
from protocol.commands import Fork, Start
from protocol.decisions import PolicySpec, Task
from protocol.errors import Usage
from protocol.events import Edit
from protocol.inbox import Label, Reward, Signal, SignalKind
from protocol.redaction import Redactor, well_known
from protocol.subjects import Priority
from replay import forks
from replay.log import EventLog
from replay.registry_log import RegistryLog

Randomness = Callable[[int], bytes]
"""So many random bytes."""

_WAKES: Final[frozenset[SignalKind]] = frozenset({"resume", "extend", "answer", "cancel", "replan"})
"""Signals for which a paused run has to be taken up: it holds no place anywhere."""


class Client(LogReader):
    """Everything that a user does with runs: says to them, and, as a `LogReader`, reads of them.

    Args:
        log: The event log.
        tasks: The queue of tasks, which conductors pull.
        by: Who this is; recorded with each run and signal.
        clock: Milliseconds since the epoch.
        randomness: Random bytes, for the ids of runs and signals.
        shards: Streams over which new runs are spread; as many as the deployment has.
        look_s: Seconds between two looks of a watcher that hears nothing.
        redactor: Takes secrets out of what is said; by default those of well-known forms. What it
            goes by is recorded with each run.
        registry: Of the deployment's workers; without one, each is hosted under its name.
    """

    def __init__(
        self,
        log: EventLog,
        tasks: Queue,
        *,
        by: str = "user",
        clock: Clock = lambda: time.time_ns() // 1_000_000,
        randomness: Randomness = os.urandom,
        shards: int = 1,
        look_s: float = LOOK_S,
        redactor: Redactor | None = None,
        registry: RegistryLog | None = None,
    ) -> None:
        self._redactor = redactor or well_known()
        self._pool: tuple[Pool, Pool] | None = None
        super().__init__(log, look_s)
        self._tasks, self._places = tasks, Places(registry)
        self.by = by
        self._clock, self._randomness = clock, randomness
        self._shards = shards

    async def submit(
        self,
        task: Task | str,
        pool: Pool,
        policy: PolicySpec,
        budget: Budget | None = None,
        priority: Priority = "normal",
        run: str | None = None,
    ) -> str:
        """Queue a run and return its id. Everything is checked before anything is queued.

        Submitting the same ``run`` again begins nothing again. The run's trace hangs under the span
        that is current here (OpenTelemetry), if one is.

        Raises:
            Usage: The task is empty, the pool has no workers or a name twice, the budget can't pay
                for one reply.
            InvalidData: A name, a schema or an id is none; a value is out of range.
            TooLarge: Task or pool are too large.
            Unreachable, Busy: The queue does not take it.
        """
        return await self.queue(self.start(task, pool, policy, budget, priority, run))

    def start(
        self,
        task: Task | str,
        pool: Pool,
        policy: PolicySpec,
        budget: Budget | None = None,
        priority: Priority = "normal",
        run: str | None = None,
        traceparent: str = "",
    ) -> Start:
        """The run that `submit` queues, checked, as it will be recorded: without secrets.

        Args:
            task: What is asked.
            pool: The workers that it may use.
            policy: Who decides.
            budget: What it may spend.
            priority: In the queue of tasks.
            run: Its id; None for a new one.
            traceparent: The span that it hangs under where none is current here.

        Raises:
            Usage, InvalidData, TooLarge: See `submit`.
        """
        start = Start(
            run=self.new_run() if run is None else run,
            task=self._redactor.task(Task(text=task) if isinstance(task, str) else task),
            pool=self._without_secrets(pool),
            policy=policy,
            budget=Budget() if budget is None else budget,
            by=self.by,
            priority=priority,
            traceparent=tracing.caller() or traceparent,
            redact=self._redactor.redaction,
        )
        check_start(start)
        check_inputs(start.policy, start.task)
        if priority not in subjects.PRIORITIES:
            raise Usage(f"There is no priority {priority!r}.", hint="Use 'normal' or 'high'.")
        return start

    async def queue(self, start: Start) -> str:
        """Queue a run that `start` made. Raises `Unreachable` and `Busy`."""
        start = msgspec.structs.replace(start, pool=await self._places.begun(start.pool))
        await self._tasks.put(subjects.task(start.priority, start.run), encode(start))
        return start.run

    async def fork(
        self,
        run: str,
        at: int,
        *,
        policy: PolicySpec | None = None,
        workers: tuple[WorkerSpec, ...] = (),
        edits: tuple[Edit, ...] = (),
        reopened: tuple[str, ...] = (),
        times: int = 1,
        reason: str = "",
    ) -> list[str]:
        """Queue runs that go on from where another stood, and return their ids.

        The other one may still be at work, and never changes.

        Args:
            run: The other run.
            at: The event after which they go on.
            policy: Who decides in them; None for the same.
            workers: Workers that replace those of their name, or are added.
            edits: What else is replaced, see `protocol.edits`.
            reopened: Settled calls of the open round that are made again.
            times: How many.
            reason: Why, for whoever looks at them later.

        Raises:
            Usage: There is no such event, nothing can go on from it, or an edit can't be made.
            InvalidData: What the run recorded to be a secret can't be looked for.
            Unreachable, Busy: The queue does not take it.
        """
        check_run(run)
        check_times(times)
        log = await self._log.read(run)
        origin = forks.origin_at(log, at)
        state = log.state(at)
        redactor = self._redactor.also(state.redact, run)
        made = [
            redactor.fork(
                Fork(
                    run=self.new_run(),
                    origin=origin,
                    policy=policy,
                    workers=workers,
                    reopened=reopened,
                    edits=edits,
                    by=self.by,
                    reason=reason,
                    redact=self._redactor.redaction.beyond(state.redact),
                )
            )
            for _ in range(times)
        ]
        moved = await self._places.moved(check_fork(state, made[0]))
        names = {spec.name for spec in moved}
        there = (*(spec for spec in made[0].workers if spec.name not in names), *moved)
        for fork in (msgspec.structs.replace(each, workers=there) for each in made):
            await self._tasks.put(subjects.task(fork.priority, fork.run), encode(fork))
        return [fork.run for fork in made]

    def _without_secrets(self, pool: Pool) -> Pool:
        """The pool as runs record it; that of the run before is at hand."""
        if self._pool is None or self._pool[0] is not pool:
            self._pool = (pool, self._redactor.pool(pool))
        return self._pool[1]

    async def offered(self) -> Pool:
        """The workers that the deployment offers to runs that begin, by its registry."""
        return await self._places.offered()

    def new_run(self) -> str:
        """An id for a run that is about to be submitted."""
        shard = self._randomness(1)[0] % self._shards
        return subjects.run_id(self._randomness(8), shard)

    def run_of(self, key: str) -> str:
        """An id for a run that is to be the same one whenever the same key is given."""
        digest = sha256(key.encode()).digest()
        return subjects.run_id(digest[:8], digest[8] % self._shards)

    async def label(self, run: str, key: str, value: Json, *, by: str = "", head: str = "") -> None:
        """Say something of a run, for those who look at it or learn from it; no rule does.

        Args:
            run: Its id; it may have ended long ago.
            key: What is said of.
            value: What is said.
            by: Who says it.
            head: What of the run is judged, see `replay.chain.end_of`; "" for whatever there is.

        Raises:
            InvalidData: ``run`` is no id, or what it recorded to be a secret can't be looked for.
            NotFound: What it recorded to be a secret can't be read here.
            Unreachable, Busy: It may or may not be said; saying it again does no harm.
        """
        check_run(run)
        check_beginning(log := await self._log.read(run))
        said = Label(run=run, key=key, value=value, by=by or self.by, head=head)
        redactor = self._redactor.also(log.state().redact, run)
        await self._log.post(run, encode(redactor.message(said)))

    async def reward(
        self, run: str, channel: str, value: float, *, by: str = "", head: str = ""
    ) -> None:
        """Score a run on a channel, as `label`, with no need of its log. The last one counts."""
        check_run(run)
        said = Reward(run=run, channel=channel, value=value, by=by or self.by, head=head)
        await self._log.post(run, encode(said))

    async def signal(
        self,
        run: str,
        kind: SignalKind,
        by: str = "",
        reason: str = "",
        extension: Extension | None = None,
        call: str = "",
    ) -> str:
        """Say something to a run: it stands in the run's inbox when this returns.

        A run that is still queued finds it there when it begins; a paused one is queued again.
        ``replan`` may name a call, ``hedge`` has to.

        Returns:
            The signal's id.

        Raises:
            InvalidData: ``run`` is no id, the extension has a value out of range, or what the run
                recorded to be a secret can't be looked for.
            Usage: An extension that extends nothing.
            Conflict: The run has ended; the call is not at work; only a root run can be extended.
            Unreachable, Busy: It may or may not be in the inbox; signalling again is safe.
        """
        extension = in_range(extension or Extension(), "the extension")
        if (extension == Extension()) == (kind == "extend"):
            raise Usage(
                f"{kind} {'needs something to add' if kind == 'extend' else 'adds nothing'}.",
                hint="Say what is added: --rounds, --calls, --tokens, --cost or --wall.",
            )
        check_run(run)
        state = (await self._log.read(run)).state()
        check_told(run, kind, state, call)
        signal = Signal(
            id=self._randomness(8).hex(),
            run=run,
            kind=kind,
            by=by or self.by,
            reason=self._redactor.also(state.redact, run).text(reason),
            extension=extension,
            call=call,
        )
        await self._log.post(run, encode(signal))
        if kind in _WAKES:
            await queue_again(self._log, self._tasks, run)
        return signal.id

    async def answer(self, run: str, call: str, value: Json, by: str = "") -> None:
        """Answer a call that waits for a person. The first answer counts.

        Raises:
            InvalidData: ``run`` is no id.
            Conflict: The call is none of a person's, doesn't wait any more, or has another answer
                in the inbox.
            Usage: It names the answers that are possible, and this is none of them.
            TooLarge: The answer has more than a message holds.
            Unreachable, Busy: It may or may not be in the inbox; answering again is safe.
        """
        check_run(run)
        log = await self._log.read(run)
        redactor = self._redactor.also(log.state().redact, run)
        report = answered(log, call, redactor.value(value), by or self.by)
        await self._log.post(run, encode(report))
        await queue_again(self._log, self._tasks, run)
