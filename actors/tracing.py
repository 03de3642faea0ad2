"""OpenTelemetry inside a worker: whatever a user's own code traces hangs under its call.

A call's span is projected from the log, by another process and later. What is set here while an
adapter works is only the *context* of that span, so that an instrumented HTTP client or database
finds it and passes it on. OpenTelemetry is optional: nothing of it is imported unless it is asked
for (`wanted`), or the user's code has imported it.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from protocol import semconv
from protocol.traces import TRACEPARENT, Context

if TYPE_CHECKING:
    from opentelemetry.context import Context as OTelContext
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from actors.promised import Promised

logger = logging.getLogger("podium.tracing")

PREFIX: Final = "OTEL_"
"""Of the variables that configure OpenTelemetry everywhere."""

FLUSH_S: Final = 3.0
"""Seconds that a worker that stops may take to send the spans it still has."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wanted(environment: Mapping[str, str] = os.environ, signal: str = "traces") -> bool:
    """Whether the standard variables ask for spans (or ``metrics``) to be sent."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
    if exporter and exporter != "otlp":
        return False
    endpoints = (_ENDPOINTS[0], f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return exporter == "otlp" or any(environment.get(name, "").strip() for name in endpoints)


def content(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variable asks for what users and agents wrote, as part of spans."""
    said = environment.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
    return said.strip().lower() in ("true", "span_only", "span_and_event")


def installed() -> bool:
    """Whether the packages are there that send spans."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which the user configures OpenTelemetry, for another process."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIX)}


Trace = tuple[Context, dict[str, str]]
"""A span, and the baggage beside it."""


def under(trace: Callable[[], Trace]) -> AbstractContextManager[None]:
    """Make a span the current one, in this task and in whatever it starts, with its baggage.

    Does nothing where nobody in this process could notice.

    Args:
        trace: Says which, once somebody looks: most calls trace nothing of their own.
    """
    if "opentelemetry.trace" not in sys.modules:
        return _UNNOTICED
    return _promised()(trace)


_UNNOTICED: Final = contextlib.nullcontext()


@functools.cache
def _promised() -> "type[Promised]":
    from actors.promised import Promised

    return Promised


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Carry no baggage of ours: what is asked meanwhile goes to somebody else's service."""
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import baggage
    from opentelemetry import context as current

    bare = current.get_current()
    for name in semconv.CARRIED:
        bare = baggage.remove_baggage(name, bare)
    token = current.attach(bare)
    try:
        yield
    finally:
        current.detach(token)


def caller() -> str:
    """The traceparent of the span that is current in this program; empty without one."""
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry import trace

    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    ids = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
    return Context(*ids, sampled=span.trace_flags.sampled).traceparent


def passed_on(name: str = TRACEPARENT) -> dict[str, str]:
    """The current span for somebody else: a header, or a variable ``TRACEPARENT``; {} without one.

    OpenTelemetry calls the variable of a sub-process its environment variable carrier.
    """
    above = caller()
    return {name: above} if above else {}


def resource(more: Mapping[str, str] | None = None) -> "Resource":
    """Who we are: as ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` say; or ``podium``."""
    from opentelemetry.sdk.resources import Resource

    base = Resource.create()
    if str(base.attributes.get(semconv.SERVICE_NAME, "")).startswith("unknown_service"):
        base = base.merge(Resource({semconv.SERVICE_NAME: semconv.SERVICE}))
    return base.merge(Resource(dict(more or {})))


def set_up(actor: str) -> Callable[[], None]:
    """Have this process's own spans sent, if the variables ask for it and the user hasn't done so.

    Args:
        actor: The name of the actor whose process this is.

    Returns:
        What sends the rest, to be called at the end; takes up to `FLUSH_S`.
    """
    if not wanted() or not installed():
        return lambda: None
    from opentelemetry import baggage, trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return lambda: None

    class Carried(SpanProcessor):
        """Says of each span whose call it is of."""

        def on_start(self, span: Span, parent_context: "OTelContext | None" = None) -> None:
            for name in semconv.CARRIED:
                if value := baggage.get_baggage(name, parent_context):
                    span.set_attribute(name, str(value))

    provider = TracerProvider(resource=resource({semconv.ACTOR_ID: actor}), shutdown_on_exit=False)
    provider.add_span_processor(Carried())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    def flush() -> None:
        # In a thread, for it keeps to no limit of its own, and a backend may hang.
        sending = threading.Thread(target=_flush, args=(provider, actor), daemon=True)
        sending.start()
        sending.join(FLUSH_S)
        if sending.is_alive():
            logger.warning("spans of %s are lost: no answer within %g s", actor, FLUSH_S)

    return flush


def _flush(provider: "TracerProvider", actor: str) -> None:
    try:
        provider.force_flush()
    except Exception as error:  # whatever an exporter does, the worker hands back its calls
        logger.warning("spans of %s are lost: %s", actor, error)
