"""The fast lane: real runs on virtual time, the same bytes every time, whatever else is at work."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from actors.ports import Adapter, Attempt, Models, Outcome, Policy
from protocol.actions import Pool, Report, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View
from protocol.errors import Internal, InvalidData, NotFound, Usage
from replay.chain import RunLog
from replay.memory_log import MemoryLog
from replay.verify import verify_run
from tests import trees
from tests.rollouts import DOUBLE, as_bytes, ask, host, lane, policies, starts
from tests.world import Adapted, Scripted
from trainer.rollouts import Ended, FastLane, FastLanes, run_of
from trainer.rollouts.cell import Cell
from trainer.rollouts.source import last_version


def test_a_run_is_answered_by_real_rules_and_workers() -> None:
    with lane() as opened:
        (ended,) = opened.run(ask("double 3 4", members=1).starts("job"))
    state = ended.log.state()
    assert (state.outcome, state.answer) == ("finished", "28")
    assert [(each.status, each.call.worker) for each in state.calls.values()] == [
        ("OK", "double")
    ] * 4
    assert ended.run == run_of("job/double 3 4/0") == ended.log.run
    assert ended.rollout.unscorable == ""
    took = [entry.message.latency_ms for entry in ended.log.inbox]  # type: ignore[union-attr]
    assert took == [30, 40, 60, 80], "in virtual milliseconds"
    assert state.ended_at - state.started_at == 120


def test_the_same_starts_give_the_same_bytes_whatever_else_is_at_work() -> None:
    wanted = starts(40)
    seen = []
    for at_once in (1, 7, 64):
        with lane(at_once=at_once) as opened:
            seen.append([as_bytes(each) for each in opened.run(wanted)])
    with lane() as opened:
        seen.append([as_bytes(opened.run([start])[0]) for start in reversed(wanted)][::-1])
    assert all(each == seen[0] for each in seen)
    assert len(set(seen[0])) == len(wanted)


def test_another_job_is_another_series_of_runs() -> None:
    with lane() as opened:
        one, other = (opened.run(starts(3, job))[0] for job in ("a", "b"))
    assert one.run != other.run
    assert as_bytes(one) != as_bytes(other)


async def test_a_run_of_the_lane_verifies_like_any_other() -> None:
    with lane() as opened:
        found = await asyncio.to_thread(
            opened.run,
            [each for text in ("double 1 2", "hang", "circle", "lose") for each in _one(text)],
        )
    for ended in found:
        log = _stored(ended)
        verified = await verify_run(log, ended.run)
        assert verified.outcome == "sound", (ended.log.state().task.text, verified.problems)
        assert verified.decided == len(ended.log.commits)


def _one(text: str) -> tuple[Start, ...]:
    return ask(text, members=1).starts("job")


def _stored(ended: Ended) -> MemoryLog:
    """A log that holds the run, as its bytes."""
    from protocol.codec import encode
    from replay.chain import Stored

    log = MemoryLog()
    store = log.store.messages
    for seq, commit in zip(ended.log.seqs, ended.log.commits, strict=True):
        store[ended.run, "c"].append(Stored(seq, encode(commit)))
    for entry in ended.log.inbox:
        store[ended.run, "i"].append(Stored(entry.seq, encode(entry.message)))
    return log


def test_a_time_out_costs_no_time_and_is_one() -> None:
    with lane() as opened:
        (ended,) = opened.run(_one("hang"))
    assert ended.log.state().answer == "['TIMEOUT']"
    assert ended.log.state().ended_at - ended.log.state().started_at == 200


def test_who_is_at_fault_is_told_and_a_rollout_that_says_nothing_is_marked() -> None:
    with lane() as opened:
        (ended,) = opened.run(_one("lose"))
    assert {each.fault for each in ended.log.state().calls.values()} == {"infrastructure"}
    assert ended.rollout.unscorable == "infrastructure"


def test_a_policy_that_goes_round_in_circles_has_to_answer() -> None:
    with lane() as opened:
        (ended,) = opened.run(_one("circle"))
    state = ended.log.state()
    assert (state.outcome, state.answer, ended.rollout.unscorable) == ("finished", "dizzy", "")
    assert state.limited_by == "signal"


class Lost:
    """A policy that can't be asked."""

    spec = PolicySpec(name="lost")

    async def ask(self, view: View) -> Reply:
        await asyncio.sleep(len(view.turns))
        return Reply(status="EXEC_ERR", error="no route")


