"""Spans as plain data, and as the OTLP JSON file that every backend and collector reads.

What `trace` makes of a log. Nothing here knows OpenTelemetry's SDK, so a trace can be written to a
file where it isn't installed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from protocol import semconv
from protocol.traces import Context

Value: TypeAlias = str | bool | int | float | tuple[str, ...]
"""What an attribute can hold."""

Attributes: TypeAlias = dict[str, Value]

SpanKind: TypeAlias = Literal["internal", "client", "producer", "consumer"]

_KINDS: Final[dict[SpanKind, int]] = {"internal": 1, "client": 3, "producer": 4, "consumer": 5}
"""As OTLP numbers them."""

_ERROR: Final = 2
"""OTLP's status code of a span that failed; one that didn't has none."""

_SAMPLED: Final = 1


class Happening(msgspec.Struct, frozen=True):
    """Something within a span, at one moment: OpenTelemetry's span event."""

    name: str
    at_ns: int
    """Nanoseconds since the epoch."""
    attributes: Attributes = {}


class Link(msgspec.Struct, frozen=True):
    """Another span that this one has to do with, and isn't below of."""

    trace: str
    span: str
    kind: str
    """One of ``semconv.LINK_KINDS``."""

    @classmethod
    def to(cls, context: Context, kind: str) -> "Link":
        """A link to a span that others name by its context."""
        return cls(context.trace, context.span, kind)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time. Ids are hex, times nanoseconds since the epoch."""

    trace: str
    id: str
    parent: str = ""
    name: str
    kind: SpanKind = "internal"
    start_ns: int
    end_ns: int
    attributes: Attributes
    error: str = ""
    """Why it failed, in one word (``error.type``); empty if it didn't."""
    message: str = ""
    """More about that, without anything that an agent wrote."""
    happenings: tuple[Happening, ...] = ()
    links: tuple[Link, ...] = ()
    sampled: bool = True
    """False where whoever began the trace doesn't keep it."""

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


def in_order(spans: Iterable[Span]) -> list[Span]:
    """By start, the longer first where some start together, then as they stand in the log."""
    return sorted(spans, key=_place)


def _place(span: Span) -> tuple[int, int, str, int, bool, str]:
    return span.start_ns, -span.end_ns, span.trace, _seq(span), span.kind != "internal", span.id


def _seq(span: Span) -> int:
    seq = span.attributes.get(semconv.EVENT_SEQ, 0)
    assert isinstance(seq, int)
    return seq


def tree(spans: Iterable[Span]) -> Iterator[tuple[int, Span]]:
    """Each span and how deep it stands; one whose parent isn't there stands at the top.

    Those below the same one stand in the order of their run, also where some start together.
    """
    ordered = sorted(in_order(spans), key=lambda span: (span.start_ns, _seq(span)))
    there = {span.id for span in ordered}
    below: dict[str, list[Span]] = defaultdict(list)
    for span in ordered:
        below[span.parent if span.parent in there else ""].append(span)
    waiting = [(0, span) for span in reversed(below[""])]
    while waiting:
        depth, span = waiting.pop()
        yield depth, span
        waiting += [(depth + 1, child) for child in reversed(below[span.id])]


def otlp_json(spans: Iterable[Span], resource: Attributes) -> bytes:
    """The spans as OTLP's JSON, on one line. The same spans give the same bytes."""
    scope = {
        "scope": {"name": semconv.SCOPE},
        "spans": [_span(span) for span in in_order(spans)],
        "schemaUrl": semconv.SCHEMA_URL,
    }
    whole = {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}
    return msgspec.json.encode({"resourceSpans": [whole]}) + b"\n"


def _span(span: Span) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": span.trace,
        "spanId": span.id,
        "flags": _SAMPLED if span.sampled else 0,
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "status": {"code": _ERROR, "message": span.message} if span.error else {},
    }
    if span.parent:
        found["parentSpanId"] = span.parent
    if span.happenings:
        found["events"] = [
            {
                "timeUnixNano": str(each.at_ns),
                "name": each.name,
                "attributes": _attributes(each.attributes),
            }
            for each in span.happenings
        ]
    if span.links:
        found["links"] = [
            {
                "traceId": each.trace,
                "spanId": each.span,
                "attributes": _attributes({semconv.LINK_KIND: each.kind}),
            }
            for each in span.links
        ]
    return found


def _attributes(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(attributes[key])} for key in sorted(attributes)]


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case _:
            return {"arrayValue": {"values": [_value(each) for each in value]}}
