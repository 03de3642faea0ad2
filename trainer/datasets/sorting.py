"""More structs than memory holds: sorted by keys, or in a queue.

Each is in a private file of SQLite's among the system's temporary files, without a name: it is gone
with the process, however that ends.
"""

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from protocol.errors import DiskFault

Key: TypeAlias = tuple[int | str, ...]

T = TypeVar("T", bound=msgspec.Struct)

_encode: Final = msgspec.msgpack.Encoder().encode


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DiskFault(
            f"what is sorted can't be kept on the disk: {error}",
            hint="make room where temporary files are (TMPDIR says where), and build again",
        ) from None


def _opened(owner: object, table: str) -> sqlite3.Connection:
    """A private file with one table, closed with its owner; nothing has to outlive a fault."""
    opened = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    weakref.finalize(owner, opened.close)
    for each in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", table, "BEGIN"):
        opened.execute(each)
    return opened


class Sorted(Generic[T]):
    """Structs, read in the order of their keys as often as wanted.

    Args:
        of: Their type.
        keys: How many keys each has; texts are in the order of their characters' numbers.

    Raises:
        DiskFault: There is no room for them. So do all that it does.
    """

    def __init__(self, of: type[T], keys: int) -> None:
        self._decode = msgspec.msgpack.Decoder(of).decode
        self._keys = range(keys)
        self._count = 0
        columns = ", ".join(f"k{key}" for key in self._keys)
        self._insert = f"INSERT INTO kept VALUES (?{', ?' * keys})"
        with _faults():
            self._db = _opened(self, f"CREATE TABLE kept ({columns}, data BLOB)")

    def add(self, key: Key, each: T) -> None:
        """Take one more."""
        with _faults():
            self._db.execute(self._insert, (*key, _encode(each)))
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return self.by(*self._keys)

    def by(self, *keys: int) -> Iterator[T]:
        """All of them, in the order of some of their keys."""
        order = ", ".join(f"k{key}" for key in keys)
        with _faults():
            for (data,) in self._db.execute(f"SELECT data FROM kept ORDER BY {order}"):
                yield self._decode(data)


class Queue(Generic[T]):
    """Structs, first in, first out.

    Args:
        of: Their type.

    Raises:
        DiskFault: There is no room for them. So do all that it does.
    """

    def __init__(self, of: type[T]) -> None:
        self._decode = msgspec.msgpack.Decoder(of).decode
        self._first = self._next = 0
        with _faults():
            self._db = _opened(self, "CREATE TABLE kept (place INTEGER PRIMARY KEY, data BLOB)")

    def __len__(self) -> int:
        return self._next - self._first

    def append(self, each: T) -> None:
        """Take one more."""
        with _faults():
            self._db.execute("INSERT INTO kept VALUES (?, ?)", (self._next, _encode(each)))
        self._next += 1

    def popleft(self) -> T:
        """The one that waits longest. Raises `IndexError` if none does."""
        if not self:
            raise IndexError("the queue is empty")
        with _faults():
            place = (self._first,)
            (data,) = self._db.execute("SELECT data FROM kept WHERE place = ?", place).fetchone()
            self._db.execute("DELETE FROM kept WHERE place = ?", place)
        self._first += 1
        return self._decode(data)
