"""One rollout of the fast lane: a whole deployment for one run, on a clock of its own.

Log, queues, conductor and workers are the real ones over memory, on an event loop of virtual time.
A cell shares nothing with others but what it asks of models, so its log depends on its start, its
policy and its workers alone, whatever else is at work; and its time can pass, or stand still while
a model is asked, without anybody's waiting for it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from actors.admission import admit_task
from actors.bus import MemoryBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.ports import Adapter, Policy
from actors.virtual import VirtualLoop, put_down
from actors.waking import queue_again
from actors.worker import Worker, WorkerOptions
from protocol import subjects
from protocol.actions import UNHOSTED, WorkerSpec
from protocol.codec import decode_message, encode
from protocol.commands import Start
from protocol.decisions import PolicySpec
from protocol.errors import Internal, InvalidData, PodiumError
from protocol.inbox import SET_ASIDE, Label, Signal
from protocol.redaction import Redactor
from replay.bundle import named_blobs
from replay.memory_log import MemoryLog
from trainer.rollouts.source import TELL, WHY, Ended, ended, paused

if TYPE_CHECKING:
    from actors.run_shell import RunShell

BY: Final = "fast lane"
"""Who conducts, works and signals there."""

NEVER_S: Final = 1e9
"""Seconds of a lease, or of a look into an inbox, that nothing in memory needs: nobody else could
take over, and no hint is lost."""

STALL_S: Final = 1e8
"""Seconds of virtual time, some three years, in which a run would have ended that ever ends."""

Hosting = Callable[[Start, WorkerSpec], Adapter]
"""The adapter of a worker, for one run: called when that run first calls it, closed with it."""


class CellLoop(VirtualLoop):
    """A cell's time, which stands still while a model is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asking = 0
        """Questions that models are at."""


