"""Our spans as OpenTelemetry's, sent by its own OTLP exporter.

The ids are those of the projection, so no id generator and no tracer is involved: a span that has
ended is handed to the exporter as it is. Endpoint, headers, compression, time-out and certificates
are the exporter's business, by the standard ``OTEL_EXPORTER_OTLP_*`` variables.
"""

import logging
from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from actors.tracing import resource
from protocol import semconv
from replay.spans import Span
from replay.spans import SpanKind as Kind

BATCH: Final = 512
"""Spans of one request, as OpenTelemetry's own batches have them."""

REFUSALS: Final = 2
"""Times that the same request is refused, by a backend that takes an empty one in between, before
it is taken to be for what is in it."""

MAX_REFUSED: Final = 16
"""Spans refused one by one before it is taken to be the backend, where it has taken none yet."""

PATH: Final = "/v1/traces"
"""Where OTLP over HTTP takes spans, below an endpoint's address."""

logger = logging.getLogger("podium.tracing")

_KINDS: Final[dict[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}

_SCOPE: Final = InstrumentationScope(semconv.SCOPE, schema_url=semconv.SCHEMA_URL)


class Sender:
    """Sends spans, and says whether they arrived.

    Args:
        endpoint: The address, with or without `PATH`; empty for what the variables say.
        exporter: Another way to send.
    """

    def __init__(self, endpoint: str = "", exporter: SpanExporter | None = None) -> None:
        self._resource = resource()
        # It says in its own words what went wrong, each time; whoever calls us says it once.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._exporter = exporter or OTLPSpanExporter(endpoint=address(endpoint) or None)
        self._taken = False
        self.given_up = 0
        """Spans that were refused, one by one, by a backend that took others."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Send them, in several requests if need be. Blocks; False if they have to be sent again.

        A backend that takes others refuses a span for what it is, its size for one: that span is
        given up, and said, or nothing after it would ever be sent.
        """
        refused: list[Span] = []
        for start in range(0, len(spans), BATCH):
            if not self._sent(spans[start : start + BATCH], refused):
                return False
        if refused and not self._taken:
            return False
        self.given_up += len(refused)
        for span in refused:
            logger.warning("a span is refused and given up: %s of trace %s", span.id, span.trace)
        return True

    def _sent(self, spans: Sequence[Span], refused: list[Span]) -> bool:
        """Send one request; where it is refused by a backend that is there, two of half the size.

        Args:
            spans: Of the request.
            refused: Those that are refused by themselves; added to.
        """
        for _ in range(REFUSALS):
            if self._exported(spans):
                self._taken = True
                return True
            if not self._exported([]):  # it is away, or wants none of us now
                return False
        if len(spans) > 1:
            half = len(spans) // 2
            return self._sent(spans[:half], refused) and self._sent(spans[half:], refused)
        refused.extend(spans)
        return self._taken or len(refused) < MAX_REFUSED

    def _exported(self, spans: Sequence[Span]) -> bool:
        batch = [readable(span, self._resource) for span in spans]
        return self._exporter.export(batch) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Send nothing any more; a request that is being tried again is given up."""
        self._exporter.shutdown()


def address(endpoint: str) -> str:
    """Where spans go, below an endpoint that may or may not say so itself."""
    bare = endpoint.rstrip("/")
    return bare if not bare or bare.endswith(PATH) else bare + PATH


def readable(span: Span, whose: Resource) -> ReadableSpan:
    """A span that has ended, in OpenTelemetry's own form."""
    flags = TraceFlags(TraceFlags.SAMPLED if span.sampled else TraceFlags.DEFAULT)

    def context(own: str, of: str = span.trace) -> SpanContext:
        return SpanContext(int(of, 16), int(own, 16), is_remote=False, trace_flags=flags)

    return ReadableSpan(
        name=span.name,
        context=context(span.id),
        parent=context(span.parent) if span.parent else None,
        resource=whose,
        attributes=span.attributes,
        events=[
            Event(each.name, attributes=each.attributes, timestamp=each.at_ns)
            for each in span.happenings
        ],
        links=[
            trace.Link(context(each.span, each.trace), {semconv.LINK_KIND: each.kind})
            for each in span.links
        ],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.message) if span.error else Status(StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )
