"""Bytes to messages and back, in JSON, so that a log can be read with any tool.

Decoding is strict about the envelope and patient about events: one that this version doesn't know
becomes an `UnknownEvent`, so that an old reader survives a new writer. A renamed or split event
gets an upcaster.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import accumulate
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

from protocol.actions import BlobRef, Count, Json, Status
from protocol.commands import TaskMessage
from protocol.errors import InvalidData, TooLarge
from protocol.events import AnyEvent, UnknownEvent
from protocol.inbox import Message
from protocol.limits import MAX_COMMIT_BYTES, MAX_DETAIL_CHARS, MAX_MESSAGE_BYTES, MAX_NESTING
from protocol.secret_forms import Redaction

HASH_CHARS: Final = 32
"""Hex characters of a hash in the log: 128 bits of SHA-256, beyond any accident."""


Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
"""The place of a commit in its run's log."""


class Commit(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The events of one transition, appended as one message: all of them or none."""

    run: str
    n: Number
    """From 1, without gaps."""
    epoch: Count
    """The activation under which it was decided."""
    at: Count
    """Milliseconds since the epoch; never going back within a run."""
    causes: tuple[str, ...]
    """What was acted on, see `commands`."""
    events: tuple[AnyEvent, ...]
    prev: str
    """Hash of the commit before; "" for the first."""


class CallMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in the call queue: an attempt to make."""

    run: str
    call: str
    attempt: int
    worker: str
    """Its `WorkerSpec.place`."""
    arguments: dict[str, Json]
    timeout_ms: int
    sees: dict[str, Json] = {}
    """Outputs of the calls that it may see."""
    failed: dict[str, Status] = {}
    """Of those calls the ones that are not OK."""
    fill: dict[str, str | None] = {}
    """What is put in place of the arguments' references to outputs, by call; None for too much."""
    task: str = ""
    again: bool = False
    """True when it may have been made before: look for its report first."""
    redact: Redaction | None = None
    """What the run recorded to be a secret."""
    policy_version: str = ""
    """Of the policy that the run asks, as its last reply had it; "" for none, or none said."""


class Withdrawal(msgspec.Struct, frozen=True):
    """What a worker is told when nobody waits for an attempt any more."""

    run: str
    call: str
    attempt: int


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A commit whose events have not been looked at."""

    run: str
    n: Number
    epoch: Count
    at: Count
    causes: tuple[str, ...]
    events: tuple[dict[str, Any], ...]
    prev: str


Upcaster = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""Turns a recorded event of an old form into events of today's."""

UPCASTERS: Final[Mapping[str, Upcaster]] = {}
"""By the tag of the old form."""

_T = TypeVar("_T")

_MAX_LEVELS: Final = MAX_NESTING + 16
"""Levels of lists and objects in one message: those of a value, and of what stands around it."""

_NO_BRACKET: Final = re.compile(
    rb"""
      " [^"\\]*+ (?: \\. [^"\\]*+ )*+ (?: " | \\?\Z )  # a text, to its end or to that of the bytes
    | [^\[\]{}"]++                                     # whatever stands between brackets
    """,
    re.DOTALL | re.VERBOSE,
)
"""Linear in time, also for bytes that are no JSON."""

_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_encode: Final = msgspec.json.Encoder().encode
_decode_commit: Final = msgspec.json.Decoder(Commit).decode
_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_message: Final[Callable[[bytes], Message]] = msgspec.json.Decoder(Message).decode
_decode_task: Final[Callable[[bytes], TaskMessage]] = msgspec.json.Decoder(TaskMessage).decode
_decode_call: Final = msgspec.json.Decoder(CallMessage).decode
_decode_withdrawal: Final = msgspec.json.Decoder(Withdrawal).decode


def digest(data: bytes) -> str:
    """The identity of a message: a hash of its bytes."""
    return sha256(data).hexdigest()[:HASH_CHARS]


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of a message.

    Raises:
        TooLarge: They would not fit; nothing was sent.
        InvalidData: It holds what JSON can't say, or nests too deeply for every reader.
    """
    try:
        data = _encode(message)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidData(
            f"{_called(message)} can't be written: {error}"[:MAX_DETAIL_CHARS],
            hint="give values of JSON only: texts, numbers, lists, and objects with text keys",
        ) from None
    limit = MAX_COMMIT_BYTES if type(message) is Commit else MAX_MESSAGE_BYTES // 2
    if len(data) > limit:
        raise TooLarge(
            f"{_called(message)} of {len(data)} bytes; at most {limit} fit",
            hint="put large inputs into a document or a blob, and name it",
        )
    if deeper_than(_MAX_LEVELS, data):
        raise InvalidData(
            f"{_called(message)} of more than {_MAX_LEVELS} levels of lists and objects",
            hint=f"give values of at most {MAX_NESTING} levels",
        )
    return data


def _called(message: msgspec.Struct) -> str:
    return f"run {getattr(message, 'run', '?')}: a {type(message).__name__}"


def deeper_than(levels: int, data: bytes) -> bool:
    """Whether JSON nests lists and objects deeper than that. Decided by the bytes alone."""
    if _brackets(data) <= levels:
        return False
    steps = (_STEP[byte] for byte in _NO_BRACKET.sub(b"", data))
    return max(accumulate(steps), default=0) > levels


def _brackets(data: bytes) -> int:
    """How many brackets open, in texts too. Taking them out is faster than counting them."""
    return len(data) - len(data.replace(b"[", b"").replace(b"{", b""))


def decode_commit(data: bytes, upcasters: Mapping[str, Upcaster] = UPCASTERS) -> Commit:
    """A commit, its events brought to today's form. Raises `InvalidData`."""
    if _brackets(data) <= _MAX_LEVELS:  # nothing that could nest too deeply
        try:
            return _decode_commit(data)
        except (ValueError, RecursionError):
            pass
    try:
        return _guarded(_decode_commit, data, "a commit")
    except InvalidData:
        return _decode_patiently(data, upcasters)


def _decode_patiently(data: bytes, upcasters: Mapping[str, Upcaster]) -> Commit:
    envelope = _guarded(_decode_envelope, data, "a commit")
    events: list[AnyEvent] = []
    for raw in envelope.events:
        upcast = upcasters.get(str(raw.get("type", "")), _as_it_is)
        try:
            events += [_event(today) for today in upcast(raw)]
        except (KeyError, TypeError, ValueError):  # it isn't what its tag says
            events.append(_unknown(raw))
    fields = {name: getattr(envelope, name) for name in envelope.__struct_fields__}
    return Commit(**{**fields, "events": tuple(events)})


def _event(raw: dict[str, Any]) -> AnyEvent:
    try:
        event: AnyEvent = msgspec.convert(raw, AnyEvent)
    except msgspec.ValidationError:
        return _unknown(raw)
    return event


def _as_it_is(raw: dict[str, Any]) -> list[dict[str, Any]]:
    return [raw]


def _unknown(raw: dict[str, Any]) -> UnknownEvent:
    return UnknownEvent(name=str(raw.get("type", "")), raw=msgspec.Raw(_encode(raw)))


def decode_message(data: bytes) -> Message:
    """An inbox message. Raises `InvalidData`."""
    if _brackets(data) <= _MAX_LEVELS:  # nothing that could nest too deeply
        try:
            return _decode_message(data)
        except (ValueError, RecursionError):
            pass
    return _guarded(_decode_message, data, "an inbox message")


def decode_task(data: bytes) -> TaskMessage:
    """A task message. Raises `InvalidData`."""
    return _guarded(_decode_task, data, "a task message")


def decode_call(data: bytes) -> CallMessage:
    """A call message. Raises `InvalidData`."""
    return _guarded(_decode_call, data, "a call message")


def decode_withdrawal(data: bytes) -> Withdrawal:
    """A withdrawal. Raises `InvalidData`."""
    return _guarded(_decode_withdrawal, data, "a withdrawal")


def decode_value(data: bytes) -> Json:
    """The value that a blob holds. Raises `InvalidData`."""
    return _guarded(msgspec.json.decode, data, "a value")


def blob_ref(data: bytes) -> BlobRef:
    """The reference by which a blob is found."""
    return BlobRef(sha256(data).hexdigest(), len(data))


def _guarded(decode: Callable[[bytes], _T], data: bytes, what: str) -> _T:
    if deeper_than(_MAX_LEVELS, data):
        problem = f"more than {_MAX_LEVELS} levels of lists and objects"
    else:
        try:
            return decode(data)
        except (ValueError, RecursionError) as error:
            problem = str(error)
    text = f"{len(data)} bytes are no {what.partition(' ')[2]}: {problem}"
    raise InvalidData(text[:MAX_DETAIL_CHARS], hint="see `podium doctor`: what is set aside")
