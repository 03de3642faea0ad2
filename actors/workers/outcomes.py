"""What every adapter makes of failures and values: texts within limits, values that are JSON."""

import math
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import msgspec

from actors.ports import Outcome
from protocol.actions import NOTHING, Fault, Json, Spend, Status
from protocol.errors import PodiumError
from protocol.limits import MAX_DETAIL_CHARS
from protocol.redaction import Redactor, well_known

FROZEN: Final = "<frozen "
"""What the names of the files begin with that are part of Python itself: nobody can open one."""

leaving: Final[ContextVar[Redactor | None]] = ContextVar("leaving", default=None)
"""What takes secrets out of the texts of the attempt that is worked on: before one is cut, since
half a secret is known to nobody any more."""

EVERY_MISFIT_BYTES: Final = 65_536
"""Bytes of a value up to which all that doesn't fit what is declared is told: a larger one may have
a million such places, and to find them all would hold the event loop for half a minute."""

so_far: Final[ContextVar[Callable[[], Outcome] | None]] = ContextVar("so_far", default=None)
"""What the attempt that is worked on has spent by now, and the record of that. Set by an adapter
that spends as it goes; asked when the attempt is withdrawn."""


def redacted(text: str) -> str:
    """``text`` without the secrets of the attempt that is worked on."""
    return (leaving.get() or well_known()).text(text)


class Unrepresentable(ValueError):
    """A value that JSON cannot hold; the text says where it is and what to return instead."""


def failure(status: Status, fault: Fault, text: str, spend: Spend = NOTHING) -> Outcome:
    """An outcome that is not OK, its text clean and within the limit.

    A text that is too long keeps its beginning and, since errors name their cause last, its end.
    """
    text = redacted(clean(text))
    if len(text) > MAX_DETAIL_CHARS:
        half = MAX_DETAIL_CHARS // 2 - 20
        text = f"{text[:half]}\n… [cut: {len(text)} characters]\n{text[-half:]}"
    return Outcome(status=status, fault=fault, value=text, spend=spend)


def unable(error: PodiumError) -> Outcome:
    """The outcome of an attempt that its worker could not make, and the cure."""
    return failure("EXEC_ERR", "infrastructure", error.whole())


def clean(text: str) -> str:
    """``text`` without lone surrogates, which no UTF-8 message can hold."""
    return text.encode("utf-8", "replace").decode()


def describe(error: BaseException) -> str:
    """An exception in one line: type, text, and where in the user's code it was raised.

    Only the file's name is given, never its path: the text is recorded and shown to a model.
    """
    try:
        text = str(error)
    except Exception:
        text = "(its text could not be made)"
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return named  # its text has the place, and it was raised where the file was read
    every = traceback.extract_tb(error.__traceback__)
    frames = [each for each in every if not each.filename.startswith(FROZEN)]
    if not frames:
        return named
    return f"{named} (at {Path(frames[-1].filename).name}:{frames[-1].lineno})"


def json_value(value: object) -> Json:
    """``value`` as JSON: dataclasses, structs, sets, dates and the like become their JSON form.

    Raises:
        Unrepresentable: It has no JSON form: NaN, an open file, bytes that are no text.
    """
    try:
        plain = msgspec.to_builtins(
            value, str_keys=True, builtin_types=(bytes,), order="deterministic"
        )
        plain = _checked(plain, "$")
        msgspec.json.encode(plain)
    except RecursionError:
        raise Unrepresentable("The value is nested too deeply, or contains itself.") from None
    except Unrepresentable:
        raise
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise Unrepresentable(f"The value has no JSON form: {error}.") from error
    return plain


def _checked(value: object, path: str) -> Json:
    """``value`` with bytes as text; refuses what msgspec would drop or mangle silently."""
    match value:
        case float() if not math.isfinite(value):
            raise Unrepresentable(
                f"{value} at {path} is no JSON number: return None or a text instead."
            )
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise Unrepresentable(
                    f"The bytes at {path} are no UTF-8 text: return them as base64 text instead."
                ) from None
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Unrepresentable(
                    f"The text at {path} has lone surrogates: decode it with errors='replace'."
                ) from None
            return value
        case dict():
            return {key: _checked(item, f"{path}.{key}") for key, item in value.items()}
        case list() | tuple():
            return [_checked(item, f"{path}[{index}]") for index, item in enumerate(value)]
        case _:
            return value
