"""The fast lane: rollouts by the real rules, conductor and workers, as fast as the processor goes.

Nothing is stored and nothing is waited for: latencies, time-outs and back-offs pass on virtual
time. Models are sampled in this thread, for as many runs at a time as there are in flight. The same
starts give the same logs, byte for byte::

    with FastLane(workers=host, policies=policies) as lane:
        for ended in lane.stream(ask.starts("job")):
            print(ended.log.state().answer)
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final, Self

import msgspec

from actors import policies as known_policies
from actors import workers as known_workers
from actors.models.serving import Batching
from actors.ports import Adapter, Models, Policy
from protocol.actions import WorkerSpec
from protocol.commands import Start
from protocol.decisions import PolicySpec
from protocol.errors import Internal, Usage
from protocol.redaction import Redactor, well_known
from trainer.rollouts.cell import Cell, CellLoop, Hosting
from trainer.rollouts.models import BATCHING, LaneModels, Stepping
from trainer.rollouts.source import Ended

AT_ONCE: Final = 256
"""Runs in flight if nothing is said: enough to fill a batch while others' workers are at work. One
takes about 80 KB."""

EPOCH_MS: Final = 1_700_000_000_000
"""Milliseconds since the epoch at which every run begins if nothing is said: the same start gives
the same bytes."""

Policies = Callable[[PolicySpec, Models], Policy]
"""Finds the policy that a run was started with, given where models of ours are asked; see
`actors.policies.make`."""


def hosted(_start: Start, spec: WorkerSpec) -> Adapter:
    """The adapter that a worker's own description names, as a deployment hosts it.

    Those that need a thread or a socket have no place on virtual time.
    """
    return known_workers.host(spec)


class FastLane:
    """Runs starts, in this thread.

    Args:
        workers: Gives the adapter of a worker, for one run; see `Hosting`.
        policies: See `Policies`. Each is made once, and asked by all runs that name it.
        at_once: Runs in flight.
        batching: How models are sampled that policies name by their folder.
        models: Models that you hold, asked in place of folders: their weights may be changed, and
            `publish` says so.
        epoch_ms: When every run begins.
        redactor: Takes secrets out of what a policy says; by default those of well-known forms.
    """

    def __init__(
        self,
        workers: Hosting = hosted,
        policies: Policies = known_policies.make,
        *,
        at_once: int = AT_ONCE,
        batching: Batching = BATCHING,
        models: Stepping | None = None,
        epoch_ms: int = EPOCH_MS,
        redactor: Redactor | None = None,
    ) -> None:
        if at_once < 1:
            raise Usage(f"a lane with {at_once} runs at once would do nothing", hint="1 or more")
        self._workers, self._policies = workers, policies
        self._at_once, self._epoch_ms = at_once, epoch_ms
        self._redactor = redactor or well_known()
        self._made: dict[bytes, Policy] = {}
        self._cells: dict[CellLoop, Cell] = {}
        self._ready: deque[CellLoop] = deque()
        """Runs that can go on, each once."""
        self._queued: set[CellLoop] = set()
        self._stream: object = None
        """Names the stream that is taken; None for none."""
        self.models = LaneModels(batching, self._go_on, models)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is in flight, and let go of models."""
        self._drop()
        self.models.close()

    def publish(self, version: str) -> None:
        """Have the current versions of models answer from here on. See `LaneModels.publish`."""
        self.models.publish(version)

    @property
    def in_flight(self) -> int:
        """Runs that have begun and not ended."""
        return len(self._cells)

    def run(self, starts: Iterable[Start]) -> list[Ended]:
        """What comes of some starts, in their order.

        Raises:
            PodiumError: See `stream`.
        """
        wanted = list(starts)
        found = {ended.run: ended for ended in self.stream(wanted)}
        return [found[start.run] for start in wanted]

    def stream(self, starts: Iterable[Start]) -> Generator[Ended, None, None]:
        """What comes of some starts, each as soon as it is over; the same order every time.

        Starts are taken one by one, as there is room, and nothing is kept of a run that was given.
        Leaving early drops what is in flight.

        Raises:
            InvalidData: A start, or a model, can't be had.
            PodiumError: What a run is made of doesn't work on virtual time; the message says which.
        """
        if self._stream is not None:
            raise Usage("this lane is at work already", hint="take all of its stream, or close it")
        coming, mine = iter(starts), object()
        self._stream = mine
        try:
            while self._stream is mine:
                self._fill(coming)
                if not self._cells:
                    return
                yield from self._advance()
        finally:
            if self._stream is mine:
                self._drop()

    # ------------------------------------------------------------------------------------- schedule

    def _fill(self, coming: Iterator[Start]) -> None:
        while len(self._cells) < self._at_once:
            start = next(coming, None)
            if start is None:
                return
            cell = Cell(start, self._workers, self._policy, self._redactor, self._epoch_ms)
            self._cells[cell.loop] = cell
            self._go_on(cell.loop)

    def _advance(self) -> Iterator[Ended]:
        """Let everybody go on who can; then have a token sampled for all who wait for one."""
        if not self._ready and not self.models.step() and not self._ready:
            stuck = next(iter(self._cells.values())).start.run
            raise Internal(f"run {stuck} waits for a model that nobody asks", hint="report it")
        count = len(self._ready)
        while count and self._ready:  # nobody is left where the lane was closed meanwhile
            count -= 1
            loop = self._ready.popleft()
            self._queued.discard(loop)
            cell = self._cells.get(loop)
            if cell is None or not cell.run():
                continue
            del self._cells[loop]
            assert cell.ended is not None
            yield cell.ended

    def _go_on(self, loop: CellLoop) -> None:
        if loop not in self._queued:
            self._queued.add(loop)
            self._ready.append(loop)

    def _policy(self, spec: PolicySpec) -> Policy:
        known = msgspec.json.encode(spec)
        if known not in self._made:
            self._made[known] = self._policies(spec, self.models)
        return self._made[known]

    def _drop(self) -> None:
        self._stream = None
        for cell in self._cells.values():
            cell.drop()
        self._cells.clear()
        self._ready.clear()
        self._queued.clear()
        self.models.drop()
