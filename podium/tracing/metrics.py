"""Measures of the log on OpenTelemetry's instruments, exported by its own OTLP exporter.

Interval, endpoint and temporality are the standard ``OTEL_METRIC_*`` and ``OTEL_EXPORTER_OTLP_*``
variables. What was exported twice, since the process died in between, is counted twice; the spans
are not doubled, and the log is the truth.
"""

import logging
from collections.abc import Iterable
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

from actors.tracing import resource
from protocol import semconv
from replay.measures import measures
from replay.spans import Span

FLUSH_MS: Final = 3_000
"""Milliseconds that the last export may take."""


class Meters:
    """One instrument for each name in `semconv`.

    Args:
        reader: Another way to export.
    """

    def __init__(self, reader: MetricReader | None = None) -> None:
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        reader = reader or PeriodicExportingMetricReader(OTLPMetricExporter())
        self._provider = MeterProvider(
            resource=resource(), metric_readers=[reader], shutdown_on_exit=False
        )
        meter = self._provider.get_meter(semconv.SCOPE, schema_url=semconv.SCHEMA_URL)
        self._histograms: dict[str, Histogram] = {
            name: meter.create_histogram(
                name,
                unit=unit,
                description=description,
                explicit_bucket_boundaries_advisory=list(bounds),
            )
            for name, (unit, description, bounds) in semconv.HISTOGRAMS.items()
        }
        self._counters: dict[str, Counter] = {
            name: meter.create_counter(name, unit=unit, description=description)
            for name, (unit, description) in semconv.COUNTERS.items()
        }

    def count(self, spans: Iterable[Span]) -> None:
        """Add what these spans say."""
        for name, value, attributes in (each for span in spans for each in measures(span)):
            if name in self._counters:
                self._counters[name].add(value, attributes)
            else:
                self._histograms[name].record(value, attributes)

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown(FLUSH_MS)
