"""A server of a test: it listens on loopback, on a free port, in a thread, while it is entered."""

import threading
from socketserver import TCPServer
from typing import Final, Self

POLL_S: Final = 0.02
"""Seconds between the server's looks at whether it is to end."""


class Serving:
    """A context manager around a server that is bound already."""

    def __init__(self, server: TCPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
        self.root = f"http://127.0.0.1:{server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