def test_a_policy_that_cannot_be_asked_is_not_waited_for() -> None:
    with FastLane(host, lambda _spec, _models: Lost()) as opened:
        (ended,) = opened.run(_one("double 1"))
    assert ended.rollout.unscorable == "policy_unreachable"


class Slow:
    """A policy that is waited for, on virtual time."""

    spec = PolicySpec(name="slow", timeout_ms=5_000)

    async def ask(self, view: View) -> Reply:
        await asyncio.sleep(3_600 if view.task.text == "late" else 2)
        return Reply(decision=Decision(answer="at last"), version="7")


def test_an_endpoint_is_waited_for_on_virtual_time() -> None:
    with FastLane(host, lambda _spec, _models: Slow()) as opened:
        quick, late = opened.run(
            ask("quick", members=1, policy=Slow.spec).starts("job")
            + ask("late", members=1, policy=Slow.spec).starts("job")
        )
    assert quick.log.state().answer == "at last"
    assert quick.log.state().ended_at - quick.log.state().started_at == 2_000
    assert late.rollout.unscorable == "policy_unreachable"


def test_child_runs_are_given_below_the_run_that_called_them() -> None:
    below = WorkerSpec(name="below", kind="conductor", attempts=1)

    def decide(view: View) -> Decision:
        if view.task.text == "double 2":
            return Decision(answer="4")
        if not view.turns:
            return Decision((PlannedCall("below", {"task": "double 2"}),))
        return Decision(answer=str(view.turns[0].observations[0].value))

    with FastLane(host, lambda _spec, _models: Scripted(decide)) as opened:
        start = replace(_one("ask below")[0], pool=Pool((below, DOUBLE)))
        (ended,) = opened.run([start])
    assert "4" in ended.log.state().answer
    (child,) = ended.below
    assert child.log.state().answer == "4"
    assert child.log.state().parent.run == ended.run  # type: ignore[union-attr]


def test_large_values_come_with_the_run() -> None:
    async def long(_: Attempt) -> Outcome:
        return Outcome(value="long " * 20_000)

    def given(_start: Start, spec: WorkerSpec) -> Adapter:
        return Adapted(spec, long)

    with FastLane(given, policies) as opened:
        (ended,) = opened.run(_one("once"))
    refs = [entry.message.blob for entry in ended.log.inbox]  # type: ignore[union-attr]
    assert all(ref is not None and ref.sha256 in ended.blobs for ref in refs)


# ------------------------------------------------------------------------------------- the stream


def test_nothing_is_kept_of_a_run_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Cell] = weakref.WeakSet()
    made = Cell.__init__

    def noted(self: Cell, *given: object) -> None:
        alive.add(self)
        made(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Cell, "__init__", noted)
    most, count = 0, 0
    with lane(at_once=5) as opened:
        for _ in opened.stream(_endless(40)):
            count += 1
            if count % 10 == 0:
                gc.collect()
                most = max(most, len(alive))
        assert opened.in_flight == 0
    assert count == 40
    assert most <= 7, "those in flight, and the one that is given"


def _endless(count: int) -> Iterator[Start]:
    yield from starts(count)


def test_starts_are_taken_as_there_is_room() -> None:
    taken = 0

    def counted() -> Iterator[Start]:
        nonlocal taken
        for start in starts(50):
            taken += 1
            yield start

    with lane(at_once=4) as opened:
        stream = opened.stream(counted())
        next(stream)
        assert taken <= 5
        stream.close()
        assert opened.in_flight == 0, "leaving early drops what is in flight"
        assert len(opened.run(starts(3))) == 3


