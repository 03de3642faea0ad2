"""A model's options, as a run has recorded them, made into what its policy knows them as."""

from typing import TypeVar

import msgspec

from protocol.decisions import PolicySpec
from protocol.errors import InvalidData

_Options = TypeVar("_Options", bound=msgspec.Struct)


def recorded(spec: PolicySpec, to: type[_Options]) -> _Options:
    """The options of a policy as a struct. Raises `InvalidData`."""
    try:
        return msgspec.convert(spec.options, to)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"the options of the policy {spec.name!r} are wrong: {error}",
            hint=f"its options are: {', '.join(to.__struct_fields__)}",
        ) from None
