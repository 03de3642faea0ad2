"""The events of a run, numbered from 1: how people and programs name a moment of it.

A fork's history begins with the events that it shares, so a number means the same moment in both.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from protocol.actions import Json, Report
from protocol.codec import Commit
from protocol.events import AnyEvent
from replay.chain import RunLog


class Entry(NamedTuple):
    """One event, and where it stands."""

    number: int
    """From 1, over all commits."""
    run: str
    """Whose log it stands in: for what a fork shares, the origin's."""
    commit: Commit
    place: int
    """Its place within its commit, from 0."""
    event: AnyEvent

    @property
    def n(self) -> int:
        """The number of its commit in that log."""
        return self.commit.n

    @property
    def at(self) -> int:
        """When, milliseconds since the epoch."""
        return self.commit.at

    @property
    def kind(self) -> str:
        """The event's type, such as ``CallSettled``."""
        return type(self.event).__name__


def entries(log: RunLog) -> list[Entry]:
    """Every event of a run, those that a fork shares included."""
    return list(_entries(log))


def _entries(log: RunLog) -> Iterator[Entry]:
    number = 0
    if log.origin is not None:
        for entry in islice(_entries(log.origin), log.shared):
            yield entry
            number = entry.number
    for commit in log.commits:
        for place, event in enumerate(commit.events):
            number += 1
            yield Entry(number, log.run, commit, place, event)


def reports(log: RunLog) -> dict[str, Report]:
    """The reports of a run by their hash, those that a fork shares included."""
    found: dict[str, Report] = {}
    for each in log.lineage():
        for entry in each.inbox:
            if isinstance(entry.message, Report):
                found.setdefault(entry.hash, entry.message)
    return found


def values(log: RunLog) -> dict[str, Json]:
    """Their values, as `views` takes them; None for one that stands in a blob."""
    return {known: report.value for known, report in reports(log).items()}
