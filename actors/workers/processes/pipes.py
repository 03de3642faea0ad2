"""A warden's pipes: the lifeline to its worker, and the streams of what it looks after.

Loaded by an isolated interpreter, the standard library only.
"""

import codecs
import contextlib
import json
import os
from collections.abc import Mapping
from typing import Final

CHUNK: Final = 65_536
"""Bytes of one read: what a pipe holds."""

MAX_LINE_BYTES: Final = 4_194_304
"""Bytes. What is asked for comes inside a call's arguments and options, which are far smaller."""

TAIL_BYTES: Final = 2_000
"""Bytes kept of the end of each stream, to say how something failed."""

PRINTED: Final = ("stdout", "stderr")
"""The streams that are for the caller."""


class Lifeline:
    """The warden's input: lines, and whether the worker still holds it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.worker = os.getppid()
        self.closed = False

    def take(self) -> None:
        """Read once; blocks when nothing is there."""
        data = os.read(0, CHUNK)
        self.data += data
        self.closed = not data or len(self.data) > MAX_LINE_BYTES

    def held(self) -> bool:
        """Whether there is a worker. A process that it has forked may hold its end for it."""
        return not self.closed and os.getppid() == self.worker

    def line(self) -> bytes:
        """The next line, if it is whole; else nothing."""
        end = self.data.find(b"\n") + 1
        line = bytes(self.data[:end])
        del self.data[:end]
        return line

    def first(self) -> bytes:
        """Wait for the first line; empty if there will be none."""
        while not (line := self.line()) and not self.closed:
            self.take()
        return line


class Streams:
    """What comes out of a family, cut at limits; reading goes on so that nothing blocks.

    Args:
        limits: Bytes kept of each stream, by its name.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = limits
        self.read: dict[str, int] = {}
        self.write: dict[str, int] = {}
        self.kept: dict[str, bytearray] = {}
        self.tail: dict[str, bytes] = {}
        self.total: dict[str, int] = {}
        for name in limits:
            self.read[name], self.write[name] = os.pipe()
            os.set_blocking(self.read[name], False)
        self.clear()

    def clear(self) -> None:
        """Forget what came out."""
        for name in self.read:
            self.kept[name], self.tail[name], self.total[name] = bytearray(), b"", 0

    def take(self, name: str) -> bytes:
        """Read once from a stream; empty when nothing is there, or nothing will ever be."""
        try:
            data = os.read(self.read[name], CHUNK)
        except BlockingIOError:
            return b""
        self.total[name] += len(data)
        self.kept[name] += data[: max(0, self.limits[name] - len(self.kept[name]))]
        self.tail[name] = (self.tail[name] + data)[-TAIL_BYTES:]
        return data

    def drain(self) -> None:
        """Take what is left once everything that could write is dead or stopped."""
        for name in self.read:
            while self.take(name):
                pass

    def text(self, name: str) -> str:
        """What was kept; a character that the limit cut in two is left out."""
        whole = self.total[name] <= self.limits[name]
        return codecs.getincrementaldecoder("utf-8")("replace").decode(self.kept[name], whole)

    def printed(self) -> dict[str, object]:
        """What was printed, as the worker reads it: `warden.Printed`."""
        return {
            **{name: self.text(name) for name in PRINTED},
            **{f"{name}_bytes": self.total[name] for name in PRINTED},
            **{f"{name}_tail": self.tail[name].decode(errors="replace") for name in PRINTED},
        }

    def leave(self) -> None:
        """Close, in the warden, the ends that belong to the family."""
        for fd in self.write.values():
            os.close(fd)


def say(answer: Mapping[str, object]) -> None:
    """Write one answer, a line. Nobody may be there to read it."""
    data = json.dumps(answer).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(1, data) :]
