"""Ids of traces and spans, and the W3C context that carries them from one process to the next.

A span's id is a hash of what the span is about, so whoever knows the log derives the same: the
conductor that sends a call, the worker that makes it, and an export years later.
"""

import re
from hashlib import blake2b
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
"""The header, and the field of a task, that carries a `Context`."""

TRACE_BYTES: Final = 16
"""Bytes of a trace's id, as W3C Trace Context has them."""

SPAN_BYTES: Final = 8
"""Bytes of a span's id, likewise."""

MAX_TRACEPARENT_CHARS: Final = 256
"""Characters of a traceparent that is looked at: version 00 has 55, a later one may add some."""

_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-[^\r\n]*)?"
)

_SAMPLED: Final = 1


class Context(NamedTuple):
    """A span as others name it: what they hang theirs under."""

    trace: str
    """32 hex digits, not all zero."""
    span: str
    """16 hex digits, not all zero."""
    sampled: bool = True
    """Whether whoever began the trace keeps it."""

    @property
    def traceparent(self) -> str:
        """As W3C Trace Context writes it."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"


def parse(traceparent: str | None) -> Context | None:
    """The context that a traceparent names; None for whatever is none. Never raises."""
    if not traceparent or len(traceparent) > MAX_TRACEPARENT_CHARS:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return Context(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))


def trace_id(run: str) -> str:
    """The trace that a root run begins."""
    return _id(run, TRACE_BYTES)


def span_id(identity: str) -> str:
    """The span of whatever has this identity, unique in a deployment."""
    return _id(identity, SPAN_BYTES)


def run_context(run: str, traceparent: str = "") -> Context:
    """A run's own span: in the trace that its task names, else in one of its own."""
    above = parse(traceparent)
    if above is None:
        return Context(trace_id(run), span_id(run))
    return Context(above.trace, span_id(run), above.sampled)


def attempt_context(run: str, call: str, attempt: int, traceparent: str = "") -> Context:
    """The span of one attempt of a run whose task names ``traceparent``."""
    above, span = parse(traceparent), span_id(f"{run}/{call}/{attempt}")
    if above is None:
        return Context(trace_id(run), span)
    return Context(above.trace, span, above.sampled)


def _id(identity: str, size: int) -> str:
    """A hash in hex; never all zeros, which W3C Trace Context takes for no id."""
    found = blake2b(identity.encode(), digest_size=size).hexdigest()
    return found if found.strip("0") else found[:-1] + "1"
