"""The policy server: one model, asked by many runs at once, its weights swapped between requests.

Questions come in on an event loop; a thread of its own samples. Which version answers a question is
settled when it comes (`hosted`): the version's batch goes on until it is empty, beside those of
other versions. So no reply is made by two versions, and nobody waits for others to finish.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.models.hosted import Hosted
from actors.models.question import Question
from actors.models.serving import DEFAULT, Batching
from protocol.decisions import Reply

if TYPE_CHECKING:
    from actors.models.loading import Loaded
    from actors.models.sampler import Batch, Row

logger = logging.getLogger("podium.models")

LOOK_S: Final = 1.0
"""Seconds between two looks for a new version: one small file is read."""

MAX_ASKED: Final = 8_192
"""Questions at a time, at work or waiting; each holds its prompt."""

Done = Callable[["Row"], None]


class Engine:
    """The thread that samples.

    Args:
        batching: How many rows fit.
        clock: Seconds, as in `Row.deadline`.
    """

    def __init__(self, batching: Batching, clock: Callable[[], float]) -> None:
        self._batching, self._clock = batching, clock
        self._coming: queue.SimpleQueue[tuple[Loaded, Row, Done] | None] = queue.SimpleQueue()
        self._batches: dict[int, Batch] = {}
        self._done: dict[Row, Done] = {}
        self._thread = threading.Thread(target=self._run, name="sampling", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Take nothing more, and stop, whatever is at work."""
        self._closed = True
        self._coming.put(None)

    def join(self) -> None:
        """Wait until it has stopped."""
        self._thread.join()

    def submit(self, loaded: "Loaded", row: "Row", done: Done) -> None:
        """Sample a row with a version; ``done`` is called on the thread when it has ended."""
        self._coming.put((loaded, row, done))

    def withdraw(self, row: "Row") -> None:
        """Nobody waits for a row any more."""
        row.deadline = -1.0  # read between two steps

    @property
    def alive(self) -> bool:
        """Whether it is at work, or can be."""
        return self._thread.is_alive() and not self._closed

    def _run(self) -> None:
        try:
            self._work()
        finally:
            for row, done in self._done.items():
                row.error = "the model's server has stopped"
                done(row)

    def _work(self) -> None:
        while self._take():
            for known, batch in list(self._batches.items()):
                try:
                    ended = batch.step(self._clock())
                except Exception as error:
                    logger.exception("a batch of version %s failed", batch.loaded.name)
                    ended = batch.fail(f"{type(error).__name__}: {error}")
                if batch.idle:
                    del self._batches[known]
                for row in ended:
                    self._done.pop(row)(row)

    def _take(self) -> bool:
        """Take in what has come, waiting for it if nothing is at work. False at the end."""
        from actors.models.sampler import Batch

        while True:
            try:
                came = self._coming.get(block=not self._batches)
            except queue.Empty:
                return True
            if came is None:
                return False
            loaded, row, done = came
            self._done[row] = done
            batch = self._batches.setdefault(id(loaded), Batch(loaded, self._batching))
            batch.waiting.append(row)


