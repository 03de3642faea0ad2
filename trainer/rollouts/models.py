"""Models of the fast lane: sampled in the thread that runs the rollouts, a token of all at a time.

While a model is asked, time stands still for whoever asked it. So replies take no virtual time, and
as many runs as there are places in a batch are sampled together.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from actors.models.question import Question
from actors.models.server import Done, Engine, PolicyServer
from actors.models.serving import Batching
from actors.ports import Models
from actors.virtual import VirtualLoop
from protocol.decisions import Reply
from protocol.errors import InvalidData
from trainer.rollouts.cell import CellLoop

if TYPE_CHECKING:
    from actors.models.loading import Loaded
    from actors.models.sampler import Row

BATCHING: Final = Batching(rows=128)
"""How a lane's batches are: with nothing else to do, and no person waiting, larger than a
server's."""

_T = TypeVar("_T")


class StepEngine(Engine):
    """Samples in the thread of whoever calls `step`."""

    def start(self) -> None:
        """See `Engine.start`."""

    def join(self) -> None:
        """See `Engine.join`."""

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True

    @property
    def alive(self) -> bool:
        """See `Engine.alive`."""
        return not self._closed

    def submit(self, loaded: "Loaded", row: "Row", done: Done) -> None:
        """See `Engine.submit`."""
        from actors.models.sampler import Batch

        self._done[row] = done
        batch = self._batches.get(id(loaded))
        if batch is None:
            batch = self._batches[id(loaded)] = Batch(loaded, self._batching)
        batch.waiting.append(row)

    def step(self) -> bool:
        """Sample a token for every row of every batch. False if there is none.

        Raises:
            InvalidData: A batch is broken: a rollout's answer must not hang on that.
        """
        for known, batch in list(self._batches.items()):
            try:
                ended = batch.step(0.0)
            except Exception as error:
                raise InvalidData(
                    f"version {batch.loaded.name} could not be sampled: "
                    f"{type(error).__name__}: {error}",
                    hint="its batch may be too large for this machine: lower batching.rows",
                ) from error
            if batch.idle:
                del self._batches[known]
            for row in ended:
                self._done.pop(row)(row)
        return bool(self._done)

    def drop(self) -> None:
        """Sample nothing of what was submitted."""
        self._batches.clear()
        self._done.clear()


class _Server(PolicyServer):
    """One folder, whose version changes when the lane says so."""

    def __init__(self, folder: Path, batching: Batching) -> None:
        self.turns = 0
        """Times that the lane has said so: all the time that passes here."""
        super().__init__(folder, batching, monotonic=lambda: float(self.turns))
        self._engine = self.engine = StepEngine(batching, lambda: 0.0)

    async def _look(self) -> None:
        """Look for no version."""


class Stepping(Models, Protocol):
    """Models that their owner holds, such as those that are being trained."""

    def step(self) -> int:
        """Sample a token for everybody who waits. 0 if nobody does."""
        ...

    def refresh(self, name: str) -> None:
        """The weights were changed in place: they are another version, of that name."""
        ...

    def forget(self) -> None:
        """Keep nothing of what was sampled, so that the same questions give the same bits."""
        ...


class LaneModels:
    """`Models` of one lane: a folder is loaded when it is first asked, and stays.

    Args:
        batching: How its batches are.
        woken: Called with the loop of a run that can go on, since a model has replied.
        given: Models that are asked instead of folders.
    """

    def __init__(
        self,
        batching: Batching,
        woken: Callable[[CellLoop], None],
        given: Stepping | None = None,
    ) -> None:
        self._batching, self._woken, self._given = batching, woken, given
        self._servers: dict[str, _Server] = {}
        self._wanted: dict[str, list[asyncio.Future[None]]] = {}
        """Folders that are to be loaded, and who waits for each."""
        self._asking: dict[CellLoop, None] = {}
        """Who waits for a reply, in the order of their first questions."""
        self._loop = VirtualLoop()

    async def ask(self, place: str, question: Question, within_s: float) -> Reply:
        """See `Models.ask`."""
        loop = cast(CellLoop, asyncio.get_running_loop())
        loop.asking += 1
        self._asking[loop] = None
        try:
            if self._given is not None:
                return await self._given.ask(place, question, within_s)
            if place not in self._servers:
                loaded: asyncio.Future[None] = loop.create_future()
                self._wanted.setdefault(place, []).append(loaded)
                await loaded
            return await self._servers[place].ask(question, within_s)
        finally:
            loop.asking -= 1
            if not loop.asking:
                self._asking.pop(loop, None)

    def step(self) -> bool:
        """Sample a token for everybody who waits. False if nobody does.

        Raises:
            NotFound, InvalidData, OSError: A folder that was asked can't be loaded; a batch failed.
        """
        for place in list(self._wanted):
            self.host(place)
            for loaded in self._wanted.pop(place):
                loaded.set_result(None)
        stepped = [server.engine.step() for server in self._servers.values()]
        if self._given is not None:
            stepped.append(bool(self._given.step()))
        for loop in self._asking:
            if loop.ready:
                self._woken(loop)
        return any(stepped)

    def drop(self) -> None:
        """Sample nothing of what was asked: whoever did is gone."""
        self._asking.clear()
        self._wanted.clear()
        for server in self._servers.values():
            server.engine.drop()
            if server.loaded is not None:
                server.loaded.forget()
        if self._given is not None:
            while self._given.step():
                pass
            self._given.forget()

    def host(self, place: str) -> None:
        """Load a folder's current version, unless it has been.

        Raises:
            NotFound, InvalidData, OSError: It can't be loaded, or can't answer.
        """
        if place not in self._servers:
            server = _Server(Path(place), self._batching)
            self._do(server.start())
            self._servers[place] = server

    def publish(self, version: str) -> None:
        """Have a version, which is current in its folder, answer whatever is asked from here on.

        Folders that nobody has asked yet are loaded when somebody does.

        Raises:
            InvalidData: It can't answer, and the version before it goes on; or it is current in
                none of the folders.
        """
        if self._given is not None:
            self._given.refresh(version)
        for place, server in self._servers.items():
            server.turns += 1
            self._do(server.refresh())
            if server.refused:
                raise InvalidData(
                    f"the current version in {place} can't answer: {server.refused}",
                    hint="publish one that is whole, or point to the one before",
                )
        if self._servers and version not in self.versions().values():
            raise InvalidData(
                f"version {version!r} is current in none of {', '.join(self._servers)}",
                hint="publish it there first: replay.model_versions.publish",
            )

    def versions(self) -> dict[str, str]:
        """The version that answers, by folder."""
        there = self._servers.items()
        return {place: one.loaded.name for place, one in there if one.loaded is not None}

    def close(self) -> None:
        """Let go of all that is loaded."""
        for server in self._servers.values():
            self._do(server.stop())
        self._servers.clear()

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of work that waits for nothing but its own steps."""
        task = self._loop.create_task(work)
        self._loop.run(task.done, self._loop.now)
        result: _T = task.result()
        return result
