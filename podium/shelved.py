"""Runs that are only read: an exported file, or a folder with imported and archived runs.

Neither takes a broker or Ray. Whoever tries to begin or to steer a run there is told what to do.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actors.queues import Delivery, Outgoing, Puller
from podium.client import Client
from podium.config import Config
from podium.log_reader import LogReader
from protocol.errors import NotFound
from protocol.registry import EMPTY, Registry
from replay.bundle import BundleShelf
from replay.foreign import Foreign
from replay.imported import FOLDER
from replay.layered import LayeredLog
from replay.shelves import Shelves

if TYPE_CHECKING:
    from podium.applying import Applied
    from podium.poolfile import LoadedPool
    from replay.archive.archiver import Archiver
    from replay.archive.shelf import ArchiveShelf
    from replay.damage import Known
    from replay.durability import Settings
    from replay.scrub import Finding

ARCHIVE: Final = "archive"
"""The archive that is used if none is configured, within the folder of the embedded servers."""


def shelves_of(config: Config) -> Shelves:
    """What a deployment of this configuration reads beside its log."""
    folder = config.path()
    return Shelves(
        archive=config.archive.url,
        perhaps="" if config.archive.url else str(folder / ARCHIVE),
        imported=str(folder / FOLDER),
    )


def no_broker(config: Config) -> bool:
    """Whether no broker is named, and there never was one in the folder."""
    return not config.nats.url and not (config.path() / "nats").exists()


def no_deployment(config: Config) -> NotFound:
    """The error of a command that needs a deployment."""
    return NotFound(
        f"there is no deployment in {config.path()}",
        hint="start a run with `podium run`, or a deployment with `podium up`",
    )


def only_shelves(config: Config) -> bool:
    """Whether there is no broker, and runs to read all the same."""
    folder = config.path()
    if not no_broker(config):
        return False
    return bool(config.archive.url) or (folder / ARCHIVE).is_dir() or (folder / FOLDER).is_dir()


def file_reader(path: Path) -> tuple[LogReader, str]:
    """A reader of one exported file, and the run that it is of.

    Raises:
        NotFound, InvalidData: There is no such file, or it is none of ours.
    """
    shelf = BundleShelf(path)
    return LogReader(LayeredLog(None, [shelf])), shelf.manifest.run


class _NoQueue:
    """A task queue where there is nobody to take anything."""

    def __init__(self, nowhere: NotFound) -> None:
        self._nowhere = nowhere

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue.put`: nothing can be queued."""
        raise self._nowhere

    async def waits(self, subject: str) -> bool:
        """See `Queue.waits`: nothing is queued."""
        return False

    async def send(self, messages: Iterable[Outgoing]) -> None:
        """See `Queue.send`: nothing can be queued."""
        raise self._nowhere

    async def withdraw(self, subject: str) -> None:
        """See `Queue.withdraw`: nothing is queued."""

    async def pull(
        self,
        consumers: Iterable[str],
        capacity: Callable[[str], int],
        handler: Callable[[Delivery], None],
    ) -> Puller:
        """See `Queue.pull`: nothing will come."""
        raise self._nowhere


class ShelfHost:
    """What commands take for a deployment where there are only shelves."""

    def __init__(self, config: Config) -> None:
        self._folder = config.path()
        nowhere = NotFound(
            f"there is no deployment in {self._folder}, only runs to read",
            hint="begin a run with `podium run`, or import the file and fork it",
        )
        log = LayeredLog(None, shelves_of(config).open(), nowhere)
        self._client = Client(log, _NoQueue(nowhere))

    @property
    def client(self) -> Client:
        """See `Hosted`."""
        return self._client

    async def stats(self) -> list[dict[str, Any]]:
        """See `Hosted`: nobody is at work."""
        return []

    async def gone(self) -> None:
        """See `Hosted`: nobody hosts it."""

    async def settings(self) -> "Settings | None":
        """See `Hosted`: there is no broker."""
        return None

    async def foreign(self) -> Foreign:
        """See `Hosted`: nobody else writes here."""
        return Foreign()

    async def findings(self) -> "list[Finding]":
        """See `Hosted`: what is on a shelf is checked by whoever reads it."""
        return []

    async def heads(self, run: str = "") -> "dict[str, Known]":
        """See `Hosted`: nobody keeps heads of what is on a shelf."""
        return {}

    async def registry(self) -> Registry:
        """See `Hosted`: nobody hosts anything."""
        return EMPTY

    async def apply(
        self, pool: "LoadedPool", renewed: frozenset[str] = frozenset(), *, dry_run: bool = False
    ) -> "Applied":
        """See `Hosted`: there is nobody to host it."""
        raise NotFound(
            f"there is no deployment in {self._folder} whose workers could be changed",
            hint=f"start one: podium up --pool {pool.path}",
        )

    def archiver(self, shelf: "ArchiveShelf") -> "AbstractAsyncContextManager[Archiver]":
        """See `Hosted`: there is no live log to archive from."""
        raise NotFound(
            f"there is no deployment in {self._folder} with runs that could be archived",
            hint="name its folder: podium archive --folder FOLDER",
        )


@asynccontextmanager
async def connect(config: Config) -> AsyncIterator[ShelfHost]:
    """As `Host.connect`, where there are only shelves."""
    yield ShelfHost(config)
