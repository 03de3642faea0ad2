"""What an agent asked its model, what the model said, what tools it used: recorded, and said again.

Replies and results are kept as they came, a request as a hash for each of its parts: all that a
request is made of stands in the run's log, or in the record before it, and a hash is enough to say
what has changed since.
"""

import asyncio
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec

from actors.ports import Attempt
from protocol.actions import Json
from protocol.decisions import PlannedCall
from protocol.exchanges import Exchange, Failed, Reply, Request, Used, exchanges
from protocol.redaction import Redactor, well_known

HASH_CHARS: Final = 16
"""Hex characters of a part's hash: enough to tell a change from none."""


class Asks(Protocol):
    """What an agent asks: an endpoint, or the record of one."""

    model: str

    async def ask(
        self,
        messages: list[dict[str, Any]],
        *,
        timeout_s: float,
        max_tokens: int | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> Reply:
        """See `chat.Endpoint.ask`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Uses(Protocol):
    """What an agent's tools are used through: the tools, or the record of them."""

    async def use(
        self, calls: tuple[PlannedCall, ...], attempt: Attempt, watch: "Watch"
    ) -> tuple[Used, ...]:
        """See `toolbox.Toolbox.use`."""
        ...

    async def close(self) -> None:
        """Release what the tools hold."""
        ...


class Watch:
    """The time of one attempt: what has passed, what is left.

    Args:
        limit_s: Seconds that it may take.
    """

    def __init__(self, limit_s: float) -> None:
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self.limit_s = limit_s

    @property
    def passed_ms(self) -> int:
        """Milliseconds since the beginning."""
        return round((self._now() - self._began) * 1_000)

    @property
    def left_s(self) -> float:
        """Seconds; 0 when nothing is left."""
        return max(0.0, self.limit_s - (self._now() - self._began))


def parts(
    model: str,
    messages: list[dict[str, Any]],
    max_tokens: int | None,
    extra: Mapping[str, Json] | None,
) -> Request:
    """A request, part by part."""
    made: Request = {"model": model}
    made |= {f"messages[{place}]": message for place, message in enumerate(messages)}
    if max_tokens is not None:
        made["max_tokens"] = max_tokens
    return made | dict(extra or {})


def added(request: Request, before: Request) -> Request:
    """The parts of a request that the one before it had not: a conversation only grows."""
    return {
        name: part
        for name, part in request.items()
        if name not in before or (before[name] is not part and before[name] != part)
    }


def hashed(request: Request) -> dict[str, str]:
    """A hash for each part of a request."""
    return {name: _hash(part) for name, part in request.items()}


def recorded(made: list[Exchange]) -> Json:
    """Exchanges as a record, which is JSON and nothing else."""
    return msgspec.json.decode(msgspec.json.encode(made))


def kept(record: Json) -> list[Exchange]:
    """A record as it is stored: with hashes of the requests, those of tools that are agents too."""
    return [
        msgspec.structs.replace(
            each, request=hashed(each.request), tools=tuple(_kept_use(use) for use in each.tools)
        )
        for each in exchanges(record)
    ]


def _kept_use(use: Used) -> Used:
    if use.record is None:
        return use
    return msgspec.structs.replace(use, record=msgspec.to_builtins(kept(use.record)))


def _hash(part: Json) -> str:
    data = msgspec.json.encode(part, order="deterministic")
    return sha256(data).hexdigest()[:HASH_CHARS]


def changed(recorded: Mapping[str, str], request: Request) -> list[str]:
    """The parts of a request that are not those of the recorded one, in their order."""
    today = hashed(request)
    names = list(dict.fromkeys((*today, *recorded)))
    return [name for name in names if today.get(name) != recorded.get(name)]


class Replay:
    """Says again what a model said and what its tools gave, in the order in which they did.

    Args:
        model: The model's name.
        recorded: The exchanges of one attempt.
        redactor: Takes out of a request what was taken out of the recorded one.
    """

    def __init__(
        self, model: str, recorded: Iterable[Exchange], redactor: Redactor | None = None
    ) -> None:
        self.model = model
        self._redactor = redactor or well_known()
        self._left = list(recorded)
        self._known: dict[str, str] = {}
        """The recorded request so far, whose parts each exchange adds to."""
        self._told: dict[str, str | None] = {}
        """Of parts that were told to differ the hashes that they have."""
        self._results: tuple[Used, ...] = ()
        self.asked = 0
        """Requests so far."""
        self.changed: list[str] = []
        """Parts of requests that differ from the recorded ones: ``request 1, messages[0]``."""

    async def ask(
        self,
        messages: list[dict[str, Any]],
        *,
        timeout_s: float,
        max_tokens: int | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> Reply:
        """The next recorded reply, whatever is asked."""
        self.asked += 1
        if not self._left:
            text = f"Request {self.asked} was never made before: no reply of it is recorded."
            return Failed(status="EXEC_ERR", fault="infrastructure", text=text)
        exchange = self._left.pop(0)
        self._results = exchange.tools
        self._known |= {name: str(part) for name, part in exchange.request.items()}
        request = parts(self.model, messages, max_tokens, extra)
        today = self._redactor.value(request)
        hashes = hashed(today)
        for name in changed(self._known, today):
            if name not in self._told or self._told[name] != hashes.get(name):
                self._told[name] = hashes.get(name)
                self.changed.append(f"request {self.asked}, {name}")
        return exchange.reply

    async def use(
        self, calls: tuple[PlannedCall, ...], attempt: Attempt, watch: Watch
    ) -> tuple[Used, ...]:
        """What the tools gave to the calls of the last reply."""
        del attempt, watch
        found, self._results = self._results, ()
        if len(found) != len(calls):
            self.changed.append(f"request {self.asked}, calls of tools")
        missing = Used(
            status="EXEC_ERR", fault="infrastructure", value="No result of it is recorded."
        )
        return (found + (missing,) * len(calls))[: len(calls)]

    async def close(self) -> None:
        """Nothing to close."""
