"""The conductor: takes runs from the task queue and keeps them going, thousands at a time.

It owns a run by holding its task message. While it does, it sends the server a sign of life for it;
when it stops, the server gives the message to another conductor, which takes over by writing to the
run's log (`run_shell`).
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from actors.admission import admit_task
from actors.monitor import Monitor
from actors.ports import Clock, Policy
from actors.queues import Bus, Delivery, Puller, Queue
from actors.run_shell import RunShell
from protocol import subjects
from protocol.codec import encode
from protocol.decisions import PolicySpec
from protocol.errors import InvalidData, PodiumError
from protocol.inbox import SET_ASIDE, Label
from protocol.redaction import Redactor, well_known
from replay.log import EventLog

logger = logging.getLogger("podium.conductor")

BEATS_PER_LEASE: Final = 3
"""Signs of life per lease: two may be lost."""

REVERIFY_AT_ONCE: Final = 64
"""Runs whose log is re-read at a time after a freeze."""


class ConductorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a conductor works."""

    name: str = "conductor"
    lease_s: float = 10.0
    """Seconds after which the server gives a run to another conductor; the same as the task
    consumers'."""
    look_s: float = 5.0
    """Seconds without a hint before the first look into a run's inbox; doubles up to a minute."""
    max_runs: int = 20_000
    """Runs at a time, at about 20 KB each; those that only wait for child runs don't count."""
    traced: bool = False
    """Whether each call says its span in a header, or only one whose worker could not derive it."""


