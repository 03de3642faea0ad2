"""The caretaker: whatever was lost of the queue, a run that has begun is taken up again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.caretaker import Caretaker
from actors.ports import Attempt, Outcome
from protocol.actions import WorkerSpec
from protocol.codec import encode
from protocol.decisions import Decision, View
from protocol.inbox import Signal
from replay.memory_log import MemoryLog
from replay.scrub import MemoryLedger
from tests.world import World, calls


class Place:
    """A world with one worker that can be made to wait, and a caretaker."""

    def __init__(self) -> None:
        self.world = World(lease_s=30.0)
        assert isinstance(self.world.log, MemoryLog)
        ledger = MemoryLedger(self.world.log.store)
        self.caretaker = Caretaker(self.world.log, ledger, self.world.tasks, clock=self.world.clock)
        self.gate = asyncio.Event()
        self.working = asyncio.Event()

    async def open(self) -> None:
        """Start the worker and a conductor."""

        async def work(_: Attempt) -> Outcome:
            self.working.set()
            await self.gate.wait()
            return Outcome(value="done")

        def decide(view: View) -> Decision:
            return Decision(answer="an answer") if view.turns else calls(("wait", {}))

        await self.world.worker(WorkerSpec(name="wait"), work)
        self.world.policy(decide)
        await self.world.conductor()

    async def given_back(self, run: str) -> None:
        """Wait until the conductor has let go of a run."""
        shell = self.world.conductors[0].runs.get(run)
        if shell is not None:
            await shell.over.wait()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    await made.open()
    yield made
    made.gate.set()
    await made.world.close()


async def sweep_twice(caretaker: Caretaker) -> list[str]:
    """A run counts as quiet from the second round on."""
    assert await caretaker.sweep() == []
    return await caretaker.sweep()


async def test_a_run_with_its_task_is_left_alone(place: Place) -> None:
    run = await place.world.submit(place.world.start())
    await place.working.wait()
    assert await sweep_twice(place.caretaker) == []
    place.gate.set()
    assert (await place.world.ended(run)).state().outcome == "finished"


async def test_a_run_whose_task_was_lost_is_queued_again_and_ends(place: Place) -> None:
    run = await place.world.submit(place.world.start())
    await place.working.wait()
    for shell in place.world.conductors[0].runs.values():
        shell.abandon()  # its owner is gone ...
    await place.world.tasks.withdraw("tasks.>")  # ... and a late acknowledgement took the task
    assert await sweep_twice(place.caretaker) == [run]
    place.gate.set()
    assert (await place.world.ended(run)).state().answer == "an answer"


async def test_a_signal_that_nobody_has_read_wakes_a_paused_run(place: Place) -> None:
    run = await place.world.submit(place.world.start())
    await place.working.wait()
    pause = Signal(id="1", run=run, kind="pause", by="a test")
    await place.world.log.post(run, encode(pause))
    await place.world.until(run, lambda log: log.state().phase == "paused")
    await place.given_back(run)
    assert await sweep_twice(place.caretaker) == [], "nobody wants it"
    resume = Signal(id="2", run=run, kind="resume", by="a test")
    await place.world.log.post(run, encode(resume))  # and the sender dies before it queues the run
    place.gate.set()
    for _ in range(4):  # a quiet run is skipped for some rounds
        await place.caretaker.sweep()
    assert (await place.world.ended(run)).state().outcome == "finished"


async def test_ended_runs_are_read_once(place: Place) -> None:
    place.gate.set()
    run = await place.world.submit(place.world.start())
    await place.world.ended(run)
    assert await sweep_twice(place.caretaker) == []
    reads = 0
    read = place.world.log.read

    async def counted(run: str) -> object:
        nonlocal reads
        reads += 1
        return await read(run)

    place.caretaker.log.read = counted  # type: ignore[method-assign,assignment]
    assert await place.caretaker.sweep() == []
    assert reads == 0
