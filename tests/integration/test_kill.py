"""Kill -9 loses nothing: any process, at any moment, again and again, with runs in flight.

    CHAOS_SEED=7 CHAOS_KILLS=50 CHAOS_RUNS=200 pytest -k random_moments tests/integration

A seed gives the same victims after the same numbers of commits.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from podium.host import Host
from protocol import subjects
from replay.jetstream_log import JetStreamLog
from tests.integration import chaos_pool
from tests.integration.chaos import (
    RECOVERY_LIMIT_S,
    VICTIMS,
    Deployment,
    Victim,
    actors,
    eventually,
    kill,
)
from tests.integration.chaos_check import Found, check
from tests.integration.chaos_load import Load, Witness

SLOTS: Final = 16
"""Calls at a time of each tool: bounds what the runs cost two cores, about 180 calls/s."""

MAX_COMMITS_BETWEEN: Final = 150
"""Commits between a recovery and the next kill, at most: about two seconds of work."""

OVERLAP: Final = 0.2
"""Share of kills that do not wait for the recovery from the one before."""

REPLICAS: Final = ["worker-grow-1", "worker-shift-1"]


class Killer:
    """Kills, and measures how long it takes until everything works again."""

    def __init__(
        self,
        deployment: Deployment,
        host: Host,
        witness: Witness,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.deployment, self.host, self.witness, self.say = deployment, host, witness, say
        self.random = random.Random(seed)
        self.took: dict[Victim, list[float]] = defaultdict(list)
        self.killed: list[Victim] = []

    async def run(self, kills: int) -> None:
        """So many kills, every victim as often as the others."""
        order: list[Victim] = []
        while len(order) < kills:
            order += self.random.sample(VICTIMS, len(VICTIMS))
        for number, victim in enumerate(order[:kills], 1):
            commits = self.random.randrange(MAX_COMMITS_BETWEEN)
            overlapping = number < kills and self.random.random() < OVERLAP
            await self.witness.moments(commits, RECOVERY_LIMIT_S)
            began = time.monotonic()
            old = await self._kill(victim)
            if not overlapping:
                await self._recovered(victim, old)
                self.took[victim].append(time.monotonic() - began)
            took = f"{time.monotonic() - began:.1f} s" if not overlapping else "not waited for"
            self.say(f"kill {number}: {victim} after {commits} commits, {took}")

    async def _kill(self, victim: Victim) -> set[int]:
        """Kill one, and return the processes that must have been replaced afterwards."""
        old = await eventually(lambda: self._of(victim), f"there is a {victim} to kill")
        await kill(old[0])
        self.killed.append(victim)
        if victim == "daemon":
            await self.deployment.up()
        return set(old)

    async def _of(self, victim: Victim) -> list[int]:
        """The victim's process, and those that end with it."""
        d = self.deployment
        match victim:
            case "nats-server":
                return [pid for pid in [d.server()] if pid]
            case "conductor" | "worker":
                there = await actors(self.host)
                kind = [said["pid"] for said in there.values() if said["kind"] == victim]
                return [self.random.choice(sorted(kind))] if kind else []
        find = {
            "raylet": d.raylet,
            "gcs_server": d.gcs_server,
            "cluster": d.cluster,
            "daemon": d.daemon,
        }
        pid = find[victim]()
        there = await actors(self.host)
        return [pid, *(said["pid"] for said in there.values())] if pid else []

    async def _recovered(self, victim: Victim, old: set[int]) -> None:
        if victim == "nats-server":
            await eventually(lambda: self._reconnected(old), "a new nats-server")
        else:
            await eventually(lambda: self._replaced(old), f"every actor is there after {victim}")
        await self.witness.works(REPLICAS, RECOVERY_LIMIT_S)

    async def _reconnected(self, old: set[int]) -> bool:
        return self.deployment.server() not in {0, *old} and self.host.broker.client.is_connected

    async def _replaced(self, old: set[int]) -> bool:
        there = await actors(self.host)
        new = {name for name, said in there.items() if said["pid"] not in old}
        return new >= {"conductor-1", *REPLICAS} and not old & {s["pid"] for s in there.values()}

    def report(self, found: Found, seed: int) -> str:
        """What happened, for whoever reads the test's output."""
        lines = [f"seed {seed}: {len(self.killed)} kills, {found}"]
        for victim in VICTIMS:
            took = self.took[victim]
            if took:
                lines.append(
                    f"{victim:12} {self.killed.count(victim):3} kills, works again after "
                    f"{statistics.median(took):.1f} s (median), {max(took):.1f} s (max)"
                )
        return "\n".join(lines)


async def survive(
    folder: Path, say: Callable[[str], None], runs: int, kills: int, rounds: tuple[int, ...]
) -> None:
    """The whole story: runs in flight, kills, every run finishes, and every log is right."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    runs = int(os.environ.get("CHAOS_RUNS") or runs)
    kills = int(os.environ.get("CHAOS_KILLS") or kills)
    say(f"\nCHAOS_SEED={seed} CHAOS_KILLS={kills} CHAOS_RUNS={runs}")
    pool = chaos_pool.pool(SLOTS)
    deployment = Deployment(folder, pool)
    try:
        await deployment.up()
        async with deployment.connected() as host:
            witness = Witness()
            await witness.listen(host)
            load = Load(host, witness, pool, rounds)
            await load.begin(runs)
            killer = Killer(deployment, host, witness, seed, say)
            async with asyncio.TaskGroup() as group:
                refilling = group.create_task(load.refill())
                await killer.run(kills)
                await load.stop_replacing()
                await refilling
            await load.all_ended(240)
            assert not witness.paused
            found = Found()
            log = JetStreamLog(host.broker)
            for asked in load.asked.values():
                await check(log, asked.run, asked.answer, found)
                if asked.child:
                    await check_children(log, asked.run, asked.n, found)
            say(killer.report(found, seed))
        await deployment.down()
    except BaseException:
        say(deployment.said()[-6_000:])
        raise
    finally:
        await deployment.clear()


async def check_children(log: JetStreamLog, run: str, n: int, found: Found) -> None:
    """The child run whose report counted is as whole as its parent."""
    state = (await log.read(run)).state()
    for call in state.calls.values():
        if call.call.worker == "band":
            child = subjects.child_id(run, call.call.id, call.attempt)
            answer = str(chaos_pool.expected(n, chaos_pool.CHILD_ROUNDS))
            await check(log, child, answer, found)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print past pytest: whoever reads the output of a passed test, too, needs its seed."""

    def out(text: str) -> None:
        with capsys.disabled():
            sys.stderr.write(f"{text}\n")  # of several processes, pytest passes only this on
            sys.stderr.flush()

    return out


async def test_runs_survive_kills_of_every_process_at_random_moments(
    tmp_path: Path, say: Callable[[str], None]
) -> None:
    """A short story; the long one is below."""
    await survive(tmp_path / "podium", say, runs=40, kills=7, rounds=(3, 3, 8))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_200_runs_survive_50_kills(tmp_path: Path, say: Callable[[str], None]) -> None:
    """The long story: some runs live through dozens of kills."""
    await survive(tmp_path / "podium", say, runs=200, kills=50, rounds=(3, 3, 3, 30))
