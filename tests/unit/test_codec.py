"""Bytes to messages and back: nothing is lost, newer writers do no harm, noise is named."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.actions import Report
from protocol.codec import (
    CallMessage,
    Commit,
    Withdrawal,
    blob_ref,
    decode_call,
    decode_commit,
    decode_message,
    decode_task,
    decode_value,
    decode_withdrawal,
    deeper_than,
    digest,
    encode,
)
from protocol.commands import Continue, Start
from protocol.errors import InvalidData, TooLarge
from protocol.events import AnyEvent, CallSettled, RoundClosed, UnknownEvent
from protocol.inbox import Label, Message, Reward, Signal
from protocol.limits import MAX_COMMIT_BYTES, MAX_MESSAGE_BYTES, MAX_NESTING
from protocol.transitions import LEGAL
from tests.runs import RUN, begin
from tests.strategies import arbitrary

EVENTS = [*LEGAL, UnknownEvent]

Decode = Callable[[bytes], Any]

DECODERS: list[Decode] = [
    decode_commit,
    decode_message,
    decode_task,
    decode_call,
    decode_withdrawal,
    decode_value,
]


def commit(*events: AnyEvent, **more: Any) -> Commit:
    fields: dict[str, Any] = {"n": 1, "epoch": 1, "at": 5, "causes": ("start",), "prev": ""}
    return Commit(run=RUN, events=events, **{**fields, **more})


def changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The message with something changed in its JSON."""
    message = msgspec.json.decode(data)
    change(message)
    return msgspec.json.encode(message)


def refusal(decode: Decode, data: bytes) -> InvalidData | None:
    """How the bytes are refused, or None if they are a message; nothing else may be raised."""
    try:
        decode(data)
    except InvalidData as error:
        return error
    return None


# -------------------------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_event_survives_the_log(kind: type) -> None:
    @settings(max_examples=30)
    @given(arbitrary(kind))
    def check(event: Any) -> None:
        data = encode(commit(event))
        back = decode_commit(data)
        assert back.events == (event,)
        assert encode(back) == data

    check()


@pytest.mark.parametrize(
    ("kind", "decode"),
    [
        (Report, decode_message),
        (Signal, decode_message),
        (Reward, decode_message),
        (Label, decode_message),
        (Start, decode_task),
        (Continue, decode_task),
        (CallMessage, decode_call),
        (Withdrawal, decode_withdrawal),
        (Commit, decode_commit),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_message_survives_its_bytes(kind: type, decode: Decode) -> None:
    @settings(max_examples=30)
    @given(arbitrary(kind))
    def check(message: Any) -> None:
        data = encode(message)
        assert decode(data) == message
        assert digest(encode(decode(data))) == digest(data)

    check()


def test_a_hash_is_of_the_bytes_and_nothing_else() -> None:
    one, two = encode(commit(n=1)), encode(commit(n=2))
    assert digest(one) == digest(bytes(one))
    assert digest(one) != digest(two)
    assert re.fullmatch("[0-9a-f]{32}", digest(one))
    assert blob_ref(b"abc").size == 3
    assert blob_ref(b"abc").sha256.startswith("ba7816bf8f01cfea")


# -------------------------------------------------------------------------------- newer, older


@given(arbitrary(AnyEvent))
def test_a_field_of_a_newer_writer_is_no_obstacle(event: AnyEvent) -> None:
    def newer(message: dict[str, Any]) -> None:
        message["signature"] = "x"
        message["events"][0]["mood"] = {"deep": [1]}

    assert decode_commit(changed(encode(commit(event)), newer)) == commit(event)


def test_an_event_of_a_newer_writer_is_kept() -> None:
    raw = {"type": "ChoirJoined", "voices": [1, 2.5, None], "who": {"a": "ä"}}
    data = changed(encode(commit(RoundClosed(round=1))), lambda m: m["events"].append(raw))
    known, unknown = decode_commit(data).events
    assert known == RoundClosed(round=1)
    assert isinstance(unknown, UnknownEvent)
    assert unknown.name == "ChoirJoined"
    assert msgspec.json.decode(unknown.raw) == raw
    again = decode_commit(encode(decode_commit(data)))
    assert again.events[1] == unknown


@pytest.mark.parametrize(
    "event",
    [
        {"type": "RoundClosed", "round": "one"},
        {"type": "RoundClosed"},
        {"type": 7},
        {"round": 1},
        {},
        {"type": "ReportNoted", "call": "1-0", "attempt": 1, "report": "", "why": "newer reason"},
    ],
)
def test_an_event_that_is_not_what_its_tag_says_is_kept_without_effect(event: Any) -> None:
    data = changed(encode(commit()), lambda m: m["events"].append(event))
    (kept,) = decode_commit(data).events
    assert isinstance(kept, UnknownEvent)
    assert msgspec.json.decode(kept.raw) == event


def split(old: dict[str, Any]) -> list[dict[str, Any]]:
    """An upcaster: one event of an old form, as several of today's."""
    return [{"type": "RoundClosed", "round": number} for number in range(old["from"], old["to"])]


OLD = {"RoundsClosed": split}


def test_an_event_of_an_old_form_is_brought_to_todays() -> None:
    old = {"type": "RoundsClosed", "from": 1, "to": 3}
    data = changed(encode(commit(CallSettled(call="1-0"))), lambda m: m["events"].append(old))
    assert decode_commit(data, OLD).events == (
        CallSettled(call="1-0"),
        RoundClosed(round=1),
        RoundClosed(round=2),
    )
    (_, kept) = decode_commit(data).events
    assert isinstance(kept, UnknownEvent)


def test_an_old_form_that_is_none_is_kept_without_effect() -> None:
    data = changed(encode(commit()), lambda m: m["events"].append({"type": "RoundsClosed"}))
    (kept,) = decode_commit(data, OLD).events
    assert isinstance(kept, UnknownEvent)
    assert kept.name == "RoundsClosed"


def test_today_no_event_needs_an_upcaster() -> None:
    assert codec.UPCASTERS == {}


# -------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b'"\xff"',
        b"{",
        b"nul",
        b"1e999",
        b"9" * 5_000,
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'"' + b'\\"' * 10_000,
        b'{"type":"\xc3\x28"}',
    ],
)
def test_noise_is_invalid_data(decode: Decode, data: bytes) -> None:
    with pytest.raises(InvalidData, match=f"{len(data)} bytes are no "):
        decode(data)


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
def test_any_bytes_are_a_message_or_invalid_data(decode: Decode) -> None:
    @settings(max_examples=200)
    @given(st.binary(max_size=200))
    @example(b"{}")
    def check(data: bytes) -> None:
        refused = refusal(decode, data)
        assert refused is None or refused.hint

    check()


