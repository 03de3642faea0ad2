"""An attempt found in a log, a model's replies said again, and what differs."""

import asyncio
from typing import Any

import msgspec
import pytest

from actors.ports import Outcome
from actors.work import record_of
from actors.workers.agent.exchanges import Replay, changed, hashed, parts
from protocol.actions import BlobRef, Report, Spend
from protocol.codec import Commit, encode
from protocol.errors import InvalidData, NotFound
from protocol.exchanges import Exchange, Failed, Said, exchanges
from protocol.redaction import Redactor
from replay.chain import RunLog, Stored, assemble
from replay.reproduce import Result, diff, tried
from tests.runs import RUN, Driver, begin, inbox, plan, planned


def log_of(driver: Driver, *reports: Any) -> RunLog:
    """The log that a driver's run would have."""
    stored: list[Stored] = []
    prev = ""
    for number, (_, _, draft) in enumerate(driver.steps, 1):
        if not draft.events:
            continue
        commit = Commit(
            run=RUN,
            n=len(stored) + 1,
            epoch=draft.state.epoch,
            at=draft.at,
            causes=tuple(draft.causes),
            events=tuple(draft.events),
            prev=prev,
        )
        data = encode(commit)
        stored.append(Stored(number, data))
        prev = assemble(RUN, stored, []).head.hash
    return assemble(RUN, stored, [Stored(n, encode(r)) for n, r in enumerate(reports, 1)])


def retried() -> tuple[Driver, list[Any]]:
    """A run whose first call needed two attempts, and whose second one did not fit."""
    driver = Driver(begin())
    driver.reply(plan(planned(n=1), planned(n="x"), planned(n=3, after=(0,))))
    first = driver.report_of("1-0", status="EXEC_ERR", fault="infrastructure", value="lost")
    driver.give(inbox(first))
    second = driver.report_of("1-0", value=7)
    driver.give(inbox(second))
    return driver, [first, second]


def test_the_attempt_that_counts_is_found_and_any_other_by_its_number() -> None:
    driver, reports = retried()
    log = log_of(driver, *reports)
    found = tried(log, "1-0")
    assert (found.attempt, found.report, found.counts) == (2, reports[1], True)
    assert found.place == f"{RUN}/1-0/2"
    earlier = tried(log, "1-0", 1)
    assert (earlier.attempt, earlier.report, earlier.counts) == (1, reports[0], False)
    assert earlier.event < found.event
    assert earlier.state.calls["1-0"].attempt == 1, "the state of that moment"


def test_an_attempt_that_has_not_reported_has_nothing_to_compare() -> None:
    driver, reports = retried()
    found = tried(log_of(driver, *reports), "1-2")
    assert (found.attempt, found.report, found.settled) == (1, None, None)


def test_a_call_that_was_never_started_has_no_attempt() -> None:
    driver, reports = retried()
    found = tried(log_of(driver, *reports), "1-1")
    assert (found.attempt, found.report) == (0, None)
    assert found.settled is not None
    assert found.settled.status == "PARSE_ERR"


@pytest.mark.parametrize(
    ("call", "attempt", "hint"),
    [("9-9", None, "1-0, 1-1, 1-2"), ("1-0", 3, "1, 2"), ("1-1", 1, "never started")],
)
def test_what_is_not_there_is_said_with_what_is(call: str, attempt: int | None, hint: str) -> None:
    driver, reports = retried()
    with pytest.raises(NotFound) as raised:
        tried(log_of(driver, *reports), call, attempt)
    assert hint in raised.value.hint


def test_a_call_that_waits_for_others_was_never_started() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(), planned(after=(0,))))
    with pytest.raises(NotFound, match="waits for others"):
        tried(log_of(driver), "1-1")


def test_what_differs_is_named_and_shown() -> None:
    recorded = Result(status="OK", fault="none", value={"b": 1, "a": [1, 2]})
    same = Result(status="OK", fault="none", value={"a": [1, 2.0], "b": 1})
    assert recorded.differs(same) == []
    assert diff(recorded, same) == []
    other = Result(status="OK", fault="none", value={"a": [1, 3], "b": 1})
    assert recorded.differs(other) == ["value"]
    lines = diff(recorded, other)
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-      2", "+      3"]


MESSAGES = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]


def asked(replay: Replay, messages: list[dict[str, Any]], **more: Any) -> Said | Failed:
    return asyncio.run(replay.ask(messages, timeout_s=1, **more))


def test_replies_are_said_again_and_changed_parts_named() -> None:
    request = hashed(parts("m", MESSAGES, 64, {"temperature": 0.5}))
    said = Said(text="one", spend=Spend(tokens=3))
    failed = Failed(status="TIMEOUT", fault="worker", text="late")
    replay = Replay("m", [Exchange(dict(request), said), Exchange(dict(request), failed)])
    assert asked(replay, MESSAGES, max_tokens=64, extra={"temperature": 0.5}) == said
    assert replay.changed == []
    other = [MESSAGES[0], {"role": "user", "content": "c"}]
    assert asked(replay, other, max_tokens=64) == failed
    assert replay.changed == ["request 2, messages[1]", "request 2, temperature"]
    beyond = asked(replay, MESSAGES)
    assert isinstance(beyond, Failed)
    assert "never made before" in beyond.text


def test_a_record_holds_hashes_and_no_secret() -> None:
    key = "sk-proj-" + "PLANTED0aBcDeFgHiJkLmNoP"
    messages = [{"role": "user", "content": f"use {key}"}]
    exchange = Exchange(parts("m", messages, None, None), Said(text=f"used {key}"))
    outcome = Outcome(record=msgspec.to_builtins([exchange]))
    data = record_of(outcome, Redactor())
    assert key.encode() not in data
    (kept,) = exchanges(msgspec.json.decode(data))
    assert kept.reply == Said(text="used [redacted:openai_key]")
    clean = parts("m", [{"role": "user", "content": "use [redacted:openai_key]"}], None, None)
    assert changed({k: str(v) for k, v in kept.request.items()}, clean) == []
    assert record_of(Outcome(), Redactor()) == b""


def test_a_report_names_all_that_has_to_be_kept_with_it() -> None:
    value, record = BlobRef("v", 1), BlobRef("r", 2)
    report = Report(run="r", call="1-0", attempt=1, status="OK")
    assert report.blobs == ()
    assert msgspec.structs.replace(report, blob=value, record_blob=record).blobs == (value, record)


def test_a_record_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidData, match="record"):
        exchanges([{"reply": "?"}])
