"""Models of ours over NATS: one server, and any number of conductors that share its batches.

A question is one message and so is its reply; neither is stored, since the log has what counts. A
conductor that doesn't wait any more says so; a server that begins says so, and whatever an earlier
one was asked is asked again.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from nats.errors import Error as NatsError

from actors.models.question import Question
from actors.models.server import PolicyServer
from actors.models.serving import Batching
from protocol import subjects
from protocol.decisions import Reply
from protocol.limits import MAX_DETAIL_CHARS, MAX_MESSAGE_BYTES
from replay.broker import Broker
from replay.connection import Heard, Listening, inbox, listen

logger = logging.getLogger("podium.models")

MAX_BYTES: Final = MAX_MESSAGE_BYTES - 4_096
"""Bytes of one question or reply: what the broker takes, less what stands around it."""

GRACE_S: Final = 5.0
"""Seconds beyond its time that a question's reply is waited for: the server's word that nothing
came of it should win the race."""

_INBOXES: Final = tuple(f"{inbox(user)}." for user in (None, "conductor"))
"""Where replies go: to those who may ask. This server may write anywhere."""

_LOST: Final = Reply(status="EXEC_ERR", error="whoever hosts the model has begun anew")
_NOBODY: Final = "nobody hosts the model in {}, or its process is starting"
_HINT: Final = "see `podium status`"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question on its way."""

    id: str
    within_ms: int
    question: Question


def name_of(place: str) -> str:
    """The name under which the model of a folder is asked: one subject token."""
    return sha256(place.encode()).hexdigest()[:24]


class RemoteModels:
    """`Models` that others host.

    Args:
        broker: The conductor's connection.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: dict[str, set[asyncio.Future[Reply]]] = {}
        self._listening: dict[str, Listening] = {}
        broker.reconnected.append(self._all_lost)

    async def ask(self, place: str, question: Question, within_s: float) -> Reply:
        """See `Models.ask`."""
        name = name_of(place)
        asked = Asked(id=secrets.token_hex(8), within_ms=round(within_s * 1_000), question=question)
        data = msgspec.json.encode(asked)
        if len(data) > MAX_BYTES:
            text = f"the prompt has {len(data)} bytes; at most {MAX_BYTES} can be asked"
            return Reply(status="EXEC_ERR", error=text, retry=False)
        await self._hear(name)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, set())
        waiting.add(future)

        def answered(message: Heard) -> None:
            if not future.done():
                future.set_result(_reply(message, place))

        def expired() -> None:
            if not future.done():
                text = f"no reply within {within_s:g} s"
                future.set_result(Reply(status="TIMEOUT", error=text))

        to = self._broker.expect(answered, expired, within_s + GRACE_S)
        try:
            await self._broker.client.publish(subjects.model(name, "ask"), data, reply=to)
            return await future
        except (NatsError, OSError) as error:
            return Reply(status="EXEC_ERR", error=f"the broker can't be reached: {error}")
        except asyncio.CancelledError:
            with contextlib.suppress(NatsError, OSError):
                await self._broker.client.publish(subjects.model(name, "stop"), asked.id.encode())
            raise
        finally:
            waiting.discard(future)
            self._broker.forget(to)

    async def _hear(self, name: str) -> None:
        """Hear when a server begins."""
        if name in self._listening:
            return

        def begun(_: Heard) -> None:
            self._lost(name)

        subject = subjects.model(name, "begun")
        self._listening[name] = await listen(self._broker.client, subject, begun)

    def _lost(self, name: str) -> None:
        for future in self._waiting.get(name, ()):
            if not future.done():
                future.set_result(_LOST)

    def _all_lost(self) -> None:
        """After a reconnection nobody knows which questions arrived."""
        for name in self._waiting:
            self._lost(name)


def _reply(message: Heard, place: str) -> Reply:
    if message.status == "503":  # nobody listens there
        return Reply(status="EXEC_ERR", error=f"{_NOBODY.format(place)}; {_HINT}")
    try:
        return msgspec.json.decode(message.data, type=Reply)
    except msgspec.MsgspecError as error:
        return Reply(status="EXEC_ERR", error=f"the model in {place} sent no reply: {error}")


class Service:
    """Answers the questions that come for one folder.

    Args:
        broker: The connection.
        place: The folder, as policies name it.
        batching: See `PolicyServer`.
        actor: Who says how it is.
    """

    def __init__(self, broker: Broker, place: str, batching: Batching, actor: str) -> None:
        self.server = PolicyServer(Path(place), batching)
        self.place, self._actor, self._broker = place, actor, broker
        self._name = name_of(place)
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._listening: list[Listening] = []
        self._loading: asyncio.Task[None] | None = None

    @property
    def failed(self) -> str:
        """Why it can't answer; "" if it can, or is still loading."""
        return self.server.failed

    async def start(self, within_s: float) -> None:
        """Load the model, for so long at most; what takes longer goes on meanwhile.

        Raises:
            PodiumError: It can't be loaded.
        """
        self._loading = asyncio.create_task(self.server.start(), name="loading")
        await asyncio.wait({self._loading}, timeout=within_s)
        if self._loading.done():
            self._loading.result()
        client = self._broker.client
        ask, stop = subjects.model(self._name, "ask"), subjects.model(self._name, "stop")
        self._listening.append(await listen(client, ask, self._came, queue="models"))
        self._listening.append(await listen(client, stop, self._withdrawn))
        await client.flush()
        await client.publish(subjects.model(self._name, "begun"), b"")

    async def stop(self) -> None:
        """Answer no more."""
        for listening in self._listening:
            await listening.close()
        tasks = [*self._asked.values(), *([self._loading] if self._loading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.server.stop()

    def _came(self, message: Heard) -> None:
        if not message.reply.startswith(_INBOXES):
            self.server.counts["aside"] += 1
            return
        try:
            asked = msgspec.json.decode(message.data, type=Asked)
        except (msgspec.MsgspecError, RecursionError) as error:
            self.server.counts["aside"] += 1
            logger.warning("set aside: no question: %s", error)
            return
        task = asyncio.create_task(self._answer(asked, message.reply), name="question")
        self._asked[asked.id] = task
        # Not at its own end: one that is withdrawn before it begins never gets there.
        task.add_done_callback(lambda _: self._asked.pop(asked.id, None))

    def _withdrawn(self, message: Heard) -> None:
        task = self._asked.get(message.data.decode("utf-8", "replace"))
        if task is not None:
            task.cancel()

    async def _answer(self, asked: Asked, to: str) -> None:
        try:
            reply = await self.server.ask(asked.question, asked.within_ms / 1_000)
        except Exception as error:  # nobody is to wait for what will not come
            logger.exception("a question of %s was not answered", self.place)
            text = f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARS]
            reply = Reply(status="EXEC_ERR", error=text)
        data = msgspec.json.encode(reply)
        if len(data) > MAX_BYTES:
            text = f"the reply has {len(data)} bytes; at most {MAX_BYTES} can be sent"
            data = msgspec.json.encode(Reply(status="EXEC_ERR", error=text, retry=False))
        with contextlib.suppress(NatsError, OSError):
            await self._broker.client.publish(to, data)

    async def stats(self, _: bytes) -> bytes:
        """How it is doing, for `podium status`."""
        said = {"actor": self._actor, "kind": "model", "pid": os.getpid(), "worker": self.place}
        return msgspec.json.encode({**said, **self.server.stats()})
