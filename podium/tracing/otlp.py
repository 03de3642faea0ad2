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

PATH: Final = "/v1/traces"
"""Where OTLP over HTTP takes spans, below an endpoint's address."""

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

    def send(self, spans: Sequence[Span]) -> bool:
        """Send them, in several requests if need be. Blocks; False as soon as one is refused."""
        for start in range(0, len(spans), BATCH):
            batch = [readable(span, self._resource) for span in spans[start : start + BATCH]]
            if self._exporter.export(batch) is not SpanExportResult.SUCCESS:
                return False
        return True

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
