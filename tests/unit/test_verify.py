"""Verification against the rules and prompts of today: planted divergences, each named in words.

Rules aren't patched. A log is altered as if other rules had decided it, and chained anew, so that
its hashes are sound and only deciding again can show what is wrong.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given

from protocol.actions import Spend
from protocol.budgets import Budget
from protocol.codec import Commit, decode_commit, encode
from protocol.dialects import to_prompt
from protocol.events import (
    AnyEvent,
    AttemptStarted,
    CallSettled,
    PolicyAsked,
    PolicyReplied,
    RoundPlanned,
    RunActivated,
    RunFinished,
    RunPaused,
    UnknownEvent,
)
from protocol.run import RULES
from protocol.views import view
from replay.chain import RunLog, Stored, assemble
from replay.divergence import Checker
from replay.history import entries, values
from replay.problems import Problem
from replay.redecide import redecide
from replay.verify import Verified, verify
from tests.logs import chained, log_of, messages_of, relinked
from tests.runs import Driver, answer, begin, plan, planned
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough


def prompted(driver: Driver, reply: Any) -> None:
    """The reply, with the hash of the prompt that it answers, as a conductor records it."""
    asked = driver.state.asked
    assert asked is not None
    shown = view(driver.state, driver.values, asked.limited_by)
    driver.reply(to_prompt(reply, driver.state.policy, shown))


def a_log(**more: Any) -> RunLog:
    """A finished run of two rounds."""
    driver = Driver(begin(**more))
    prompted(driver, plan(planned(n=1), planned("agent", n=2), planned(n="x")))
    driver.report("1-0", value=1)
    driver.lost("1-1", spend=Spend(tokens=5))
    driver.report("1-1", value={"a": [1, 2]})
    prompted(driver, plan(planned(n=3)))
    driver.report("2-0", value=3)
    prompted(driver, answer())
    return log_of(driver)


def checked(log: RunLog, **more: Any) -> Verified:
    return verify(log, messages_of(log), values=values(log), **more)


Change = Callable[[AnyEvent], AnyEvent | list[AnyEvent]]


def altered(log: RunLog, change: Change, *, times: int = 1) -> RunLog:
    """The log as other rules would have written it: events changed, hashes right."""
    commits: list[Commit] = []
    for commit in log.commits:
        events: list[AnyEvent] = []
        for event in commit.events:
            other = change(event) if times else event
            times -= other != event
            events += other if isinstance(other, list) else [other]
        commits.append(msgspec.structs.replace(commit, events=tuple(events)))
    return relinked(log, commits)


def with_(kind: type, **fields: Any) -> Change:
    """Change the first event of a type."""

    def change(event: AnyEvent) -> AnyEvent:
        return msgspec.structs.replace(event, **fields) if isinstance(event, kind) else event

    return change


def without(kind: type) -> Change:
    """Leave the first event of a type out."""
    return lambda event: [] if isinstance(event, kind) else event


def the_first(verified: Verified) -> Problem:
    assert verified.outcome == "diverged"
    problem = verified.problems[0]
    assert problem.kind == "diverged"
    assert problem.likely
    assert problem.function
    return problem


def test_a_sound_run_verifies() -> None:
    log = a_log()
    found = checked(log)
    assert (found.outcome, found.problems) == ("sound", ())
    assert (found.commits, found.decided, found.prompts) == (len(log.commits), len(log.commits), 3)
    assert found.events == len(entries(log))


@thorough
@given(STARTS, HISTORIES)
def test_every_run_that_was_lived_verifies(start: Any, history: History) -> None:
    assert checked(log_of(lived(start, history))).outcome == "sound"


@pytest.mark.parametrize(
    ("change", "expected", "found", "function", "likely"),
    [
        (
            with_(CallSettled, status="OK", fault="none"),
            "CallSettled.status = 'OK'",
            "CallSettled.status = 'PARSE_ERR'",
            "protocol.rules.take_report",
            "",
        ),
        (
            with_(AttemptStarted, deadline=1_700_000_000_007),
            "AttemptStarted.deadline = 1700000000007",
            "AttemptStarted.deadline = 17000",
            "protocol.rules.begin",
            "waiting times were changed (protocol.limits)",
        ),
        (
            with_(AttemptStarted, attempt=2),
            "AttemptStarted.attempt = 2",
            "AttemptStarted.attempt = 1",
            "protocol.rules.begin",
            "calls are started or settled otherwise",
        ),
        (
            with_(PolicyAsked, reserve=Spend(tokens=99)),
            "PolicyAsked.reserve.tokens = 99",
            "PolicyAsked.reserve.tokens = 10",
            "protocol.rules.ask",
            "budgets are counted otherwise",
        ),
        (
            without(RoundPlanned),
            "CallSettled of call 1-2",
            "RoundPlanned of round 1",
            "protocol.rules.check_calls",
            "arguments are checked otherwise",
        ),
        (
            without(RunFinished),
            "nothing",
            "RunFinished",
            "protocol.run._act",
            "the rules were changed",
        ),
        (
            lambda event: (
                RunPaused(reason="budget", detail="rounds", at=event.at)
                if isinstance(event, PolicyAsked) and event.turn == 2
                else event
            ),
            "RunPaused",
            "PolicyAsked of turn 2",
            "protocol.rules.ask",
            "a limit is reached at another moment",
        ),
    ],
    ids=range(7),
)
def test_a_divergence_is_named(
    change: Change, expected: str, found: str, function: str, likely: str
) -> None:
    log = altered(a_log(), change)
    problem = the_first(checked(log))
    assert problem.expected == expected
    assert problem.found.startswith(found)
    assert problem.function == function
    assert likely in problem.likely
    entry = next((e for e in entries(log) if e.number == problem.event), None)
    assert entry is None or entry.kind in problem.where
    assert "RULES is still" in problem.likely


def test_the_cause_is_told_in_words() -> None:
    def change(event: AnyEvent) -> AnyEvent:
        if isinstance(event, CallSettled) and event.call == "1-0":
            return msgspec.structs.replace(event, status="EXEC_ERR")
        return event

    problem = the_first(checked(altered(a_log(), change)))
    assert problem.cause.startswith("the report of call 1-0, attempt 1: OK (inbox:")
    assert problem.where.endswith("CallSettled of call 1-0, attempt 1")


def test_what_an_agent_wrote_is_not_told_unless_asked_for() -> None:
    log = altered(a_log(), with_(CallSettled, value="a secret plan"))
    problem = the_first(checked(log))
    assert "secret" not in f"{problem.expected}{problem.found}{problem.likely}{problem.where}"
    assert problem.expected == "CallSettled.value = a text of 13 characters"
    assert problem.values is not None
    assert problem.values[0] == "a secret plan"


def test_a_budget_that_would_have_refused_is_named() -> None:
    log = a_log()
    start = log.commits[0].events[0]
    tight = msgspec.structs.replace(start, budget=Budget(rounds=1))
    other = msgspec.structs.replace(log.commits[0], events=(tight, *log.commits[0].events[1:]))
    problem = the_first(checked(relinked(log, [other, *log.commits[1:]])))
    assert problem.where.endswith("PolicyAsked of turn 2")
    assert problem.found == "PolicyAsked.limited_by = 'rounds'"
    assert "budgets are counted otherwise" in problem.likely


def test_a_log_of_other_rules_says_so() -> None:
    def older(event: AnyEvent) -> AnyEvent:
        if isinstance(event, RunActivated):
            return msgspec.structs.replace(event, rules="0")
        return event

    log = altered(altered(a_log(), older), with_(AttemptStarted, deadline=7))
    problem = the_first(checked(log))
    assert f"under rules '0', and these are {RULES!r}" in problem.likely
    assert checked(altered(a_log(), older)).outcome == "sound"


def test_one_change_is_one_finding_for_each_commit_and_says_how_many_follow() -> None:
    def change(event: AnyEvent) -> AnyEvent:
        if isinstance(event, AttemptStarted):
            return msgspec.structs.replace(event, deadline=event.deadline + 1)
        return event

    found = checked(altered(a_log(), change, times=99))
    started_ = [c for c in a_log().commits if any(isinstance(e, AttemptStarted) for e in c.events)]
    assert len(found.problems) == len(started_)
    assert [each.commit for each in found.problems] == [each.n for each in started_]
    assert found.problems[0].follows == 1


def test_damage_stops_the_rules_where_it_begins() -> None:
    log = altered(a_log(), with_(CallSettled, status="OK", fault="none"))
    messages = messages_of(log)
    broken = messages.commits[3]
    messages.commits[3] = Stored(broken.seq, broken.data[:-9])
    read = assemble(log.run, *messages)
    found = verify(read, messages, values=values(read))
    assert found.outcome == "damaged"
    assert (found.problems[0].kind, found.problems[0].commit) == ("damaged", 4)
    assert found.decided == 3


def test_what_a_lost_message_led_to_is_not_decided_again() -> None:
    log = a_log()
    messages = messages_of(log)
    gone = messages.inbox.pop(0)
    read = assemble(log.run, *messages)
    found = verify(read, messages, values=values(read))
    assert [each.what for each in found.problems] == ["inbox_removed"]
    assert found.decided == len(log.commits) - 1
    assert found.prompts == 1  # the later ones show the value that is gone
    assert gone.seq


def test_a_state_that_deciding_leads_to_and_reading_does_not_is_named() -> None:
    log = a_log()
    checker = Checker(log, {}, {})
    decided = next(redecide(log))
    other = decided.decided.copy()
    other.round = 7
    assert checker.check(decided._replace(decided=other))
    (problem,) = checker.problems
    assert (problem.what, problem.expected, problem.found) == ("state", "round: 0", "round: 7")
    assert problem.function == "protocol.transitions.apply"


# -------------------------------------------------------------------------------- prompts


def test_a_prompt_that_is_rendered_otherwise_is_named() -> None:
    log = altered(a_log(), with_(PolicyReplied, prompt="0" * 64))
    problem = the_first(checked(log))
    assert problem.what == "prompt"
    assert problem.function == "protocol.dialects.prompt"
    assert "the prompt of question 1" in problem.where
    assert "how the dialect 'decision' renders a prompt was changed" in problem.likely


def test_a_value_that_was_changed_shows_in_the_prompt_after_it() -> None:
    log = a_log()
    known = values(log)
    first = next(iter(known))
    found = verify(log, messages_of(log), values={**known, first: "another"})
    problem = the_first(found)
    assert "the prompt of question 2" in problem.where
    assert "that of question 1 is as it was" in problem.likely
    assert problem.follows == 1


def test_where_a_kept_prompt_differs_is_said() -> None:
    log = a_log()
    said = next(e.event for e in entries(log) if isinstance(e.event, PolicyReplied))
    state = log.state(next(e.number for e in entries(log) if e.event is said) - 1)
    kept = msgspec.json.encode(view(state, {}), order="deterministic")
    other = kept.replace(b"What is asked?", b"What was asked?")
    log = altered(log, with_(PolicyReplied, prompt="0" * 64))
    problem = the_first(checked(log, prompts={"0" * 64: other}))
    assert problem.likely == "the two differ first in task.text"
    assert problem.values == ("What was asked?", "What is asked?")


# -------------------------------------------------------------------------------- newer, older


def with_raw(log: RunLog, n: int, raw: bytes) -> RunLog:
    """The log with an event of another version at the end of a commit."""
    event = UnknownEvent(name=msgspec.json.decode(raw)["type"], raw=msgspec.Raw(raw))
    commits = list(log.commits)
    commits[n - 1] = msgspec.structs.replace(commits[n - 1], events=(*commits[n - 1].events, event))
    return relinked(log, commits)


def test_an_event_of_a_newer_version_is_said_to_be_one() -> None:
    log = with_raw(a_log(), 3, b'{"type":"ChoirJoined","voices":3}')
    found = checked(log)
    assert found.outcome == "newer"
    (problem,) = found.problems
    assert problem.found == "an event 'ChoirJoined'"
    assert "newer version of Podium" in problem.likely
    assert found.decided == 2


def test_a_cause_of_a_newer_version_is_said_to_be_one() -> None:
    log = a_log()
    commits = list(log.commits)
    commits[2] = msgspec.structs.replace(commits[2], causes=("moonrise",))
    found = checked(relinked(log, commits))
    assert (found.outcome, found.problems[0].found) == ("newer", "a cause 'moonrise'")


def test_an_upcaster_brings_an_old_log_to_todays_form() -> None:
    def told(raw: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"type": "RoundPlanned", "round": raw["number"]}]

    log = a_log()
    old = []
    for stored in messages_of(log).commits:
        data = stored.data.replace(
            b'{"type":"RoundPlanned","round":', b'{"type":"RoundBegun","number":'
        )
        old.append(data)
    assert old != [stored.data for stored in messages_of(log).commits]
    assert chained(log.commits) == list(log.commits)
    decoded = [decode_commit(data, {"RoundBegun": told}) for data in old]
    assert [commit.events for commit in decoded] == [commit.events for commit in log.commits]
    assert [encode(commit) for commit in decoded] == [encode(commit) for commit in log.commits]
