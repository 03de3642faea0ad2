"""Where the commands that read a run find it, and how people name a moment or a call of it.

::

    RUN          an id, or the beginning of it
    RUN@57       its event 57
    RUN/2-0      its call 2-0
    RUN/2-0/1    the first attempt of that call
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from podium.cli.options import Common
from podium.cli.world import current
from protocol.errors import Usage
from protocol.subjects import is_call

if TYPE_CHECKING:
    from podium.client import Client
    from protocol.actions import BlobRef
    from replay.chain import RunLog


class Source:
    """Runs that can be read."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def log(self, name: str) -> "RunLog":
        """The log of the run that a name means. Raises `NotFound` or `Ambiguous`."""
        return await self._client.log(await self._client.find(name))

    async def blob(self, ref: "BlobRef") -> bytes:
        """The bytes of a blob. Raises `NotFound` or `InvalidData`."""
        return await self._client.blob(ref)


@asynccontextmanager
async def source(common: Common) -> AsyncIterator[Source]:
    """What the options say: the log of the deployment they name."""
    async with current().deployments.connect(common.load().config) as host:
        yield Source(host.client)


class EventName(NamedTuple):
    """``RUN@57``."""

    run: str
    number: int


class CallName(NamedTuple):
    """``RUN/2-0`` or ``RUN/2-0/1``."""

    run: str
    call: str
    attempt: int | None


def event_name(text: str) -> EventName:
    """The event that a text names. Raises `Usage`."""
    run, at, number = text.partition("@")
    if not run or not at or not number.isdecimal() or int(number) < 1:
        raise Usage(
            f"{text!r} names no event",
            hint="name one as RUN@NUMBER, such as yspt9@57; `podium timeline RUN` numbers them",
        )
    return EventName(run, int(number))


def call_name(text: str) -> CallName:
    """The call that a text names. Raises `Usage`."""
    run, call, attempt = (*text.split("/"), "", "")[:3]
    if text.count("/") > 2 or not run or not is_call(call) or (attempt and not attempt.isdecimal()):
        raise Usage(
            f"{text!r} names no call",
            hint="name one as RUN/CALL, such as yspt9/2-0; `podium runs show RUN` lists them",
        )
    return CallName(run, call, int(attempt) if attempt else None)
