"""Whatever an agent's address answers is a card or a clear error."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.workers.a2a.card import address, description, interface, read, usable
from protocol.actions import Json
from protocol.errors import InvalidData, PodiumError
from tests.a2a_agent import card_of

CARD: dict[str, Json] = {
    "name": "atlas",
    "description": "Knows cities.",
    "capabilities": {"streaming": True},
    "supportedInterfaces": [
        {"url": "https://a.example/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ],
    "skills": [{"id": "capitals", "name": "Capitals", "description": "Names one."}],
}

jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def taken(body: bytes) -> str:
    """All that is done with a card."""
    card = read(200, body, "https://a.example")
    usable(card, "https://a.example", ("X-Key",), ())
    return description(card)


def test_a_good_card_is_taken() -> None:
    assert taken(msgspec.json.encode(CARD)) == "Knows cities.\n- Capitals: Names one."


@given(st.binary(max_size=40) | jsons.map(msgspec.json.encode))
def test_what_is_no_card_is_refused(body: bytes) -> None:
    with pytest.raises(PodiumError):
        taken(body)


@given(st.sampled_from([*CARD, "security", "securitySchemes", "url"]), jsons)
def test_a_card_with_one_thing_wrong_is_taken_or_refused(name: str, value: Json) -> None:
    with contextlib.suppress(PodiumError):
        assert isinstance(taken(msgspec.json.encode(CARD | {name: value})), str)


@pytest.mark.parametrize("url", ["http://[::1", "nowhere", "ftp://a.example", ""])
def test_an_address_that_is_none_gets_no_header(url: str) -> None:
    with pytest.raises(InvalidData):
        usable(card_of(url, True, "JSONRPC", "1.0"), "https://a.example", ("X-Key",), ())


@pytest.mark.parametrize(
    ("ours", "theirs", "goes"),
    [
        ("https://a.example", "https://a.example:8443/x", True),
        ("https://a.example", "https://B.example/x", True),
        ("https://a.example", "https://c.example/x", False),
        ("https://a.example", "http://a.example/x", False),
        ("http://a.example", "http://a.example/x", True),
        ("http://a.example", "https://a.example/x", True),
    ],
)
def test_headers_go_where_the_pool_says(ours: str, theirs: str, goes: bool) -> None:
    card = card_of(theirs, True, "JSONRPC", "1.0")
    if goes:
        assert usable(card, ours, ("X-Key",), ("b.Example",)).supported_interfaces[0].url == theirs
    else:
        with pytest.raises(InvalidData):
            usable(card, ours, ("X-Key",), ("b.Example",))
    usable(card, ours, (), ())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([("JSONRPC", "0.3"), ("HTTP+JSON", "1.0")], 1),
        ([("GRPC", "1.0"), ("JSONRPC", "0.3.0")], 1),
        ([("HTTP+JSON", "1.0"), ("JSONRPC", "1.0")], 0),
        ([("JSONRPC", "2.0"), ("JSONRPC", "1.1")], 1),
        ([("JSONRPC", "")], 0),
    ],
)
def test_the_best_interface_that_is_spoken_is_used(
    offered: list[tuple[str, str]], chosen: int
) -> None:
    made: Any = card_of("https://a.example", True, "X", "9")
    del made.supported_interfaces[:]
    for binding, version in offered:
        made.supported_interfaces.add(
            url="https://a.example", protocol_binding=binding, protocol_version=version
        )
    assert interface(made) == made.supported_interfaces[chosen]


@pytest.mark.parametrize(
    ("url", "card"),
    [
        ("https://a.example", "https://a.example/.well-known/agent-card.json"),
        ("https://a.example/x/", "https://a.example/x/.well-known/agent-card.json"),
        ("https://a.example/cards/7.json", "https://a.example/cards/7.json"),
    ],
)
def test_a_card_is_below_the_address_or_is_it(url: str, card: str) -> None:
    assert address(url) == card
