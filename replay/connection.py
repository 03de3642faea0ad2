"""A connection to NATS that no message can break.

The broker passes on what a client gives it: subjects that are no UTF-8, headers that are none.
The library's client stops reading at the first of them, and stays connected and deaf; this one
reads whatever can be read of a message, and goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import BadHeaderError
from nats.errors import Error as NatsError
from nats.protocol.parser import (
    _CRLF_,
    AWAITING_CONTROL_LINE,
    AWAITING_MSG_PAYLOAD,
    CRLF_SIZE,
    HMSG_OP,
    MSG_OP,
    Parser,
)

from protocol.errors import Denied, Unreachable
from replay.address import shown

logger = logging.getLogger("podium.broker")

CONNECT_S: Final = 5.0
"""Seconds to wait for a first connection."""

RECONNECT_S: Final = 0.25
"""Seconds between two tries to reconnect; a restarted server is found soon, and nobody flooded."""

_VERSION: Final = b"NATS/1.0"
_MESSAGE: Final = b"NATS/1.0\r"
"""How the headers of a message begin; those of the server's own word go on with a status."""
_SEQUENCE: Final = b"\r\nNats-Sequence:"
_SEQUENCE_DIGITS: Final = 19
"""Digits of the largest sequence."""


def inbox(user: str | None) -> str:
    """The first token of the subjects on which ``user`` hears answers.

    A user of the embedded broker has one that nobody else may hear: who hears a request knows where
    its answer goes. Without a name (a credentials file of somebody's cluster) it is NATS's own.
    """
    return f"_INBOX_{user}" if user else "_INBOX"


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a message, as far as they are some.

    What the server says of a message it adds at the end, so the last of two equal names counts.
    ``Status`` is never a header that somebody wrote: only the server's own, from the first line.
    """
    first, *lines = block.split(b"\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().decode(errors="replace")] = value.strip().decode(errors="replace")
    headers.pop("Status", None)
    status = first.removeprefix(_VERSION).split(maxsplit=1)
    if first.startswith(_VERSION) and status and status[0].isdigit():
        headers["Status"] = status[0].decode()
    return headers


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they travel.

    Raises:
        BadHeaderError: A name or a value has a line break, or a name a colon: what stands behind it
            would be read as a header of its own.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise BadHeaderError(f"a line break in one of {sorted(headers)}")
    if any(":" in name for name in headers):
        raise BadHeaderError(f"a colon in one of {sorted(headers)}")
    return f"NATS/1.0\r\n{lines}\r\n".encode()


class Heard:
    """A message as `listen` hands it on.

    Its headers are looked at only when one is asked for: most of the time of a long read would go
    into headers that nobody wants.
    """

    __slots__ = ("_block", "data", "reply", "subject")

    def __init__(self, subject: str, data: bytes, block: bytes | None, reply: str = "") -> None:
        self.subject, self.data, self.reply, self._block = subject, data, reply, block

    @property
    def status(self) -> str:
        """The server's own word, such as ``404``; "" for a message."""
        if self._block is None or self._block.startswith(_MESSAGE):
            return ""
        return parse_headers(self._block).get("Status", "")

    @property
    def seq(self) -> int:
        """Where a stored message stands, as the server says; 0 for any other message."""
        value = self._last(_SEQUENCE)
        return int(value) if value.isdigit() and len(value) <= _SEQUENCE_DIGITS else 0

    def header(self, name: str) -> str:
        """The last header of that name, which is the server's if it added one; "" for none."""
        return self._last(f"\r\n{name}:".encode()).decode(errors="replace")

    def _last(self, mark: bytes) -> bytes:
        block = self._block
        start = block.rfind(mark) if block is not None else -1
        if block is None or start < 0:
            return b""
        start += len(mark)
        end = block.find(b"\r\n", start)
        return block[start : end if end >= 0 else None].strip()


class Ahead(Parser):
    """The library's parser, behind one that hands whole messages to listeners as they come.

    The library finds them one by one in a buffer that it cuts each time: twice the time of a long
    read. Whatever else the server says, and what comes in pieces, stays the library's.
    """

    def __init__(self, client: "Forgiving") -> None:
        super().__init__(client)
        self._hand_on = client.hand_on

    async def parse(self, data: bytes = b"") -> None:
        """See the library."""
        if self.state == AWAITING_MSG_PAYLOAD:
            missing = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        if self.state == AWAITING_CONTROL_LINE:
            data = self._handed_on(bytes(self.buf) + data)
            self.buf.clear()
        await super().parse(data)

    def _handed_on(self, data: bytes) -> bytes:
        """What is left from the first on that is no whole message for a listener."""
        begin = 0
        while (end := data.find(_CRLF_, begin)) >= 0:
            # MSG subject id [reply] size, or HMSG subject id [reply] size-of-headers size
            words = data[begin:end].split(b" ")
            headed = words[0] == HMSG_OP
            if not headed and words[0] != MSG_OP:
                break
            try:
                sid, size, headers = int(words[2]), int(words[-1]), int(words[-2]) if headed else 0
            except (LookupError, ValueError):  # the library says what is wrong
                break
            head = end + CRLF_SIZE
            body, after = head + headers, head + size
            if after + CRLF_SIZE > len(data):
                break
            reply = words[3] if len(words) > (5 if headed else 4) else b""
            block = data[head:body] if headed else None
            if not self._hand_on(sid, words[1], reply, data[body:after], block):
                break
            begin = after + CRLF_SIZE
        return data[begin:]


