"""A real HTTP service of a test, that answers as a function says and remembers what it was asked.

::

    with Service(lambda asked: Answer(404)) as service:
        ...                                   # a client of ours asks service.root
        assert service.asked[0].path == "/things/7?full=true"
"""

import json
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.serving import Serving


class Asked(NamedTuple):
    """A request, as it came over the wire."""

    method: str
    path: str
    """With the query, not decoded."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    connection: socket.socket


class Answer(NamedTuple):
    """What is sent back; a value that is no bytes is sent as JSON."""

    code: int = 200
    value: Any = b""
    headers: Mapping[str, str] = {}


class Service(Serving):
    """The server. Use it as a context manager; it listens on loopback, on a free port.

    Args:
        answer: What to send back; None to hang up.
    """

    def __init__(self, answer: Callable[[Asked], Answer | None]) -> None:
        self.asked: list[Asked] = []
        self.answer = answer
        server = _Server(("127.0.0.1", 0), _Handler)
        server.service = self
        super().__init__(server)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    service: Service

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up any time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_any(self) -> None:
        """Note the request, and do as the test says."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body, self.connection)
        self.server.service.asked.append(asked)
        answer = self.server.service.answer(asked)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.code)
        data, headers = answer.value, dict(answer.headers)
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
            headers.setdefault("content-type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_any  # noqa: N815
    do_PUT = do_any  # noqa: N815
    do_POST = do_any  # noqa: N815
    do_PATCH = do_any  # noqa: N815
    do_DELETE = do_any  # noqa: N815
    do_HEAD = do_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent."""
