"""The log of all runs as the broker has it, message by message; and where its reader got to."""

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from podium.tracing.follower import Told
from protocol import subjects
from protocol.actions import BlobRef
from replay.broker import Broker, persist
from replay.chain import RunLog
from replay.connection import Heard
from replay.jetstream_log import SETTLE_S, JetStreamLog
from replay.shelves import Shelves

logger = logging.getLogger("podium.tracing")

OFFSETS: Final = "traces.json"
"""In the deployment's folder: how far the log has been exported."""

PAGE_BYTES: Final = 128_000
"""Bytes of one read: a few hundred messages, some 30 ms of work. A longer piece would fill a core
for as long as it takes before it rests, and need a longer rest than there is."""

EVERYTHING: Final = ">"
"""Whatever a stream has. A server that is to look for less, be it all that there is, looks through
the subjects of thousands of runs for each message: nine times the work."""

NOWHERE: Final = Shelves()
"""No shelves."""


class Offset(msgspec.Struct):
    """How far one stream has been exported."""

    created: str
    """When the stream was made: another one of the same name begins anew."""
    seq: int


class BrokerFeed:
    """A `Feed` over a `Broker`, which may be one that can only read.

    Args:
        broker: Where messages come from.
        shelves: Where else a run may be that another was forked from.
    """

    def __init__(self, broker: Broker, shelves: Shelves = NOWHERE) -> None:
        self._broker, self._log = broker, JetStreamLog(broker)
        self._reader = shelves.over(self._log)

    async def page(self, shard: int, after: int) -> tuple[list[Told], int]:
        """See `Feed.page`."""
        stream = subjects.log_stream(shard)
        page, pending = await persist(
            lambda: self._broker.page(stream, EVERYTHING, after, _told, PAGE_BYTES),
            SETTLE_S,
            stream,
        )
        return page, pending

    async def read(self, run: str) -> RunLog:
        """See `Feed.read`."""
        return await self._reader.read(run)

    async def blob(self, ref: BlobRef) -> bytes:
        """See `Feed.blob`."""
        return await self._reader.get_blob(ref)

    async def ends(self) -> dict[int, Offset]:
        """The end of each shard's log, as it is now."""
        found: dict[int, Offset] = {}
        for shard in await self._log.shards():
            stream = subjects.log_stream(shard)
            info = await self._info(stream)
            found[shard] = Offset(str(info.get("created", "")), int(info["state"]["last_seq"]))
        return found

    async def _info(self, stream: str) -> Any:
        path = f"$JS.API.STREAM.INFO.{stream}"
        return await persist(lambda: self._broker.request(path), SETTLE_S, stream)


def _told(message: Heard, seq: int) -> Told:
    return Told(seq, message.header("Nats-Subject"), message.data)


class Offsets:
    """How far each shard has been exported, in a file of the deployment's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / OFFSETS
        self._created: dict[int, str] = {}
        self.seqs: dict[int, int] = {}

    def load(self, ends: dict[int, Offset]) -> None:
        """Where to go on; for a log that was never exported, at its end.

        Args:
            ends: The end of each shard's log.
        """
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=dict[int, Offset])
        except FileNotFoundError:
            kept = dict(ends)
        except (msgspec.MsgspecError, OSError) as error:
            logger.warning("%s can't be read, traces begin here: %s", self._path, error)
            kept = dict(ends)
        self._created = {shard: end.created for shard, end in ends.items()}
        self.seqs = {
            shard: min(kept[shard].seq, end.seq)
            if shard in kept and kept[shard].created == end.created
            else 0
            for shard, end in ends.items()
        }
        self.store()

    def store(self) -> None:
        """Keep them."""
        data = {shard: Offset(self._created[shard], seq) for shard, seq in self.seqs.items()}
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(data))
        temporary.replace(self._path)


async def begin(feed: BrokerFeed, folder: Path) -> Offsets:
    """Where to go on. Raises `Unreachable`."""
    offsets = Offsets(folder)
    offsets.load(await feed.ends())
    return offsets
