"""What stands on the broker and belongs to nobody: found by looking, for `podium doctor`.

A conductor counts what it takes out of the queues and sets aside (its ``stats``); everything here
is still there, and can be counted again at any time by whoever may read.
"""

import asyncio
import re
from collections import Counter
from typing import Any, Final

import msgspec

from protocol import subjects
from replay.broker import Broker, Refused, persist
from replay.chain import RunLog
from replay.jetstream_log import SETTLE_S, JetStreamLog

READS_AT_ONCE: Final = 16
"""Runs read at a time: enough to keep a server busy, few enough to leave it to the conductors."""

_NO_STREAM: Final = 10059
_BLOB: Final = re.compile(r"blobs\.[0-9a-f]{64}\.[0-9]{1,6}")


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages are somebody else's, by where they stand."""

    commits: int = 0
    """On runs' commits, and no commit of theirs: set aside by every reader."""
    inbox: int = 0
    """In runs' inboxes, and no message for them: set aside by every reader."""
    runs: dict[str, int] = {}
    """The two above by run."""
    unbegun: int = 0
    """Runs that are said something and have not begun: still queued, or never asked for."""
    nowhere: int = 0
    """In the log, under subjects that name no run of their shard."""
    tasks: int = 0
    """Queued under what is no run's id. A conductor takes them out and sets them aside."""
    calls: int = 0
    """Queued for workers that nobody hosts; they go when they are a day old."""
    blobs: int = 0
    """Under what is no blob's name."""
    heads: int = 0
    """Under what is no run's id."""

    @property
    def total(self) -> int:
        """All of them, without the runs that have not begun."""
        return sum(
            (self.commits, self.inbox, self.nowhere, self.tasks, self.calls, self.blobs, self.heads)
        )


async def foreign(log: JetStreamLog) -> Foreign:
    """Look through all logs, queues and stores. Reads every run: not for a hot path.

    Raises:
        Unreachable: No answer in time.
    """
    broker = log.broker
    shards = [await _subjects(broker, subjects.log_stream(k)) for k in await log.shards()]
    tasks = await _subjects(broker, subjects.TASKS)
    calls = await _subjects(broker, subjects.CALLS)
    blobs = await _subjects(broker, subjects.BLOBS)
    heads = await _subjects(broker, subjects.HEADS)
    hosted = await _hosted(broker)
    logs = await _logs(log)
    aside = {run.run: _strange(run) for run in logs if _strange(run).total()}
    return Foreign(
        commits=sum(counts["commits"] for counts in aside.values()),
        inbox=sum(counts["inbox"] for counts in aside.values()),
        runs={run: counts.total() for run, counts in aside.items()},
        unbegun=sum(not run.commits for run in logs),
        nowhere=sum(
            count for each in shards for name, count in each.items() if not _of_a_run(name)
        ),
        tasks=sum(count for name, count in tasks.items() if not _names_run(name)),
        calls=sum(count for name, count in calls.items() if name.split(".")[1] not in hosted),
        blobs=sum(count for name, count in blobs.items() if not _BLOB.fullmatch(name)),
        heads=sum(count for name, count in heads.items() if not _names_run(name)),
    )


def _of_a_run(subject: str) -> bool:
    run = subject.split(".")[2]
    return subjects.is_run(run) and subject in (subjects.commits(run), subjects.inbox(run))


def _names_run(subject: str) -> bool:
    return subjects.is_run(subject.rpartition(".")[2])


async def _logs(log: JetStreamLog) -> list[RunLog]:
    """What was set aside of each run; the rest is let go at once."""
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def one(run: str) -> RunLog:
        async with gate:
            read = await log.read(run)
        read.inbox.clear()
        read.origin = None
        del read.set_aside["origin"]
        del read.commits[1:]
        return read

    return await asyncio.gather(*(one(run) for run in await log.runs()))


def _strange(run: RunLog) -> Counter[str]:
    """What was set aside, but for the origin of a fork, which may be in the archive."""
    return Counter({where: count for where, count in run.set_aside.items() if where != "origin"})


async def _subjects(broker: Broker, stream: str) -> dict[str, int]:
    """Messages by subject; nothing of a stream that isn't there."""
    found: dict[str, int] = {}
    while True:
        body = {"subjects_filter": ">", "offset": len(found)}
        info = await _ask(broker, f"$JS.API.STREAM.INFO.{stream}", body)
        page = info.get("state", {}).get("subjects") or {}
        found.update(page)
        if not page or len(found) >= info.get("total", 0):
            return found


async def _hosted(broker: Broker) -> set[str]:
    """Names of the workers whose calls somebody can take."""
    found: set[str] = set()
    offset = 0
    while True:
        path = f"$JS.API.CONSUMER.LIST.{subjects.CALLS}"
        answer = await _ask(broker, path, {"offset": offset})
        page = answer.get("consumers") or []
        found |= {each["config"].get("filter_subject", "..").split(".")[1] for each in page}
        offset += len(page)
        if not page or offset >= answer.get("total", 0):
            return found


async def _ask(broker: Broker, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await persist(
            lambda: broker.request(path, body), SETTLE_S, "what stands on the broker"
        )
    except Refused as error:
        if error.code != _NO_STREAM:
            raise
        return {}
    return answer