class _Calls(MemoryQueue):
    """The queue of calls, which has a worker hosted when it is first called."""

    def __init__(self, host: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        super().__init__({}, NEVER_S)
        self._host = host
        self._hosted: set[str] = set()

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue.put`."""
        place = subject.split(".", 2)[1]
        if place not in self._hosted:
            self._hosted.add(place)
            self.filters.update(consumers_of(place))
            await self._host(place)
        return await super().put(subject, data, headers)


class Cell:
    """One run, from its start to its end.

    Args:
        start: What is to be run.
        host: See `Hosting`.
        policies: Finds the policy of a run.
        redactor: Takes secrets out of what a policy says.
        epoch_ms: When it begins, milliseconds since the epoch.

    Raises:
        InvalidData: No conductor would take that start.
    """

    def __init__(
        self,
        start: Start,
        host: Hosting,
        policies: Callable[[PolicySpec], Policy],
        redactor: Redactor,
        epoch_ms: int,
    ) -> None:
        self.start, self.loop = start, CellLoop()
        self.ended: Ended | None = None
        """What came of it, once it is over."""
        self._host, self._epoch_ms = host, epoch_ms
        self._log, self._bus = MemoryLog(), MemoryBus()
        self._tasks = MemoryQueue(consumers_of("tasks"), NEVER_S)
        self._calls = _Calls(self._begin_worker)
        self._conductor = Conductor(
            log=self._log,
            tasks=self._tasks,
            calls=self._calls,
            bus=self._bus,
            policies=policies,
            clock=self.clock,
            options=ConductorOptions(name=BY, lease_s=NEVER_S, look_s=NEVER_S),
            redactor=redactor,
            monotonic=self.loop.time,
        )
        self._conductor.on_over = self._over
        self._workers: list[Worker] = []
        self._moved = asyncio.Event()
        """Set when a run of the cell's is over."""
        self._ours: set[asyncio.Task[None]] = set()
        self._error: Exception | None = None
        self._subject, self._data = subjects.task(start.priority, start.run), encode(start)
        admit_task(self._subject, self._data)
        self._spawn(self._begin)

    def clock(self) -> int:
        """Milliseconds since the epoch, on the cell's own clock."""
        return self._epoch_ms + round(self.loop.now * 1_000)

    def run(self) -> bool:
        """Go on until it is over, or until it waits for a model; whether it is over.

        Raises:
            PodiumError: It could not be begun, or will never end; the message says why.
        """
        loop = self.loop
        moved = loop.run(
            lambda: self.ended is not None or self._error is not None or bool(loop.asking),
            loop.now + STALL_S,
        )
        if self._error is not None:
            raise self._error
        if not moved:
            raise Internal(
                f"run {self.start.run} waits for what never comes on virtual time",
                hint="in the fast lane, workers and policies wait by asyncio.sleep alone: what "
                "needs a thread or a socket belongs to live actors",
            )
        return self.ended is not None

    # ---------------------------------------------------------------------------------------- parts

    def drop(self) -> None:
        """End it where it stands."""
        self._conductor.on_over = None
        put_down(asyncio.all_tasks(self.loop.as_asyncio))
        self.loop.close()

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self.loop.create_task(self._guarded(work), name="cell")
        self._ours.add(task)
        task.add_done_callback(self._ours.discard)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # raised where the cell is run
            self._error = self._error or error

    async def _begin(self) -> None:
        await self._conductor.start()
        await self._tasks.put(self._subject, self._data)

    async def _begin_worker(self, place: str) -> None:
        """Host whoever waits at a place; nobody, if none of the run's workers does."""
        spec = next((each for each in self.start.pool.workers if each.place == place), None)
        if spec is None or spec.kind in UNHOSTED:
            return
        try:
            adapter = self._host(self.start, spec)
        except Exception as error:
            self._error = self._error or error
            return
        worker = Worker(
            adapter=adapter,
            log=self._log,
            calls=self._calls,
            bus=self._bus,
            clock=self.clock,
            options=WorkerOptions(replica=BY, lease_s=NEVER_S),
            monotonic=self.loop.time,
        )
        self._workers.append(worker)
        await worker.start()

    # ------------------------------------------------------------------------------------------ end

    def _over(self, shell: "RunShell") -> None:
        """A run of the cell has ended, is paused, or could not go on."""
        if shell.run == self.start.run:
            self._spawn(partial(self._after, shell))
        self.loop.call_soon(self._moved.set)  # once its conductor has let go of it

    async def _after(self, shell: "RunShell") -> None:
        state = shell.state
        if state.phase not in ("paused", "ended"):
            raise self._why()
        over = state.phase == "ended"
        do = "give_up" if over else paused(await self._log.read(shell.run), state)
        if do == "give_up":
            await self._close()
            return
        if do == "tell":
            signal = Signal(id=f"{BY}/{TELL}", run=shell.run, kind=TELL, by=BY, reason=WHY)
            await self._log.post(shell.run, encode(signal))
        await queue_again(self._log, self._tasks, shell.run)

    def _why(self) -> PodiumError:
        """Why the run's conductor let go of it."""
        run = self.start.run
        for stored in self._log.store.after((run, "i"), 0):
            entry = decode_message(stored.data)
            if isinstance(entry, Label) and entry.key == SET_ASIDE:
                return InvalidData(
                    f"run {run} could not be begun: {entry.value}", hint="correct that"
                )
        return Internal(f"run {run} was dropped by its conductor", hint="its traceback is logged")

    async def _close(self) -> None:
        while self._conductor.runs:  # children that are being cancelled
            self._moved.clear()
            await self._moved.wait()
        for worker in self._workers:
            await worker.stop()
        await self._conductor.stop()
        others = [run for run in await self._log.runs() if run != self.start.run]
        below = [await self._taken(run) for run in others]
        self.ended = await self._taken(self.start.run, below)
        self.loop.close()

    async def _taken(self, run: str, below: Iterable[Ended] = ()) -> Ended:
        log = await self._log.read(run)
        blobs = {known: await self._log.get_blob(ref) for known, ref in named_blobs(log).items()}
        return ended(log, blobs, below)
