"""The registry's log: the stream WORKERS, one message a change, and in memory for tests.

It is written by whoever has a conductor's rights, each message on condition that it is the next.
"""

import asyncio
from typing import Final, Protocol

import msgspec

from protocol import subjects
from protocol.codec import encode
from protocol.errors import Busy, Conflict, InvalidData, TooLarge, Unreachable
from protocol.registry import EMPTY, Change, Registry, folded
from replay.broker import Broker, Refused, Unanswered, persist
from replay.chain import Stored
from replay.jetstream_log import SETTLE_S, WRONG_SEQUENCE

LAG_S: Final = 0.05
"""Seconds before a replica that lags behind its leader is read again."""

_NO_STREAM: Final = 10059

_decode = msgspec.json.Decoder(Change).decode


class RegistryLog(Protocol):
    """What was said of a deployment's workers."""

    async def read(self) -> Registry:
        """All of it, folded.

        Raises:
            Unreachable: No answer.
            InvalidData: A message of it is none.
        """
        ...

    async def append(self, change: Change) -> Registry:
        """Say one thing more; the registry after it.

        Raises:
            Conflict: Somebody else has said something since the last `read`.
            Busy: It is full.
            TooLarge: It has more than a message holds.
            Unreachable: No answer.
        """
        ...


class MemoryRegistry:
    """A `RegistryLog` in memory."""

    def __init__(self) -> None:
        self._registry = EMPTY

    async def read(self) -> Registry:
        """See `RegistryLog.read`."""
        return self._registry

    async def append(self, change: Change) -> Registry:
        """See `RegistryLog.append`."""
        if change.n != self._registry.n + 1:
            raise _passed(change)
        self._registry = folded(self._registry, [change])
        return self._registry


class JetStreamRegistry:
    """A `RegistryLog` over a `Broker`. What was read once is not read again.

    Args:
        broker: The connection; it stays its owner's to close.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._registry, self._seq = EMPTY, 0
        self._there = True
        """Whether the stream was there when it was last asked."""
        self._one_at_a_time = asyncio.Lock()

    async def read(self) -> Registry:
        """See `RegistryLog.read`."""
        async with self._one_at_a_time:
            last = await self._last()
            while last is not None and self._seq < last.seq:
                stored = await persist(
                    lambda: self._broker.read(subjects.WORKERS, subjects.REGISTRY, self._seq),
                    SETTLE_S,
                    "the registry of workers",
                )
                for each in stored:
                    self._take(each)
                if self._seq < last.seq:
                    await asyncio.sleep(LAG_S)
            return self._registry

    def _take(self, stored: Stored) -> None:
        try:
            change = _decode(stored.data)
        except ValueError as error:
            raise InvalidData(
                f"message {stored.seq} of the registry of workers can't be read: {error}",
                hint="a later version may have written it: start the deployment with that one",
            ) from None
        self._registry, self._seq = folded(self._registry, [change]), stored.seq

    async def _last(self) -> Stored | None:
        found: Stored | None
        try:
            found = await persist(
                lambda: self._broker.last(subjects.WORKERS, subjects.REGISTRY),
                SETTLE_S,
                "the registry of workers",
            )
        except Refused as error:
            if error.code != _NO_STREAM:
                raise
            found, self._there = None, False
        else:
            self._there = True
        return found

    async def append(self, change: Change) -> Registry:
        """See `RegistryLog.append`."""
        if change.n != self._registry.n + 1:
            raise _passed(change)
        try:
            data = encode(change)
        except TooLarge as error:
            raise TooLarge(
                f"change {change.n} of the workers has too much for one message: {error.message}",
                hint="shorten descriptions, schemas and options; or have fewer workers",
            ) from None
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while True:
            try:
                seq = await self._broker.append(subjects.REGISTRY, data, self._seq)
            except Refused as error:
                if error.code not in WRONG_SEQUENCE:
                    raise Busy(
                        f"the registry of workers takes no more: {error.text} ({error.code})",
                        hint=f"it has {change.n - 1:,} changes: free disk space if it is that, and "
                        "go on in another folder (--folder) if it is their number",
                    ) from None
            except Unanswered:
                pass
            else:
                self._registry, self._seq = folded(self._registry, [change]), seq
                return self._registry
            # It may have been taken all the same: only the log says.
            last = await self._last()
            if last is not None and last.seq > self._seq:
                if last.data == data:
                    return await self.read()
                raise _passed(change)
            if not self._there:
                raise Unreachable(
                    "the deployment keeps no registry of workers: an earlier version started it",
                    hint="podium down, then podium up",
                )
            if asyncio.get_running_loop().time() > deadline:
                raise Unreachable(
                    f"change {change.n} of the workers was not taken within {SETTLE_S:g} s",
                    hint="`podium doctor` shows what the server says of itself",
                )
            await asyncio.sleep(LAG_S)


def _passed(change: Change) -> Conflict:
    return Conflict(
        f"change {change.n} of the workers: somebody else has changed them meanwhile",
        hint="look at what they have done (`podium worker list`), and say it again",
    )
