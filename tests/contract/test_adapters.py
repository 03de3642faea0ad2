"""What every adapter keeps: one suite for all of them, each against the real thing it hosts.

The deadline of an attempt and the limit on an outcome's size are kept by the hosting actor, which
cancels the adapter and measures what it gives. Here `worked` does the first as the actor does; of
the second the suite asks only that a large value arrives whole or says that it was cut.
"""

import asyncio

import msgspec
import pytest
from opentelemetry import trace

from actors import tracing
from actors.ports import Outcome
from actors.workers import ADAPTERS
from protocol.limits import MAX_DETAIL_CHARS
from protocol.traces import Context
from tests.adapters import KINDS, SLOW, hosted
from tests.adapters.case import LARGE, attempt, worked

CONTEXT = Context("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")

every_adapter = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS]
)


def test_no_adapter_is_left_out() -> None:
    assert {kind.partition(" ")[0] for kind in KINDS} == set(ADAPTERS)


@every_adapter
async def test_what_works_is_ok_and_billed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("ok")))
        assert (outcome.status, outcome.fault) == ("OK", "none")
        assert (outcome.value, outcome.spend) == (case.value, case.spend)


@every_adapter
async def test_what_fails_is_the_workers_fault_and_says_why(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("fail")))
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
        assert "no such thing" in outcome.value
        assert len(outcome.value) <= MAX_DETAIL_CHARS


@every_adapter
async def test_one_failure_is_not_the_next_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted(kind, monkeypatch) as case:
        await worked(case.adapter, attempt(case.ask("fail")))
        outcome = await worked(case.adapter, attempt(case.ask("ok")))
        assert outcome.value == case.value


@every_adapter
async def test_at_the_deadline_it_is_a_timeout_and_nothing_goes_on(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        await case.adapter.run(attempt(case.ask("ok")))  # a session may take longer to begin
        working = asyncio.create_task(worked(case.adapter, attempt(case.ask("wait"), 2.0)))
        await case.started()
        outcome = await working
        assert outcome.status == "TIMEOUT"
        assert await case.stopped()


@every_adapter
async def test_withdrawn_it_stops_what_it_started(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        working = asyncio.create_task(case.adapter.run(attempt(case.ask("wait"))))
        await case.started()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await case.stopped()


@every_adapter
async def test_a_large_value_arrives_whole_or_says_that_it_was_cut(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("large")))
        assert outcome.status == "OK"
        if outcome.value != "x" * LARGE:
            assert f"of {LARGE + 1} bytes" in outcome.value["cut"]


@every_adapter
async def test_what_is_no_utf8_never_breaks_the_report(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcome = await worked(case.adapter, attempt(case.ask("not text")))
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
        assert outcome.status in ("OK", "EXEC_ERR")
        if outcome.status == "OK":
            assert outcome.value["stdout"] == "\N{REPLACEMENT CHARACTER}" * 2


@every_adapter
async def test_attempts_are_worked_on_at_the_same_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        outcomes = await case.meet()
        assert [outcome.status for outcome in outcomes] == ["OK"] * case.parties


@every_adapter
async def test_its_span_is_passed_on_to_whoever_works(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(kind, monkeypatch) as case:
        trace.get_current_span()  # whoever has OpenTelemetry loaded has spans
        with tracing.under(lambda: (CONTEXT, {})):
            outcome = await worked(case.adapter, attempt(case.ask("span")))
        assert case.span(outcome) == CONTEXT.traceparent


@every_adapter
async def test_the_draft_is_a_worker_that_hosts_itself(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jsonschema_rs

    async with hosted(kind, monkeypatch) as case:
        spec = case.adapter.spec
        jsonschema_rs.validator_for(spec.parameters)
        assert spec.parameters["type"] == "object"
        assert jsonschema_rs.is_valid(spec.parameters, case.ask("ok"))
        assert spec.description
        assert msgspec.json.decode(msgspec.json.encode(spec), type=type(spec)) == spec
