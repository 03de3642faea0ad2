"""Rollouts of the fast lane, as a source."""

from collections import deque
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Protocol

import msgspec

from protocol.commands import Start
from protocol.errors import Usage
from trainer.rollouts.groups import Series, group_of
from trainer.rollouts.source import Ask, Ended, Group, Health, last_version


class Lane(Protocol):
    """What `FastLane` and `FastLanes` have in common."""

    def stream(self, starts: Iterable[Start]) -> Iterator[Ended]:
        """See `FastLane.stream`."""
        ...

    def publish(self, version: str) -> None:
        """See `FastLane.publish`."""
        ...

    def close(self) -> None:
        """See `FastLane.close`."""
        ...

    @property
    def in_flight(self) -> int:
        """Runs that have begun and not ended."""
        ...


class FastSource:
    """Runs what is asked for while it is polled, and only then.

    Every run ends there, for nothing is waited for, so a group lacks none. Groups are given in the
    order in which they were asked for.

    Args:
        lane: Runs it; closed with the source.
        job: What ids are derived from: the same job gives the same rollouts.
    """

    def __init__(self, lane: Lane, job: str) -> None:
        self._lane, self._job = lane, job
        self._asks = Series()
        self._open: dict[str, _Open] = {}
        """By the key of a group, in the order in which they were asked for."""
        self._of: dict[str, str] = {}
        """The group of each run in flight."""
        self._starts = _Starts(self)
        self._stream: Iterator[Ended] | None = None
        self._health = Health()
        self._version = ""
        self._stopped = False

    def start(self) -> None:
        """See `RolloutSource.start`."""

    def ask(self, asks: Iterable[Ask]) -> None:
        """See `AskingSource.ask`."""
        self._asks.add(asks)

    def poll(self, timeout_s: float) -> list[Group]:
        """See `RolloutSource.poll`."""
        until = monotonic() + timeout_s
        closed: list[Group] = []
        while not closed and not self._stopped and not self.done and monotonic() < until:
            if self._stream is None:
                self._stream = self._lane.stream(self._starts)
            ended = next(self._stream, None)
            if ended is None:
                self._stream = None
            else:
                self._take(ended)
                closed = self._closed()
        return closed

    @property
    def done(self) -> bool:
        """See `RolloutSource.done`."""
        return not self._open and not self._asks

    def publish(self, version: str) -> None:
        """See `RolloutSource.publish`: the folder's current version is loaded, or refused."""
        self._lane.publish(version)

    @property
    def version(self) -> str:
        """See `RolloutSource.version`."""
        return self._version

    def health(self) -> Health:
        """See `RolloutSource.health`."""
        waiting, in_flight = self._asks.series, self._lane.in_flight
        return msgspec.structs.replace(self._health, waiting=waiting, in_flight=in_flight)

    def stop(self) -> None:
        """See `RolloutSource.stop`."""
        if not self._stopped:
            self._stopped, self._stream = True, None
            self._lane.close()

    def begin(self) -> tuple[Start, ...]:
        """The runs of the next group; none if no group is asked for."""
        ask = self._asks.next()
        if ask is None:
            return ()
        if ask.key in self._open:
            raise Usage(f"two groups are asked for by the key {ask.key!r}", hint="rename one")
        starts = ask.starts(self._job)
        self._open[ask.key] = _Open(starts)
        self._of.update((start.run, ask.key) for start in starts)
        return starts

    def _take(self, ended: Ended) -> None:
        opened = self._open[self._of.pop(ended.run)]
        opened.found[ended.run] = ended
        opened.left -= 1
        self._version = last_version([ended.rollout], self._version)

    def _closed(self) -> list[Group]:
        """The groups that are whole, as far as all before them are."""
        closed: list[Group] = []
        while self._open:
            key, opened = next(iter(self._open.items()))
            if opened.left:
                break
            del self._open[key]
            group = group_of(key, opened.found)
            self._health = self._health.plus(group)
            closed.append(group)
        return closed


class _Open:
    """A group whose runs are at work."""

    def __init__(self, starts: tuple[Start, ...]) -> None:
        self.found: dict[str, Ended | None] = {start.run: None for start in starts}
        self.left = len(starts)


class _Starts:
    """The starts of a source's groups. At its end, it goes on once more is asked for."""

    def __init__(self, source: FastSource) -> None:
        self._source = source
        self._left: deque[Start] = deque()

    def __iter__(self) -> Iterator[Start]:
        return self

    def __next__(self) -> Start:
        if not self._left:
            self._left.extend(self._source.begin())
        if not self._left:
            raise StopIteration
        return self._left.popleft()
