"""Conformance: everything emitted has its name in `semconv`, and agrees with the conventions."""

import importlib
import pkgutil
from typing import Any

import pytest

from protocol import semconv
from protocol.actions import Usage
from replay.measures import divergences, measures
from replay.spans import Span
from replay.trace import of_run, spans
from tests.runs import Driver, answer, begin, failure, planned, started
from tests.traces import MODEL, log_of, segments, story

CONVENTIONS = pytest.importorskip("opentelemetry.semconv._incubating")

NEWER = {
    semconv.INVOKE_WORKFLOW_DURATION,
    semconv.INVOKE_AGENT_DURATION,
    semconv.INFERENCE_CALLS,
    semconv.TOOL_CALLS,
    semconv.EXECUTE_TOOL_DURATION,
}
"""Metrics of the GenAI conventions' own repository that the package doesn't have."""


def names_of(value: object) -> set[str]:
    return {value} if isinstance(value, str) else set()


NAMES = {
    name
    for constant, value in vars(semconv).items()
    if constant.isupper()
    for name in names_of(value)
}


def of_conventions(package: str) -> dict[str, str]:
    """The values of the constants of each module of the conventions, and where they stand."""
    found: dict[str, str] = {}
    for root in ("opentelemetry.semconv._incubating", "opentelemetry.semconv"):
        where = importlib.import_module(f"{root}.{package}")
        for each in pkgutil.iter_modules(where.__path__):
            module = importlib.import_module(f"{where.__name__}.{each.name}")
            for constant, value in vars(module).items():
                if constant.isupper() and isinstance(value, str):
                    found[value] = module.__name__
    return found


ATTRIBUTES = of_conventions("attributes")
METRICS = of_conventions("metrics")


def everything() -> list[Span]:
    """Spans of every kind, with all that they can have."""
    above, below = story()
    model = Driver(begin(policy=MODEL))
    model.reply(answer(usage=Usage(5, 2)), after_ms=5)
    cancelled = started()
    cancelled.signal("pause")
    cancelled.activate(after_ms=5)
    cancelled.signal("resume")
    cancelled.signal("extend", rounds=1)
    cancelled.signal("cancel")
    joined = started(planned(), planned(after=(0,)))
    joined.report("1-0")
    joined.report("1-1")
    joined.activate(after_ms=5)
    joined.reply(answer())
    logs = [log_of(each) for each in (above, below, cancelled, joined)]
    found = spans(logs, content=True, messages=True)
    with segments(2, 1_000):
        long = started()
        long.signal("pause")
        long.at += 2_000
        long.signal("resume")
        long.report("1-0")
        long.reply(failure())
        long.wait()
        long.reply(answer())
        found += of_run(log_of(long))
    return [*found, *of_run(log_of(model), content=True, messages=True)]


def test_every_name_emitted_is_in_semconv() -> None:
    found = everything()
    for span in found:
        told = [*span.attributes, *(key for each in span.happenings for key in each.attributes)]
        assert set(told) <= NAMES, span
        assert {each.name for each in span.happenings} <= set(semconv.SPAN_EVENTS)
        assert {each.kind for each in span.links} <= set(semconv.LINK_KINDS)
        operation = span.attributes.get(semconv.OPERATION_NAME)
        if operation is None:
            verb = span.attributes[semconv.MESSAGING_OPERATION_NAME]
            assert span.name.startswith(f"{verb} ")
        else:
            assert operation in semconv.OPERATIONS
            assert span.name.startswith(f"{operation} ")
    operations = {span.attributes.get(semconv.OPERATION_NAME) for span in found}
    assert operations >= set(semconv.OPERATIONS)
    kinds = {each.kind for span in found for each in span.links}
    assert kinds == set(semconv.LINK_KINDS) - {semconv.FORKED_FROM}


def test_every_measure_is_in_semconv_and_names_no_run() -> None:
    known = semconv.HISTOGRAMS.keys() | semconv.COUNTERS.keys()
    found = [measure for span in everything() for measure in measures(span)]
    found += divergences({})
    assert {measure.name for measure in found} == known
    for measure in found:
        assert set(measure.attributes) <= NAMES - semconv.NOT_ON_METRICS - semconv.CONTENT


def test_our_names_are_ours_and_the_others_are_in_the_conventions() -> None:
    dotted = {name for name in NAMES if "." in name and not name.startswith("https:")}
    ours = {name for name in dotted if name.startswith("podium.")}
    assert not ours & (ATTRIBUTES.keys() | METRICS.keys())
    theirs = dotted - ours
    unknown = theirs - ATTRIBUTES.keys() - METRICS.keys()
    assert unknown == NEWER


@pytest.mark.parametrize("name", sorted(semconv.HISTOGRAMS.keys() | semconv.COUNTERS.keys()))
def test_metrics_have_the_unit_and_the_kind_of_the_conventions(name: str) -> None:
    if name not in METRICS:
        assert name.startswith("podium.") or name in NEWER
        return
    made: list[tuple[str, str, str]] = []

    class Meter:
        def create_histogram(self, name: str, description: str, unit: str, **_: Any) -> None:
            made.append((name, unit, "histogram"))

        def create_counter(self, name: str, description: str, unit: str, **_: Any) -> None:
            made.append((name, unit, "counter"))

    module = importlib.import_module(METRICS[name])
    getattr(module, f"create_{name.replace('.', '_')}")(Meter())
    kind = "histogram" if name in semconv.HISTOGRAMS else "counter"
    unit = (semconv.HISTOGRAMS.get(name) or semconv.COUNTERS[name])[0]
    assert made == [(name, unit, kind)]


def test_the_schema_is_one_that_the_conventions_know() -> None:
    from opentelemetry.semconv.schemas import Schemas

    assert semconv.SCHEMA_URL in {schema.value for schema in Schemas}
