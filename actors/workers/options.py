"""A worker's options, as they stand in the pool, made into what its adapter knows them as."""

from collections.abc import Mapping
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
