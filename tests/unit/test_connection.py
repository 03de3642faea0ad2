"""Headers as the broker passes them on: whatever a stranger wrote, the server's own word counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import BadHeaderError

from replay.connection import Heard, header_block, parse_headers

NAMES = st.sampled_from(["Nats-Sequence", "Nats-Num-Pending", "Status", "x", "Nats-Sequence2"])
VALUES = st.text("0123456789 abc:\t", max_size=6)
LINES = st.lists(st.builds("{}:{}".format, NAMES, VALUES) | st.text("ab: ", max_size=5), max_size=5)


def block(first: str, lines: list[str]) -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode()


@given(st.sampled_from(["NATS/1.0", "NATS/1.0 404", "NATS/1.0 204 EOB", "NATS/1.1"]), LINES)
def test_what_is_looked_up_is_what_is_parsed(first: str, lines: list[str]) -> None:
    data = block(first, lines)
    heard, parsed = Heard("a", b"", data), parse_headers(data)
    assert heard.status == parsed.get("Status", "")
    for name in ("Nats-Sequence", "Nats-Num-Pending", "x"):
        assert heard.header(name) == parsed.get(name, "")


@given(st.binary(max_size=40))
def test_no_bytes_break_it(data: bytes) -> None:
    heard = Heard("a", b"", data)
    assert isinstance(heard.status + heard.header("Nats-Sequence"), str)


def test_the_last_of_two_is_the_servers() -> None:
    heard = Heard("a", b"", block("NATS/1.0", ["Nats-Sequence: 7", "Nats-Sequence: 8"]))
    assert (heard.header("Nats-Sequence"), heard.seq) == ("8", 8)
    assert Heard("a", b"", block("NATS/1.0", ["Nats-Sequence: " + "9" * 20])).seq == 0
    assert (Heard("a", b"", None).header("x"), Heard("a", b"", None).status) == ("", "")


WORDS = st.text(st.characters(codec="utf-8"), max_size=8).map(str.strip)


@given(st.dictionaries(WORDS.map("x".__add__), WORDS, max_size=4))
def test_headers_are_read_as_they_were_written_or_not_written_at_all(
    headers: dict[str, str],
) -> None:
    said = "".join([*headers, *headers.values()])
    if "\r" in said or "\n" in said or ":" in "".join(headers):
        with pytest.raises(BadHeaderError):
            header_block(headers)
    else:
        assert parse_headers(header_block(headers)) == headers


@pytest.mark.parametrize("value", ["a\r\nNats-Sequence: 9", "a\nb", "a\rb"])
def test_no_value_brings_a_header_of_its_own(value: str) -> None:
    with pytest.raises(BadHeaderError):
        header_block({"traceparent": value})
