"""A run with the runs below it, as the formats take it; and how content is named without it."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from protocol.actions import Json
from protocol.codec import decode_value
from protocol.errors import InvalidData, NotFound
from protocol.inbox import HANDED_BACK, Label, Reward
from protocol.subjects import child_id
from replay.chain import RunLog
from replay.family import children_of
from replay.history import reports
from replay.log import EventLog

KEY: Final = "podium"
"""The one key under which a format's free places hold what only Podium says."""

MAX_LEVELS: Final = 64
"""Levels of runs that are followed: more than any budget allows, so that nothing goes on for
ever."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class Tree(NamedTuple):
    """A run and those below it."""

    log: RunLog
    values: dict[str, Json]
    """Values by the hash of the report that carries them."""
    below: dict[str, "Tree"]
    """By run id, in the order in which they were begun."""

    def child(self, run: str, call: str, attempt: int) -> "Tree | None":
        """The run that answers an attempt, if it is here."""
        return self.below.get(child_id(run, call, attempt)) or self.below.get(
            child_id(self.log.run, call, attempt)
        )


async def read_tree(
    log: EventLog, run: str, *, children: bool = True, blobs: bool = False, levels: int = MAX_LEVELS
) -> Tree:
    """Read a run and the runs below it.

    Args:
        log: Where from.
        run: Its id.
        children: Whether the runs below it are read.
        blobs: Whether values are fetched that stand in blobs; else they are None.
        levels: How many more levels are followed.
    """
    found = await log.read(run)
    values: dict[str, Json] = {}
    for known, report in reports(found).items():
        values[known] = report.value
        if report.blob is not None and blobs:
            try:
                values[known] = decode_value(await log.get_blob(report.blob))
            except (NotFound, InvalidData):
                values[known] = f"(blob {report.blob.sha256} is not in the store any more)"
    below: dict[str, Tree] = {}
    for name in children_of(found) if children and levels else ():
        tree = await read_tree(log, name, blobs=blobs, levels=levels - 1)
        if tree.log.commits:
            below[name] = tree
    return Tree(found, values, below)


def ref(value: Json) -> str:
    """What stands for content that is left out: the hash of its JSON."""
    return f"sha256:{sha256(_encode(value)).hexdigest()}"


def text(value: Json) -> str:
    """A value as text."""
    return value if isinstance(value, str) else _encode(value).decode()


def iso(milliseconds: int) -> str:
    """A time in ISO 8601, UTC; the last one that can be written for what lies beyond it."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.max.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rewards(log: RunLog) -> list[Reward]:
    """The rewards that were given, in their order."""
    return [each.message for each in log.inbox if isinstance(each.message, Reward)]


def labels(log: RunLog) -> list[Label]:
    """The labels that were given, in their order."""
    said = (each.message for each in log.inbox if isinstance(each.message, Label))
    return [label for label in said if label.key != HANDED_BACK]


__all__ = [
    "KEY",
    "Tree",
    "iso",
    "labels",
    "read_tree",
    "ref",
    "rewards",
    "text",
]
