"""Fast lanes in several processes: all cores, the same logs, in the order of the starts.

Starts travel in parcels of a fixed size, so what is sampled together doesn't depend on how many
processes there are, nor do the logs. They come back as bytes, and are read as a log is.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Final, Self

import msgspec

from protocol.codec import encode
from protocol.commands import Start
from protocol.errors import Internal
from replay.chain import Stored, assemble
from trainer.rollouts.lane import FastLane
from trainer.rollouts.source import Ended, ended

PARCEL: Final = 128
"""Starts of one parcel: about a second of work, and a batch that is well filled."""

AHEAD: Final = 2
"""Parcels for each process that are under way or wait to be taken: what bounds memory."""


class Parcelled(msgspec.Struct, frozen=True, array_like=True):
    """An `Ended`, as it travels."""

    run: str
    commits: tuple[tuple[int, bytes], ...]
    inbox: tuple[tuple[int, bytes], ...]
    blobs: dict[str, bytes]
    below: "tuple[Parcelled, ...]"


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Parcelled]).decode
_starts: Final = msgspec.json.Decoder(list[Start]).decode


def packed(rollouts: Iterable[Ended]) -> bytes:
    """The bytes of some rollouts."""
    return _encode([_packed(each) for each in rollouts])


def unpacked(data: bytes) -> list[Ended]:
    """The rollouts of `packed`."""
    return [_unpacked(each) for each in _decode(data)]


def _packed(each: Ended) -> Parcelled:
    log = each.log
    return Parcelled(
        log.run,
        tuple(zip(log.seqs, map(encode, log.commits), strict=True)),
        tuple((entry.seq, encode(entry.message)) for entry in log.inbox),
        dict(each.blobs),
        tuple(_packed(child) for child in each.below),
    )


def _unpacked(parcel: Parcelled) -> Ended:
    commits, inbox = ([Stored(*each) for each in which] for which in (parcel.commits, parcel.inbox))
    log = assemble(parcel.run, commits, inbox)
    return ended(log, parcel.blobs, [_unpacked(each) for each in parcel.below])


class _Mine:
    """The lane of a process that was started for it."""

    lane: FastLane | None = None
    version = ""


def _open(make: Callable[[], FastLane]) -> None:
    _Mine.lane = make()


def _work(starts: bytes, version: str) -> bytes:
    lane = _Mine.lane
    assert lane is not None
    if version != _Mine.version:
        lane.publish(version)
        _Mine.version = version
    return packed(lane.run(_starts(starts)))


class FastLanes:
    """As `FastLane`, in several processes.

    Args:
        make: Makes the lane of one process: a function of a module's top level, or a `partial` of
            one, since it is pickled.
        processes: How many; 1 for each core that is free for it.
        parcel: Starts that a lane is given at once. Another number may give other logs, where a
            model is sampled: its floats are rounded as its batch is wide.
    """

    def __init__(
        self, make: Callable[[], FastLane], processes: int, *, parcel: int = PARCEL
    ) -> None:
        self._parcel, self._ahead = parcel, AHEAD * processes
        self._version = ""
        self.in_flight = 0
        """Runs that are with a process."""
        self._pool = ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_open, initargs=(make,)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, once what they are at is done."""
        self._pool.shutdown(cancel_futures=True)

    def publish(self, version: str) -> None:
        """Have a version answer in what is begun from here on; see `FastLane.publish`.

        One that can't answer is an error of the stream.
        """
        self._version = version

    def run(self, starts: Iterable[Start]) -> list[Ended]:
        """See `FastLane.run`."""
        return list(self.stream(starts))

    def stream(self, starts: Iterable[Start]) -> Generator[Ended, None, None]:
        """What comes of some starts, in their order; see `FastLane.stream`.

        Raises:
            PodiumError: As a lane does.
            Internal: A process has died, most often for want of memory.
        """
        coming, waiting = iter(starts), deque[tuple[int, Future[bytes]]]()
        try:
            while True:
                while len(waiting) < self._ahead and (parcel := [*islice(coming, self._parcel)]):
                    data = msgspec.json.encode(parcel)
                    waiting.append((len(parcel), self._pool.submit(_work, data, self._version)))
                    self.in_flight += len(parcel)
                if not waiting:
                    return
                count, future = waiting.popleft()
                found = unpacked(future.result())
                self.in_flight -= count
                yield from found
        except BrokenProcessPool as error:
            raise Internal(
                f"a process of the fast lane has died: {error}",
                hint="it may have had too little memory: have fewer processes, or runs at once",
            ) from error
        finally:
            for count, future in waiting:
                future.cancel()
                self.in_flight -= count
