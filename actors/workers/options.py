"""A worker's options, as they stand in the pool, made into what its adapter knows them as."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from protocol.actions import Json
from protocol.errors import InvalidData

_Options = TypeVar("_Options", bound=msgspec.Struct)


def converted(options: Mapping[str, Json], to: type[_Options], kind: str, whose: str) -> _Options:
    """The options as a struct.

    Args:
        options: As they stand in the pool.
        to: The struct, which forbids unknown fields.
        kind: The adapter's kind.
        whose: The worker's name, for the error.

    Raises:
        InvalidData: An option is missing, unknown or out of range.
    """
    try:
        return msgspec.convert(options, to)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"The options of the worker {whose!r} are wrong: {error}.",
            hint=f"Options of the adapter {kind!r}: {', '.join(to.__struct_fields__)}.",
        ) from error


def beside(location: str, there: Callable[[Path], bool]) -> Path | None:
    """Where a file or folder is that a pool file names; None if nowhere.

    Args:
        location: A full path, or one from the pool file's folder. That is among those that Python
            imports from, wherever a worker works, and goes before the others; the working folder is
            the last.
        there: Whether a path is what is looked for, such as ``Path.is_file``.
    """
    path = Path(os.path.expanduser(location))  # as it is, where there is no such user
    if path.is_absolute():
        return path if there(path) else None
    folders = (*map(Path, sys.path), Path.cwd())
    return next((found for folder in folders if there(found := folder / path)), None)
