"""What was said of a model's versions: a log beside them, folded; and publishing one.

``versions/log.jsonl`` holds a `Said` a line, and is only ever appended to, under a lock of the
kernel's. It stands with the versions and not with a deployment, for a folder may be served by
several, or by none while it is trained. ``versions/current`` is what the log comes to. Between the
two a process may die: whoever reads next writes what is missing, the server of the model included.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from protocol.actions import Json
from protocol.errors import Denied, DiskFault, InvalidData, NotFound, TimedOut, TooLarge
from protocol.model_versions import (
    BASE,
    EMPTY,
    Said,
    VersionEvent,
    VersionPromoted,
    VersionPublished,
    Versions,
    folded,
    promoted,
)
from replay.disk import reading
from replay.model_folder import (
    FOLDER,
    Manifest,
    Version,
    find,
    names,
    place,
    point_at,
    pointed_at,
    pointer,
    synced,
    weights_of,
)

logger = logging.getLogger("podium.models")

LOG: Final = "log.jsonl"

MAX_LINE_BYTES: Final = 2**20
"""Bytes of one line: the scores of two versions on a dozen sets, with the outcome of every task."""

LOCK_S: Final = 10.0
"""Seconds that a writer waits for another: it takes milliseconds to add a line and sync it, seconds
on a slow disk of another machine. Who has the lock for longer has been stopped, or hangs."""

LOCK_LOOK_S: Final = 0.02
"""Seconds between two looks whether the lock is free: as late as it may be noticed."""

_FOUND: Final = "found in the folder"
"""Why something is said that nobody said when it was done."""

_NOT_OURS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What is said of a folder that somebody else keeps."""

_decode = msgspec.json.Decoder(Said).decode

Decide = Callable[[Versions], Sequence[VersionEvent]]
"""What is to be said, if that was said before; nothing for nothing."""


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def user() -> str:
    """Who is at work here, as far as the environment says."""
    return os.environ.get("USER") or os.environ.get("LOGNAME") or "user"


