"""Standing at any event of a run: the state there, and what changed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.words import told
from protocol.actions import BlobRef, Json
from protocol.budgets import Budget
from protocol.commands import Deadline, Inbox
from protocol.errors import Usage
from protocol.events import CallSettled, Edit, PolicyReplied
from replay import film
from replay.attribution import attributed
from replay.chain import RunLog
from replay.differences import HIDDEN, changes, part, tree
from replay.film import Film
from replay.history import entries, reports
from replay.redecide import redecide
from replay.timeline import timeline
from tests.logs import log_of
from tests.runs import Driver, answer, inbox, plan, planned, started
from tests.unit.test_forks import forked, joined
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough

often = settings(thorough, max_examples=40)


@often
@given(STARTS, HISTORIES)
def test_events_are_attributed_as_they_are_decided(start: Any, history: History) -> None:
    check_attribution(log_of(lived(start, history)))


def check_attribution(log: RunLog) -> None:
    again = [
        (step.cause, decided.first + sum(len(s.events) for s in decided.steps[:place]))
        for decided in redecide(log)
        for place, step in enumerate(decided.steps)
        for _ in step.events
    ]
    assert list(attributed(entries(log))) == again


def late(driver: Driver) -> Inbox:
    """One more report of an attempt that has reported."""
    return inbox(driver.report_of("1-0", attempt=1, value="once more"))


@pytest.mark.parametrize(
    ("closed", "on_limit", "after_ms", "kind"),
    [
        (False, "answer", 400_000, "CallSettled"),
        (False, "pause", 10_000_000, "RunPaused"),
        (True, "answer", 10_000_000, "PolicyAsked"),
        (True, "pause", 10_000_000, "RunPaused"),
    ],
)
def test_what_time_led_to_is_told_from_what_came_at_the_same_time(
    closed: bool, on_limit: Any, after_ms: int, kind: str
) -> None:
    calls = (planned(n=1), *(() if closed else (planned(n=2),)))
    driver = started(*calls, budget=Budget(on_limit=on_limit, wall_ms=600_000))
    driver.report("1-0")
    driver.give(late(driver), Deadline(), after_ms=after_ms)
    log = log_of(driver)
    check_attribution(log)
    rows = timeline(log).rows
    assert log.commits[-1].causes[1:] == ("deadline",)
    (first,) = {row.opener for row in rows if row.cause == "deadline"}
    assert rows[first - 1].kind == kind
    assert rows[first - 2].kind == "ReportNoted"


@often
@given(STARTS, HISTORIES, st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_a_film_shows_the_fold_wherever_one_looks(
    start: Any, history: History, looks: list[int]
) -> None:
    log = log_of(lived(start, history))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(film, "EVERY", 7)
        patch.setattr(film, "BEHIND", 3)
        shown = Film(log)
        for look in looks:
            at = look % (len(shown) + 1)
            assert shown.state(at) == log.state(at)


def test_a_film_has_no_more_events_than_the_run() -> None:
    shown = Film(log_of(started()))
    for wrong in (-1, len(shown) + 1):
        with pytest.raises(Usage, match=f"has no event {wrong}: it has {len(shown)}"):
            shown.state(wrong)


def patched(found: Json, path: list[str], value: Json) -> None:
    """Make a change in a tree."""
    *above, last = path
    for key in above:
        found = found[int(key)] if isinstance(found, list) else found[key]
    if isinstance(found, list):
        found[int(last) : int(last) + 1] = [] if value is msgspec.UNSET else [value]
    elif value is msgspec.UNSET:
        del found[last]
    else:
        found[last] = value


@often
@given(STARTS, HISTORIES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_changes_made_give_the_other_state(
    start: Any, history: History, one: int, other: int
) -> None:
    log = log_of(lived(start, history))
    shown, known = Film(log), reports(log)
    before, after = (shown.state(each % (len(shown) + 1)) for each in (one, other))
    found = tree(before, known, content=True)
    made = changes(before, after, known, content=True)
    gone = [each for each in made if each.after is msgspec.UNSET]
    # What went from a list goes from its end on.
    for change in [each for each in made if each not in gone] + gone[::-1]:
        assert change.before != change.after
        # Only a policy may name a worker or a key with a dot, and those of these runs have none.
        patched(found, change.path.split("."), change.after)
    assert found == tree(after, known, content=True)
    if before == after:
        assert made == []


def test_what_agents_wrote_is_shown_only_on_request() -> None:
    driver = started(planned(n=77_001), planned(n=77_002))
    driver.report("1-0", value={"secret": 77_003})
    driver.reply(plan(planned("nobody", n=77_004), text="77005"))
    driver.report("1-1", value=77_006)
    driver.reply(plan(planned(n=77_007), text="77008"))
    driver.report("2-0", status="EXEC_ERR", fault="worker", value="77009")
    driver.reply(answer("77010"))
    log = log_of(driver)
    shown, known = Film(log), reports(log)
    for at in range(1, len(shown) + 1):
        near = (shown.state(at - 1), shown.state(at))
        for content in (False, True):
            text = str(tree(near[1], known, content=content))
            text += str(changes(*near, known, content=content))
            assert content or "7700" not in text
            assert content or "77010" not in text
    text = str(tree(shown.state(len(shown)), known, content=True))
    assert all(str(number) in text for number in (77_001, 77_003, 77_006, 77_009, 77_010))


def test_paths_are_those_that_a_fork_can_set() -> None:
    driver = started(planned(n=5))
    before = driver.state
    driver.report("1-0", value={"deep": [{"er": 1}]})
    known = reports(log_of(driver))
    found = tree(driver.state, known, content=True)
    for path, value in (
        ("calls.1-0.value.deep.0.er", 1),
        ("calls.1-0.arguments.n", 5),
        ("workers.tool.attempts", 2),
        ("task.text", "What is asked?"),
        ("calls.1-0.value", {"deep": [{"er": 1}]}),
        ("calls.1-0", found["calls"]["1-0"]),
        ("current", found["current"]),
    ):
        assert part(driver.state, path, known, content=True) == value
    assert part(driver.state, "calls.1-0.value", known, content=False) == HIDDEN
    for path, above, missing, content in (
        ("calls.9-9.value", "calls", "9-9", True),
        ("task.text.more", "task.text", "more", True),
        ("calls.1-0.value.deep.1", "calls.1-0.value.deep", "1", True),
        ("calls.1-0.value.deep", "calls.1-0.value", "deep", False),
    ):
        with pytest.raises(LookupError) as raised:
            part(driver.state, path, known, content=content)
        assert raised.value.args[:2] == (above, missing)
    made = {
        each.path: (each.before, each.after)
        for each in changes(before, driver.state, known, content=True)
    }
    assert made["calls.1-0.status"] == (None, "OK")
    assert made["open.1-0"] == (1, msgspec.UNSET)
    assert made["phase"] == ("working", "deciding")
    assert "workers.tool" not in made


def test_a_value_in_a_blob_is_named() -> None:
    driver = started(planned())
    ref = BlobRef("ab" * 32, 70_000)
    report = msgspec.structs.replace(driver.report_of("1-0", value=None), blob=ref)
    known = {"h": report}
    settled = msgspec.structs.replace(driver.state.calls["1-0"], report="h", status="OK")
    state = msgspec.structs.replace(driver.state, calls={"1-0": settled})
    value = part(state, "calls.1-0.value", known, content=True)
    assert value == {"sha256": "ab" * 32, "size": 70_000}


def test_a_timeline_knows_workers_and_failures() -> None:
    driver = started(planned("agent", n=1), planned("nobody"))
    driver.lost("1-0")
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    driver.reply(answer(" "))
    driver.reply(answer())
    found = timeline(log_of(driver))
    settled = {row.call: row for row in found.rows if isinstance(row.entry.event, CallSettled)}
    assert (settled["1-0"].worker, settled["1-0"].status, settled["1-0"].attempt) == (
        "agent",
        "EXEC_ERR",
        2,
    )
    assert (settled["1-1"].worker, settled["1-1"].status) == ("nobody", "PARSE_ERR")
    failed = [row.kind for row in found.rows if row.failed]
    assert failed == ["CallSettled", "CallSettled", "DecisionRejected"]
    assert [row.number for row in found.rows] == [*range(1, len(driver.events) + 1)]
    assert found.rounds == {1: ("1-0", "1-1")}


def test_the_timeline_of_a_fork_begins_with_what_it_shares() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0", value=7)
    log = log_of(driver)
    fork = forked(log, 8)
    fork.report("1-1", value=8)
    both = joined(fork, log)
    found = timeline(both)
    assert [row.entry.run for row in found.rows[:10]] == [log.run] * 8 + [both.run] * 2
    assert found.rows[8].kind == "RunForked"
    reported = [row.call for row in found.rows if isinstance(row.entry.event, CallSettled)]
    assert reported == ["1-0", "1-1"]
    assert all(found.message(row) for row in found.rows if row.kind == "CallSettled")
    assert Film(both).state(8) == log.state(8)


def test_what_a_fork_changed_is_told_from_there_on() -> None:
    driver = started(planned(n=1), planned(n=2))
    log = log_of(driver)
    fork = forked(log, len(driver.events), edits=(Edit("calls.1-1.arguments.n", 5),))
    fork.report("1-1")
    found = timeline(joined(fork, log))
    said = {row.kind: told(row, found, content=True) for row in found.rows if row.call == "1-1"}
    assert "(n: 2)" in said["AttemptStarted"]
    assert "(n: 5)" in said["CallSettled"]
    assert found.calls["1-0"].arguments == {"n": 1}


def test_an_empty_run_has_an_empty_timeline() -> None:
    found = timeline(RunLog("x"))
    assert (found.rows, found.began) == ([], 0)
    assert len(Film(RunLog("x"))) == 0


def test_a_policy_that_could_not_be_asked_has_failed() -> None:
    driver = started()
    driver.report("1-0")
    rows = timeline(log_of(driver)).rows
    assert not any(row.failed for row in rows if isinstance(row.entry.event, PolicyReplied))
