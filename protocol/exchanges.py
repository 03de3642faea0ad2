"""What an agent exchanged with its model, as the record beside a report holds it.

No rule and no policy looks at it: it is for whoever makes an attempt again, or traces it.
"""

from typing import TypeAlias

import msgspec

from protocol.actions import NOTHING, UNKNOWN_USAGE, Count, Fault, Json, Spend, Status, Usage
from protocol.decisions import ToolCall
from protocol.errors import InvalidData


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="said"):
    """What the endpoint answered."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: str = ""
    """Why the model stopped: ``stop``, ``length``, ``tool_calls``, ``content_filter``."""
    refusal: str = ""
    spend: Spend = NOTHING
    version: str = ""
    """The model that answered, and the fingerprint of its system if there is one."""
    usage: Usage = UNKNOWN_USAGE


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """Why the endpoint did not answer."""

    status: Status
    fault: Fault
    text: str
    """What happened and how to mend it; without the key, whatever the endpoint echoed."""
    retry: bool = True
    """False when asking the same again can't help, as with a refused key."""
    finish: str = ""
    """`protocol.decisions.NO_ROOM`, where the conversation is longer than the model takes."""


Request: TypeAlias = dict[str, Json]
"""A request, part by part: ``model``, ``messages[0]``, ``max_tokens``, ``temperature``, …"""

Reply: TypeAlias = Said | Failed


class Used(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One use of a tool of an agent's own, and what came of it."""

    status: Status = "OK"
    fault: Fault = "none"
    value: Json = None
    """As the model is shown it: without secrets, and cut if it is long."""
    spend: Spend = NOTHING
    usage: Usage = UNKNOWN_USAGE
    """Of a tool that is an agent itself."""
    record: Json = None
    """Likewise: its own exchanges."""
    began_ms: Count = 0
    """Milliseconds from the beginning of the attempt."""
    took_ms: Count = 0


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to a model, its reply, and the tools that the reply has called."""

    request: Request
    """Part by part, without the parts that the request before it had, too: as it was made in the
    worker, as a hash in a record."""
    reply: Reply
    tools: tuple[Used, ...] = ()
    """One for each call of the reply that was made, in its order."""
    began_ms: Count = 0
    """Milliseconds from the beginning of the attempt."""
    took_ms: Count = 0
    """Milliseconds until the reply was there."""


def exchanges(record: Json) -> list[Exchange]:
    """The exchanges of a record. Raises `InvalidData`."""
    try:
        return msgspec.convert(record, list[Exchange])
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"the record of what the model said can't be read: {error}",
            hint="ask the model anew with --live",
        ) from None
