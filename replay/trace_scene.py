"""What every span of a run has in common, and how one is made: for `trace` and its parts."""

from typing import Final

import msgspec

from protocol import semconv
from protocol.actions import MICRO, Json, Spend
from protocol.decisions import PolicySpec
from protocol.run import RULES
from protocol.subjects import Priority
from protocol.traces import Context
from protocol.views import short
from replay.spans import Attributes, Happening, Link, Span, SpanKind

MAX_CONTENT_CHARS: Final = 16_000
"""Characters of one attribute with content: backends cut or refuse longer ones."""

_NS: Final = 1_000_000
"""Nanoseconds of a millisecond."""

MAX_MS: Final = 2**63 // _NS
"""The latest time that OTLP can say, milliseconds since the epoch; no event is refused for its
time."""


class Scene(msgspec.Struct):
    """One run, as far as its spans tell of it."""

    run: str
    context: Context
    """The run's own span, in the segment that it has come to."""
    content: bool
    """Whether what users and agents wrote is told."""
    policy: PolicySpec = PolicySpec(name="")
    priority: Priority = "normal"
    conductor: str = ""
    rules: str = RULES
    version: str = ""
    """Of the policy, as its last reply had it."""
    round: int = 0

    def content_of(self, value: Json) -> str | None:
        """As much of what somebody wrote as will be told; None for nothing."""
        return text(value) if self.content and value is not None else None

    def event(self, number: int) -> str:
        """The id of an event of this run."""
        return f"{self.run}@{number}"

    def common(self, number: int, cause: str) -> Attributes:
        """What stands on each span: which event began it, why, and who was at it."""
        found: Attributes = {
            semconv.RUN_ID: self.run,
            semconv.EVENT_ID: self.event(number),
            semconv.EVENT_SEQ: number,
            semconv.CAUSATION_ID: cause,
            semconv.ACTOR_ROLE: semconv.CONDUCTOR,
            semconv.ACTOR_ID: self.conductor,
            semconv.POLICY_VERSION: self.version,
            semconv.WORKFLOW_VERSION: self.rules,
        }
        return found

    def span(
        self,
        own: str,
        name: str,
        times: tuple[int, int],
        attributes: Attributes,
        *,
        under: Context,
        kind: SpanKind = "internal",
        error: str = "",
        message: str = "",
        happenings: tuple[Happening, ...] = (),
        links: tuple[Link, ...] = (),
    ) -> Span:
        """A span of this run. Times are milliseconds; empty attributes are left out."""
        start, end = times
        if error:
            attributes = {**attributes, semconv.ERROR_TYPE: error}
        return Span(
            trace=under.trace,
            id=own,
            parent=under.span,
            name=name,
            kind=kind,
            start_ns=nanoseconds(start),
            end_ns=nanoseconds(max(start, end)),
            attributes={key: value for key, value in attributes.items() if value != ""},
            error=error,
            message=message or error,
            happenings=happenings,
            links=links,
            sampled=under.sampled,
        )

    def happening(
        self, name: str, at: int, number: int, attributes: Attributes | None = None
    ) -> Happening:
        """Something within a span, at a time in milliseconds."""
        found: Attributes = {semconv.EVENT_ID: self.event(number), **(attributes or {})}
        return Happening(name, nanoseconds(at), found)


def nanoseconds(milliseconds: int) -> int:
    """Of milliseconds, as far as OTLP can say them."""
    return min(max(0, milliseconds), MAX_MS) * _NS


def spent(spend: Spend) -> Attributes:
    """What something cost, where it cost anything."""
    found: Attributes = {}
    if spend.tokens:
        found[semconv.TOKENS] = spend.tokens
    if spend.cost:
        found[semconv.COST_USD] = spend.cost / MICRO
    return found


def text(value: Json) -> str:
    """Content, as an attribute holds it."""
    return short(value, MAX_CONTENT_CHARS)


def messages(role: str, parts: list[dict[str, Json]], finish: str = "") -> str:
    """One message, in the form of ``gen_ai.input.messages`` and ``gen_ai.output.messages``."""
    message: dict[str, Json] = {"role": role, "parts": parts}
    if finish:
        message["finish_reason"] = finish
    return msgspec.json.encode([message], order="deterministic").decode()


def said(content: str) -> dict[str, Json]:
    """Text, as a part of a message."""
    return {"type": "text", "content": text(content)}
