"""One look at a broker: who is it, and does it accept this token? For use before a loop runs."""

import json
import socket
from typing import Final
from urllib.parse import urlsplit

from protocol.errors import Denied, Unreachable

PROBE_LIMIT_S: Final = 2.0
"""Seconds one look may take. A healthy server on loopback takes a millisecond."""


def server_name(url: str, user: str, token: str, *, limit_s: float = PROBE_LIMIT_S) -> str:
    """Connect, log in, and return the name that the server goes by.

    Raises:
        Unreachable: nobody listens there, or what listens does not answer as a NATS server.
        Denied: the server does not accept the token.
    """
    where = urlsplit(url)
    try:
        with (
            socket.create_connection((where.hostname or "", where.port or 0), limit_s) as link,
            link.makefile("rb") as lines,
        ):
            verb, _, info = lines.readline().partition(b" ")
            if verb != b"INFO":
                raise Unreachable(f"What listens at {url} is not a NATS server.")
            login = {"user": user, "pass": token, "verbose": False, "pedantic": False}
            link.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
            for line in lines:
                if line.startswith(b"PONG"):
                    return str(json.loads(info)["server_name"])
                if line.startswith(b"-ERR"):
                    raise Denied(
                        f"The NATS server at {url} refuses the user {user}: {line.decode().strip()}"
                    )
    except (OSError, ValueError, KeyError) as error:
        raise Unreachable(f"The NATS server at {url} does not answer: {error}") from error
    raise Unreachable(f"The NATS server at {url} closed the connection.")
