"""The rulebook names who really decides each event."""

import inspect
import sys
from importlib import import_module
from types import FrameType
from typing import Any

import pytest
from hypothesis import given

from protocol.actions import NOTHING, Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Activate, Archive, Command, Fork, Start
from protocol.decisions import PlannedCall, PolicySpec, Reply
from protocol.events import AnyEvent, UnknownEvent
from protocol.rules import Draft
from protocol.run import RULES, feed
from protocol.state import RunState
from protocol.transitions import LEGAL
from replay.forks import origin_at
from replay.rulebook import decider
from tests.logs import log_of
from tests.runs import POOL, Driver, answer, begin, failure, plan, planned, started
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough

HELPERS = {"emit", "note", "settle"}
"""Functions through which rules emit, and that decide nothing."""


class Seeing(Draft):
    """A draft that sees who emits each event."""

    def __init__(self, state: RunState, at: int) -> None:
        super().__init__(state, at)
        self.seen: list[tuple[AnyEvent, str]] = []

    def emit(self, event: AnyEvent) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name in HELPERS:
            frame = frame.f_back
        assert frame is not None
        self.seen.append((event, f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"))
        super().emit(event)


Emitted = list[tuple[Command, RunState, AnyEvent, str]]


def emitted(driver: Driver) -> Emitted:
    """Every event of a run, what it was decided on, and by whom."""
    found: Emitted = []
    for before, commands, decided in driver.steps:
        draft = Seeing(before, decided.at)
        for command in commands:
            state, count = draft.state.copy(), len(draft.seen)
            feed(draft, [command])
            found += [(command, state, event, by) for event, by in draft.seen[count:]]
        assert draft.events == decided.events
    return found


def stories() -> list[Driver]:
    """Runs that meet what chance seldom does."""
    paused = Driver(begin(budget=Budget(rounds=1, on_limit="pause")))
    paused.reply(plan(planned()))
    paused.report("1-0")
    paused.signal("extend", rounds=1)
    wall = started(budget=Budget(wall_ms=1_000, on_limit="pause"))
    wall.deadline(after_ms=1_000)
    slow = Driver(begin(budget=Budget(wall_ms=1_000, on_limit="pause")))
    slow.deadline(after_ms=300_000)
    killed = started()
    for _ in range(12):
        killed.activate(after_ms=1)
    composed = started(budget=Budget(rounds=1))
    composed.report("1-0")
    for _ in range(2):
        composed.reply(Reply(text="I don't know"))
    composed.reply(Reply(text="the composer fails, too"))
    nothing = Driver(begin(budget=Budget(rounds=0)))
    nothing.reply(Reply())
    nothing.reply(Reply())
    unavailable = Driver(begin())
    unavailable.reply(failure(retry=False))
    rejected = Driver(begin())
    rejected.reply(plan(planned(after=(5,))))
    log = log_of(rejected)
    fork = Driver(at=rejected.at + 1)
    at = next(i for i, e in enumerate(log.events()) if type(e).__name__ == "DecisionRejected")
    fork.state = log.state(at)
    fork.give(Fork(run="f" * 13, origin=origin_at(log, at)), Activate("c", RULES))
    broke = Driver(begin(budget=Budget(calls=3), policy=PolicySpec(name="p", reserve=NOTHING)))
    broke.reply(plan(*[planned(n=n) for n in range(5)]))
    for call in ("1-0", "1-1", "1-2"):
        broke.report(call)
    cancelled = started()
    for kind in ("pause", "resume", "answer"):
        cancelled.signal(kind)
    cancelled.signal("cancel")
    late = started(planned(n=1), planned("agent", n=2), planned(n="x"))
    late.wait()
    late.report("1-0")
    late.lost("1-1")
    late.reply(answer())
    late.give(Archive("file:///archive", "f" * 32))
    person = WorkerSpec(name="ada", kind="person", timeout_ms=86_400_000)
    people = started(
        *(PlannedCall("ada", {}), PlannedCall("tool", {"n": 1}), planned(after=(0,))),
        pool=Pool((*POOL.workers, person)),
    )
    people.report("1-1")
    people.signal("pause")
    people.signal("resume")
    people.report("1-0")
    asked = started(*[PlannedCall("ada", {})] * 2, pool=Pool((person,)))
    asked.signal("replan")
    asked.reply(plan(PlannedCall("ada", {})))
    asked.wait()
    return [
        *(paused, wall, slow, killed, composed, nothing, unavailable, rejected, fork, broke),
        *(cancelled, late, people, asked),
    ]


STORIES = stories()


@pytest.mark.parametrize("driver", STORIES, ids=lambda driver: str(STORIES.index(driver)))
def test_each_story_is_decided_by_whom_the_rulebook_says(driver: Driver) -> None:
    for command, state, event, by in emitted(driver):
        assert decider(command, event, state) == by


@thorough
@given(STARTS, HISTORIES)
def test_any_run_is_decided_by_whom_the_rulebook_says(start: Start, history: History) -> None:
    for command, state, event, by in emitted(lived(start, history)):
        assert decider(command, event, state) == by


def test_the_stories_meet_every_event_and_each_name_is_a_function_that_makes_it() -> None:
    met: dict[str, set[str]] = {}
    for driver in STORIES:
        for command, state, event, _ in emitted(driver):
            met.setdefault(type(event).__name__, set()).add(decider(command, event, state))
    every = {kind.__name__ for kind in LEGAL} - {UnknownEvent.__name__}
    assert every == met.keys()
    assert len(met["RunPaused"]) == 6
    assert len(met["CallSettled"]) == 5
    assert len(met["RunFailed"]) == 2
    assert len(met["DecisionRejected"]) == 2
    for names in met.values():
        for name in names:
            module, _, function = name.rpartition(".")
            found: Any = getattr(import_module(module), function)
            assert inspect.isfunction(found)
