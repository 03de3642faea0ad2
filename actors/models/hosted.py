"""Which versions of a model are loaded, and which of them answers a question.

A run's first question goes to the current version, or to a canary if the run is in its share. Its
later ones go to whichever version made its last reply, by the run's log: a rollout is of one
version, also across a promotion and a restart of the server. That holds as long as the version is
loaded, or there is room to load it; else the run goes on as if it began.

Nobody waits while another version is loaded. What has not been asked for a while makes room. One
that is damaged is not tried again until something else is said; one that could not be read is.
"""

import asyncio
import errno
import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.models.question import Maker, Question
from protocol.errors import Denied, DiskFault, PodiumError
from protocol.model_versions import EMPTY, Versions
from replay.model_folder import find
from replay.model_versions import ModelLog

if TYPE_CHECKING:
    from actors.models.loading import Loaded
    from actors.models.serving import Batching

logger = logging.getLogger("podium.models")

KEEP_S: Final = 600.0
"""Seconds that a version stays loaded after its last question, if no run begins on it any more: as
long as workers keep what a run may come back to."""

RETRY_S: Final = 30.0
"""Seconds until a version whose files the system failed to read is tried again: a disk of another
machine is away for longer than a second, and a try reads gigabytes to compare hashes."""


class Hosted:
    """The versions of one folder.

    Args:
        folder: See `replay.model_folder`.
        batching: How many versions are kept, and how each is loaded.
        monotonic: Seconds of a clock that never goes back.
        counts: Where it counts ``swapped`` and ``refused``.
    """

    def __init__(
        self,
        folder: Path,
        batching: "Batching",
        monotonic: Callable[[], float],
        counts: Counter[str],
    ) -> None:
        self.folder, self.counts = folder, counts
        self.current: Loaded | None = None
        self.refused = ""
        """Why a version does not answer that was to, if one doesn't."""
        self._unfit = ""
        """The same, as long as it is of what was loaded, and not of what could not be read."""
        self._batching, self._monotonic = batching, monotonic
        self._log = ModelLog(folder)
        self._said: Versions = EMPTY
        self._tried: tuple[int, str] | None = None
        """For what was said of who answers that was last loaded."""
        self._failed: dict[str, tuple[float, PodiumError | OSError]] = {}
        """What of it can't be loaded: until when, and why."""
        self._kept: dict[str, Loaded] = {}
        self._asked: dict[str, float] = {}
        """When each of those was last asked."""
        self._gone: dict[Maker, float] = {}
        """What can't be loaded again, and until when."""
        self._coming: dict[Maker, asyncio.Task[None]] = {}
        """What is being loaded since a run has begun on it."""
        self._loading = asyncio.Lock()

    async def begin(self) -> None:
        """Load the current version.

        Raises:
            NotFound: There is no such folder, or the extra is not installed.
            InvalidData: The version can't answer.
            OSError, Denied, DiskFault: Its files can't be read.
        """
        try:
            async with self._loading:
                self._said = await self._read()
                if (failed := await self._choose()) is not None:
                    raise failed
        except (PodiumError, OSError) as error:
            self.refused = self._unfit = said_of(error)
            if self.current is None:
                raise

    async def end(self) -> None:
        """Load nothing more."""
        for task in self._coming.values():
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)

    async def refresh(self) -> None:
        """Have those answer who are to. One that can't is refused, and that is said once."""
        async with self._loading:
            before, failed = self.current, None
            try:
                self._said = await self._read()
                if self._wanted == self._tried and not self._due:
                    self._lapse()
                    self.refused = self._unfit
                    return
                failed = await self._choose()
                self._unfit = said_of(failed) if failed is not None else ""
            except (PodiumError, OSError) as error:  # it can't be read: perhaps the next time
                failed = error
            text = said_of(failed) if failed is not None else ""
            if text and text != self.refused:
                self.counts["refused"] += 1
                kept = self.current.name if self.current is not None else "none"
                logger.error("%s; version %s goes on", text, kept)
            self.refused = text
            if self.current is not None and self.current is not before:
                self.counts["swapped"] += 1
                logger.info("version %s answers in %s", self.current.name, self.folder)

    async def _read(self) -> Versions:
        """What is said; the folder may be on a disk of another machine, which hangs."""
        return await asyncio.to_thread(self._log.read)

    @property
    def _wanted(self) -> tuple[int, str]:
        """What was said of who answers."""
        return self._said.chosen, self._said.current

    async def _choose(self) -> PodiumError | OSError | None:
        """Load what is to answer. One that can't leaves things as they are, and is the result."""
        if self._tried != self._wanted:
            self._failed.clear()
            self._gone.clear()
        self._tried = self._wanted
        canary = self._said.canary
        for name in (self._said.current, *([canary.version] if canary is not None else ())):
            if name in self._failed and self._failed[name][0] > self._monotonic():
                continue
            try:
                loaded = await self._keep(name)
            except (PodiumError, OSError) as error:
                self._failed[name] = self._until(error), error
                continue
            self._failed.pop(name, None)
            if name == self._said.current:
                self.current = loaded
        self._room(0)
        return next((error for _, error in self._failed.values()), None)

    def _until(self, error: PodiumError | OSError) -> float:
        """Until when what failed so is not tried again: for good, unless it may pass."""
        passing = isinstance(error, OSError | Denied | DiskFault)
        return self._monotonic() + RETRY_S if passing else math.inf

    @property
    def _due(self) -> bool:
        """Whether something that failed is to be tried again."""
        return any(until <= self._monotonic() for until, _ in self._failed.values())

    # ------------------------------------------------------------------------------------ questions

    async def answering(self, question: Question) -> "Loaded | None":
        """The version that answers a question; None if there is none at all."""
        loaded = await self._made(question.maker)
        if loaded is None:
            loaded = self._kept.get(self._said.answers(question.run)) or self.current
        if loaded is not None:
            self._asked[loaded.name] = self._monotonic()
        return loaded

    async def _made(self, maker: Maker) -> "Loaded | None":
        """The version that made a reply; None if it isn't there."""
        if not maker.version or self.current is None:
            return None
        known = self._gone.get(maker, -math.inf) > self._monotonic()
        if maker.version not in self._kept and self._free and not known:
            if (coming := self._coming.get(maker)) is None:
                coming = asyncio.create_task(self._back(maker), name="version")
                self._coming[maker] = coming
                coming.add_done_callback(lambda _: self._coming.pop(maker, None))
            # Whoever asks may have less time than it takes, and the server may end.
            await asyncio.wait([coming])
        found = self._kept.get(maker.version)
        return found if found is not None and found.weights == maker.weights else None

    async def _back(self, maker: Maker) -> None:
        """Load what a run began on, where there is room: after a restart of the server."""
        async with self._loading:
            if maker.version in self._kept or not self._free:
                return
            try:
                found = await self._keep(maker.version)
            except (PodiumError, OSError) as error:
                logger.warning("%s; its runs go on with another version", said_of(error))
                self._gone[maker] = self._until(error)
                return
            if found.weights != maker.weights:
                self._gone[maker] = math.inf

    # --------------------------------------------------------------------------------------- memory

    async def _keep(self, name: str) -> "Loaded":
        """A version, loaded. Raises as `begin`."""
        if name not in self._kept:
            self._room(1)
            self._kept[name] = await asyncio.to_thread(self._load, name)
        self._asked[name] = self._monotonic()
        return self._kept[name]

    def _load(self, name: str) -> "Loaded":
        from actors.models.loading import load, need

        need()
        import actors.models.replies  # noqa: F401 - loaded here, beside the event loop

        try:
            return load(find(self.folder, name), self._batching)
        except OSError as error:  # which may not even say what it was of
            what = f"version {name} in {self.folder} can't be read: {error.strerror or error}"
            raise OSError(error.errno or errno.EIO, what) from None

    @property
    def _needed(self) -> set[str]:
        """Those that runs which begin get."""
        canary = self._said.canary
        answering = {self.current.name} if self.current is not None else set()
        return answering | {self._said.current} | ({canary.version} if canary else set())

    @property
    def _free(self) -> bool:
        """Whether one more may be kept."""
        return len(self._kept) < self._batching.versions

    def _room(self, more: int) -> None:
        """Let go of what was asked least lately, so that so many more can be kept."""
        needed = self._needed
        idle = sorted(self._kept.keys() - needed, key=lambda name: self._asked[name])
        for name in idle[: max(0, len(self._kept) + more - self._batching.versions)]:
            self._drop(name)

    def _lapse(self) -> None:
        """Let go of what nobody has asked for a while."""
        now = self._monotonic()
        for name in self._kept.keys() - self._needed:
            if now - self._asked[name] >= KEEP_S:
                self._drop(name)

    def _drop(self, name: str) -> None:
        """A batch that still has it at work keeps it until it is empty."""
        del self._kept[name], self._asked[name]

    def stats(self) -> dict[str, Any]:
        """What there is."""
        canary = self._said.canary
        said: dict[str, Any] = {"version": self.current.name if self.current is not None else ""}
        if canary is not None:
            said["canary"] = {"version": canary.version, "share": canary.share}
        return {**said, "loaded": sorted(self._kept), "refused": self.refused}


def said_of(error: PodiumError | OSError) -> str:
    """An error's text."""
    return error.message if isinstance(error, PodiumError) else str(error)
