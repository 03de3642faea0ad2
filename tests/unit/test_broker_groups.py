"""Groups of appends over a connection that fails: each ends once, and the next ones go out."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import OutboundBufferLimitError

from replay.broker import Broker, Unanswered

Heard = Callable[[Msg], Awaitable[None]]


class Wire:
    """The client's side of a connection whose buffer may be full."""

    is_closed = False

    def __init__(self) -> None:
        self.full = True
        self.sent = 0
        self.heard: Heard | None = None

    def new_inbox(self) -> str:
        return "_INBOX.a-connection-of-a-test"

    async def subscribe(self, _subject: str, *, cb: Heard, **_limits: int) -> None:
        self.heard = cb

    async def publish(
        self, _subject: str, _data: bytes, *, reply: str = "", headers: Any = None
    ) -> None:
        if self.full:
            raise OutboundBufferLimitError
        self.sent += 1
        if reply and self.heard is not None:
            count = int((headers or {}).get("Nats-Batch-Sequence", "1"))
            ack = {"stream": "LOG-0", "seq": self.sent, "count": count}
            message = Msg(self, reply, "", json.dumps(ack).encode())  # type: ignore[arg-type]
            await self.heard(message)

    async def drain(self) -> None:
        self.is_closed = True


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def broker(wire: Wire) -> AsyncIterator[Broker]:
    made = Broker(wire, grouped=True)  # type: ignore[arg-type]
    await made.open()
    yield made
    await made.close()


async def append_all(broker: Broker, count: int) -> list[int | BaseException]:
    work = (broker.append(f"log.0.run{index}.c", b"{}", 0) for index in range(count))
    async with asyncio.timeout(5):
        return await asyncio.gather(*work, return_exceptions=True)


async def test_a_group_that_can_not_be_sent_fails_once_and_the_next_goes_out(
    wire: Wire, broker: Broker
) -> None:
    failed = await append_all(broker, 20)
    assert [type(each) for each in failed] == [Unanswered] * 20
    wire.full = False
    assert await append_all(broker, 1) == [1], "a single append after the failure"
    assert await append_all(broker, 20) == list(range(2, 22)), "and a group"