class ModelLog:
    """The log of one folder. What was read once is not read again.

    Args:
        folder: The model's.
        clock: Milliseconds since the epoch.
        wait_s: Seconds that it waits while somebody else says something.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], int] = now_ms, wait_s: float = LOCK_S
    ) -> None:
        self.folder, self._clock, self._wait_s = folder, clock, wait_s
        self._path = folder / FOLDER / LOG
        self._versions, self._offset = EMPTY, 0

    def read(self) -> Versions:
        """All that was said, folded. What is there and was not said is said first.

        A folder that can't be written, or is locked for long, is read all the same.

        Raises:
            InvalidData: A line of the log can't be read; or there is none, and ``current`` names
                no version.
            Denied, DiskFault: The folder can't be read.
        """
        self._follow()
        if self._settled():
            return self._versions
        try:
            return self.say(lambda _: ())
        except TimedOut as error:
            logger.warning("what is there stays unsaid: %s", error.whole())
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            logger.debug("what is there stays unsaid: %s", error)
        return folded(self._versions, self._lines([], "", ""))

    def say(self, decide: Decide, *, by: str = "", why: str = "") -> Versions:
        """Say something more, if there is something to say, after what was said so far.

        Args:
            decide: What is said; called while nobody else can say anything.
            by: Who says it.
            why: Why, in their words.

        Raises:
            TooLarge: It is too much for one line.
            TimedOut: Somebody else has the lock, and keeps it.
            OSError: The folder can't be written.
            ...: Whatever ``decide`` raises; nothing was said then.
        """
        with self._locked() as file:
            self._follow()
            events = decide(folded(self._versions, self._lines([], by, why)))
            lines = self._lines(events, by, why)
            if lines:
                self._append(file, lines)
            text = _text(self._versions)
            if pointer(self.folder) != text:
                point_at(self.folder, text)
        return self._versions

    def history(self) -> list[Said]:
        """All that was said, the first first. Raises as `read`."""
        self.read()
        return [said for said, _ in self._said(0)]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        self._path.parent.mkdir(exist_ok=True)
        begun = not self._path.exists()
        with self._path.open("ab") as file:
            self._lock(file)
            if begun:
                synced(self._path.parent)
            yield file

    def _lock(self, file: IO[bytes]) -> None:
        """Lock the log, as long as the file is open. Raises `TimedOut`."""
        until = time.monotonic() + self._wait_s
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TimedOut(
                        f"nothing can be said of the versions of {self.folder}: for "
                        f"{self._wait_s:g} s another process has the lock of {self._path}",
                        hint=f"see which: fuser {shlex.quote(str(self._path))}   let it go on (fg) "
                        "or end it, and try again",
                    ) from None
            time.sleep(LOCK_LOOK_S)

    def _append(self, file: IO[bytes], lines: Sequence[Said]) -> None:
        data = [msgspec.json.encode(said) + b"\n" for said in lines]
        for said, line in zip(lines, data, strict=True):
            if len(line) > MAX_LINE_BYTES:
                raise TooLarge(
                    f"change {said.n} of the versions of {self.folder} has {len(line)} bytes; "
                    f"a line holds {MAX_LINE_BYTES}",
                    hint="leave the outcomes of single tasks out of the scores",
                )
        file.truncate(self._offset)  # what a writer that died has left of its line
        file.write(b"".join(data))
        file.flush()
        os.fsync(file.fileno())
        self._follow()

    def _follow(self) -> None:
        """Read what was said since."""
        for said, end in self._said(self._offset):
            if said.n != self._versions.n + 1:
                raise self._damaged(f"line {self._versions.n + 1} has the number {said.n}")
            self._versions, self._offset = folded(self._versions, [said]), end

    def _said(self, offset: int) -> Iterator[tuple[Said, int]]:
        """The whole lines from there on, each with where it ends."""
        try:
            with reading(self._path), self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < offset:
                    raise self._damaged("it was longer before")
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            if offset:
                raise self._damaged("it is gone") from None
            return
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return  # being written, or left by a writer that died
            offset += len(line)
            try:
                yield _decode(line), offset
            except (msgspec.MsgspecError, RecursionError) as error:
                raise self._damaged(
                    f"the line that ends at byte {offset} can't be read: {error}"
                ) from None

    def _damaged(self, what: str) -> InvalidData:
        return InvalidData(
            f"{self._path}: {what}",
            hint="a later version of Podium may have written it; else take the log back from a "
            "backup, or move it away: what `current` names goes on",
        )

    # ----------------------------------------------------------------------------- what is not said

    def _settled(self) -> bool:
        """Whether all that is there was said, and ``current`` is what was said."""
        if self._unsaid():
            return False
        if not self._versions.n:
            return True
        return pointer(self.folder) == _text(self._versions)

    def _unsaid(self) -> list[VersionEvent]:
        """What is there and was not said: a publisher died, or has never heard of the log."""
        known = self._versions.known
        events: list[VersionEvent] = []
        for name in names(self.folder):
            if name in known:
                continue
            # No version, whatever it is; or nobody knows yet.
            with contextlib.suppress(InvalidData, NotFound, Denied, DiskFault):
                version = find(self.folder, name)
                assert version.manifest is not None
                said = version.manifest
                weights = weights_of(version)
                event = VersionPublished(
                    version=name, weights=weights, by=said.by, at=said.at, why=said.why
                )
                events.append(event)
        if not self._versions.n and (name := pointed_at(self.folder)) not in ("", BASE):
            events.append(VersionPromoted(version=name, gate="found"))
        return events

    def _lines(self, events: Sequence[VersionEvent], by: str, why: str) -> list[Said]:
        """What is not said yet, and then this."""
        n, at = self._versions.n, self._clock()
        lines: list[Said] = []
        if unsaid := self._unsaid():
            lines.append(Said(n=n + 1, at=at, by=by, why=_FOUND, events=tuple(unsaid)))
        if events:
            n += 1 + len(lines)
            lines.append(Said(n=n, at=at, by=by, why=why, events=tuple(events)))
        return lines


def _text(versions: Versions) -> str:
    """What ``current`` is to hold."""
    canary = versions.canary
    more = f"canary {canary.version} {canary.share:g}\n" if canary is not None else ""
    return f"{versions.current}\n{more}"


def pointed(folder: Path) -> str:
    """The name of the version that is current. Raises as `ModelLog.read`."""
    return ModelLog(folder).read().current


def publish(
    folder: Path,
    write: Callable[[Path], object],
    *,
    note: Mapping[str, Json] | None = None,
    current: bool = True,
    by: str = "",
    why: str = "",
) -> Version:
    """Publish a version: whole, or not at all.

    Args:
        folder: The model's.
        write: Writes a whole Transformers folder into an empty one: ``save_pretrained`` of the
            model and of the tokenizer.
        note: What is to be remembered of it; ``scores`` are a list of `trainer.gym.scores.Scores`,
            as JSON.
        current: Whether it answers from here on, whatever its scores: no gate is asked.
        by: Who publishes it; empty for the user.
        why: Why, in their words.

    Raises:
        InvalidData: What was written has no weights, or no config; or the log can't be read.
        TimedOut: It is there, and somebody else keeps the lock: whoever reads next says so.
        OSError: The disk is full, or the folder can't be written.
    """
    by = by or user()
    manifest = Manifest(version="", files={}, note=dict(note or {}), by=by, at=now_ms(), why=why)
    log = ModelLog(folder)
    version = place(folder, write, manifest, max(log.read().known, default="0"))
    if current:
        point(folder, version.name, by=by, why=why)
    else:
        log.say(lambda _: (), by=by)
    return version


def point(folder: Path, name: str, *, by: str = "", why: str = "") -> Versions:
    """Have a version answer from here on, whatever its scores: no gate is asked.

    Raises:
        NotFound, InvalidData: It is none.
        Denied, DiskFault: Its manifest can't be read.
        TimedOut: Somebody else has the lock, and keeps it.
    """
    weights = weights_of(find(folder, name))

    def decide(versions: Versions) -> list[VersionEvent]:
        return promoted(versions, name, weights=weights, gate="none")

    return ModelLog(folder).say(decide, by=by or user(), why=why)
