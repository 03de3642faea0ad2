"""References to outputs: seen by the rules, put in where an attempt begins, or into an answer."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.attempts import attempt_of, call_message
from actors.ports import Attempt, Outcome
from actors.secrets import Secrets
from actors.work import work_on
from podium.people import asked_in
from podium.unhosted import unhosted
from protocol import edits
from protocol.actions import BlobRef, Json, Pool, WorkerSpec
from protocol.codec import decode_call
from protocol.commands import Activate
from protocol.decisions import Decision, PlannedCall, Reply
from protocol.events import CallSettled, DecisionRejected, Edit
from protocol.limits import MAX_FILLED_BYTES, MAX_REJECTIONS
from protocol.redaction import Redactor
from protocol.references import filled, plain, reference
from protocol.run import RULES
from protocol.views import child_start, compose, fills, view
from tests.runs import CHILD, TOOL, Driver, begin, inbox, last, plan, planned, settled
from tests.strategies import JSON
from tests.unit.test_forks import forked
from tests.unit.test_reproduce import log_of

NOTE = WorkerSpec(
    name="note",
    parameters={
        "type": "object",
        "properties": {"text": {"type": "string"}, "times": {"type": "integer"}},
        "additionalProperties": False,
    },
    secrets=("DB",),
)
ADA = unhosted("ada", "person")
assert ADA is not None
POOL = Pool((TOOL, NOTE, CHILD, ADA))
ONE = reference("1-0", "output")


def note(text: Json = ONE, *, after: tuple[int, ...] = (), **more: Any) -> PlannedCall:
    return PlannedCall("note", {"text": text, **more}, after=after)


def run(*calls: PlannedCall, **more: Any) -> Driver:
    driver = Driver(begin(**{"pool": POOL, **more}))
    driver.reply(plan(*calls))
    return driver


def attempt(driver: Driver, call: str) -> Attempt:
    message = call_message(driver.state, driver.values, call, 1)
    return attempt_of(decode_call(message))


class Says:
    """An adapter that says what it was given."""

    spec = NOTE

    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome(value=attempt.arguments)

    async def close(self) -> None: ...


def made(driver: Driver, call: str, secrets: Secrets | None = None) -> Outcome:
    return asyncio.run(work_on(attempt(driver, call), Says(), secrets or Secrets()))


def answered(driver: Driver) -> str:
    asked = driver.state.asked
    assert asked is not None
    assert asked.asker == "composer"
    driver.reply(compose(view(driver.state, driver.values, asked.limited_by)))
    assert driver.state.outcome == "finished"
    return driver.state.answer


# ------------------------------------------------------------------------------------ the rules


def test_what_is_referred_to_is_seen_and_waited_for() -> None:
    driver = run(planned(), note())
    assert driver.state.calls["1-1"].call.sees == ("1-0",)
    assert list(driver.state.open) == ["1-0"]
    driver.report("1-0", value={"value": 7, "unit": "m"})
    assert list(driver.state.open) == ["1-1"]
    driver.report("1-1")
    driver.reply(plan(note(f"{ONE} and {reference('1-1', 'output')}")))
    assert driver.state.calls["2-0"].call.sees == ("1-0", "1-1")


def test_an_earlier_output_that_is_none_settles_the_call_with_the_cure() -> None:
    driver = run(planned())
    driver.report("1-0", status="EXEC_ERR", fault="worker", value="broken")
    driver.reply(plan(note(), planned()))
    assert settled(driver, "2-0") == ("PARSE_ERR", "policy")
    said = driver.state.calls["2-0"].value
    assert "ended with EXEC_ERR. Have it made again" in said
    assert driver.state.calls["2-0"].attempt == 0
    assert list(driver.state.open) == ["2-1"]


def test_a_failure_in_the_same_round_is_nobody_elses_fault() -> None:
    driver = run(planned(), note(), planned(n=2))
    driver.report("1-0", status="TIMEOUT", fault="worker", value="late")
    assert settled(driver, "1-1") == ("PARSE_ERR", "none")
    driver.report("1-2")
    assert driver.state.phase == "deciding"


def test_what_came_late_is_an_output() -> None:
    driver = run(planned())
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    driver.report("1-0", value=7)
    driver.reply(plan(note()))
    assert made(driver, "2-0").value == {"text": "7"}


@pytest.mark.parametrize("name", ["9-9", "x", "1-1"])
def test_a_reference_to_no_call_settles_the_call(name: str) -> None:
    driver = run(planned(), note(reference(name, "output")))
    assert settled(driver, "1-1") == ("PARSE_ERR", "policy")
    assert f"There is no ${{output:{name}}}" in driver.state.calls["1-1"].value


def test_references_in_a_circle_are_no_graph() -> None:
    driver = run(note(reference("1-1", "output")), note())
    assert last(driver, DecisionRejected).reason == "bad_graph"


def test_older_rules_take_them_for_texts() -> None:
    driver = Driver(begin(pool=POOL), at=1_000)
    driver.give(Activate("older", "3"))
    driver.reply(plan(planned(), note()))
    assert driver.state.calls["1-1"].call.sees == ()
    assert set(driver.state.open) == {"1-0", "1-1"}
    assert made(driver, "1-1").value == {"text": ONE}


def test_what_older_rules_took_for_a_text_is_told_once_newer_ones_are_in_force() -> None:
    driver = Driver(begin(pool=POOL), at=1_000)
    driver.give(Activate("older", "3"))
    driver.reply(plan(planned(), note(reference("x", "output"), after=(0,))))
    driver.give(Activate("newer", RULES))
    driver.report("1-0")
    assert settled(driver, "1-1")[0] == "PARSE_ERR"
    assert "There is no ${output:x}" in driver.state.calls["1-1"].value


def test_a_number_may_be_referred_to_where_a_number_is_wanted() -> None:
    driver = run(planned(), note("x", times=ONE))
    driver.report("1-0", value={"value": 7})
    assert made(driver, "1-1").value == {"text": "x", "times": 7}


@pytest.mark.parametrize(
    ("schema", "value", "given"),
    [
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, 7, 7),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, 7, "7"),
        ({"$ref": "#/$defs/many"}, [1, "a"], [1, "a"]),
        ({"enum": [1, 2]}, 2, 2),
        ({"type": "object"}, "[" * 20_000, "must be of type object"),
        ({"type": "object"}, '{"a":' * 101 + "1" + "}" * 101, "must be of type object"),
    ],
)
def test_it_is_read_as_json_where_no_text_may_stand(schema: Json, value: Json, given: Json) -> None:
    parameters = {"$defs": {"many": {"type": "array"}}, "properties": {"n": schema}}
    spec = WorkerSpec(name="takes", parameters={"type": "object", **parameters})
    driver = run(planned(), PlannedCall("takes", {"n": ONE}), pool=Pool((TOOL, spec)))
    driver.report("1-0", value=value)
    filled_in = Secrets().attempt(attempt(driver, "1-1"), spec)
    if isinstance(filled_in, Outcome):
        assert given in filled_in.value
    else:
        assert filled_in.arguments == {"n": given}


def test_what_does_not_fit_once_it_is_put_in_is_told_with_the_cure() -> None:
    driver = run(planned(), note("x", times=ONE), note("x", times=f"{ONE}0"))
    driver.report("1-0", value="many")
    for call in ("1-1", "1-2"):
        outcome = made(driver, call)
        assert (outcome.status, outcome.fault) == ("PARSE_ERR", "policy")
        assert "must be of type integer" in outcome.value


def test_other_arguments_are_checked_before_anything_is_sent() -> None:
    driver = run(planned(), note(ONE, times="x"), note(ONE, other=ONE))
    assert settled(driver, "1-1") == ("PARSE_ERR", "policy")
    assert settled(driver, "1-2") == ("PARSE_ERR", "policy")


# ----------------------------------------------------------------------------------- the attempt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Paris", "Paris"),
        (5.89, "5.89"),
        ({"value": 67, "unit": "k"}, "67"),
        ({"answer": "yes", "run": "r9"}, "yes"),
        ({"n": 3}, '{"n":3}'),
        ([1, "a"], '[1,"a"]'),
        (None, "null"),
    ],
)
def test_what_an_output_is_put_in_as(value: Json, text: str) -> None:
    assert plain(value) == text
    driver = run(planned(), note(f"<{ONE}>"))
    driver.report("1-0", value=value)
    assert made(driver, "1-1").value == {"text": f"<{text}>"}


@pytest.mark.parametrize("times", [1, 3])
def test_too_much_is_told_and_never_cut(times: int) -> None:
    driver = run(planned(), note(ONE * times))
    driver.report("1-0", value="x" * (MAX_FILLED_BYTES // times + 1))
    outcome = made(driver, "1-1")
    assert (outcome.status, outcome.fault) == ("PARSE_ERR", "policy")
    assert str(MAX_FILLED_BYTES) in outcome.value
    assert len(call_message(driver.state, driver.values, "1-1", 1)) < 1_000_000


def test_no_output_spells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_SECRET_DB", "hunter-two")
    secrets = Secrets.of(NOTE, Secrets().redactor)
    driver = run(planned(), note(f"{ONE} ${{secret:{ONE}}} ${{secret:DB}}"))
    driver.report("1-0", value="${secret:DB}")
    said = made(driver, "1-1", secrets).value
    assert said == {"text": "${secret:DB} ${secret:${secret:DB}} hunter-two"}


def test_a_child_run_and_a_person_are_given_them_too() -> None:
    child = PlannedCall("child", {"task": f"Add {ONE}.", "inputs": {"n": ONE}})
    driver = run(planned(), child, PlannedCall("ada", {"question": f"Is it {ONE}?"}))
    driver.report("1-0", value={"value": 7})
    begun = child_start(driver.state, "1-1", driver.values)
    assert (begun.task.text, begun.task.inputs) == ("Add 7.", {"n": "7"})
    log = log_of(driver, driver.report_of("1-0", attempt=1, value={"value": 7}))
    assert [each.arguments for each in asked_in(log)] == [{"question": "Is it 7?"}]


@pytest.mark.parametrize("value", ["", "[" * 10_000, '{"a":' * 101 + "1" + "}" * 101])
def test_a_child_run_is_given_whatever_was_found(value: str) -> None:
    spec = unhosted("child", "conductor")
    assert spec is not None
    child = PlannedCall("child", {"task": f"Look: {ONE}", "inputs": ONE})
    driver = run(planned(), child, pool=Pool((TOOL, spec)))
    driver.report("1-0", value=value)
    begun = child_start(driver.state, "1-1", driver.values)
    assert (begun.task.text, begun.task.inputs) == (f"Look: {value}", {})


def test_nothing_stands_for_a_value_that_is_not_at_hand() -> None:
    question: dict[str, Json] = {"question": f"Is it {ONE}?"}
    driver = run(planned(), PlannedCall("ada", question))
    report = driver.report_of("1-0", value=None)
    large = msgspec.structs.replace(report, blob=BlobRef("0" * 64, 70_000))
    driver.give(inbox(large))
    assert [each.arguments for each in asked_in(log_of(driver, large))] == [question]
    assert fills(driver.state, "1-1", {}) == {"1-0": None}


def test_a_child_whose_task_would_be_too_long_sees_the_output_instead() -> None:
    driver = run(planned(), PlannedCall("child", {"task": f"Sum up {ONE}."}))
    driver.report("1-0", value="x" * 60_000)
    begun = child_start(driver.state, "1-1", driver.values)
    assert begun.task.text == f"Sum up {ONE}."
    assert begun.task.sees[0].call == "1-0"


# ------------------------------------------------------------------------------------- the answer


def says(answers: str, *calls: PlannedCall) -> Reply:
    return Reply(decision=Decision(calls=calls, answers=answers))


def test_an_output_that_is_named_is_the_answer() -> None:
    driver = run(planned(), planned(n=2))
    driver.report("1-0", value={"value": 7})
    driver.report("1-1", value={"answer": "yes"})
    driver.reply(says(f"{ONE} m, {reference('1-1', 'output')}"))
    assert answered(driver) == "7 m, yes"


def test_it_may_be_one_of_the_calls_that_are_asked_for_with_it() -> None:
    driver = Driver(begin(pool=POOL))
    driver.reply(says(ONE, planned(), planned(n=2)))
    driver.report("1-0", value=7)
    driver.report("1-1", status="EXEC_ERR", fault="worker")
    assert answered(driver) == "7"


def test_if_that_call_fails_the_policy_is_asked() -> None:
    driver = Driver(begin(pool=POOL))
    driver.reply(says(ONE, planned()))
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    assert driver.state.asked is not None
    assert driver.state.asked.asker == "policy"


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (Decision(answers=reference("1-1", "output")), "nothing_to_accept"),
        (Decision(answers=reference("9-9", "output")), "nothing_to_accept"),
        (Decision(answers="seven"), "not_a_decision"),
        (Decision(answers=ONE, last_answers=True), "not_a_decision"),
        (Decision(answers=ONE, answer="seven"), "not_a_decision"),
        (Decision((planned(),), answers=reference("2-1", "output")), "nothing_to_accept"),
    ],
)
def test_an_answer_that_can_not_be_had_is_refused(decision: Decision, reason: str) -> None:
    driver = run(planned(), planned(n=2))
    driver.report("1-0", value=7)
    driver.report("1-1", status="EXEC_ERR", fault="worker")
    driver.reply(Reply(decision=decision))
    assert last(driver, DecisionRejected).reason == reason


def test_refusing_such_an_answer_again_and_again_ends() -> None:
    driver = run(planned(), planned(n=2))
    driver.report("1-1", status="EXEC_ERR", fault="worker")
    driver.report("1-0", value=7)
    for count in range(1, MAX_REJECTIONS + 1):
        driver.reply(says(reference("1-1", "output")))
        assert (driver.state.rejections, len(driver.state.turns)) == (count, 1 + count)
    assert driver.state.final == "rejections"


@pytest.mark.parametrize("value", [" ", ""])
def test_an_empty_output_is_said_to_be_empty(value: str) -> None:
    driver = run(planned())
    driver.report("1-0", value=value)
    driver.reply(says(ONE))
    assert answered(driver) == "(the output of call 1-0 is empty)"


def test_an_answer_of_outputs_fits_into_a_reply() -> None:
    driver = run(planned())
    driver.report("1-0", value="\0" * 60_000)
    driver.reply(says(ONE * 50))
    assert answered(driver).endswith("…")


# ------------------------------------------------------------------------------------------- edits


def test_an_edited_output_is_what_is_put_in() -> None:
    driver = run(planned(), note())
    driver.report("1-0", value=7)
    edits.apply(driver.state, Edit("calls.1-0.value", {"value": 8}))
    assert attempt(driver, "1-1").fill == {"1-0": "8"}
    assert not edits.problem(driver.state, Edit("calls.1-1.arguments.times", ONE))
    assert edits.problem(driver.state, Edit("calls.1-1.arguments.times", "x"))


def test_a_call_at_work_whose_output_a_fork_takes_away_is_settled() -> None:
    driver = run(planned(), note())
    driver.report("1-0", value=7)
    log = log_of(driver, driver.report_of("1-0", attempt=1, value=7))
    fork = forked(log, len(driver.events), edits=(Edit("calls.1-0.status", "EXEC_ERR"),))
    assert settled(fork, "1-1") == ("PARSE_ERR", "policy")
    assert "ended with EXEC_ERR" in fork.state.calls["1-1"].value


@given(value=JSON, name=st.text(st.characters(exclude_characters="{}"), max_size=5))
def test_what_is_put_in_is_never_looked_through(value: Json, name: str) -> None:
    texts = [reference(name, "output"), reference(name)]
    once = filled({"a": texts, "b": value}, secret=lambda _: ONE, output=lambda _: "${secret:x}")
    assert once == {"a": ["${secret:x}", ONE], "b": value}


def test_a_settled_call_says_nothing_of_itself_twice() -> None:
    driver = run(planned(), note())
    driver.report("1-0", status="EXEC_ERR", fault="worker", value="broken")
    found = [each for each in driver.events if isinstance(each, CallSettled)]
    assert [each.call for each in found] == ["1-0", "1-1"]
    assert msgspec.json.encode(found[1]).count(b"EXEC_ERR") == 1


# --------------------------------------------------------------------------------------- redaction


@pytest.mark.parametrize(
    "arguments",
    [
        {"password": ONE},
        {"headers": {"Authorization": f"Bearer {ONE}"}},
        {"text": f"Authorization: Bearer {ONE}"},
        {"url": f"https://ada:{ONE}@db/?token={ONE}"},
    ],
)
def test_a_reference_to_an_output_is_no_secret(arguments: dict[str, Json]) -> None:
    reply = plan(PlannedCall("note", arguments))
    assert Redactor().reply(reply) == reply


def test_a_secret_in_an_answer_that_refers_to_outputs_is_taken_out() -> None:
    said = Redactor().reply(says(f"password=hunter2-hunter2 {ONE}")).decision
    assert said is not None
    assert said.answers == f"password=[redacted:password] {ONE}"
