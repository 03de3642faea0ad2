"""What the JetStream API says, read strictly: whatever is no answer is taken for none."""

import re
from typing import Any, Final

import msgspec

from protocol.errors import Busy
from replay.chain import Stored

SEQUENCE: Final = re.compile("[0-9]{1,19}")
"""A sequence, or a count, as headers carry it."""


class Refused(Busy):
    """The server answered, and the answer was no."""

    def __init__(self, code: int, text: str) -> None:
        hint = "`podium doctor` shows what the server says of itself"
        super().__init__(f"the NATS server says no: {text} ({code})", hint=hint)
        self.code, self.text = code, text

    def __reduce__(self) -> tuple[object, ...]:
        return (Refused, (self.code, self.text))


class Unanswered(Exception):
    """No answer came. What was asked may have been done or not."""


class ApiError(msgspec.Struct):
    """The server's no."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    """The answer to an append."""

    seq: int = 0
    error: ApiError | None = None
    batch: str = ""
    count: int = 0


class _Answer(msgspec.Struct):
    error: ApiError | None = None


class _Got(msgspec.Struct):
    seq: int
    data: bytes = b""


_decode_ack: Final = msgspec.json.Decoder(PubAck).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def acknowledgement(data: bytes) -> PubAck | None:
    """The answer to an append, or None if it is none."""
    try:
        ack = _decode_ack(data)
    except (ValueError, RecursionError):  # the latter for what nests too deeply
        return None
    return ack if ack.error is not None or ack.seq > 0 else None


def answer(data: bytes) -> dict[str, Any] | None:
    """The answer to a question, or None if it is none. Raises `Refused`."""
    try:
        error = _decode_answer(data).error
        found: dict[str, Any] = msgspec.json.decode(data)
    except (ValueError, RecursionError):  # the latter for what nests too deeply
        return None
    if error is not None:
        raise Refused(error.err_code, error.description)
    return found


def message(found: dict[str, Any]) -> Stored | None:
    """The message that an answer holds, or None if it holds none."""
    try:
        got = msgspec.convert(found.get("message"), _Got)
    except ValueError:
        return None
    return Stored(got.seq, got.data)