class Conductor:
    """Plain Python over ports; `ray_actors` gives it a process.

    Args:
        log: The event log.
        tasks: The task queue.
        calls: The call queue.
        bus: For what need not be stored.
        policies: Finds the policy that a run was started with; raises `PodiumError` if it can't be
            had.
        clock: Milliseconds since the epoch.
        options: See `ConductorOptions`.
        redactor: Takes secrets out of what a policy says; by default those of well-known forms.
        monotonic: Seconds of a clock that also moves while this process is frozen: no event loop's
            own, which may be as old as the loop's last turn.
    """

    shell: type[RunShell] = RunShell
    """What goes around each run."""

    def __init__(
        self,
        *,
        log: EventLog,
        tasks: Queue,
        calls: Queue,
        bus: Bus,
        policies: Callable[[PolicySpec], Policy],
        clock: Clock,
        options: ConductorOptions,
        redactor: Redactor | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.redactor = redactor or well_known()
        self.log, self.tasks, self.calls, self.bus = log, tasks, calls, bus
        self.policies, self.clock, self.options = policies, clock, options
        self.monotonic = monotonic
        self.runs: dict[str, RunShell] = {}
        self.counts: Counter[str] = Counter()
        """What happened so far, for `status` and `doctor`: ``finished``, ``fenced``, ... and what
        was set aside: ``aside`` of the queue, which nobody else can see any more, ``aside_again``
        of these by a later delivery than the first; ``aside_inbox``
        and ``aside_commits``, which stand in the log, each counted whenever it is read."""
        self.taken = 0
        """Task messages taken so far."""
        self.suspicion = 0
        """How many times this process was away for so long that others may have taken over."""
        self.on_over: Callable[[RunShell], None] | None = None
        """Called, within this process, when a run has ended or is handed back."""
        self.monitor = Monitor()
        self._beat = self.monotonic()
        self._resting: set[str] = set()
        self._puller: Puller | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ----------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Begin to take runs."""
        self._beat = self.monotonic()
        self._spawn(self._heartbeat(), "heartbeat")
        await self.bus.listen("stats", self._stats)
        names = [f"tasks-{priority}" for priority in subjects.PRIORITIES]
        self._puller = await self.tasks.pull(names, self._capacity, self._delivered)

    async def stop(self) -> None:
        """Hand every run back at once: another conductor goes on where this one stops."""
        if self._puller is not None:
            await self._puller.close()
        suspicion = self.check_beat()
        shells = [shell for shell in self.runs.values() if shell.trusted == suspicion]
        for shell in self.runs.values():
            shell.abandon()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.monitor.close()
        for shell in shells:
            await shell.delivery.nak()

    def redo(self) -> None:
        """Start everything that is due again: after a reconnection nobody knows what was lost."""
        self.suspicion += 1  # and others may have taken over meanwhile
        for shell in self.runs.values():
            shell.redo()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.counts["broken"] += 1
            logger.error("%s ended", task.get_name(), exc_info=task.exception())

    # ------------------------------------------------------------------------------------ ownership

    def _capacity(self, consumer: str) -> int:
        free = self.options.max_runs - (len(self.runs) - len(self._resting))
        # Children are taken even by a full conductor: else parents would starve them.
        return max(free, 1) if consumer == "tasks-high" else max(free, 0)

    def _delivered(self, delivery: Delivery) -> None:
        self.taken += 1
        run = delivery.subject.rpartition(".")[2]
        try:
            message = admit_task(delivery.subject, delivery.data)
        except InvalidData as error:
            self._spawn(self.set_aside(delivery, error), "set-aside")
            return
        shell = self.shell(self, delivery, message)
        before = self.runs.get(run)
        self.runs[run] = shell
        self._spawn(self._drive(shell, before), f"run-{run}")

    async def set_aside(self, delivery: Delivery, why: PodiumError, run: str = "") -> None:
        """Take a task out of the queue that nobody could begin, and say so.

        Args:
            delivery: The task.
            why: Why.
            run: Whose inbox is told, so that whoever waits for the run hears of it; "" for a task
                that names none.
        """
        self.counts["aside"] += 1
        if delivery.delivered > 1:  # perhaps it was set aside before, and its lease had ended
            self.counts["aside_again"] += 1
        logger.warning("set aside: %s", why)
        if run:
            label = Label(run=run, key=SET_ASIDE, value=why.message, by=self.options.name)
            with contextlib.suppress(PodiumError):  # there may be no log of that run to tell
                await self.log.post(run, encode(self.redactor.message(label)))
        await delivery.ack()

    async def _drive(self, shell: RunShell, before: RunShell | None) -> None:
        if before is not None:  # this process lost its lease to itself
            self.counts["replaced"] += 1
            logger.warning("run %s: its lease ended, and it was delivered here again", shell.run)
            before.abandon()
            await before.over.wait()
        try:
            await shell.drive()
        except Exception:
            self.counts["broken"] += 1
            logger.exception("run %s: dropped; its task will be delivered again", shell.run)
        finally:
            shell.over.set()
            if self.on_over is not None:
                self.on_over(shell)
            if self.runs.get(shell.run) is shell:
                del self.runs[shell.run]
                self._resting.discard(shell.run)
            if self._puller is not None:
                self._puller.want()

    def rest(self, run: str, resting: bool) -> None:
        """A run that only waits for its children takes no place."""
        if resting != (run in self._resting):
            if resting:
                self._resting.add(run)
            else:
                self._resting.discard(run)
            if self._puller is not None:
                self._puller.want()

    def check_beat(self) -> int:
        """The current suspicion, raised if the last sign of life is half a lease old.

        To be asked before every effect.
        """
        now = self.monotonic()
        if now - self._beat > self.options.lease_s / 2:
            self.suspicion += 1
            self.counts["late_heartbeats"] += 1
            self._beat = now
            logger.warning("away for half a lease: re-reading %d runs", len(self.runs))
        return self.suspicion

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self.options.lease_s / BEATS_PER_LEASE)
            try:
                await self._beat_once()
            except PodiumError as error:  # the next beat is soon enough
                logger.warning("a sign of life was not given: %s", error)

    async def _beat_once(self) -> None:
        suspicion = self.check_beat()
        doubtful = [s for s in self.runs.values() if s.trusted != suspicion]
        for start in range(0, len(doubtful), REVERIFY_AT_ONCE):
            group = doubtful[start : start + REVERIFY_AT_ONCE]
            await asyncio.gather(*(shell.reverify() for shell in group))
        self._beat = self.monotonic()
        for shell in list(self.runs.values()):
            if shell.trusted == suspicion:
                await shell.delivery.progress()

    def health(self) -> tuple[int, int]:
        """Progress so far, and how many runs more it could take."""
        return self.taken, self._capacity("tasks-normal")

    async def _stats(self, _: bytes) -> bytes:
        return msgspec.json.encode(
            {
                "actor": self.options.name,
                "kind": "conductor",
                "pid": os.getpid(),
                "runs": len(self.runs),
                "resting": len(self._resting),
                "counts": dict(self.counts),
            }
        )
