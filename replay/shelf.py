"""A shelf: a source of runs that is only read, such as an exported file or the archive.

Runs stand on a shelf with their original bytes, so whoever reads one checks the same hashes and the
same chain as in the log it came from. `layered` shows shelves and a live log as one.
"""

from collections.abc import Iterable
from typing import Protocol

from protocol.actions import BlobRef
from protocol.codec import blob_ref, digest
from protocol.errors import InvalidData, NotFound
from replay.chain import Messages, Stored

NONE: Messages = Messages([], [])
"""Of a run that isn't there."""


class Shelf(Protocol):
    """Read-only. Its methods may block on a disk or a network: call them beside the event loop."""

    name: str
    """Where it is: a path or a URL, for messages."""

    def refresh(self) -> None:
        """Look what has been added since it was last looked at."""
        ...

    def has(self, run: str) -> bool:
        """Whether it holds messages of the run, as far as is known: never blocks."""
        ...

    def runs(self, prefix: str = "") -> list[str]:
        """Ids, sorted, of the runs that it holds from their first commit on."""
        ...

    def get(self, run: str) -> Messages:
        """All messages of a run that it holds, in stream order; none for an unknown run.

        Raises:
            InvalidData: What is there is damaged.
        """
        ...

    def blob(self, ref: BlobRef) -> bytes:
        """The bytes of a blob.

        Raises:
            NotFound: It holds no such blob.
            InvalidData: What is there is damaged.
        """
        ...


def checked(data: bytes, ref: BlobRef, where: str) -> bytes:
    """The bytes, if they are what the reference says."""
    if blob_ref(data) != ref:
        raise InvalidData(
            f"blob {ref.sha256} doesn't hold what its name says, in {where}",
            hint="that copy is damaged: take another one",
        )
    return data


def no_blob(ref: BlobRef, where: str) -> NotFound:
    """The error of a shelf that doesn't hold a blob."""
    return NotFound(f"there is no blob {ref.sha256} in {where}")


def merged(sources: Iterable[Messages]) -> Messages:
    """One run out of several places, each of which may have some of its messages.

    The same commit is the same wherever it stands. Two equal messages of an inbox are two, unless
    they also have the same sequence: then one is the copy of the other.
    """
    commits: dict[str, Stored] = {}
    inbox: dict[tuple[int, str], Stored] = {}
    for source in sources:
        for stored in source.commits:
            commits.setdefault(digest(stored.data), stored)
        for stored in source.inbox:
            inbox.setdefault((stored.seq, digest(stored.data)), stored)
    return Messages(list(commits.values()), list(inbox.values()))


__all__ = ["NONE", "Messages", "Shelf", "checked", "merged", "no_blob"]