class Forgiving(Client):
    """The library's client, reading every message that the server delivers.

    It also writes headers faster: the library looks at each name and value by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listeners: dict[int, Callable[[Heard], None]] = {}
        """Who is called at once with each message, by the subscription's id."""
        self._ps = Ahead(self)

    def hand_on(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> bool:
        """Call the listener of a subscription; False if it has none."""
        listener = self.listeners.get(sid)
        if listener is None:
            return False
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            where = subject.decode(errors="replace")
            listener(Heard(where, data, headers, reply.decode(errors="replace")))
        except Exception:  # else the library stops reading
            logger.exception("a message on %r was not taken", subject)
        return True

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if not self.hand_on(sid, subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, str] | None,
    ) -> None:
        if not headers:
            await super()._send_publish(subject, reply, payload, payload_size, None)
            return
        block = header_block(headers)
        total = len(block) + payload_size
        first = f"HPUB {subject} {reply} {len(block)} {total}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(b"%b%b%b\r\n" % (first, block, payload))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return parse_headers(headers) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return self.msg_class(
            subject=subject.decode(errors="replace"),
            reply=reply.decode(errors="replace"),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )


class Listening:
    """A subject that is listened to."""

    def __init__(self, client: Client, subscription: Subscription) -> None:
        self._client, self._subscription = client, subscription

    async def close(self) -> None:
        """Hear nothing more, at once."""
        if isinstance(self._client, Forgiving):
            self._client.listeners.pop(self._subscription._id, None)
        with contextlib.suppress(NatsError, OSError):  # a connection that is gone hears nothing
            await self._subscription.unsubscribe()


async def listen(
    client: Client, subject: str, listener: Callable[[Heard], None], queue: str = ""
) -> Listening:
    """Have a function called with each message on a subject, until that is closed.

    It must not block, and nothing waits between it and the network. Of those who listen under the
    same name of a ``queue``, one hears each message.
    """

    async def heard(message: Msg) -> None:
        lines = [f"{name}: {value}" for name, value in (message.headers or {}).items()]
        status = (message.headers or {}).get("Status", "")
        block = "\r\n".join([f"NATS/1.0 {status}".strip(), *lines, "", ""]).encode()
        listener(Heard(message.subject, message.data, block, message.reply))

    options: dict[str, Any] = {"pending_msgs_limit": -1, "pending_bytes_limit": -1}
    if queue:
        options["queue"] = queue
    subscription = await client.subscribe(subject, cb=heard, **options)
    if isinstance(client, Forgiving):
        client.listeners[subscription._id] = listener
    return Listening(client, subscription)


async def connect(
    url: str,
    *,
    user: str | None,
    password: str | None,
    credentials: str | None,
    name: str,
    reconnected: Callable[[], None],
) -> Client:
    """Connect, and keep reconnecting until the client is closed.

    Raises:
        Unreachable: Nobody answers at that address.
        Denied: The server refuses the credentials.
    """

    async def again() -> None:
        reconnected()

    async def failed(error: Exception) -> None:
        logger.debug("connection %s: %s", name, error)

    client = Forgiving()
    connecting = client.connect(
        [server.strip() for server in url.split(",")],
        user=user,
        password=password,
        user_credentials=credentials,
        name=name,
        inbox_prefix=inbox(user),
        error_cb=failed,
        reconnected_cb=again,
        connect_timeout=int(CONNECT_S),
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]
        allow_reconnect=True,
    )
    try:
        await asyncio.wait_for(connecting, CONNECT_S)
    except (OSError, TimeoutError, NatsError) as error:
        if "authorization" in str(error).lower():
            raise Denied(
                f"the NATS server at {shown(url)} refuses user {user!r}",
                hint="check the credentials under [nats] in podium.toml",
            ) from None
        raise Unreachable(
            f"no NATS server answers at {shown(url)}",
            hint="start one with `podium up`, or name a running one with --nats",
        ) from None
    return client
