"""A real OTLP/HTTP receiver for tests: takes protobuf, decodes it, remembers it.

::

    with Collector() as collector:
        ...                                    # OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
        spans = collector.wait(lambda spans: len(spans) > 3)

Nothing here knows of our code: it is what stands at the other end of the wire.
"""

import contextlib
import gzip
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.serving import Serving

WITHIN_S: Final = 120.0
"""Seconds to wait for what must come: who sends it has the lowest priority on a busy machine."""


class Received(NamedTuple):
    """A span as it came over the wire."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    error: bool
    message: str
    events: list[str]
    links: list[str]
    resource: dict[str, Any]
    scope: str


class Collector(Serving):
    """Listens on loopback until it is closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.requests: list[list[Received]] = []
        self.metrics: dict[str, Any] = {}
        """By name, the last of each."""
        self.refuse = 0
        """With which HTTP status every request is refused; 0 for none."""
        self.unfit = ""
        """A request with a span of that name is refused with HTTP 400."""
        self.refused = 0
        self.hangs = False
        """No request is answered as long as it does."""
        self.hung = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, answer = collector.take(self.path, body)
                with contextlib.suppress(OSError):  # whoever asked may be gone
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        self.url = self.root

    def __exit__(self, *error: object) -> None:
        self.answer()
        super().__exit__(*error)

    def answer(self) -> None:
        """Hang no longer; whoever waits is refused."""
        with self._changed:
            self.hangs = False
            self._changed.notify_all()

    def take(self, path: str, body: bytes) -> tuple[int, bytes]:
        """One request."""
        with self._changed:
            if self.hangs:
                self.hung += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self.hangs)
                return 503, b""
            if self.refuse:
                self.refused += 1
                self._changed.notify_all()
                return self.refuse, b""
            if path == "/v1/traces":
                spans = _spans(ExportTraceServiceRequest.FromString(body))
                if any(span.name == self.unfit for span in spans):
                    self.refused += 1
                    return 400, b""
                self.requests.append(spans)
                answer = ExportTraceServiceResponse().SerializeToString()
            else:
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for scope in resource.scope_metrics:
                        self.metrics |= {metric.name: metric for metric in scope.metrics}
                answer = ExportMetricsServiceResponse().SerializeToString()
            self._changed.notify_all()
            return 200, answer

    @property
    def spans(self) -> list[Received]:
        """All that have come, one that came twice twice."""
        with self._changed:
            return [span for request in self.requests for span in request]

    def wait(self, done: Callable[[list[Received]], bool]) -> list[Received]:
        """All spans, as soon as they satisfy a condition."""
        self.until(lambda: done([span for request in self.requests for span in request]))
        return self.spans

    def until(self, done: Callable[[], bool]) -> None:
        """Wait for a condition, asked whenever something comes."""
        end = time.monotonic() + WITHIN_S
        with self._changed:
            while not done():
                left = end - time.monotonic()
                names = sorted(span.name for request in self.requests for span in request)
                assert left > 0, f"it did not come: {names}"
                self._changed.wait(left)


def _spans(request: ExportTraceServiceRequest) -> list[Received]:
    return [
        Received(
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            name=span.name,
            kind=span.kind,
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            attributes={each.key: _value(each.value) for each in span.attributes},
            error=span.status.code == 2,
            message=span.status.message,
            events=[each.name for each in span.events],
            links=[each.span_id.hex() for each in span.links],
            resource={each.key: _value(each.value) for each in resource.resource.attributes},
            scope=scope.scope.name,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return tuple(_value(each) for each in value.array_value.values)
    return getattr(value, which)