class PolicyServer:
    """Hosts one folder.

    Args:
        folder: See `replay.model_folder`.
        batching: How its batches are.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        folder: Path,
        batching: Batching = DEFAULT,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.batching = folder, batching
        self.counts: Counter[str] = Counter()
        """What happened so far: ``asked``, by status; ``swapped``, ``refused``, ``withdrawn``."""
        self.asked = 0
        """Questions that wait for their reply."""
        self._monotonic = monotonic
        self._engine = Engine(batching, monotonic)
        self._ready = asyncio.Event()
        """Set when the first version is loaded, or can't be."""
        self.hosted = Hosted(folder, batching, monotonic, self.counts)
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the current version, and begin to answer.

        Raises:
            NotFound: There is no such folder, or the extra is not installed.
            InvalidData: The version can't answer.
            Denied, DiskFault, OSError: Its files can't be read.
        """
        try:
            await self.hosted.begin()
        finally:
            self._ready.set()
        self._engine.start()
        self._looking = asyncio.create_task(self._look(), name="versions")

    async def stop(self) -> None:
        """Stop answering. Whoever still waits hears so."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            await self.hosted.end()
            self._engine.close()  # here, so that no question comes in behind it
            await asyncio.to_thread(self._engine.join)

    async def refresh(self) -> None:
        """See `Hosted.refresh`."""
        await self.hosted.refresh()

    @property
    def loaded(self) -> "Loaded | None":
        """The current version."""
        return self.hosted.current

    @property
    def refused(self) -> str:
        """See `Hosted.refused`."""
        return self.hosted.refused

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.refresh()

    # ------------------------------------------------------------------------------------ questions

    async def ask(self, question: Question, within_s: float) -> Reply:
        """The reply; a failure is one with its status. Cancelling it takes the question back."""
        self.counts["asked"] += 1
        if self.asked >= MAX_ASKED:
            reply = _failed(f"{self.asked} questions wait already")
        else:
            self.asked += 1
            try:
                reply = await self._answered(question, within_s)
            finally:
                self.asked -= 1
        self.counts[reply.status] += 1
        return reply

    async def _answered(self, question: Question, within_s: float) -> Reply:
        started = self._monotonic()
        if not self._ready.is_set():
            try:
                await asyncio.wait_for(self._ready.wait(), within_s)
            except TimeoutError:
                text = f"the model was not loaded within {within_s:g} s"
                return Reply(status="TIMEOUT", error=text)
        left = within_s - (self._monotonic() - started)
        try:
            async with asyncio.timeout(max(0.0, left)):
                loaded = await self.hosted.answering(question)
        except TimeoutError:
            text = f"version {question.maker.version} was not loaded within {within_s:g} s"
            return Reply(status="TIMEOUT", error=text)
        if loaded is None:
            return _failed(self.refused)
        if not self._engine.alive:
            return _failed("the model's thread has ended")
        return await self._sampled(loaded, question, started, within_s)

    async def _sampled(
        self, loaded: "Loaded", question: Question, started: float, within_s: float
    ) -> Reply:
        from actors.models.replies import begun, ended

        asked = begun(loaded, question, started + within_s)
        if isinstance(asked, Reply):
            return asked
        await self._ended(loaded, asked.row)
        if asked.row.ended == "stopped" and not asked.row.error:
            return Reply(status="TIMEOUT", error=f"no reply within {within_s:g} s")
        return ended(loaded, asked, self.folder.name, self._monotonic() - started)

    async def _ended(self, loaded: "Loaded", row: "Row") -> None:
        """Wait until a row has ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def done(_: "Row") -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle)

        self._engine.submit(loaded, row, done)
        try:
            await future
        except asyncio.CancelledError:
            self.counts["withdrawn"] += 1
            self._engine.withdraw(row)
            raise

    @property
    def failed(self) -> str:
        """Why nothing is answered, for good; "" if it is."""
        if not self._ready.is_set() or (self.loaded is not None and self._engine.alive):
            return ""
        return self.refused or "the model's thread has ended"

    def stats(self) -> dict[str, Any]:
        """How it is doing."""
        return {
            **self.hosted.stats(),
            "asked": self.asked,
            "counts": dict(self.counts),
        }


class Here:
    """`Models` of this process: for tests and rollouts without a broker.

    Args:
        servers: Started ones, by the folder that policies name.
    """

    def __init__(self, servers: dict[str, PolicyServer]) -> None:
        self._servers = servers

    async def ask(self, place: str, question: Question, within_s: float) -> Reply:
        """See `Models.ask`."""
        if (server := self._servers.get(place)) is None:
            return _failed(f"nobody hosts the model in {place}")
        return await server.ask(question, within_s)


def _failed(text: str, *, retry: bool = True) -> Reply:
    return Reply(status="EXEC_ERR", error=text, retry=retry)
