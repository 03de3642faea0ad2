"""A person is asked: the run waits, holds no place, and goes on with the answer."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from actors.caretaker import Caretaker
from actors.ports import Attempt, Outcome
from actors.waking import AT_HAND_MS
from podium.checks import check_told
from podium.client import Client
from podium.resting import paused
from podium.unhosted import unhosted
from protocol.actions import Pool, Report, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import encode
from protocol.commands import Activate
from protocol.decisions import Decision, PlannedCall, PolicySpec, View
from protocol.errors import Conflict, TooLarge, Usage
from protocol.events import RoundClosed, RunPaused, RunResumed
from protocol.limits import MAX_INLINE_BYTES
from protocol.run import Make, Wait, due
from protocol.schemas import misfit
from protocol.state import RunState
from protocol.views import view
from replay.memory_log import MemoryLog
from replay.scrub import MemoryLedger
from tests.runs import (
    TOOL,
    Driver,
    answer,
    begin,
    inbox,
    last,
    names,
    plan,
    planned,
    settled,
    started,
)
from tests.world import World, calls


def person(name: str = "ada") -> WorkerSpec:
    spec = unhosted(name, "person")
    assert spec is not None
    return spec


POOL = Pool((TOOL, person(), person("ben")))
ASK = PlannedCall("ada", {"question": "Which one?"})
DAY_MS = 86_400_000
ONE = Budget(parallel=1)


def asked(*more: PlannedCall) -> Driver:
    return started(ASK, *more, pool=POOL)


def test_a_question_has_to_be_one() -> None:
    assert misfit(person().parameters, {"question": "Which one?", "choices": ["a"]}) == ""
    assert "question" in misfit(person().parameters, {})


def test_while_only_a_person_is_waited_for_the_run_is_paused() -> None:
    driver = asked()
    paused = last(driver, RunPaused)
    assert (paused.reason, paused.detail) == ("person", "asked in 1-0")
    assert due(driver.state) == [Wait(driver.state.calls["1-0"].deadline)]


def test_time_does_not_count_meanwhile() -> None:
    driver = asked()
    before = driver.state.wall_deadline
    driver.at += DAY_MS
    driver.report("1-0", value="this one")
    assert driver.state.wall_deadline == before + DAY_MS
    assert settled(driver, "1-0") == ("OK", "none")
    driver.reply(answer())
    assert driver.state.outcome == "finished"


def test_it_is_paused_when_the_others_have_come() -> None:
    driver = asked(planned())
    assert driver.state.phase == "working"
    assert Make("1-1", 1) in due(driver.state)
    driver.report("1-1")
    assert last(driver, RunPaused).reason == "person"


def test_it_goes_on_as_soon_as_somebody_can() -> None:
    driver = asked(PlannedCall("ben", {"question": "And you?"}), planned(after=(0,)))
    assert names(driver.report("1-1", value="no")) == ["CallSettled"], "the other is waited for"
    driver.report("1-0", value="yes")
    assert last(driver, RunResumed)
    assert set(driver.state.open) == {"1-2"}


def test_a_person_who_gives_up_has_the_policy_asked_while_another_is_waited_for() -> None:
    ben = PlannedCall("ben", {"question": "And you?"})
    eager = PolicySpec(name="script", replan_on="failure")
    driver = started(ASK, ben, pool=POOL, policy=eager)
    driver.report("1-0", status="EXEC_ERR", fault="worker", value="no idea")
    assert driver.state.asked is not None
    assert driver.state.carried == ("1-1",)


def test_who_pauses_it_keeps_it_paused_when_the_answer_has_come() -> None:
    driver = asked()
    driver.signal("pause")
    assert last(driver, RunPaused).reason == "signal"
    driver.report("1-0", value="this one")
    assert driver.state.phase == "paused"
    driver.signal("resume")
    assert driver.state.asked is not None


def test_who_has_a_paused_run_resumed_sees_it_wait_for_the_person_again() -> None:
    driver = asked()
    before = driver.state.wall_deadline
    driver.at += DAY_MS
    driver.signal("pause")
    driver.at += DAY_MS
    driver.signal("resume")
    assert last(driver, RunPaused).reason == "person"
    assert driver.state.wall_deadline == before + 2 * DAY_MS


def test_who_resumes_it_without_an_answer_sees_it_paused_again() -> None:
    driver = asked()
    assert names(driver.signal("resume")) == ["SignalReceived", "RunResumed", "RunPaused"]


def test_who_wants_the_answer_now_does_not_wait_for_a_person() -> None:
    driver = asked()
    driver.signal("answer")
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert driver.state.asked is not None


# ----------------------------------------------------- the policy is asked while a person is, too


def test_who_wants_a_new_decision_gets_one_and_the_question_stays_open() -> None:
    driver = asked()
    before = driver.state.wall_deadline
    driver.at += DAY_MS
    driver.signal("replan", "1-0")
    assert last(driver, RoundClosed).left == ("1-0",)
    assert driver.state.asked is not None
    assert driver.state.wall_deadline == before + DAY_MS, "the time it was paused does not count"
    driver.reply(plan(planned()))
    driver.report("2-0")
    assert last(driver, RunPaused).detail == "asked in 1-0", "only the person is waited for again"
    driver.report("1-0", value="this one")
    first, second = view(driver.state, driver.values).turns
    assert [call.id for call in first.open] == ["1-0"]
    assert [(seen.call.id, seen.value) for seen in second.late] == [("1-0", "this one")]


def test_a_new_decision_may_do_without_the_person() -> None:
    driver = asked()
    driver.signal("replan")
    driver.reply(answer("without her"))
    assert driver.state.outcome == "finished"
    assert driver.state.open == {}


def test_where_only_an_answer_would_be_accepted_the_person_is_waited_for() -> None:
    driver = started(ASK, pool=POOL, budget=Budget(rounds=1))
    assert names(driver.signal("replan")) == ["SignalReceived", "RunResumed", "RunPaused"]


def test_who_wants_a_new_decision_is_told_where_none_would_be_made() -> None:
    driver = asked()
    check_told("r", "replan", driver.state)
    driver.signal("pause")
    with pytest.raises(Conflict, match=r"can't decide anew: it is paused \(signal\)"):
        check_told("r", "replan", driver.state)
    driver.signal("resume")
    driver.signal("replan")
    with pytest.raises(Conflict, match="its policy is being asked"):
        check_told("r", "replan", driver.state)
    with pytest.raises(Conflict, match="no call of it is at work"):
        check_told("r", "replan", RunState())


def test_a_wish_because_of_a_call_that_is_not_open_changes_nothing() -> None:
    assert names(asked().signal("replan", "1-7")) == ["SignalReceived"]


@pytest.mark.parametrize("call", ["", "1-0"])
def test_runs_of_older_rules_wait_on(call: str) -> None:
    driver = Driver()
    driver.give(begin(pool=POOL), Activate("conductor", "2"))
    driver.reply(plan(ASK))
    assert names(driver.signal("replan", call)) == ["SignalReceived"]


def test_who_names_no_call_means_whichever_goes_on() -> None:
    driver = started(planned(), planned(n=2))
    driver.report("1-0")
    driver.signal("replan")
    assert last(driver, RoundClosed).left == ("1-1",)


# --------------------------------------------------------------------- a person who does not answer


def test_after_thirty_days_it_is_too_late() -> None:
    driver = asked()
    before = driver.state.wall_deadline
    begun = driver.at
    driver.wait()
    assert last(driver, RunResumed).at >= begun + 30 * DAY_MS
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert driver.state.asked is not None, "its policy decides what becomes of it"
    assert driver.state.wall_deadline == before + driver.at - begun


def test_nobody_is_given_up_before_the_time() -> None:
    driver = asked()
    driver.at = driver.state.calls["1-0"].deadline - 1
    assert driver.deadline() == []


def test_who_still_has_time_is_waited_for_when_another_is_given_up() -> None:
    hasty = msgspec.structs.replace(person(), timeout_ms=1_000)
    ben = PlannedCall("ben", {"question": "And you?"})
    driver = started(ASK, ben, pool=Pool((hasty, person("ben"))))
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")
    assert driver.state.pause_reason == "person"
    assert Wait(driver.state.calls["1-1"].deadline) in due(driver.state)
    driver.report("1-1", value="yes")
    assert driver.state.asked is not None


def test_who_is_told_to_wait_by_somebody_waits_on_when_the_time_is_up() -> None:
    driver = asked()
    driver.signal("pause")
    assert due(driver.state) == []
    assert driver.deadline(after_ms=31 * DAY_MS) == []
    driver.signal("resume")
    driver.wait()
    assert settled(driver, "1-0") == ("TIMEOUT", "infrastructure")


# -------------------------------------------------------------------------- beside a real conductor


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


def caretaker_of(world: World) -> Caretaker:
    assert isinstance(world.log, MemoryLog)
    ledger = MemoryLedger(world.log.store)
    return Caretaker(world.log, ledger, world.tasks, clock=world.clock)


async def waiting(
    world: World, decide: Callable[[View], Decision] | None = None, **arguments: object
) -> tuple[Client, str]:
    """A run that waits for a person, and nobody hosts it."""

    def follow(view: View) -> Decision:
        if view.turns:
            return Decision(answer=f"so be it: {view.turns[0].observations[0].value}")
        return calls(("ada", {"question": "Which one?", **arguments}))

    async def never(_: Attempt) -> Outcome:
        raise AssertionError("a person is no actor")

    world.policy(decide or follow)
    world.pool = Pool((person(),))
    await world.worker(WorkerSpec(name="tool"), never)
    await world.conductor()
    client = Client(world.log, world.tasks, by="ada", look_s=0.1)
    run = await world.submit(world.start())
    await world.until(run, lambda log: log.state().phase == "paused")
    return client, run


async def test_an_answer_takes_the_run_up_again(world: World) -> None:
    client, run = await waiting(world)
    (question,) = await client.asked()
    assert (question.run, question.call, question.who) == (run, "1-0", "ada")
    assert question.arguments == {"question": "Which one?"}
    await client.answer(run, "1-0", "the first")
    log = await world.ended(run)
    assert log.state().answer == "so be it: the first"
    assert [entry.message.by for entry in log.inbox if hasattr(entry.message, "by")] == ["ada"]
    assert await client.asked() == []
    with pytest.raises(Conflict, match="nobody is asked"):
        await client.answer(run, "1-0", "the second")


async def test_only_a_choice_that_there_is_can_be_made(world: World) -> None:
    client, run = await waiting(world, choices=["this", "that"])
    with pytest.raises(Usage, match="none of the answers") as caught:
        await client.answer(run, "1-0", "neither")
    assert "this, that" in caught.value.hint
    await client.answer(run, "1-0", "that")
    assert (await world.ended(run)).state().answer == "so be it: that"


async def test_an_answer_that_nobody_has_taken_up_counts_and_may_be_given_again(
    world: World,
) -> None:
    client, run = await waiting(world)
    await world.conductors.pop().stop()
    for _ in range(2):  # whoever is not sure that it was heard says it again
        await client.answer(run, "1-0", "the first")
    assert await client.asked() == []
    with pytest.raises(Conflict, match=r"1-0 of run .* is answered already, by ada"):
        await client.answer(run, "1-0", "the second")
    await world.conductor("c2")
    assert (await world.ended(run)).state().answer == "so be it: the first"


async def test_an_answer_has_a_limit(world: World) -> None:
    client, run = await waiting(world)
    with pytest.raises(TooLarge, match="bytes"):
        await client.answer(run, "1-0", "x" * MAX_INLINE_BYTES)


async def test_a_call_that_nobody_is_asked_in_takes_no_answer(world: World) -> None:
    client, run = await waiting(world)
    with pytest.raises(Conflict, match="nobody is asked in call '1-7'") as caught:
        await client.answer(run, "1-7", "x")
    assert caught.value.hint == "answer one of: 1-0"


async def test_an_answer_whose_sender_dies_wakes_the_run_all_the_same(world: World) -> None:
    client, run = await waiting(world)
    if shell := world.conductors[0].runs.get(run):
        await shell.over.wait()
    assert isinstance(world.log, MemoryLog)
    caretaker = caretaker_of(world)
    assert [await caretaker.sweep() for _ in range(2)] == [[], []], "nobody has answered"
    (question,) = await client.asked()
    said = Report(run=run, call=question.call, attempt=1, status="OK", value="the first", by="ada")
    assert paused(await client.log(run))
    await world.log.post(run, encode(said))  # and the sender dies before it queues the run
    assert not paused(await client.log(run)), "it is about to go on"
    for _ in range(4):  # a quiet run is skipped for some rounds
        await caretaker.sweep()
    assert (await world.ended(run)).state().answer == "so be it: the first"


async def test_a_person_who_does_not_answer_is_given_up_whoever_is_there_then(world: World) -> None:
    """Its conductor is gone by then; another has the run at hand when the time is up."""
    now = world.clock()
    world.clock = lambda: now
    _, run = await waiting(world)
    await world.conductors.pop().stop()
    caretaker = caretaker_of(world)
    assert [await caretaker.sweep() for _ in range(4)] == [[], [], [], []], "there is time"
    later = await world.conductor("c2")
    now += 30 * DAY_MS - AT_HAND_MS // 2
    assert await caretaker.sweep() == [run]
    log = await world.until(run, lambda log: log.state().epoch == 2)
    assert log.state().phase == "paused", "a minute is left"
    assert later.runs[run].state.phase == "paused"
    now += AT_HAND_MS
    log = await world.ended(run)
    assert log.state().answer == "so be it: No report of attempt 1 came before its deadline."
    assert log.state().calls["1-0"].status == "TIMEOUT"


async def test_a_run_that_waits_for_a_person_decides_anew_when_somebody_wants_it(
    world: World,
) -> None:
    def decide(view: View) -> Decision:
        if not view.turns:
            return calls(("ada", {"question": "Which one?"}))
        return Decision(answer=f"without {[call.worker for call in view.turns[0].open]}")

    client, run = await waiting(world, decide)
    await client.signal(run, "replan", call="1-0")
    assert (await world.ended(run)).state().answer == "without ['ada']"
    with pytest.raises(Conflict, match="nobody is asked"):
        await client.answer(run, "1-0", "too late")


async def test_a_call_that_is_not_at_work_is_no_reason(world: World) -> None:
    client, run = await waiting(world)
    with pytest.raises(Conflict, match="call '1-7' is not at work"):
        await client.signal(run, "replan", call="1-7")


async def test_a_run_that_waits_for_a_person_can_be_cancelled(world: World) -> None:
    client, run = await waiting(world)
    await client.signal(run, "cancel")
    assert (await world.ended(run)).state().outcome == "cancelled"
    assert await client.asked() == []


def test_an_answer_that_is_heard_twice_counts_once_though_others_wait_for_a_place() -> None:
    driver = started(
        ASK, PlannedCall("ben", {"question": "And you?"}), planned(), pool=POOL, budget=ONE
    )
    report = driver.report_of("1-0", value="yes")
    driver.give(inbox(report))
    assert driver.give(inbox(report)) == []


def test_by_older_rules_what_is_heard_twice_is_recorded_as_it_was() -> None:
    driver = Driver()
    ben = PlannedCall("ben", {"question": "And you?"})
    driver.give(begin(pool=POOL, budget=ONE), Activate("conductor", "2"))
    driver.reply(plan(ASK, ben, planned()))
    report = driver.report_of("1-0", value="yes")
    driver.give(inbox(report))
    assert names(driver.give(inbox(report))) == ["RunResumed", "RunPaused"]
