"""Blobs out of the live store, once the archive has them and no run there names them any more.

A blob is stored once for all runs that hold the same value, so it doesn't go with the run that it
was archived with. It goes when

- the archive has it: it is read back from there, and its hash compared, just before;
- no message in the live log has its hash in it: of whatever run, ended or not, late messages of
  archived runs included; nor has what the forks there share with archived runs;
- it was stored long enough ago that its upload is over, see `GRACE_MS`: the server removes what
  stands before a sequence, and nothing that is stored meanwhile.

Cut short anywhere, a blob stands in the archive, and perhaps half of it in the live store: then it
is read from the archive, and an upload of the same value puts back what is missing.

One thing the broker can't exclude: a worker that finds its value there already leaves no trace
until its report is stored. If the blob is removed in between, then the report names a blob that
only the archive has. That is where it is read from.
"""

import asyncio
import logging
import re
from typing import Final

from protocol.actions import BlobRef
from protocol.errors import UNREAD
from replay.archive.keeper import Keeper
from replay.archive.shelf import ArchiveShelf
from replay.bundle import named_blobs
from replay.chain import Messages, assemble
from replay.log import EventLog

logger = logging.getLogger("podium.archive")

GRACE_MS: Final = 3_600_000
"""Milliseconds that a blob stays at least. A worker stores it right before its report, and gives
either up after half a minute without an answer; this is for clocks that differ and processes that
were stopped."""

READS_AT_ONCE: Final = 16
"""Runs read at a time: enough to keep a server busy, few enough to leave it to the conductors."""

_HASH: Final = re.compile(rb"[0-9a-f]{64}")


def mentioned(messages: Messages) -> set[str]:
    """Every SHA-256 in the bytes of a run's messages, also of those that can't be decoded."""
    return {
        found.decode()
        for stored in (*messages.commits, *messages.inbox)
        for found in _HASH.findall(stored.data)
    }


async def free(
    log: EventLog, readers: EventLog, keeper: Keeper, shelf: ArchiveShelf, before: int
) -> int:
    """Remove what the archive has and no run in the live log names; how many blobs went.

    Args:
        log: The live log.
        readers: The same with all shelves, for what forks share.
        keeper: What removes blobs.
        shelf: The archive; it has to be one that all readers of the live log read, too.
        before: Only what was stored before, milliseconds since the epoch.

    Raises:
        InvalidData: What a fork shares is damaged, so nobody knows what it names.
        Unreachable, Denied, Busy: Either side does not answer; doing it again goes on.
    """
    await asyncio.to_thread(shelf.refresh)
    places = shelf.index.blobs
    there = [blob for blob in await keeper.blobs() if blob in places]
    if not there:
        return 0
    mark = await keeper.mark(before)
    named = await _named(log, readers)
    freed = 0
    for blob in sorted(set(there) - named):
        try:
            await asyncio.to_thread(shelf.blob, BlobRef(blob, places[blob].size))
        except UNREAD as error:
            logger.error("blob %s stays in the live store: %s", blob, error.message)
            continue
        freed += await keeper.remove(blob, mark)
    return freed


async def _named(log: EventLog, readers: EventLog) -> set[str]:
    """The blobs that runs in the live log name."""
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def one(run: str) -> set[str]:
        async with gate:
            messages = await log.stored(run)
            found = mentioned(messages)
            if assemble(run, *messages).forked is not None:
                for each in (await readers.read(run)).lineage():
                    found |= named_blobs(each).keys()
            return found

    return set().union(*await asyncio.gather(*(one(run) for run in await log.runs())))
