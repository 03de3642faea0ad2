"""What a worker may see of other calls fits into its message, whatever it is."""

from actors.attempts import MAX_SEEN_CHARS, fitting
from protocol.codec import decode_call

FIELDS = {
    "run": "0123456789ab0",
    "call": "2-0",
    "attempt": 1,
    "worker": "reviewer",
    "arguments": {},
    "timeout_ms": 1_000,
}


def test_what_fits_is_seen_whole() -> None:
    sees = {"1-0": {"value": "x" * 1_000}}
    assert decode_call(fitting(sees=sees, **FIELDS)).sees == sees


def test_what_does_not_fit_is_cut_and_nothing_is_left_out() -> None:
    sees = {f"1-{index}": "\x01" * 60_000 for index in range(20)}
    seen = decode_call(fitting(sees=sees, **FIELDS)).sees
    assert seen.keys() == sees.keys()
    assert sum(map(len, seen.values())) <= MAX_SEEN_CHARS
    assert all(text.endswith("…") for text in seen.values())
