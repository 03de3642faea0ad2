"""One connection to NATS JetStream: what the log and the queues need of it, and nothing else.

Appends of many runs that wait at the same time may travel as one atomic batch with a condition per
subject, so that they share an fsync. A batch is refused as a whole when one member is stale, and
the server doesn't say which: its members are then appended one by one.
"""

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from replay import answers
from replay.answers import SEQUENCE, PubAck, Refused, Unanswered
from replay.chain import Stored
from replay.connection import Heard, connect, listen
from replay.lanes import Append, Lane
from replay.patience import persist

logger = logging.getLogger("podium.broker")

ANSWER_S: Final = 2.0
"""Seconds after which a request counts as unanswered. Shorter than any lease, so that its owner can
still act."""

MIN_GROUP: Final = 12
"""Appends from which on an atomic batch is worth its staging, about 2 ms; fewer go one by one."""

MAX_GROUPS_IN_FLIGHT: Final = 2
"""Batches under way at a time. More would make each one smaller, and share fewer fsyncs."""

READ_BATCH: Final = 1_000
"""Messages of one batched read."""

BATCH_NAME_BYTES: Final = 11
"""Random bytes in the names of one connection's batches: no two connections share one."""

SWEEP_S: Final = 0.25
"""Seconds between two looks for requests without an answer, as long as any is under way."""

NOT_NOW: Final = frozenset({10008, 10009, 10118, 10119})
"""Error codes of a server that can't say: no leader yet, a stream or a consumer still offline."""

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"

__all__ = ["Broker", "Refused", "Unanswered", "persist", "stored_at"]

Answer = Callable[[Heard], None]

_T = TypeVar("_T")


