"""A real S3 endpoint over HTTP (moto's server), for tests, and a line to it that can be cut."""

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Sequence
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Final

from tests.borrowed import Borrowed
from tests.serving import Serving

CHUNK_BYTES: Final = 16_384


class ObjectStore(Borrowed):
    """A server of its own, on loopback, with nothing in it."""

    name = "moto"
    package = "moto[server]>=5.2.5"
    program = "moto_server"
    variable = "PODIUM_TEST_MOTO"
    start_s = 120.0  # it loads the rules of all of AWS

    def arguments(self) -> Sequence[str]:
        return ["--host", "127.0.0.1", "--port", self.port]

    def ready(self) -> bool:
        return self._get("/moto-api/") is not None

    def make(self, bucket: str) -> None:
        """Make a bucket."""
        request = urllib.request.Request(f"{self.url}/{bucket}", method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            pass


class Line(Serving):
    """A way to a server that can be cut after so many bytes more."""

    def __init__(self, url: str) -> None:
        self.left: dict[str, int] = {}
        """Bytes that still go ``up`` to the server or ``down`` from it; all, if it isn't said."""
        line, (host, port) = self, url.removeprefix("http://").split(":")

        class Carry(BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((host, int(port))) as server:
                    ways = [("up", self.request, server), ("down", server, self.request)]
                    threads = [threading.Thread(target=line._carry, args=way) for way in ways]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()

        class Server(ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        super().__init__(Server(("127.0.0.1", 0), Carry))
        self.url = self.root

    def _carry(self, way: str, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                left = self.left.get(way, len(data))
                target.sendall(data[:left])
                if way in self.left:
                    self.left[way] = max(0, left - len(data))
                if left < len(data):
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
