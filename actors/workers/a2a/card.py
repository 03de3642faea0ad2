"""The card of an A2A agent: where it is reached, in which protocol, and what it says it can do.

A card is somebody else's text. What of it a pool records is cut to a length, and an address on
another host gets none of our headers unless the pool names that host.
"""

import contextlib
import importlib.util
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from actors.workers.outcomes import clean
from actors.workers.trust import trusted
from protocol.dialects.shared import cut
from protocol.errors import Denied, InvalidData, NotFound, Unreachable, Usage
from protocol.references import referred
from replay.address import shown

if TYPE_CHECKING:
    import httpx
    from a2a.types import AgentCard, AgentInterface, AgentSkill

CARD_PATH: Final = "/.well-known/agent-card.json"
"""Where a card is, below the agent's address (A2A 1.0, section 8.2)."""

CARD_S: Final = 10.0
"""Seconds that a card may take: it is a small file, but some hosts start an agent to give it."""

MAX_CARD_BYTES: Final = 1_048_576
"""Bytes of a card: one with a hundred skills has some 50 KB."""

DESCRIPTION_CHARS: Final = 2_000
"""Characters of what a card says that go into a worker's description: every prompt carries it."""

BINDINGS: Final = ("JSONRPC", "HTTP+JSON")
"""Ways of carrying A2A that are spoken here. The third, gRPC, needs a channel of its own."""

VERSIONS: Final = ("1.0", "0.3")
"""Versions of A2A that the SDK speaks, the better first."""

INSTALL: Final = "pip install 'podium[a2a]'"


def need_sdk() -> None:
    """Raise `Usage` if the SDK is not installed."""
    if importlib.util.find_spec("a2a") is None:
        raise Usage("A worker of the kind a2a needs the A2A SDK, which is absent.", hint=INSTALL)


def address(url: str) -> str:
    """Where the card of an agent is: below ``url``, unless that is a card's own address."""
    return url if url.endswith(".json") else url.rstrip("/") + CARD_PATH


def fetch_now(url: str, headers: Mapping[str, str]) -> "AgentCard":
    """The agent's card, asked for by a program that has no event loop.

    A header that refers to a secret is left out: its value is known to the worker only, and most
    cards are public.

    Raises:
        Unreachable, NotFound, Denied, InvalidData: What went wrong, and the cure.
    """
    import httpx

    sent = {name: value for name, value in headers.items() if not referred(value)}
    asking = httpx.stream("GET", address(url), headers=sent, timeout=CARD_S, verify=trusted())
    with _named(url), asking as response:
        body = _Body()
        for chunk in response.iter_bytes():
            if body.full(chunk):
                break
        return read(response.status_code, bytes(body.data), url)


async def fetch(client: "httpx.AsyncClient", url: str) -> "AgentCard":
    """The agent's card. Raises as `fetch_now`."""
    with _named(url):
        async with client.stream("GET", address(url), timeout=CARD_S) as response:
            body = _Body()
            async for chunk in response.aiter_bytes():
                if body.full(chunk):
                    break
            return read(response.status_code, bytes(body.data), url)


