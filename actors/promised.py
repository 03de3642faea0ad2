"""The context of a call for OpenTelemetry, which is worked out when somebody looks into it.

Every call has one, and most trace nothing of their own: hashes, spans and baggage that nobody asks
for would be a twentieth of a worker's time. Imports OpenTelemetry's API, so nobody imports this but
`tracing`, where that is loaded anyway.
"""

from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from contextvars import Token
from functools import cached_property
from typing import Any

from opentelemetry.baggage import set_baggage
from opentelemetry.context import attach, detach
from opentelemetry.context.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from actors.tracing import Trace


class Promised(Context):
    """What is current within a ``with`` block: a span of another process, and its baggage.

    Everything that reads a context goes through here; to write to one makes another.

    Args:
        trace: Says which span, and what baggage.
    """

    def __init__(self, trace: Callable[[], Trace]) -> None:
        super().__init__()
        self._trace = trace

    def __enter__(self) -> None:
        self._token: Token[Context] = attach(self)

    def __exit__(self, *_: object) -> None:
        detach(self._token)

    @cached_property
    def _kept(self) -> Context:
        context, baggage = self._trace()
        before = self._token.old_value
        made = before if isinstance(before, Context) else Context()  # what others carry is theirs
        for name, value in baggage.items():
            made = set_baggage(name, value, made)
        flags = TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT
        span = SpanContext(
            trace_id=int(context.trace, 16),
            span_id=int(context.span, 16),
            is_remote=True,
            trace_flags=TraceFlags(flags),
        )
        return set_span_in_context(NonRecordingSpan(span), made)

    def get(self, key: str, default: Any = None) -> Any:
        """See `dict`."""
        return self._kept.get(key, default)

    def copy(self) -> dict[str, object]:
        """See `dict`."""
        return self._kept.copy()

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """See `dict`."""
        return self._kept.keys()

    def values(self) -> ValuesView[object]:  # type: ignore[override]
        """See `dict`."""
        return self._kept.values()

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        """See `dict`."""
        return self._kept.items()

    def __getitem__(self, key: str) -> object:
        return self._kept[key]

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __eq__(self, other: object) -> bool:
        return self._kept == other

    def __repr__(self) -> str:
        return repr(self._kept)

    __hash__ = None  # type: ignore[assignment]
