"""A place for files by its URL: a folder, an object store, or whatever else `fsspec` reaches.

A file is put there under another name first and moved, so that whoever looks finds it whole. On a
disk of this machine it is also synced: what is purged afterwards stands nowhere else.
"""

import os
import secrets
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, cast

from protocol.errors import Denied, InvalidData, NotFound, PodiumError, Unreachable, Usage

EXTRA: Final = "install what it needs: pip install 'podium[archive]'"

_TEMPORARY: Final = "tmp"


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
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise Usage(
                f"the archive {shown(url)} can't be reached: {error}",
                hint="install the package that it names, or use another URL",
            ) from None
        self._root = self._root.rstrip("/")
        self.url = shown(url).rstrip("/")
        self._local = "file" in _protocols(self._fs)

    def names(self, below: str) -> list[str]:
        """Names of the files in a subfolder, sorted; none where there is no such folder."""
        try:
            found = self._fs.ls(self._path(below), detail=False, **self._fresh())
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._failed(below, error) from None
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def read(self, name: str) -> bytes:
        """A whole file. Raises `NotFound`."""
        try:
            data: bytes = self._fs.cat_file(self._path(name))
        except Exception as error:
            raise self._failed(name, error) from None
        return data

    def open(self, name: str) -> BufferedReader:
        """A file to read parts of. Raises `NotFound`."""
        try:
            return cast(BufferedReader, self._fs.open(self._path(name), "rb"))
        except Exception as error:
            raise self._failed(name, error) from None

    def put(self, name: str, source: Path) -> None:
        """Put a local file there under a name, whole or not at all; durable when this returns."""
        staged = f"{_TEMPORARY}/{secrets.token_hex(8)}"
        try:
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
            raise self._failed(name, error) from None

    def url_of(self, name: str) -> str:
        """The whole URL of a file."""
        return f"{self.url}/{name}"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _fresh(self) -> dict[str, bool]:
        """Listings of object stores are cached; what is asked here is what is there now."""
        return {} if self._local else {"refresh": True}

    def _failed(self, name: str, error: Exception) -> PodiumError:
        """What a file system raised, as one of ours: their libraries raise what they like."""
        if isinstance(error, PodiumError):
            return error
        text = f"the archive {self.url}: {name}: {error}"
        if isinstance(error, FileNotFoundError):
            return NotFound(text, hint="was it moved? `podium archive --check` reads all of it")
        if isinstance(error, PermissionError):
            return Denied(text, hint="whose are these files, and who runs this command?")
        return Unreachable(text, hint="nothing was lost: try again when it answers")


def shown(url: str) -> str:
    """A URL without the user and password that may stand in it."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else url


def _protocols(fs: Any) -> tuple[str, ...]:
    found = fs.protocol
    return (found,) if isinstance(found, str) else tuple(found)


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
