"""Logs to rollouts: the same bytes however they are folded, and what was really shown and said."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.actions import BlobRef, Report, Spend
from protocol.budgets import Budget
from protocol.codec import blob_ref, digest, encode
from protocol.commands import Activate, Archive, Inbox, PolicyReply
from protocol.decisions import NO_ROOM, WRITTEN, Decision, Reply, Task
from protocol.dialects import prompt_hash
from protocol.errors import InvalidData, NotFound
from protocol.events import Edit, PolicyReplied
from protocol.inbox import SET_ASIDE, Label, Message, Reward
from protocol.run import RULES
from protocol.sampled import Arrays, Sampled, unpack_ids
from protocol.views import view
from replay import tokens
from replay.chain import InboxEntry, RunLog, archived_before, end_of
from replay.critical import critical_steps
from replay.history import entries, values
from replay.memory_log import MemoryLog, MemoryStore
from replay.redecide import redecide
from tests.golden.store import LOGS, Golden
from tests.logs import log_of
from tests.runs import Driver, answer, begin, failure, plan, planned, started
from tests.stored import put, stored_of
from tests.strategies import MOVES
from tests.trees import Sampling, drawn
from tests.unit.test_forks import forked, joined
from tests.unit.test_run_properties import HISTORIES, STARTS, History
from trainer import records
from trainer.fold import Fold, blobs_of, fold, read
from trainer.records import Rollout

several = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])

GOLDEN = [
    (folder.parent, run)
    for folder in sorted(LOGS.glob("*/*/manifest.json"))
    for run in Golden(folder.parent).runs
]


def sampled_run(start: Any, history: History) -> Sampling:
    """A run to which all sorts of things happen, with tokens."""
    world = Sampling(start)
    world.give(Activate("conductor", RULES))
    for moves in history:
        world.happen(*moves)
    return world


def told(log: RunLog, *messages: Message) -> None:
    """Have somebody say something of a run."""
    for message in messages:
        log.inbox.append(InboxEntry(len(log.inbox) + 1, digest(encode(message)), message))


def folded(driver: Driver) -> Rollout:
    return fold(log_of(driver))


# ------------------------------------------------------------------------------ the same bytes


@several
@given(STARTS, HISTORIES, st.lists(st.integers(1, 200), max_size=5))
def test_in_pieces_and_again_after_a_crash_the_bytes_are_the_same(
    start: Any, history: History, cuts: list[int]
) -> None:
    log = log_of(sampled_run(start, history))
    whole = records.encode(fold(log))
    pieces = Fold(log.run)
    for cut in sorted(cuts):
        pieces.take(log, until=cut)
        before = records.encode(pieces.rollout())
        again = Fold(log.run)  # as one that was lost, up to the same event
        again.take(log, until=cut)
        assert records.encode(again.rollout()) == before
    pieces.take(log)
    assert records.encode(pieces.rollout()) == whole
    assert records.decode(whole) == fold(log)
    assert records.encode(records.decode(whole)) == whole


@several
@given(STARTS, HISTORIES)
def test_a_rollout_says_what_the_log_says(start: Any, history: History) -> None:
    world = sampled_run(start, history)
    log = log_of(world)
    found, state, known = fold(log), world.state, world.known
    shown = {
        each.command.turn: view(each.before, values(log), each.before.asked.limited_by)
        for decided in redecide(log)
        for each in decided.steps
        if isinstance(each.command, PolicyReply) and each.before.asked is not None
    }
    for step in found.steps:
        assert step.view == shown[step.turn], "what the policy was shown"
        assert unpack_ids(step.prompt + step.output) == known.get(step.turn, ())
        assert (step.sampled is not None) == (step.turn in known)
        assert step.sampled is None or (step.sampled.arrays, step.sampled.blob) == (None, None)
    assert [step.turn for step in found.steps] == sorted(step.turn for step in found.steps)
    made = [each for step in found.steps for each in step.calls]
    assert [each.call for each in made] == [each.call for each in state.calls.values()]
    assert found.critical_steps == critical_steps(world.events)
    assert (found.outcome, found.answer, found.rounds) == (state.outcome, state.answer, state.round)
    assert found.spend == state.spent
    assert found.elapsed_ms >= 0
    assert (found.unscorable == "open") == (not state.outcome)
    assert found.head == end_of(log) == log.head.hash
    assert found.events == len(world.events)


@pytest.mark.parametrize(("folder", "run"), GOLDEN, ids=lambda each: getattr(each, "name", each))
def test_logs_of_every_version_make_rollouts_with_the_prompts_that_were_shown(
    folder: Path, run: str
) -> None:
    golden = Golden(folder)
    log = golden.log(run)
    files = folder / "blobs"
    blobs = {file.name: file.read_bytes() for file in files.glob("*")}
    found = fold(log, blobs)
    prompts = {
        event.turn: event.prompt for event in log.events() if isinstance(event, PolicyReplied)
    }
    for step in found.steps:
        assert prompts[step.turn] in ("", prompt_hash(found.policy, step.view))
    assert records.decode(records.encode(found)) == found


@given(st.permutations(["1-0", "1-1", "1-2"]))
def test_calls_stand_as_they_were_asked_for_whenever_they_reported(order: list[str]) -> None:
    driver = started(planned(n=1), planned(n=2), planned(n=3))
    for call in order:
        driver.report(call, value=f"of {call}")
    driver.reply(answer())
    found = folded(driver)
    assert [each.value for each in found.steps[0].calls] == ["of 1-0", "of 1-1", "of 1-2"]
    seen = found.steps[1].view.turns[0].observations
    assert [each.call.id for each in seen] == ["1-0", "1-1", "1-2"]


def test_being_archived_changes_nothing() -> None:
    driver = started()
    driver.report("1-0")
    driver.reply(answer())
    before = records.encode(folded(driver))
    driver.give(Archive("memory://a", log_of(driver).head.hash))
    log = log_of(driver)
    assert records.encode(fold(log)) == before
    assert end_of(log) == fold(log).head != log.head.hash


# ----------------------------------------------------------------------------------- what it says


def test_a_call_says_what_all_its_attempts_took() -> None:
    driver = started(planned("agent"), planned())
    driver.lost("1-0", spend=Spend(tokens=10))
    driver.report("1-0", value="it", spend=Spend(tokens=30, cost=5))
    driver.report("1-1", status="EXEC_ERR", fault="worker", value="broke")
    driver.reply(answer(), after_ms=40)
    found = folded(driver)
    first, second = found.steps[0].calls
    assert (first.attempts, first.spend, first.value) == (2, Spend(tokens=40, cost=5), "it")
    assert (second.status, second.fault, second.value) == ("EXEC_ERR", "worker", "broke")
    assert (found.answered, found.elapsed_ms) == (True, 40)


def test_a_rejected_reply_is_a_step_of_the_policy() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned(after=(3,)), sampled=drawn([7, 8], [1, 2])))
    driver.reply(answer())
    bad, good = folded(driver).steps
    assert bad.rejection is not None
    assert bad.rejection.reason == "bad_graph"
    assert (unpack_ids(bad.output), bad.calls) == ((7, 8), ())
    assert good.view.turns[0].rejection == bad.rejection


def test_what_others_write_is_no_step() -> None:
    driver = Driver(begin(budget=Budget(rounds=1)))
    driver.reply(failure())
    driver.wait()
    driver.reply(plan(planned()))
    driver.report("1-0", value="found")
    driver.reply(plan(planned()))
    driver.reply(plan(planned()))
    driver.composed()
    found = folded(driver)
    assert [step.turn for step in found.steps] == [2, 3, 4], "neither a failure nor the composer"
    assert (found.outcome, found.answered, found.limited_by) == ("finished", False, "rounds")

    written = started()
    written.report("1-0")
    written.reply(answer("as a worker wrote it", version=WRITTEN))
    found = folded(written)
    assert [step.turn for step in found.steps] == [1]
    assert found.answered


def test_an_output_that_the_policy_made_the_answer_is_its_answer() -> None:
    driver = Driver(begin())
    driver.reply(plan(planned()))
    driver.report("1-0", value="the output")
    driver.reply(answer().__class__(decision=Decision(last_answers=True)))
    driver.composed()
    found = folded(driver)
    assert (found.answer, found.answered) == ("the output", True)


def test_pauses_do_not_count_as_time() -> None:
    driver = started()
    driver.give(after_ms=100)
    driver.signal("pause")
    driver.at += 5_000
    driver.signal("resume")
    driver.report("1-0")
    driver.reply(answer(), after_ms=20)
    assert folded(driver).elapsed_ms == 120
    driver = started()
    driver.signal("pause")
    driver.at += 5_000
    driver.signal("cancel")
    assert folded(driver).elapsed_ms == 0


def test_rewards_and_labels_are_in_the_order_of_the_log() -> None:
    driver = started()
    log = log_of(driver)
    run = log.run
    told(log, Reward(run=run, channel="a", value=1.0, by="ada"))
    told(log, Label(run=run, key="good", value=True, by="ada"))
    told(log, Label(run=run, key=SET_ASIDE, value="no", by="c1"))
    told(log, Reward(run=run, channel="a", value=0.0, by="bob"))
    told(log, Reward(run=run, channel="a", value=1.0, by="ada"))
    found = fold(log)
    assert [each.value for each in found.rewards] == [1.0, 0.0, 1.0]
    assert [each.key for each in found.labels] == ["good"]


# ----------------------------------------------------------------------------------- unscorable


def ended(driver: Driver) -> Rollout:
    """At its end, with nothing more from the policy."""
    while driver.state.phase != "ended":
        if driver.state.asked is not None and driver.state.asked.asker == "composer":
            driver.composed()
        else:
            driver.wait()
    return folded(driver)


def test_a_fault_of_the_infrastructure_without_an_answer_is_unscorable() -> None:
    lost = started(planned(), budget=Budget(rounds=1))
    lost.lost("1-0")
    lost.lost("1-0")
    lost.reply(plan(planned()))
    lost.reply(plan(planned()))
    found = ended(lost)
    assert (found.outcome, found.unscorable) == ("failed", "infrastructure")

    answered = started(planned())
    answered.lost("1-0")
    answered.lost("1-0")
    answered.reply(answer())
    assert folded(answered).unscorable == ""

    worker = started(planned(), budget=Budget(rounds=1))
    worker.report("1-0", status="EXEC_ERR", fault="worker")
    worker.reply(plan(planned()))
    worker.reply(plan(planned()))
    assert ended(worker).unscorable == "", "a worker's failure is for the policy to cope with"


def test_a_policy_that_never_makes_sense_is_bad_whatever_else_went_wrong() -> None:
    driver = started(planned())
    driver.lost("1-0")
    driver.lost("1-0")
    while driver.state.phase != "ended":
        driver.reply(plan(planned(after=(9,))))
    found = folded(driver)
    assert (found.answered, found.unscorable) == (False, "")


def test_a_policy_that_could_not_be_asked_is_unscorable() -> None:
    driver = started(budget=Budget(wall_ms=60_000))
    driver.report("1-0", value="something")
    found = ended(driver)
    assert (found.outcome, found.answered, found.unscorable) == (
        "finished",
        False,
        "policy_unreachable",
    )


@pytest.mark.parametrize(("spoken", "unscorable"), [(True, ""), (False, "policy_unreachable")])
def test_a_policy_that_went_on_for_too_long_is_bad_and_a_task_too_long_for_it_says_nothing(
    *, spoken: bool, unscorable: str
) -> None:
    driver = started(planned()) if spoken else Driver(begin())
    if spoken:
        driver.report("1-0", value="something")
    full = Reply(status="EXEC_ERR", error="no room", retry=False, finish=NO_ROOM)
    driver.reply(full)
    driver.signal("answer")
    while driver.state.phase != "ended":
        driver.reply(full)
    found = folded(driver)
    assert (found.answered, found.unscorable) == (False, unscorable)


def test_a_run_that_was_cancelled_or_goes_on_is_unscorable() -> None:
    driver = started()
    assert folded(driver).unscorable == "open"
    driver.signal("cancel")
    assert folded(driver).unscorable == "cancelled"


# ---------------------------------------------------------------------------------------- groups


def test_runs_of_one_task_pool_policy_and_version_are_a_group() -> None:
    def group(version: str = "v1", **more: Any) -> str:
        driver = Driver(begin(**more))
        driver.reply(answer(version=version))
        return folded(driver).group

    assert group() == group()
    assert group() != group(task="Something else?")
    assert group() != group(version="v2")
    start = msgspec.structs.replace(begin(), task=Task(text="What is asked?", check={"kind": "x"}))
    driver = Driver(start)
    driver.reply(answer(version="v1"))
    assert folded(driver).group != group(), "the check is part of the task"


def test_forks_of_one_moment_are_a_group_of_their_own() -> None:
    origin = started(planned())
    origin.report("1-0")
    origin.reply(answer())
    log = log_of(origin)
    at = 7

    def fork(at: int, **more: Any) -> str:
        driver = forked(log, at, **more)
        driver.reply(answer("another"))
        return fold(joined(driver, log)).group

    assert fork(at) == fork(at)
    assert fork(at) != fold(log).group
    assert fork(at) != fork(at, edits=(Edit("calls.1-0.value", 2),))


# ----------------------------------------------------------------------------------------- forks


@several
@given(STARTS, HISTORIES, st.integers(1, 10**6), st.lists(MOVES, max_size=12))
def test_a_fork_owns_what_it_has_done_itself(
    start: Any, history: History, pick: int, more: list[Any]
) -> None:
    world = sampled_run(start, history)
    log = log_of(world)
    at = pick % len(world.events) + 1
    if log.state(at).phase == "ended":
        return
    driver = forked(log, at)
    shared = {step.turn for step in fold_until(log, at).steps}
    found = fold(joined(driver, log))
    assert {step.turn for step in found.steps} == shared
    assert not any(step.own for step in found.steps)
    while driver.state.phase == "deciding" and driver.state.asked is not None:
        driver.reply(answer("of the fork"))
    found = fold(joined(driver, log))
    assert {step.turn for step in found.steps if not step.own} == shared
    assert found.origin is not None
    assert found.origin.run == log.run


def fold_until(log: RunLog, at: int) -> Rollout:
    part = Fold(log.run)
    part.take(log, until=at)
    return part.rollout()


# ------------------------------------------------------------------------------------------ edges


def test_tokens_and_values_in_blobs_are_fetched_and_make_the_same_rollout() -> None:
    arrays = Arrays(b"\1\0\0\0", b"\2\0\0\0", b"\0\0\0\0")
    data = tokens.encode(arrays)
    driver = Driver(begin())
    driver.reply(plan(planned(), sampled=Sampled(blob=blob_ref(data))))
    driver.give(inbox_of(driver, blob_ref(b'"a large value"')))
    driver.reply(answer(sampled=drawn([9], [3], after=1)))
    log = log_of(driver)
    assert {ref.sha256 for ref in blobs_of(log)} == {
        blob_ref(data).sha256,
        blob_ref(b'"a large value"').sha256,
    }
    blobs = {blob_ref(each).sha256: each for each in (data, b'"a large value"')}
    first, second = fold(log, blobs).steps
    assert (first.prompt, first.output) == (arrays.prompt, arrays.output)
    assert first.calls[0].value == "a large value"
    assert unpack_ids(second.prompt) == (1, 2, 3)
    with pytest.raises(InvalidData, match="question 1 has no tokens"):
        fold(log, {})
    with pytest.raises(NotFound, match="the value of call 1-0"):
        fold(log, {blob_ref(data).sha256: data})


def inbox_of(driver: Driver, ref: BlobRef) -> Inbox:
    report = Report(run=driver.state.run, call="1-0", attempt=1, status="OK", blob=ref)
    return Inbox(digest(encode(report)), report)


async def test_a_run_is_read_with_its_blobs() -> None:
    value = b'"' + b"x" * 100 + b'"'
    driver = started()
    driver.give(inbox_of(driver, blob_ref(value)))
    driver.reply(answer())
    store = MemoryStore()
    put(store, driver.state.run, stored_of(driver))
    log = MemoryLog(store)
    await log.put_blob(value)
    found = await read(log, driver.state.run)
    assert found.steps[0].calls[0].value == "x" * 100
    with pytest.raises(NotFound, match="has not begun"):
        await read(log, "0" * 13)


def test_what_is_not_all_there_is_said() -> None:
    driver = started()
    driver.signal("cancel")
    driver.give(Archive("memory://a", log_of(driver).head.hash))
    log = log_of(driver)
    log.commits = log.commits[-1:]
    assert archived_before(log)
    with pytest.raises(NotFound, match="is archived in memory://a"):
        fold(log)
    lost = RunLog("r")
    lost.set_aside["origin"] = 1
    with pytest.raises(NotFound, match="is a fork, and what it shares"):
        fold(lost)
    with pytest.raises(InvalidData, match="are no rollout"):
        records.decode(b"{}")


def test_taking_more_of_a_log_goes_on_where_it_was() -> None:
    driver = started()
    part = Fold(driver.state.run)
    part.take(log_of(driver))
    assert part.events == len(driver.events)
    driver.report("1-0")
    driver.reply(answer())
    part.take(log_of(driver))
    assert records.encode(part.rollout()) == records.encode(folded(driver))
    assert part.events == len(list(entries(log_of(driver))))