def test_what_is_in_flight_can_be_dropped() -> None:
    opened = lane(at_once=8)
    stream = opened.stream(starts(20))
    next(stream)
    opened.close()
    assert opened.in_flight == 0
    assert list(stream) == []


# ----------------------------------------------------------------------------------------- errors


def test_a_start_that_nobody_could_take_is_refused() -> None:
    bad = replace(_one("double 1")[0], run="no run")
    with lane() as opened, pytest.raises(InvalidData, match="no run"):
        opened.run([bad])


def test_a_worker_that_cannot_be_had_is_said() -> None:
    def nobody(_start: Start, spec: WorkerSpec) -> Adapter:
        raise NotFound(f"nobody hosts {spec.name}")

    with FastLane(nobody, policies) as opened:
        with pytest.raises(NotFound, match="nobody hosts double"):
            opened.run(starts(3))
        assert opened.in_flight == 0


def test_what_waits_for_a_thread_is_said_and_not_waited_for() -> None:
    async def outside(attempt: Attempt) -> Outcome:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(None, 1)  # type: ignore[arg-type]
        raise AssertionError(attempt)

    async def never(view: View) -> Reply:
        await asyncio.get_running_loop().create_future()
        raise AssertionError(view)

    def given(_start: Start, spec: WorkerSpec) -> Adapter:
        return Adapted(spec, outside)

    with FastLane(given, policies) as opened:
        (ended,) = opened.run(_one("once"))
    report = ended.log.inbox[0].message
    assert isinstance(report, Report)
    assert "virtual time has no 'sock_recv'" in report.value

    class Waits:
        spec = PolicySpec(name="waits", timeout_ms=10**12)
        ask = staticmethod(never)

    start = replace(_one("double 1")[0], budget=Budget(wall_ms=10**13), policy=Waits.spec)
    with (
        FastLane(host, lambda _spec, _models: Waits()) as opened,
        pytest.raises(Internal, match="waits for what never comes"),
    ):
        opened.run([start])


def test_a_lane_does_one_thing_at_a_time() -> None:
    with lane() as opened:
        first = opened.stream(starts(3))
        next(first)
        with pytest.raises(Usage, match="at work already"):
            opened.run(starts(1))
    with pytest.raises(Usage, match="0 runs at once"):
        lane(at_once=0)


def test_a_policy_that_cannot_be_had_is_a_failure_of_it() -> None:
    def missing(spec: PolicySpec, _models: Models) -> Policy:
        raise NotFound(f"there is no policy {spec.name}")

    with FastLane(host, missing) as opened:
        (ended,) = opened.run(_one("double 1"))
    assert ended.rollout.unscorable == "policy_unreachable"
    assert isinstance(ended.log, RunLog)


# -------------------------------------------------------------------------------------- processes


def test_processes_give_the_same_in_the_order_of_the_starts() -> None:
    wanted = starts(30)
    with lane() as opened:
        expected = [as_bytes(each) for each in opened.run(wanted)]
    with FastLanes(lane, 2, parcel=4) as lanes:
        assert [as_bytes(each) for each in lanes.stream(iter(wanted))] == expected
        assert lanes.in_flight == 0
        bad = replace(wanted[0], run="no run")
        with pytest.raises(InvalidData, match="no run"):
            lanes.run([bad])
        assert len(lanes.run(wanted[:3])) == 3, "it goes on after an error"


def test_the_version_is_that_of_the_last_reply_and_not_the_last_by_its_letters() -> None:
    first = trees.rollout(replace(trees.step(1), version="step-9"))
    second = trees.rollout(replace(trees.step(1), version="step-10"), trees.step(2))
    assert last_version([first, second]) == "step-10"
    assert last_version([trees.rollout()], "before") == "before"