class _Body:
    """What comes of a card, whatever an agent sends."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._until = time.monotonic() + CARD_S

    def full(self, chunk: bytes) -> bool:
        """Take a piece; whether that is too much. Raises `httpx.ReadTimeout` if it came late."""
        import httpx

        if time.monotonic() > self._until:
            raise httpx.ReadTimeout(f"its card was not whole after {CARD_S:g} s")
        self.data += chunk
        return len(self.data) > MAX_CARD_BYTES


@contextlib.contextmanager
def _named(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"The A2A agent at {shown(url)} can't be reached: {type(error).__name__}: {error}.",
            hint="Start it, or correct url in the worker's options.",
        ) from None


def read(status: int, body: bytes, url: str) -> "AgentCard":
    """The card in a response. Raises `NotFound`, `Denied`, `Unreachable`, `InvalidData`."""
    from a2a.client.card_resolver import parse_agent_card
    from google.protobuf.json_format import Error

    where = f"The A2A agent at {shown(url)}"
    match status:
        case 200:
            pass
        case 401 | 403 as code:
            raise Denied(
                f"{where} shows its card to nobody unknown (HTTP {code}).",
                hint="Give headers in the worker's options, and a description in its table: a "
                "header with a secret is sent by the worker only.",
            )
        case code if code == 429 or code >= 500:
            raise Unreachable(f"{where} gives no card now (HTTP {code}).", hint="Try again later.")
        case code:
            raise NotFound(
                f"{where} has no card at {shown(address(url))} (HTTP {code}).",
                hint="Correct url in the worker's options: it is what stands before "
                f"{CARD_PATH}, or the card's whole address.",
            )
    if len(body) > MAX_CARD_BYTES:
        raise InvalidData(
            f"{where} gave a card of more than {MAX_CARD_BYTES} bytes.",
            hint="Is it an A2A agent's address?",
        )
    try:
        return parse_agent_card(json.loads(body))
    except (ValueError, TypeError, RecursionError, Error) as error:
        raise InvalidData(
            f"{where} gave a card that is none: {type(error).__name__}: {error}.",
            hint="Is it an A2A agent's address?",
        ) from None


def interface(card: "AgentCard") -> "AgentInterface":
    """The one of an agent's interfaces that is used: the newest version, then the agent's order.

    Raises:
        InvalidData: None of them is spoken here.
    """
    for version in VERSIONS:
        for each in card.supported_interfaces:
            if each.protocol_binding in BINDINGS and _version(each) == version:
                return each
    offered = (f"{i.protocol_binding} {i.protocol_version}" for i in card.supported_interfaces)
    raise InvalidData(
        f"The A2A agent {card.name!r} speaks {', '.join(offered) or 'nothing'}.",
        hint=f"Spoken here: {' and '.join(BINDINGS)}, A2A {' and '.join(VERSIONS)}.",
    )


def _version(offered: "AgentInterface") -> str:
    """The version as ``major.minor``; every 1.x is 1.0, which such an agent still understands."""
    major, _, rest = (offered.protocol_version or VERSIONS[0]).partition(".")
    return VERSIONS[0] if major == "1" else f"{major}.{rest.partition('.')[0]}"


def usable(
    card: "AgentCard", url: str, headers: Sequence[str], hosts: Sequence[str]
) -> "AgentCard":
    """The card with the one interface that is used.

    Args:
        card: As the agent gave it.
        url: Where it did.
        headers: The names of the headers that are sent with every request.
        hosts: Further hosts that may get them.

    Raises:
        InvalidData: No interface is spoken here, or the headers would go to a host that the pool
            does not name, or to the same one without encryption.
    """
    from a2a.types import AgentCard

    chosen = interface(card)
    try:
        ours, theirs = urlsplit(url), urlsplit(chosen.url)
    except ValueError as error:
        raise InvalidData(
            f"The card at {shown(url)} names an address that is none: {error}.",
            hint="Whoever runs the agent has to correct it.",
        ) from None
    where = (
        f"The card at {shown(url)} sends its callers to {shown(chosen.url)}, and the headers "
        f"({', '.join(headers)}) would go there"
    )
    if headers and ours.scheme == "https" != theirs.scheme:
        raise InvalidData(f"{where} without encryption.", hint="The card has to name https.")
    if headers and theirs.hostname not in (ours.hostname, *(each.lower() for each in hosts)):
        raise InvalidData(
            f"{where} too.",
            hint=f'If that is right, add hosts = ["{theirs.hostname}"] to the worker\'s options.',
        )
    made = AgentCard()
    made.CopyFrom(card)
    del made.supported_interfaces[:]
    made.supported_interfaces.append(chosen)
    return made


def description(card: "AgentCard", skill: str = "") -> str:
    """What a policy reads of an agent: of one skill, or of all of it.

    Raises:
        NotFound: The agent has no such skill.
    """
    if not skill:
        skills = "".join(f"\n- {_skill(each)}" for each in card.skills)
        text = f"{card.description or card.name}{skills}"
    else:
        found = next((each for each in card.skills if skill in (each.id, each.name)), None)
        if found is None:
            known = ", ".join(each.id for each in card.skills) or "none"
            raise NotFound(
                f"The A2A agent {card.name!r} has no skill {skill!r}.", hint=f"It has: {known}."
            )
        text = found.description or found.name
        text += "".join(f"\nExample: {example}" for example in found.examples)
    return cut(clean(text).strip(), DESCRIPTION_CHARS)


def _skill(skill: "AgentSkill") -> str:
    return f"{skill.name}: {skill.description}" if skill.description else skill.name
