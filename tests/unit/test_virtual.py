"""The loop of virtual time by itself; what the simulator adds to it is in `tests/sim`."""

import asyncio

import pytest

from actors.virtual import SWEEP_TIMERS, VirtualLoop, put_down

NEVER: float = 1e12


def test_a_timer_that_was_cancelled_is_not_kept_until_its_time() -> None:
    loop = VirtualLoop()
    for _ in range(5 * SWEEP_TIMERS):
        loop.call_later(NEVER, int).cancel()
    assert len(loop._timers) <= 2 * SWEEP_TIMERS
    kept = [loop.call_later(NEVER, int) for _ in range(3 * SWEEP_TIMERS)]
    assert len(loop._timers) >= len(kept)


def test_it_ends_at_a_time_or_when_something_is_so() -> None:
    loop, seen = VirtualLoop(), list[float]()
    for after in (1.0, 2.0, 3.0):
        loop.call_later(after, lambda: seen.append(loop.time()))
    assert loop.run(lambda: len(seen) == 2, NEVER)
    assert seen == [1.0, 2.0]
    assert not loop.run(lambda: False, 2.5)
    assert not loop.run(lambda: False, NEVER), "nothing would ever happen again"
    assert seen == [1.0, 2.0, 3.0]


def test_what_would_need_a_thread_is_done_here() -> None:
    loop = VirtualLoop()

    def fails() -> None:
        raise KeyError("of the work")

    async def main() -> tuple[int, str]:
        found = await asyncio.to_thread(lambda: 7)
        try:
            await asyncio.to_thread(fails)
        except KeyError as error:
            return found, str(error)
        raise AssertionError

    task = loop.create_task(main())
    assert loop.run(task.done, NEVER)
    assert task.result() == (7, "'of the work'")


def test_work_that_nobody_waits_for_any_more_is_not_done() -> None:
    loop, seen = VirtualLoop(), list[str]()

    async def main() -> None:
        task = loop.create_task(asyncio.to_thread(seen.append, "done"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task = loop.create_task(main())
    assert loop.run(task.done, NEVER)
    assert task.result() is None
    assert not seen


def test_it_says_what_it_cannot_do() -> None:
    async def connects() -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "localhost", 1)

    loop = VirtualLoop()
    task = loop.create_task(connects())
    loop.run(task.done, NEVER)
    with pytest.raises(AttributeError, match="virtual time has no 'create_connection'"):
        task.result()


async def test_a_loop_can_be_run_within_another() -> None:
    outer = asyncio.get_running_loop()
    loop = VirtualLoop()
    task = loop.create_task(asyncio.sleep(NEVER / 2, loop))
    assert loop.run(task.done, NEVER)
    assert task.result() is loop
    assert loop.time() == NEVER / 2
    assert asyncio.get_running_loop() is outer


def test_tasks_can_be_ended_where_they_stand() -> None:
    loop, seen = VirtualLoop(), list[str]()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(NEVER)
        finally:
            seen.append("told")
            await asyncio.sleep(NEVER)

    task = loop.create_task(stubborn())
    loop.run(lambda: True, NEVER)
    put_down([task])
    assert seen == ["told"]
    loop.close()