class Broker:
    """A connection, and the answers that are waited for on it.

    Args:
        client: A connected client.
        grouped: Whether appends that wait together travel as an atomic batch: worth it when each
            would cost an fsync.
        monotonic: Seconds of a clock that also moves while this process is frozen.
        jitter: Random numbers from 0 to 1, so that many who try again don't do so together.
    """

    def __init__(
        self,
        client: Client,
        *,
        grouped: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.client, self.grouped = client, grouped
        self.monotonic, self.jitter = monotonic, jitter
        self.reconnected: list[Callable[[], None]] = []
        """Called after each reconnection: whatever was sent shortly before may be lost."""
        self.counts: Counter[str] = Counter()
        """``strange_answers``: what came in answer to a question and was no answer;
        ``late_answers``: what came when nobody asked any more."""
        self._prefix = ""
        self._batch = secrets.token_hex(BATCH_NAME_BYTES)
        self._batches = itertools.count()
        self._tokens = itertools.count()
        self._answers: dict[str, Answer] = {}
        self._deadlines: list[tuple[float, str, Callable[[], None]]] = []
        self._lanes: dict[str, Lane] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        credentials: str | None = None,
        name: str = "podium",
        grouped: bool = False,
    ) -> "Broker":
        """Connect, and keep reconnecting for as long as the broker is open.

        Args:
            url: The server's address, or those of a cluster, separated by commas.
            user: With a password; or ``credentials``, the path of a credentials file.
            password: See ``user``.
            credentials: See ``user``.
            name: What the server calls this connection.
            grouped: See the class.

        Raises:
            Unreachable: Nobody answers at that address.
            Denied: The server refuses the credentials.
        """
        holder: list[Broker] = []

        def reconnected() -> None:
            for callback in list(holder[0].reconnected) if holder else ():
                callback()

        client = await connect(
            url,
            user=user,
            password=password,
            credentials=credentials,
            name=name,
            reconnected=reconnected,
        )
        broker = cls(client, grouped=grouped)
        holder.append(broker)
        await broker.open()
        return broker

    async def open(self) -> None:
        """Begin to listen for answers."""
        self._prefix = self.client.new_inbox()
        await listen(self.client, f"{self._prefix}.*", self._answered)
        self._tasks = [asyncio.create_task(self._send_appends(), name="broker-appends")]

    async def close(self) -> None:
        """Send what is buffered, and disconnect. Whoever still waits hears `Unanswered`."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self._lanes.values():
            for item in lane.queue:
                _fail(item.future)
        for _, token, expired in self._deadlines:
            if token in self._answers:
                expired()
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await asyncio.wait_for(self.client.drain(), ANSWER_S)
        if not self.client.is_closed:
            await self.client.close()

    # -------------------------------------------------------------------------------------- answers

    def expect(self, answer: Answer, expired: Callable[[], None], within: float = ANSWER_S) -> str:
        """A reply subject; ``answer`` is called with each message on it until it is forgotten."""
        token = str(next(self._tokens))
        self._answers[token] = answer
        heapq.heappush(self._deadlines, (self.monotonic() + within, token, expired))
        if self._sweeping is None:
            self._sweep_later()
        return f"{self._prefix}.{token}"

    def forget(self, reply: str) -> None:
        """Expect nothing more on that reply subject."""
        self._answers.pop(reply.rpartition(".")[2], None)

    def _answered(self, message: Heard) -> None:
        answer = self._answers.get(message.subject.rpartition(".")[2])
        if answer is not None:
            answer(message)
        else:  # late, asked for by nobody any more; or a stranger's
            self.counts["late_answers"] += 1

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Call off what has waited for too long; again later, as long as something waits."""
        self._sweeping = None
        now = self.monotonic()
        while self._deadlines:
            deadline, token, expired = self._deadlines[0]
            if deadline > now and token in self._answers:
                break
            heapq.heappop(self._deadlines)
            if self._answers.pop(token, None) is not None:
                expired()
        if self._deadlines and self._sweeping is None:
            self._sweep_later()

    # -------------------------------------------------------------------------------------- appends

    async def append(
        self,
        subject: str,
        data: bytes,
        expected: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Append a message to whatever stream has the subject.

        Args:
            subject: The exact subject.
            data: The bytes.
            expected: Sequence that the subject's last message must have, 0 for none; None for no
                condition.
            headers: What travels beside the message.

        Returns:
            Its sequence, once it is durable.

        Raises:
            Refused: The condition doesn't hold, or the stream takes no more.
            Unanswered: Nobody knows.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._lane(subject).queue.append(Append(subject, data, expected, future, headers))
        self._wake.set()
        return await future

    def _lane(self, subject: str) -> Lane:
        """The stream that a subject belongs to: the log has one for each shard."""
        name = subject[: subject.find(".", 4)] if subject.startswith("log.") else subject[:4]
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane()
        return lane

    async def _send_appends(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for lane in list(self._lanes.values()):
                await self._send_lane(lane)

    async def _send_lane(self, lane: Lane) -> None:
        while lane.queue:
            if not self.grouped:
                await self._send_one(lane.queue.popleft())
            elif len(lane.queue) >= MIN_GROUP and lane.groups < MAX_GROUPS_IN_FLIGHT:
                await self._send_group(lane)
            elif not lane.groups and not lane.singles:
                for item in lane.take_group():
                    lane.singles += 1
                    await self._send_one(item, lambda: self._single_done(lane))
            else:  # wait for what is under way: more comes together meanwhile
                return

    async def _send_one(self, item: Append, done: Callable[[], None] | None = None) -> None:
        def answered(message: Heard) -> None:
            self.forget(message.subject)
            _settle(item, self._ack(message))
            if done:
                done()

        def expired() -> None:
            _fail(item.future)
            if done:
                done()

        headers = dict(item.headers or {})
        if item.expected is not None:
            headers[_EXPECTED] = str(item.expected)
        reply = self.expect(answered, expired)
        await self._publish(item.subject, item.data, reply, headers or None, expired)

    async def _send_group(self, lane: Lane) -> None:
        group = lane.take_group()
        lane.groups += 1
        batch = f"{self._batch}-{next(self._batches)}"

        def answered(message: Heard) -> None:
            self.forget(message.subject)
            self._group_answered(group, message)
            self._group_done(lane)

        def expired() -> None:
            self.forget(reply)
            for item in group:
                _fail(item.future)
            self._group_done(lane)

        reply = self.expect(answered, expired)
        for number, item in enumerate(group, 1):
            headers = dict(item.headers or {})
            headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if item.expected is not None:
                headers[_EXPECTED] = str(item.expected)
            last = number == len(group)
            if last:
                headers["Nats-Batch-Commit"] = "1"
            where = reply if last else ""
            if not await self._publish(item.subject, item.data, where, headers, expired):
                return  # the server drops what it has staged of an unfinished batch

    def _group_answered(self, group: list[Append], message: Heard) -> None:
        ack = self._ack(message)
        if ack is not None and ack.error is None and ack.count == len(group):
            for offset, item in enumerate(group, ack.seq - len(group) + 1):
                if not item.future.done():
                    item.future.set_result(offset)
        else:  # one stale member refuses all: each for itself
            waiting = (item for item in group if not item.future.done())
            task = asyncio.create_task(self._send_singly(list(waiting)))
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    async def _send_singly(self, items: list[Append]) -> None:
        for item in items:
            await self._send_one(item)

    def _single_done(self, lane: Lane) -> None:
        lane.singles -= 1
        if lane.queue and not lane.singles:
            self._wake.set()

    def _group_done(self, lane: Lane) -> None:
        lane.groups -= 1
        if lane.queue:
            self._wake.set()

    async def _publish(
        self,
        subject: str,
        data: bytes,
        reply: str,
        headers: dict[str, str] | None,
        failed: Callable[[], None],
    ) -> bool:
        """Whether it was sent; if not, ``failed`` has been called."""
        try:
            await self.client.publish(subject, data, reply=reply, headers=headers)
        except (NatsError, OSError) as error:
            logger.debug("not sent to %s: %s", subject, error)
            if reply:
                self.forget(reply)
            failed()
            return False
        return True

    def _ack(self, message: Heard) -> PubAck | None:
        """What the server says of an append; None if nobody takes it, or the answer is none."""
        if message.status:
            return None
        ack = answers.acknowledgement(message.data)
        self.counts["strange_answers"] += ack is None
        return ack

    # ---------------------------------------------------------------------------------------- reads

    async def request(self, subject: str, body: Any = None, within: float = ANSWER_S) -> Any:
        """Ask the JetStream API.

        Raises:
            Refused: With the API's error code.
            Unanswered: No answer in time.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(message: Heard) -> None:
            self.forget(message.subject)
            if not future.done():
                if message.status == "503":
                    future.set_exception(Unanswered(f"nobody answers on {subject}"))
                else:
                    future.set_result(message.data)

        reply = self.expect(answered, lambda: _fail(future), within)
        data = b"" if body is None else msgspec.json.encode(body)
        await self._publish(subject, data, reply, None, lambda: _fail(future))
        try:
            return self._said(answers.answer(await future), subject)
        except Refused as error:
            if error.code in NOT_NOW:
                raise Unanswered(error.text) from None
            raise

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The subject's last message, read from the stream's leader."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, seq: int) -> Stored | None:
        """The subject's first message from a sequence on, read from the stream's leader."""
        return await self._get(stream, {"seq": seq, "next_by_subj": subject})

    async def since(self, stream: str, subject: str, time: str) -> Stored | None:
        """The first message on a subject stored at or after a time, read from the leader."""
        return await self._get(stream, {"start_time": time, "next_by_subj": subject})

    async def _get(self, stream: str, body: dict[str, Any]) -> Stored | None:
        try:
            found = await self.request(f"$JS.API.STREAM.MSG.GET.{stream}", body)
        except Refused as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        return self._said(answers.message(found), stream)

    def _said(self, said: _T | None, what: str) -> _T:
        if said is None:
            self.counts["strange_answers"] += 1
            raise Unanswered(f"what came in answer to {what} is no answer")
        return said

    async def read(self, stream: str, subject: str, after: int = 0) -> list[Stored]:
        """All messages of a subject after a sequence. As `pages` else."""
        pages = self.pages(stream, subject, after)
        return [stored async for page in pages for stored in page]

    async def pages(self, stream: str, subject: str, after: int = 0) -> AsyncIterator[list[Stored]]:
        """All messages of a subject after a sequence, by batched direct get, page by page.

        Any replica may answer.

        Raises:
            Unanswered: No complete answer in time.
        """
        more = 1
        while more:
            page, more = await self.page(stream, subject, after, stored_at)
            if not page:
                return
            after = page[-1].seq
            yield page

    async def page(
        self,
        stream: str,
        subject: str,
        after: int,
        keep: Callable[[Heard, int], _T],
        most_bytes: int = 0,
    ) -> tuple[list[_T], int]:
        """What is kept of the next messages, and how many more there are. As `pages` else."""
        page: list[_T] = []
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answered(message: Heard) -> None:
            if seq := message.seq:  # stored: whatever else its headers say, its writer said
                page.append(keep(message, seq))
                return
            self.forget(message.subject)
            if future.done():
                return
            status = message.status
            if status in ("204", "404"):
                left = message.header("Nats-Num-Pending")
                future.set_result(int(left) if SEQUENCE.fullmatch(left) else 0)
            else:
                self.counts["strange_answers"] += not status
                future.set_exception(Unanswered(f"direct get on {stream}: status {status}"))

        body = {"seq": after + 1, "next_by_subj": subject, "batch": READ_BATCH}
        body |= {"max_bytes": most_bytes} if most_bytes else {}
        reply = self.expect(answered, lambda: _fail(future))
        data = msgspec.json.encode(body)
        subject = f"$JS.API.DIRECT.GET.{stream}"
        await self._publish(subject, data, reply, None, lambda: _fail(future))
        return page, await future


_NO_MESSAGE: Final = 10037


def stored_at(message: Heard, seq: int) -> Stored:
    """What `Broker.page` keeps of a message, for whoever wants just that."""
    return Stored(seq, message.data)


def _settle(item: Append, ack: PubAck | None) -> None:
    if item.future.done():
        return
    if ack is None:
        item.future.set_exception(Unanswered(f"nobody takes {item.subject}"))
    elif ack.error is not None:
        item.future.set_exception(Refused(ack.error.err_code, ack.error.description))
    else:
        item.future.set_result(ack.seq)


def _fail(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(Unanswered("no answer in time"))
