"""What travels between a simulated client and the simulated server."""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from podium.sim.client import Client
    from podium.sim.server import Server

Headers = dict[str, str]

CONDITION: Final = "Nats-Expected-Last-Subject-Sequence"
"""The header of an append that has to follow on a certain message of its subject."""


class Message:
    """A message as it arrives: the attributes of nats-py's ``Msg``."""

    __slots__ = ("data", "headers", "reply", "subject")

    def __init__(
        self, subject: str, data: bytes, reply: str = "", headers: Headers | None = None
    ) -> None:
        self.subject, self.data, self.reply, self.headers = subject, data, reply, headers


class Published:
    """A message on its way to the server."""

    __slots__ = ("data", "headers", "reply", "subject")

    def __init__(self, subject: str, data: bytes, reply: str, headers: Headers | None) -> None:
        self.subject, self.data, self.reply, self.headers = subject, data, reply, headers


class Request(NamedTuple):
    """A message with who sent it, and what is to happen to its answer."""

    client: "Client"
    subject: str
    data: bytes
    reply: str
    headers: Headers
    silent: bool
    """Whether the answer is lost."""
    lag_s: float
    """How far behind the replica is that answers a direct get."""


class Network(Protocol):
    """What becomes of each message."""

    def inward(self, server: "Server", client: "Client", said: Published) -> None:
        """A message has reached the server: hand it to `Server.take`, or not."""
        ...

    def outward(self, client: "Client", message: Message) -> tuple[float, ...]:
        """How many seconds late each copy of a message to a client arrives; none if it is lost."""
        ...
