"""Forks over a real broker and real processes: their origin keeps every byte, no kill loses any."""

import asyncio
from pathlib import Path

import pytest

from podium.host import Host
from protocol import subjects
from protocol.events import AttemptStarted, CallSettled, RoundClosed, RunActivated
from protocol.subjects import child_id
from replay.chain import RunLog, Stored
from replay.history import entries
from replay.redecide import redecide
from tests.integration import chaos_pool
from tests.integration.chaos import eventually, kill
from tests.integration.chaos_load import BUDGET, Witness
from tests.integration.test_freeze import Stage, stage

SHARDS = 3
FORKS = 8

WITHIN_S = 60.0
"""Seconds for anything that must happen, on a busy machine."""


async def stored(host: Host, run: str) -> list[Stored]:
    """A run's commits, byte by byte as the broker has them."""
    stream = subjects.log_stream(subjects.shard(run))
    return await host.broker.read(stream, subjects.commits(run))


async def workers(there: Stage) -> None:
    for name in ("grow", "shift"):
        await there.start(f"worker-{name}-1", name)


async def begun(there: Stage, host: Host, n: int, rounds: int, child: bool = False) -> str:
    """A run of the chaos pool."""
    task = chaos_pool.task(n, rounds, child)
    return await host.client.submit(task, there.pool, chaos_pool.POLICY, BUDGET)


async def ended(host: Host, run: str) -> RunLog:
    """The run's log when it has ended."""
    async with asyncio.timeout(WITHIN_S):
        await host.client.result(run)
    return await host.client.log(run)


async def settled(host: Host, witness: Witness, run: str, rounds: int) -> RunLog:
    """The run's log when so many rounds are closed, and the next is under way."""
    while True:
        log = await host.client.log(run)
        state = log.state()
        if state.round > rounds and any(
            call.status for n, call in state.calls.items() if n in state.current
        ):
            return log
        await witness.moments(1, WITHIN_S)


def right(log: RunLog, answer: int) -> None:
    """It has answered as an undisturbed run, and today's rules decide as it did."""
    state = log.state()
    assert (state.outcome, state.answer) == ("finished", str(answer)), state.detail
    assert not log.aside
    for decided in redecide(log):
        assert decided.events == decided.commit.events
    own = [
        event.call
        for commit in log.commits
        for event in commit.events
        if isinstance(event, CallSettled)
    ]
    assert len(own) == len(set(own)), "a call counts once"


@pytest.mark.slow
async def test_forks_of_a_run_at_work_survive_their_conductor_and_leave_it_as_it_is(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, SHARDS) as (there, host, witness):
        await workers(there)
        first = await there.start("conductor-a")
        run = await begun(there, host, 5, 12)
        log = await settled(host, witness, run, 2)
        before, at = await stored(host, run), len(entries(log))
        forks = await host.client.fork(run, at, times=FORKS)

        async def all_begun() -> bool:
            logs = await asyncio.gather(*(host.client.log(fork) for fork in forks))
            return all(log.commits for log in logs)

        await eventually(all_begun, "every fork has begun", WITHIN_S)
        assert (await host.client.state(run)).phase != "ended", "the origin is at work"
        await kill(first.pid)
        await there.start("conductor-b")

        answer = chaos_pool.expected(5, 12)
        right(await ended(host, run), answer)
        shared = list(log.events())[:at]
        for fork in forks:
            made = await ended(host, fork)
            right(made, answer)
            assert list(made.events())[:at] == shared
            own = [event for commit in made.commits for event in commit.events]
            assert any(isinstance(event, RunActivated) and event.epoch == 2 for event in own)
        assert len({subjects.shard(each) for each in (run, *forks)}) > 1
        after = await stored(host, run)
        assert after[: len(before)] == before

        (again,) = await host.client.fork(run, at)
        right(await ended(host, again), answer)
        assert await stored(host, run) == after, "an ended run is forked and stays as it is"


async def test_a_fork_of_a_child_is_a_root_and_a_forks_child_its_own(tmp_path: Path) -> None:
    async with stage(tmp_path, SHARDS) as (there, host, _):
        await workers(there)
        await there.start("conductor-a")
        run = await begun(there, host, 7, 2, child=True)
        log = await ended(host, run)
        right(log, chaos_pool.expected(7, 2, child=True))
        band = next(c for c, s in log.state().calls.items() if s.call.worker == "band")
        child = await host.client.log(child_id(run, band, 1))
        closed = next(e.number for e in entries(child) if isinstance(e.event, RoundClosed))
        (alone,) = await host.client.fork(child.run, closed)
        made = await ended(host, alone)
        right(made, chaos_pool.expected(7, chaos_pool.CHILD_ROUNDS))
        assert made.state().parent is None
        assert (await host.client.log(run)).commits == log.commits, "nobody was told"

        attempt = next(
            e.number
            for e in entries(log)
            if isinstance(e.event, AttemptStarted) and e.event.call == band
        )
        (fork,) = await host.client.fork(run, attempt)
        right(await ended(host, fork), chaos_pool.expected(7, 2, child=True))
        theirs = await host.client.state(child_id(fork, band, 1))
        assert theirs.parent is not None
        assert (theirs.parent.run, theirs.outcome) == (fork, "finished")
