"""Hints that no server sent: believed for no longer than until the next look."""

import asyncio

import pytest

from actors.ports import Attempt, Outcome
from protocol.actions import WorkerSpec
from protocol.decisions import Decision, View
from replay.memory_log import MemoryLog
from tests.world import World, calls


def _once(view: View) -> Decision:
    return Decision(answer="done") if view.turns else calls(("tool", {}))


@pytest.mark.parametrize(
    ("seq", "before"), [(10**15, 0), (10**15, 7), (1, 0), (10**15, 10**15), (0, 0)]
)
async def test_a_forged_hint_hides_no_report(seq: int, before: int) -> None:
    world = World(look_s=60.0)  # the first look would come too late to save the run
    working, go = asyncio.Event(), asyncio.Event()

    async def work(_: Attempt) -> Outcome:
        working.set()
        await go.wait()
        return Outcome(value=1)

    world.policy(_once)
    await world.conductor()
    await world.worker(WorkerSpec(name="tool"), work)
    run = await world.submit(world.start())
    await working.wait()
    assert isinstance(world.log, MemoryLog)
    for handler in world.log.store.handlers[run, "i"]:
        handler(b"{}", seq, before)
    go.set()
    log = await world.ended(run)
    assert log.state().outcome == "finished"
    assert log.set_aside.total() == 0
    await world.close()
