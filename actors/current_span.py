"""The current span of a call, for OpenTelemetry: made for each call, and worked out when asked for.

Imports OpenTelemetry's API, so nobody imports this but `tracing`, where it is loaded anyway.
"""

from collections.abc import Callable
from contextvars import Token
from functools import lru_cache
from typing import Final

from opentelemetry.baggage import set_baggage
from opentelemetry.context import attach, detach, get_current
from opentelemetry.context.context import Context as Current
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from protocol.traces import Context, carried

MAX_CARRYING: Final = 4_096
"""Baggages that are kept read: as many runs as have calls here at a time, and their policies."""


class Promised(NonRecordingSpan):
    """A span of another process, whose ids are hashed only for whoever wants them.

    Args:
        context: Says which span it is.
    """

    def __init__(self, context: Callable[[], Context]) -> None:
        self._promised = context

    def get_span_context(self) -> SpanContext:
        """What a span of the user's own hangs under."""
        context = self._promised()
        flags = TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT
        return SpanContext(
            trace_id=int(context.trace, 16),
            span_id=int(context.span, 16),
            is_remote=True,
            trace_flags=TraceFlags(flags),
        )

    def __repr__(self) -> str:
        return repr(NonRecordingSpan(self.get_span_context()))


class Under:
    """What `tracing.under` gives where OpenTelemetry is loaded."""

    __slots__ = ("_baggage", "_context", "_token")

    def __init__(self, context: Callable[[], Context], baggage: str) -> None:
        self._context, self._baggage = context, baggage

    def __enter__(self) -> None:
        current = get_current()
        carrying = _with(self._baggage, current) if current else _alone(self._baggage)
        self._token: Token[Current] = attach(set_span_in_context(Promised(self._context), carrying))

    def __exit__(self, *_: object) -> None:
        detach(self._token)


def _with(baggage: str, current: Current) -> Current:
    for name, value in carried(baggage).items():
        current = set_baggage(name, value, current)
    return current


@lru_cache(MAX_CARRYING)
def _alone(baggage: str) -> Current:
    """Where nothing else is current, which all calls of a run share."""
    return _with(baggage, Current())