@settings(max_examples=300)
@given(
    arbitrary(Commit) | arbitrary(Message) | arbitrary(Start),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0),
)
def test_a_damaged_message_is_a_message_or_invalid_data(
    message: msgspec.Struct, flips: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(encode(message))
    for place, byte in flips:
        damaged[place % len(damaged)] = byte
    for data in (bytes(damaged), bytes(damaged[: cut % len(damaged)])):
        for decode in DECODERS:
            refused = refusal(decode, data)
            assert refused is None or len(refused.message) < 3_000


@pytest.mark.parametrize(
    "field",
    [
        {"run": None},
        {"n": "1"},
        {"n": 0},
        {"at": -1},
        {"epoch": 1.5},
        {"causes": "start"},
        {"events": {}},
        {"events": [1]},
        {"prev": 0},
    ],
)
def test_the_envelope_is_strict(field: dict[str, Any]) -> None:
    data = changed(encode(commit()), lambda message: message.update(field))
    with pytest.raises(InvalidData):
        decode_commit(data)


@given(st.recursive(st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=9))
@example('[["')
@example("\\")
@example(["\\", '"['])
def test_nesting_is_counted_outside_of_texts(value: Any) -> None:
    def levels(item: Any) -> int:
        return 1 + max(map(levels, item), default=0) if isinstance(item, list) else 0

    data = msgspec.json.encode(value)
    for limit in range(12):
        assert deeper_than(limit, data) == (levels(value) > limit)


# -------------------------------------------------------------------------------- what fits


def test_what_does_not_fit_is_not_sent() -> None:
    fits = commit(CallSettled(call="1-0", value="x" * (MAX_COMMIT_BYTES - 500)))
    assert len(encode(fits)) <= MAX_COMMIT_BYTES
    with pytest.raises(TooLarge, match=f"run {RUN}: a Commit of 524"):
        encode(commit(CallSettled(call="1-0", value="x" * MAX_COMMIT_BYTES)))
    report = Report(run=RUN, call="1-0", attempt=1, status="OK", value="x" * MAX_MESSAGE_BYTES)
    with pytest.raises(TooLarge, match=f"run {RUN}: a Report"):
        encode(report)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_of_the_allowed_depth_can_be_read_wherever_it_stands() -> None:
    message = CallMessage(
        run=RUN, call="1-0", attempt=1, worker="w", arguments={"x": nested(99)}, timeout_ms=1
    )
    assert decode_call(encode(message)) == message
    settled = commit(CallSettled(call="1-0", value=nested(MAX_NESTING)))
    assert decode_commit(encode(settled)) == settled


@pytest.mark.parametrize("value", [nested(200), object(), {("a", 1): 2}, "\ud800"])
def test_what_no_reader_could_read_is_not_written(value: Any) -> None:
    report = Report(run=RUN, call="1-0", attempt=1, status="OK", value=value)
    with pytest.raises(InvalidData, match=f"run {RUN}: a Report") as caught:
        encode(report)
    assert not isinstance(caught.value, TooLarge)
    assert caught.value.hint


def test_a_task_of_the_largest_pool_fits() -> None:
    start = begin(task="x" * 65_000)
    assert decode_task(encode(start)) == start
