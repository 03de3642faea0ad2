"""Ids of traces and spans, and the W3C context that carries them from one process to the next.

A span's id is a hash of what the span is about, so whoever knows the log derives the same: the
conductor that sends a call, the worker that makes it, and an export years later.

A run that grows long goes on in another trace. Which `Segment` of the run an attempt is in follows
from the events before it, so the state of the run knows it, and whoever reads the log.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from protocol import semconv

TRACEPARENT: Final = "traceparent"
"""The header, and the field of a task, that carries a `Context`."""

MAX_CARRIED_CHARS: Final = 256
"""Characters of one value that a call's code has as baggage."""

MAX_REMEMBERED: Final = 4_096
"""Runs of which what all their calls have in common is made once, about 200 bytes each."""

TRACE_BYTES: Final = 16
"""Bytes of a trace's id, as W3C Trace Context has them."""

SPAN_BYTES: Final = 8
"""Bytes of a span's id, likewise."""

MAX_TRACEPARENT_CHARS: Final = 256
"""Characters of a traceparent that is looked at: version 00 has 55, a later one may add some."""

MAX_SPANS: Final = 500
"""Spans of one segment's questions and attempts, from which on the next question begins another:
what shows a trace gets slow at some number between 500 and 5,000. A round is never cut, nor do
child runs count, which have segments of their own. Another number gives old runs other traces."""

MAX_PAUSE_MS: Final = 600_000
"""Milliseconds of a pause, beyond which a run goes on in another segment: a trace in which nothing
happens for hours shows nothing else, and no collector keeps one open for so long. Another number
gives old runs other traces."""

_TRACEPARENT: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\r\n]*)?"
)
"""Version, trace, span, flags, and what a later version adds."""

_NO_TRACE: Final = "0" * 2 * TRACE_BYTES
_NO_SPAN: Final = "0" * 2 * SPAN_BYTES

_SAMPLED: Final = 1


class Context(NamedTuple):
    """A span as others name it: what they hang theirs under."""

    trace: str
    """32 hex digits, not all zero."""
    span: str
    """16 hex digits, not all zero."""
    sampled: bool = True
    """Whether whoever began the trace keeps it."""

    def with_span(self, span: str) -> "Context":
        """Another span of the same trace."""
        return Context(self.trace, span, self.sampled)

    @property
    def traceparent(self) -> str:
        """As W3C Trace Context writes it."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"


class Segment(msgspec.Struct, frozen=True, gc=False):
    """Where a run stands in the series of its traces."""

    number: int = 0
    """0 for the trace that it begins in."""
    spans: int = 0
    """Of questions and attempts, so far, in this segment."""
    paused_at: int = 0
    """Since when it is paused, milliseconds since the epoch; 0 if it is not."""

    def asked(self) -> "Segment":
        """After a question was begun; the model's part of it counts, whether or not it has one."""
        if self.spans >= MAX_SPANS:
            return Segment(self.number + 1, 2)
        return Segment(self.number, self.spans + 2, self.paused_at)

    def tried(self) -> "Segment":
        """After an attempt was begun."""
        return Segment(self.number, self.spans + 1, self.paused_at)

    def paused(self, at: int) -> "Segment":
        """After a pause was begun."""
        return Segment(self.number, self.spans, at)

    def resumed(self, at: int) -> "Segment":
        """After the run went on, if it was paused."""
        if self.paused_at and at - self.paused_at > MAX_PAUSE_MS:
            return Segment(self.number + 1)
        return Segment(self.number, self.spans)


FIRST: Final = Segment()


def parse(traceparent: str | None) -> Context | None:
    """The context that a traceparent names; None for whatever is none. Never raises."""
    if not traceparent or len(traceparent) > MAX_TRACEPARENT_CHARS:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    if trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return Context(trace, span, bool(int(flags, 16) & _SAMPLED))


@lru_cache(MAX_REMEMBERED)
def trace_id(run: str, segment: int = 0) -> str:
    """The trace that a root run begins, or that any run goes on in."""
    return _id(_named(run, segment), TRACE_BYTES)


def span_id(identity: str) -> str:
    """The span of whatever has this identity, unique in a deployment."""
    return _id(identity, SPAN_BYTES)


def run_context(run: str, traceparent: str = "", segment: int = 0) -> Context:
    """A run's own span in one of its segments.

    In the first it is in the trace that its task names, else in one of its own; in each further one
    in one of its own, which is kept if the first is.
    """
    return _context(run, traceparent, segment, _named(run, segment))


def attempt_context(
    run: str, call: str, attempt: int, traceparent: str = "", segment: int = 0
) -> Context:
    """The span of one attempt of a run whose task names ``traceparent``."""
    return _context(run, traceparent, segment, _attempt(run, call, attempt))


def attempt_id(run: str, call: str, attempt: int) -> str:
    """The id of an attempt's span, in whatever trace."""
    return span_id(_attempt(run, call, attempt))


def carried(run: str, version: str) -> dict[str, str]:
    """`semconv.CARRIED` of a call whose policy has that version, as far as there is something."""
    told = zip(semconv.CARRIED, (run, version), strict=True)
    return {name: value[:MAX_CARRIED_CHARS] for name, value in told if value}


def _context(run: str, traceparent: str, segment: int, identity: str) -> Context:
    above, span = parse(traceparent), span_id(identity)
    if above is None:
        return Context(trace_id(run, segment), span)
    trace = trace_id(run, segment) if segment else above.trace
    return Context(trace, span, above.sampled)


def _attempt(run: str, call: str, attempt: int) -> str:
    return f"{run}/{call}/{attempt}"


def _named(run: str, segment: int) -> str:
    return f"{run}#{segment}" if segment else run


def _id(identity: str, size: int) -> str:
    """A hash in hex; never all zeros, which W3C Trace Context takes for no id."""
    found = blake2b(identity.encode(), digest_size=size).hexdigest()
    return found if found.strip("0") else found[:-1] + "1"
