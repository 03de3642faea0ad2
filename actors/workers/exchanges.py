"""What an agent's attempt asked its model and what the model said: recorded, and said again.

The reply is kept as it came, the request as a hash for each of its parts: all that a request is
made of stands in the run's log already, and a hash is enough to say what has changed since.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from actors.workers.chat import Failed, Said
from protocol.actions import Json
from protocol.errors import InvalidData
from protocol.redaction import Redactor

HASH_CHARS: Final = 16
"""Hex characters of a part's hash: enough to tell a change from none."""

Request: TypeAlias = dict[str, Json]
"""A request, part by part: ``model``, ``messages[0]``, ``max_tokens``, ``temperature``, …"""

Reply: TypeAlias = Said | Failed


class Exchange(msgspec.Struct, frozen=True):
    """One request to a model, and its reply."""

    request: Request
    """Part by part: as it was made in the worker, as a hash in a record."""
    reply: Reply


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


def hashed(request: Request) -> dict[str, str]:
    """A hash for each part of a request."""
    return {name: _hash(part) for name, part in request.items()}


def _hash(part: Json) -> str:
    data = msgspec.json.encode(part, order="deterministic")
    return sha256(data).hexdigest()[:HASH_CHARS]


def changed(recorded: Mapping[str, str], request: Request) -> list[str]:
    """The parts of a request that are not those of the recorded one, in their order."""
    today = hashed(request)
    names = list(dict.fromkeys((*today, *recorded)))
    return [name for name in names if today.get(name) != recorded.get(name)]


def exchanges(record: Json) -> list[Exchange]:
    """The exchanges of a record. Raises `InvalidData`."""
    try:
        return msgspec.convert(record, list[Exchange])
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"the record of what the model said can't be read: {error}",
            hint="ask the model anew with --live",
        ) from None


class Replay:
    """Says again what a model said, in the order in which it did.

    Args:
        model: The model's name.
        recorded: The exchanges of one attempt.
        redactor: Takes out of a request what was taken out of the recorded one.
    """

    def __init__(
        self, model: str, recorded: Iterable[Exchange], redactor: Redactor | None = None
    ) -> None:
        self.model = model
        self._redactor = redactor or Redactor()
        self._left = list(recorded)
        self.asked = 0
        """Requests so far."""
        self.changed: list[str] = []
        """Parts of requests that differ from the recorded ones: ``1: messages[0]``."""

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
        recorded = {name: str(part) for name, part in exchange.request.items()}
        request = parts(self.model, messages, max_tokens, extra)
        for name in changed(recorded, self._redactor.value(request)):
            self.changed.append(f"request {self.asked}, {name}")
        return exchange.reply

    async def close(self) -> None:
        """Nothing to close."""
