"""A real HTTP server that speaks OpenAI's chat completions from a script, for tests.

::

    with Endpoint() as endpoint:
        endpoint.say("Lima", usage=(10, 2))
        endpoint.refuse(429, "slow down")
        ...                                   # a client of ours asks endpoint.url
        assert endpoint.requests[0].body["model"] == "m"

Replies are given in the order in which they were put in; a request beyond the script gets a 500
that says so. Nothing here knows of our code: it is what stands at the other end of the wire.
"""

import json
import queue
import select
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from tests.serving import Serving

WAIT_S: Final = 20.0
"""Seconds after which a handler that waits for others gives up, so that a broken test ends."""


class Request(NamedTuple):
    """What a client sent."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]


class Held:
    """A request that is not answered until it is released."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        """Set when the request is in."""
        self.gone = threading.Event()
        """Set when the client hung up instead of waiting on."""
        self._wake, self._woken = socket.socketpair()

    def release(self) -> None:
        """Let the request be answered."""
        self._wake.send(b"x")

    def wait(self, client: socket.socket) -> bool:
        """Wait for release (true) or for the client to hang up (false)."""
        self.arrived.set()
        with self._wake, self._woken:
            ready, _, _ = select.select([self._woken, client], [], [], WAIT_S)
            if self._woken in ready:
                return True
            self.gone.set()
            return False


Step = Callable[["_Handler"], None]


class Endpoint(Serving):
    """The server. Use it as a context manager; it listens on loopback, on a free port."""

    def __init__(self, key: str = "sk-test") -> None:
        self.key = key
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.script: queue.SimpleQueue[Step] = queue.SimpleQueue()
        super().__init__(_Server(("127.0.0.1", 0), self))

    @property
    def url(self) -> str:
        """What a client takes as its base address."""
        return f"{self.root}/v1"

    def say(self, text: str | None = None, **fields: Any) -> None:
        """Answer with a completion; `completion` has the fields."""
        self.send(json.dumps(completion(text, **fields)).encode())

    def refuse(self, code: int, message: str = "no") -> None:
        """Answer with an error, in OpenAI's form."""
        error = {"error": {"message": message, "type": "error", "code": None}}
        self.send(json.dumps(error).encode(), code=code)

    def send(self, body: bytes, *, code: int = 200, kind: str = "application/json") -> None:
        """Answer with these bytes."""
        self.script.put(lambda handler: handler.reply(code, body, kind))

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.script.put(lambda handler: handler.hang_up())

    def dribble(self) -> Held:
        """Begin an answer and never end it, until released or the client hangs up."""
        held = Held()

        def step(handler: "_Handler") -> None:
            handler.begin(200, 1_000, "application/json")
            handler.wfile.write(b"{")
            held.wait(handler.connection)
            handler.hang_up()

        self.script.put(step)
        return held

    def hold(self, text: str = "late") -> Held:
        """Answer with a completion, but only when released."""
        held = Held()
        body = json.dumps(completion(text)).encode()

        def step(handler: "_Handler") -> None:
            if held.wait(handler.connection):
                handler.reply(200, body, "application/json")
            else:
                handler.hang_up()

        self.script.put(step)
        return held

    def meet(self, parties: int, text: str = "met") -> None:
        """Answer so many requests, none before all of them are in."""
        barrier = threading.Barrier(parties)
        body = json.dumps(completion(text)).encode()

        def step(handler: "_Handler") -> None:
            barrier.wait(WAIT_S)
            handler.reply(200, body, "application/json")

        for _ in range(parties):
            self.script.put(step)


def completion(
    text: str | None = None,
    *,
    calls: list[tuple[str, str, str]] | None = None,
    usage: tuple[int, int] | None = (10, 5),
    finish: str | None = None,
    model: str = "scripted-1",
    fingerprint: str | None = None,
    refusal: str | None = None,
) -> dict[str, Any]:
    """A chat completion.

    Args:
        text: The message's content.
        calls: Tool calls: id, name, arguments as text.
        usage: Tokens read and written; None to leave the field out.
        finish: The finish reason; by default what fits.
        model: The model that claims to have answered.
        fingerprint: The system's fingerprint.
        refusal: The message's refusal.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": refusal}
    if calls:
        message["tool_calls"] = [
            {"id": ref, "type": "function", "function": {"name": name, "arguments": arguments}}
            for ref, name, arguments in calls
        ]
    reply: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": finish or ("tool_calls" if calls else "stop"),
            }
        ],
    }
    if usage is not None:
        read, written = usage
        reply["usage"] = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
    if fingerprint is not None:
        reply["system_fingerprint"] = fingerprint
    return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], endpoint: Endpoint) -> None:
        super().__init__(address, _Handler)
        self.endpoint = endpoint

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the error for the test instead of printing it; a client may hang up any time."""
        import sys

        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.endpoint.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Note the request, then do the next step of the script."""
        endpoint = self.server.endpoint
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        endpoint.requests.append(Request(self.path, headers, json.loads(raw)))
        if headers.get("authorization") != f"Bearer {endpoint.key}":
            message = f"Incorrect API key provided: {headers.get('authorization')}"
            body = json.dumps({"error": {"message": message}}).encode()
            self.reply(401, body, "application/json")
            return
        try:
            step = endpoint.script.get_nowait()
        except queue.Empty:
            self.reply(500, b'{"error":{"message":"the script is used up"}}', "application/json")
            return
        step(self)

    def begin(self, code: int, length: int, kind: str) -> None:
        """Send the head of an answer."""
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(length))
        self.end_headers()

    def reply(self, code: int, body: bytes, kind: str) -> None:
        """Send a whole answer."""
        self.begin(code, len(body), kind)
        self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection after this request."""
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent."""
