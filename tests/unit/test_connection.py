"""What the broker passes on: whatever a stranger wrote, every message is heard.

Of the headers, the server's own word counts.
"""

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import BadHeaderError, ProtocolError

from replay.connection import Forgiving, Heard, header_block, parse_headers

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


SUBJECTS = st.binary(min_size=1, max_size=6).filter(
    lambda each: not set(each) & set(b" \t\r\n\f\v")
)
REPLIES = st.sampled_from([b"", b"back.to.me "])


class Sent(NamedTuple):
    """A message as a server sends it; ``block`` is None for one without headers."""

    sid: int
    subject: bytes
    reply: bytes
    block: bytes | None
    data: bytes

    @property
    def wire(self) -> bytes:
        """Its bytes."""
        sizes = b"%d" % len(self.data)
        if self.block is not None:
            sizes = b"%d %d" % (len(self.block), len(self.block) + len(self.data))
        op = b"MSG" if self.block is None else b"HMSG"
        line = b"%b %b %d %b%b\r\n" % (op, self.subject, self.sid, self.reply, sizes)
        return line + (self.block or b"") + self.data + b"\r\n"


BLOCKS = st.none() | st.binary(max_size=9).map(b"NATS/1.0\r\nx: %b\r\n\r\n".__mod__)
SENT = st.builds(
    Sent, st.sampled_from([1, 2, 3]), SUBJECTS, REPLIES, BLOCKS, st.binary(max_size=40)
)
LINES_BETWEEN = st.sampled_from([b"+OK\r\n", b"PONG\r\n"])


@given(st.lists(SENT | LINES_BETWEEN, max_size=12), st.lists(st.integers(1, 40), min_size=1))
async def test_in_whatever_pieces_they_come_all_messages_are_heard_in_order(
    said: list[Sent | bytes], sizes: list[int]
) -> None:
    client = Forgiving()
    heard: dict[int, list[Heard]] = {1: [], 2: []}
    for sid, messages in heard.items():
        client.listeners[sid] = messages.append
    rest = b"".join(each if isinstance(each, bytes) else each.wire for each in said)
    for size in itertools.cycle(sizes):
        await client._ps.parse(rest[:size])
        rest = rest[size:]
        if not rest:
            break
    sent = [each for each in said if isinstance(each, Sent)]
    assert client.stats["in_msgs"] == len(sent)  # those that nobody listens to are the library's
    for sid, messages in heard.items():
        expected = [
            Heard(s.subject.decode(errors="replace"), s.data, s.block, s.reply.decode().strip())
            for s in sent
            if s.sid == sid
        ]
        assert [shown(each) for each in messages] == [shown(each) for each in expected]


def shown(heard: Heard) -> tuple[str, str, bytes, str]:
    return heard.subject, heard.reply, heard.data, heard.header("x")


async def test_who_does_not_take_a_message_keeps_nobody_from_the_next() -> None:
    client = Forgiving()
    taken: list[bytes] = []

    def fussy(message: Heard) -> None:
        if message.data == b"bad":
            raise ValueError
        taken.append(message.data)

    client.listeners[1] = fussy
    await client._ps.parse(b"MSG a 1 3\r\nbad\r\nMSG a 1 4\r\ngood\r\n")
    assert taken == [b"good"]


@pytest.mark.parametrize("line", [b"MSG", b"MSG a", b"HMSG a 1 2", b"MSG a b c", b"HMSG a 1 x 3"])
async def test_a_server_that_speaks_another_language_is_found_out(line: bytes) -> None:
    client = Forgiving()
    heard: list[Heard] = []
    client.listeners[1] = heard.append
    with pytest.raises(ProtocolError):
        await client._ps.parse(b"MSG a 1 4\r\ngood\r\n" + line + b"\r\n")
    assert [each.data for each in heard] == [b"good"]
