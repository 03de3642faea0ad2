"""Measures of the log on OpenTelemetry's instruments, exported by its own OTLP exporter.

Interval, endpoint and temporality are the standard ``OTEL_METRIC_*`` and ``OTEL_EXPORTER_OTLP_*``
variables. What was exported twice, since the process died in between, is counted twice; the spans
are not doubled, and the log is the truth.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)

from actors.tracing import resource
from protocol import semconv
from replay.measures import Measure, measures
from replay.spans import Span, Value

logger = logging.getLogger("podium.tracing")

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
        self.meter = meter
        """For instruments that are not of the log, such as a learner's."""
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
        self.add(each for span in spans for each in measures(span))

    def add(self, some: Iterable[Measure]) -> None:
        """Add measures. What is only counted is added up first: that is cheaper."""
        sums: dict[tuple[str, tuple[tuple[str, Value], ...]], float] = {}
        for name, value, attributes in some:
            if name in self._counters:
                key = name, tuple(attributes.items())
                sums[key] = sums.get(key, 0) + value
            else:
                self._histograms[name].record(value, attributes)
        for (name, items), value in sums.items():
            self._counters[name].add(value, dict(items))

    def flush(self) -> None:
        """Export what there is."""
        self._provider.force_flush(FLUSH_MS)

    def close(self, within_ms: float = FLUSH_MS) -> None:
        """Export what is left; takes up to so many milliseconds."""
        try:
            self._provider.shutdown(within_ms)
        except Exception as error:  # whatever an exporter does, its process ends in order
            logger.warning("the last metrics are lost: %s", error)


class _Noting(OTLPMetricExporter):
    """Knows whether what it sent last has arrived: who reads for it doesn't say."""

    arrived = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = FLUSH_MS, **kwargs: Any
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self.arrived = result is MetricExportResult.SUCCESS
        return result


def send(some: Iterable[Measure]) -> bool:
    """Send measures once, for a program that ends; False if they didn't arrive.

    Takes as long as ``OTEL_EXPORTER_OTLP_TIMEOUT`` allows, 10 s unless it is set.
    """
    exporter = _Noting()
    meters = Meters(PeriodicExportingMetricReader(exporter, math.inf, FLUSH_MS))
    meters.add(some)
    meters.flush()
    meters.close()
    return exporter.arrived
