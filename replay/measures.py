"""Metrics as a projection of the log: what each span that has ended adds to which instrument.

Nothing is counted where the work is done. No measure names a run, a call or an actor: a metric with
one of those would have as many series as there are runs.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from protocol import semconv, subjects
from replay.problems import What
from replay.spans import Attributes, Span

_NS: Final = 1e9
"""Nanoseconds of a second."""

_MODEL: Final = (
    semconv.OPERATION_NAME,
    semconv.PROVIDER_NAME,
    semconv.REQUEST_MODEL,
    semconv.RESPONSE_MODEL,
)

DIVERGENCES: Final[tuple[What, ...]] = ("prompt", "rules", "state")
"""What can diverge, as `verify` names it."""


class Measure(NamedTuple):
    """One value for one instrument."""

    name: str
    """One of ``semconv.HISTOGRAMS`` or ``semconv.COUNTERS``."""
    value: float
    attributes: Attributes


def measures(span: Span) -> list[Measure]:
    """What a span of `trace` adds."""
    match span.attributes.get(semconv.OPERATION_NAME):
        case semconv.CHAT:
            return _chat(span)
        case semconv.EXECUTE_TOOL:
            tool = (semconv.TOOL_NAME, semconv.TOOL_TYPE)
            return [_duration(span, semconv.EXECUTE_TOOL_DURATION, tool), *_message(span)]
        case semconv.INVOKE_AGENT:
            agent = (semconv.AGENT_NAME, semconv.REQUEST_MODEL)
            took = _duration(span, semconv.INVOKE_AGENT_DURATION, agent)
            alone = semconv.MODEL_CALLS not in span.attributes  # else each request has a span
            return [took, *(_tokens(span) if alone else ()), *_message(span)]
        case semconv.INVOKE_WORKFLOW:
            return _run(span)
        case _:
            return []


def _duration(span: Span, name: str, keys: tuple[str, ...]) -> Measure:
    return Measure(name, _seconds(span), _some(span, (*keys, semconv.ERROR_TYPE)))


def _seconds(span: Span) -> float:
    return (span.end_ns - span.start_ns) / _NS


def _some(span: Span, keys: tuple[str, ...]) -> Attributes:
    return {key: span.attributes[key] for key in keys if key in span.attributes}


def _number(span: Span, key: str) -> float:
    value = span.attributes.get(key, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _chat(span: Span) -> list[Measure]:
    return [_duration(span, semconv.CLIENT_OPERATION_DURATION, _MODEL), *_tokens(span)]


def _tokens(span: Span) -> list[Measure]:
    """What a model read and wrote, where it was said."""
    found: list[Measure] = []
    for key, kind in (
        (semconv.INPUT_TOKENS, semconv.INPUT),
        (semconv.OUTPUT_TOKENS, semconv.OUTPUT),
    ):
        if key in span.attributes:
            attributes = _some(span, _MODEL) | {semconv.TOKEN_TYPE: kind}
            found.append(Measure(semconv.CLIENT_TOKEN_USAGE, _number(span, key), attributes))
    return found


def _message(span: Span) -> list[Measure]:
    """What an attempt was as a message: sent by the conductor, and processed by a worker."""
    if not span.attributes.get(semconv.ATTEMPT):
        return []
    child = span.attributes.get(semconv.ACTOR_ROLE) == semconv.CONDUCTOR
    system: Attributes = {
        semconv.MESSAGING_SYSTEM: semconv.NATS,
        semconv.DESTINATION_TEMPLATE: subjects.TASK if child else subjects.CALL,
    }
    sent = system | {semconv.MESSAGING_OPERATION_NAME: "publish"}
    found = [Measure(semconv.SENT_MESSAGES, 1, sent)]
    if semconv.ACTOR_ID in span.attributes:  # a worker has reported
        taken = system | {semconv.MESSAGING_OPERATION_NAME: semconv.PROCESS}
        failed = _some(span, (semconv.ERROR_TYPE,))
        found += [
            Measure(semconv.CONSUMED_MESSAGES, _number(span, semconv.DELIVERIES) or 1, taken),
            Measure(semconv.PROCESS_DURATION, _seconds(span), taken | failed),
            Measure(semconv.MAILBOX_AGE, _number(span, semconv.QUEUE_WAIT_MS) / 1e3, system),
        ]
    return found


def _run(span: Span) -> list[Measure]:
    """Of a run's own span: what happened within it, and the whole run on the last of them."""
    found = _whole(span) if semconv.OUTCOME in span.attributes else []
    for each in span.happenings:
        told = each.attributes
        if each.name == semconv.ACTIVATED:
            whose: Attributes = {semconv.ACTOR_ROLE: semconv.CONDUCTOR}
            found.append(Measure(semconv.ACTOR_RESTARTS, 1, whose))
        elif each.name == semconv.RESUMED and semconv.PAUSE_MS in told:
            waited, why = told[semconv.PAUSE_MS], told.get(semconv.REASON, "")
            assert isinstance(waited, int)
            found.append(Measure(semconv.APPROVAL_WAIT, waited / 1e3, {semconv.REASON: why}))
    return found


def _whole(span: Span) -> list[Measure]:
    workflow = _some(span, (semconv.WORKFLOW_NAME,))
    outcome = workflow | _some(span, (semconv.OUTCOME,))
    failed = workflow | _some(span, (semconv.ERROR_TYPE,))
    agent: Attributes = {semconv.AGENT_NAME: str(workflow.get(semconv.WORKFLOW_NAME, ""))}
    took = _seconds(span)
    if semconv.RUN_MS in span.attributes:  # it is the last of several
        took = _number(span, semconv.RUN_MS) / 1e3
    return [
        Measure(semconv.INVOKE_WORKFLOW_DURATION, took, failed),
        Measure(semconv.RUN_DURATION, took, outcome),
        Measure(semconv.RUN_COST, _number(span, semconv.COST_USD), outcome),
        Measure(semconv.INFERENCE_CALLS, _number(span, semconv.MODEL_CALLS), agent),
        Measure(semconv.TOOL_CALLS, _number(span, semconv.CALLS), agent),
    ]


def divergences(counts: Mapping[What, int]) -> list[Measure]:
    """What a verification adds.

    Also where it found none: nothing found is another thing than nobody having looked.
    """
    return [
        Measure(semconv.REPLAY_DIVERGENCES, counts.get(what, 0), {semconv.DIVERGENCE_WHAT: what})
        for what in DIVERGENCES
    ]
