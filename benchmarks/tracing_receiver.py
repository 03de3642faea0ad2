"""An OTLP receiver that counts spans and throws them away, for the benchmark of traces.

    python -m benchmarks.tracing_receiver

Elsewhere it would be another machine's work, so it has the lowest priority here.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Server(ThreadingHTTPServer):
    """Counts."""

    daemon_threads = True
    spans = 0


class Handler(BaseHTTPRequestHandler):
    """Takes whatever comes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Server)
        if self.path == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            self.server.spans += sum(
                len(scope.spans) for each in request.resource_spans for scope in each.scope_spans
            )
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until the input ends; each line of it is answered with the count."""
    os.nice(19)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    while sys.stdin.readline():
        print(json.dumps({"spans": server.spans}), flush=True)


if __name__ == "__main__":
    main()
