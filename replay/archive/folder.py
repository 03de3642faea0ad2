"""A place for files by its URL: a folder, an object store, or whatever else `fsspec` reaches.

Whoever looks finds a file whole or not at all. An object store sees to that by itself: an upload
that is cut short is no object. Elsewhere a file is put under another name first and moved; and on a
disk of this machine it is also synced, for what is purged afterwards stands nowhere else.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from io import SEEK_CUR, SEEK_END, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, Final, cast

from protocol.errors import Denied, InvalidData, NotFound, PodiumError, Unreachable, Usage
from replay.disk import fault

EXTRA: Final = "install what it needs: pip install 'podium[archive]'"

_TEMPORARY: Final = "tmp"

_EXTRAS: Final = {"s3": "s3", "s3a": "s3"}
"""Our extras with the library of a kind of URL, by its scheme."""

_STORES: Final = frozenset({"abfs", "az", "gcs", "gs", "s3", "s3a"})
"""Object stores: what is put there is an object when all of it has arrived, and there are no
folders to be made."""

READ_AT_ONCE: Final = 64
"""Small files that are asked for at a time of a store: each takes tens of milliseconds."""

_BUFFER_BYTES: Final = 64 * 2**10
"""Read at a time of a file elsewhere, at least: the foot of most Parquet files is smaller."""


class Folder:
    """Files below a URL.

    Args:
        url: Such as ``/data/archive``, ``file:///data/archive`` or ``s3://bucket/podium``.

    Raises:
        Usage: Nothing here can reach that kind of URL.
    """

    def __init__(self, url: str) -> None:
        fsspec = _fsspec()
        if "://" not in url:
            url = Path(url).expanduser().absolute().as_uri()
        scheme = url.partition("://")[0]
        extra = _EXTRAS.get(scheme)
        install = f"pip install 'podium[{extra}]'" if extra else "install the package that it names"
        try:
            # Without their cache of listings: what is asked here is what is there now.
            options = {"use_listings_cache": False} if scheme in _STORES else {}
            self._fs, self._root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise Usage(
                f"the archive {shown(url)} can't be reached: {error}",
                hint=f"{install}, or use another URL",
            ) from None
        self._root = self._root.rstrip("/")
        self.url = shown(url).rstrip("/")
        self._local, self._store = "file" in _protocols(self._fs), scheme in _STORES

    def names(self, below: str) -> list[str]:
        """Names of the files in a subfolder, sorted; none where there is no such folder.

        Raises:
            NotFound: There is no such bucket.
        """
        try:
            found = self._fs.ls(self._path(below), detail=False)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise self.failed(below, error) from None
            return []
        except Exception as error:
            raise self.failed(below, error) from None
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def read(self, name: str) -> bytes:
        """A whole file. Raises `NotFound`."""
        try:
            data: bytes = self._fs.cat_file(self._path(name))
        except Exception as error:
            raise self.failed(name, error) from None
        return data

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        """Whole files, in that order; many at a time of a store. Raises `NotFound`."""
        waiting = list(names)
        for start in range(0, len(waiting), READ_AT_ONCE):
            part = waiting[start : start + READ_AT_ONCE]
            paths = [self._path(name) for name in part]
            try:
                found = self._fs.cat_ranges(paths, None, None, on_error="return")
            except Exception as error:
                raise self.failed(part[0], error) from None
            for name, data in zip(part, found, strict=True):
                if isinstance(data, Exception):
                    raise self.failed(name, data)
                yield data

    def open(self, name: str) -> BufferedReader:
        """A file to read parts of. Raises `NotFound`; so may its reads, and as `read` does."""
        path = self._path(name)
        try:
            if self._local:
                return cast(BufferedReader, self._fs.open(path, "rb"))
            size: int = self._fs.info(path)["size"]
        except Exception as error:
            raise self.failed(name, error) from None

        def read(start: int, end: int) -> bytes:
            try:
                data: bytes = self._fs.cat_file(path, start=start, end=end)
            except Exception as error:
                raise self.failed(name, error) from None
            return data

        return BufferedReader(_Elsewhere(read, size), _BUFFER_BYTES)

    def put(self, name: str, source: Path) -> None:
        """Put a local file there under a name, whole or not at all; durable when this returns."""
        staged = f"{_TEMPORARY}/{secrets.token_hex(8)}"
        try:
            if self._store:
                self._fs.put_file(os.fspath(source), self._path(name))
                return
            self._fs.makedirs(self._path(_TEMPORARY), exist_ok=True)
            self._fs.makedirs(self._path(name.rpartition("/")[0]), exist_ok=True)
            self._fs.put_file(os.fspath(source), self._path(staged))
            if self._local:
                _sync(self._path(staged))
            self._fs.mv(self._path(staged), self._path(name))
            if self._local:
                for folder in (os.path.dirname(self._path(name)), self._root):
                    _sync(folder)  # the entry of the file, and that of a folder made for it
        except Exception as error:
            raise self.failed(name, error) from None

    def url_of(self, name: str) -> str:
        """The whole URL of a file."""
        return f"{self.url}/{name}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def failed(self, name: str, error: Exception) -> PodiumError:
        """What a file system raised, as one of ours: their libraries raise what they like."""
        if isinstance(error, PodiumError):
            return error
        text = f"the archive {self.url}: {name}: {error}"
        if _code(error) == "NoSuchBucket":
            return NotFound(text, hint="make the bucket, or mend the archive's URL")
        if isinstance(error, FileNotFoundError):
            return NotFound(text, hint="was it moved? `podium archive --check` reads all of it")
        if "Credentials" in type(error).__name__:  # of botocore and of google.auth
            return Denied(text, hint=_WHERE_KEYS)
        if self._local and isinstance(error, OSError):
            return fault(f"the archive {self.url}: {name}", error)
        if isinstance(error, PermissionError):
            return Denied(text, hint=_RIGHTS)
        return Unreachable(text, hint="nothing was lost: try again when it answers")


_WHERE_KEYS: Final = (
    "give this process the store's keys as its own tools take them, for S3: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
_RIGHTS: Final = "are the keys those of this store, and may they list, read and put objects there?"


class _Elsewhere(RawIOBase):
    """A file that is read piece by piece, so that each failure is told as one of ours.

    What a store's own file object raises is taken for damage by a library that parses it.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self._size, self._place = read, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase.seek`."""
        self._place = {SEEK_CUR: self._place, SEEK_END: self._size}.get(whence, 0) + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        end = min(self._place + len(buffer), self._size)
        data = self._read(self._place, end) if end > self._place else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def shown(url: str) -> str:
    """A URL without the user and password that may stand in it."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else url


def _protocols(fs: Any) -> tuple[str, ...]:
    found = fs.protocol
    return (found,) if isinstance(found, str) else tuple(found)


def _code(error: Exception) -> str:
    """The code of a store's answer, as botocore has it; "" for none."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsspec() -> Any:
    try:
        import fsspec.core
    except ImportError:
        raise Usage("reading or writing an archive needs fsspec", hint=EXTRA) from None
    return fsspec


def damaged(where: str, why: str) -> InvalidData:
    """The error of a file that isn't what was written."""
    return InvalidData(
        f"{where} is damaged: {why}",
        hint="restore that file from a copy; `podium archive --check` reads all of them",
    )
