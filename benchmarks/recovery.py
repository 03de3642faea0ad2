"""A conductor is killed with many runs in flight: how long until all of them go on.

1,000 runs wait for one call each when the conductor's process gets SIGKILL. Another process is
started at once, as a supervisor does. The broker gives it a run when the dead conductor's lease on
it has run out, so the lease is what the times stand beside. A run goes on when the log has its
second activation. Afterwards every run has to end with its answer, and each call with one report.
"""

import asyncio
import os
import pathlib
import secrets
import signal
import sys
import tempfile
import time
from typing import Final

import msgspec
import uvloop
from nats.aio.msg import Msg

from benchmarks import contender, report
from benchmarks.broker import Broker as Server
from benchmarks.child import Child
from benchmarks.contender import Durability
from benchmarks.errors import BenchmarkError
from benchmarks.podium_contender import MODULE
from benchmarks.podium_processes import LEASE_S, Rounds, queues, spec
from protocol import subjects
from protocol.actions import Pool, Report
from protocol.budgets import Budget
from protocol.codec import decode_commit, encode
from protocol.commands import Start
from protocol.decisions import Task
from protocol.events import AttemptStarted, RunActivated, RunFinished
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams

RUNS: Final = 1_000
"""Runs in flight on the conductor that is killed."""

SLEEP_S: Final = 30.0
"""Seconds that each call takes: longer than the lease, so that all runs are in flight meanwhile."""

LIMIT_S: Final = 180.0
"""Seconds for each stage: far beyond what any has taken."""

IN_LEASES: Final = report.at_most(1.5)
"""Time until all runs go on, in leases: a lease is kept anew three times while it lasts, so it runs
out after two thirds to the whole of it; the rest is starting a process and reading the logs."""


class Recovered(msgspec.Struct, frozen=True):
    """What one kill cost."""

    first_s: float
    all_s: float
    reports: int


class _Watch:
    """Hears every commit, and notes when each run came how far."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.again: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.changed = asyncio.Event()

    async def heard(self, message: Msg) -> None:
        """Take a commit."""
        commit, now = decode_commit(message.data), time.monotonic()
        for event in commit.events:
            match event:
                case AttemptStarted():
                    self.started[commit.run] = now
                case RunActivated(epoch=2):
                    self.again[commit.run] = now
                case RunFinished():
                    self.ended[commit.run] = now
                case _:
                    continue
        self.changed.set()

    async def until_all(self, stage: dict[str, float], what: str) -> None:
        """Wait for all runs to have come to a stage."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while len(stage) < RUNS:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise BenchmarkError(f"{len(stage)} of {RUNS} runs {what} in {LIMIT_S:g} s") from None


async def _submit(broker: Broker) -> list[str]:
    tasks, _ = await queues(broker)
    runs = [subjects.run_id(secrets.token_bytes(8)) for _ in range(RUNS)]
    policy = Rounds(1, 1).spec
    for run in runs:
        start = Start(
            run=run,
            task=Task(text="a benchmark"),
            pool=Pool((spec(SLEEP_S),)),
            policy=policy,
            budget=Budget(),
        )
        await tasks.put(subjects.task("normal", run), encode(start))
    return runs


async def _measure(url: str, folder: pathlib.Path, durability: Durability) -> Recovered:
    def child(role: str, number: int = 1) -> Child:
        command = [sys.executable, "-m", MODULE, role, url, durability, str(SLEEP_S)]
        return Child(f"Podium's {role}", command, folder / f"{role}-{number}.log")

    broker, watch = await Broker.connect(url), _Watch()
    await ensure_streams(broker)
    await broker.client.subscribe("hint.*.c", cb=watch.heard, pending_bytes_limit=-1)
    children = [child("worker"), child("conductor")]
    try:
        runs = await _submit(broker)
        await watch.until_all(watch.started, "began")
        os.kill(children[-1].pid, signal.SIGKILL)
        killed = time.monotonic()
        children.append(await asyncio.to_thread(child, "conductor", 2))
        await watch.until_all(watch.again, "went on")
        await watch.until_all(watch.ended, "ended")
        reports = await _reports(JetStreamLog(broker), runs)
    finally:
        for each in reversed(children):
            await asyncio.to_thread(each.close)
        await broker.close()
    times = sorted(when - killed for when in watch.again.values())
    return Recovered(times[0], times[-1], reports)


async def _reports(log: JetStreamLog, runs: list[str]) -> int:
    """Reports in all inboxes; raises unless every run has its answer by one of them."""
    count = 0
    for run in runs:
        read = await log.read(run)
        state = read.state()
        if (state.outcome, state.answer) != ("finished", "1"):
            raise BenchmarkError(f"run {run} ended {state.outcome} with {state.answer!r}")
        count += sum(isinstance(entry.message, Report) for entry in read.inbox)
    return count


def kill_once(data: pathlib.Path, durability: Durability) -> Recovered:
    """One repeat, on a server of its own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"recovery-{durability}-", dir=data))
    server = Server(folder, durability)
    try:
        found = uvloop.run(_measure(server.url, folder, durability))
    finally:
        server.stop()
    contender.progress(f"{durability}: {found}")
    return found


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """As many kills as asked, for each durability."""
    lines: list[report.Line] = []
    for durability in options.durability:
        found = [kill_once(data, durability) for _ in range(options.repeats)]
        name = f"podium {durability}, conductor killed with {RUNS} runs in flight"
        all_s = [each.all_s for each in found]
        lines += [
            report.Line(f"{name}: first goes on", [each.first_s for each in found], "s"),
            report.Line(f"{name}: all go on", all_s, "s"),
            report.Line(f"{name}: all go on / lease", [s / LEASE_S for s in all_s], "x", IN_LEASES),
            report.Line(f"{name}: reports", [each.reports for each in found], ""),
        ]
    conditions = report.conditions(options, data)
    conditions["runs"] = {"in flight": RUNS, "lease_s": LEASE_S, "sleep_s": SLEEP_S}
    return report.Report("recovery", conditions, lines)
