"""Logs for tests of traces: of a run that a `Driver` drove, and of a story that has everything."""

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import msgspec

from protocol import semconv, traces
from protocol.actions import Report, Spend, Usage
from protocol.budgets import Budget
from protocol.codec import Commit, encode
from protocol.commands import Inbox
from protocol.decisions import PolicySpec
from protocol.inbox import Signal
from protocol.views import child_report, child_start
from replay.chain import RunLog, Stored, assemble
from replay.spans import Span
from tests.runs import POLICY, RUN, Driver, answer, begin, inbox, plan, planned

ABOVE: Final = f"00-{'a' * 32}-{'b' * 16}-01"
"""A span of somebody else's."""

MODEL: Final = PolicySpec(name="openai:gpt-9", dialect="openai", reserve=Spend(tokens=10, cost=3))


def log_of(driver: Driver) -> RunLog:
    """The log of a run in memory, as a reader would have it."""
    stored: list[Stored] = []
    letters: list[Stored] = []
    seq, prev = 0, ""
    for _, commands, draft in driver.steps:
        for command in commands:
            if isinstance(command, Inbox) and isinstance(command.message, Report | Signal):
                seq += 1
                letters.append(Stored(seq, encode(command.message)))
        if not draft.events:
            continue
        seq += 1
        commit = Commit(
            run=driver.state.run,
            n=len(stored) + 1,
            epoch=draft.state.epoch,
            at=draft.at,
            causes=tuple(draft.causes),
            events=tuple(draft.events),
            prev=prev,
        )
        stored.append(Stored(seq, encode(commit)))
        log = assemble(driver.state.run, stored, [])
        prev = log.head.hash
    return assemble(driver.state.run, stored, letters)


def reported(driver: Driver, call: str, latency_ms: int, **more: Any) -> None:
    """A report that says how long the work took, after just that time."""
    usage = more.pop("usage", Usage())
    report = msgspec.structs.replace(
        driver.report_of(call, **more), latency_ms=latency_ms, by=f"worker-{call}", usage=usage
    )
    driver.give(inbox(report), after_ms=latency_ms + 5)


def story() -> tuple[Driver, Driver]:
    """A run of three rounds with parallel calls, a retry, a time-out, a child run; and the child.

    Round 1: two tools at once, of which one is lost and tried again. Round 2: an agent that takes
    too long beside a tool. Round 3: a child run.
    """
    driver = Driver(begin(budget=Budget(depth=2), traceparent=ABOVE))
    driver.reply(plan(planned(n=1), planned(n=2), version="v1"), after_ms=10)
    reported(driver, "1-0", 100)
    reported(driver, "1-1", 50, status="EXEC_ERR", fault="infrastructure")
    reported(driver, "1-1", 70)
    driver.reply(plan(planned("agent"), planned(n=3)), after_ms=20)
    reported(driver, "2-1", 30)
    reported(driver, "2-0", 400, status="TIMEOUT", fault="worker", usage=Usage(7, 3))
    driver.reply(plan(planned("child", n="go")), after_ms=20)
    child = Driver(child_start(driver.state, "3-0", driver.values), at=driver.at + 2)
    child.reply(plan(planned(n=4)), after_ms=10)
    reported(child, "1-0", 25)
    child.reply(answer("of the child"), after_ms=10)
    driver.give(inbox(child_report(child.state)), after_ms=child.at - driver.at + 3)
    driver.reply(answer("42"), after_ms=20)
    assert driver.state.outcome == child.state.outcome == "finished"
    return driver, child


@contextlib.contextmanager
def segments(spans: int, pause_ms: int) -> Iterator[None]:
    """Have runs go on in other traces sooner than they do."""
    kept = traces.MAX_SPANS, traces.MAX_PAUSE_MS
    traces.MAX_SPANS, traces.MAX_PAUSE_MS = spans, pause_ms  # type: ignore[misc]
    try:
        yield
    finally:
        traces.MAX_SPANS, traces.MAX_PAUSE_MS = kept  # type: ignore[misc]


def named(spans: list[Span], name: str) -> list[Span]:
    """The spans of that name, in their order."""
    return [span for span in spans if span.name == name]


def shape(spans: list[Span]) -> list[str]:
    """The tree in lines: how deep, name, error."""
    from replay.spans import tree

    return [
        "  " * depth + span.name + (f" !{span.error}" if span.error else "")
        for depth, span in tree(spans)
    ]


def assert_series(roots: list[Span]) -> None:
    """A run's own spans are linked both ways, and the last says how the run ended."""
    roots = sorted(roots, key=lambda span: int(str(span.attributes.get(semconv.SEGMENT, 0))))
    links = [{link.kind: link.span for link in span.links} for span in roots]
    for number, (before, after) in enumerate(pairwise(range(len(roots))), 1):
        assert links[before][semconv.CONTINUED_IN] == roots[after].id
        back = links[after].get(semconv.RESUMES) or links[after].get(semconv.CONTINUES)
        assert back == roots[before].id
        assert roots[after].attributes[semconv.SEGMENT] == number
    outcomes = [semconv.OUTCOME in span.attributes for span in roots]
    assert outcomes == [False] * (len(roots) - 1) + [True]
    assert [span.id for span in roots] == [
        traces.run_context(RUN, segment=number).span for number in range(len(roots))
    ]


__all__ = [
    "ABOVE",
    "MODEL",
    "POLICY",
    "assert_series",
    "log_of",
    "named",
    "reported",
    "segments",
    "shape",
    "story",
]
