"""The virtual loop: time jumps, order is fixed, a killed process does nothing any more."""

import asyncio
import random
from typing import Final

from podium.sim.loop import Life, VirtualLoop
from podium.sim.run import drawn
from podium.sim.world import World

SECOND: Final = 1.0
"""Of virtual time: nothing here waits."""


def life(stop_at: int = 0, name: str = "p") -> Life:
    def stop(which: Life) -> None:
        which.frozen = True

    return Life(name, 0, stop_at, stop)


def run(loop: VirtualLoop) -> None:
    assert not loop.run(lambda: False, 1e9), "it ends when nothing would ever happen again"


def test_time_jumps_to_the_next_timer() -> None:
    loop, seen = VirtualLoop(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time()))

    process = life()
    for name, seconds in (("slow", 3_600.0), ("quick", 0.5)):
        loop.spawn(process, sleeper(name, seconds), name)
    run(loop)
    assert seen == [("quick", 0.5), ("slow", 3_600.0)]


def test_asyncio_s_tools_work_on_it() -> None:
    loop, seen = VirtualLoop(), list[object]()

    async def main() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(event.wait())
        try:
            async with asyncio.timeout(2):
                await asyncio.shield(waiting)
        except TimeoutError:
            seen.append(loop.time())
        event.set()
        seen.append(await waiting)
        seen.append(await asyncio.gather(asyncio.sleep(SECOND), asyncio.sleep(2 * SECOND)))
        seen.append(loop.time())

    loop.spawn(life(), main(), "main")
    run(loop)
    assert seen == [2.0, True, [None, None], 4.0]


def test_a_killed_process_takes_no_further_step() -> None:
    loop, said = VirtualLoop(), list[str]()
    process = life()

    async def works() -> None:
        try:
            while True:
                await asyncio.sleep(SECOND)
                said.append("step")
        finally:
            await asyncio.sleep(0)
            said.append("its end is nobody's concern")

    loop.spawn(process, works(), "works")
    loop.post(2.5, None, process.kill, loop)
    run(loop)
    assert said[:2] == ["step", "step"]
    assert said.count("step") == 2
    assert loop.now == 2.5, "its timers come to nothing"


def test_a_frozen_process_goes_on_where_it_was() -> None:
    loop, seen = VirtualLoop(), list[float]()
    process = life(stop_at=2)

    async def ticks() -> None:
        for _ in range(3):
            await asyncio.sleep(SECOND)
            seen.append(loop.time())

    loop.spawn(process, ticks(), "ticks")
    loop.post(10.0, None, process.thaw, loop)
    run(loop)
    assert seen == [10.0, 11.0, 12.0], "what came meanwhile comes when it wakes"


def test_a_seed_always_gives_the_same_history() -> None:
    def played(seed: int) -> tuple[object, ...]:
        jobs, plan = drawn(seed)
        world = World(seed, jobs, plan)
        history = world.play()
        stored = [
            (name, kept.subject, kept.data)
            for name, stream in world.server.streams.items()
            for kept in stream.by_seq.values()
        ]
        return history.steps, history.seconds, history.crashes, stored

    for seed in random.Random(0).sample(range(10_000), 5):
        assert played(seed) == played(seed)
        assert played(seed) != played(seed + 1)
