"""What it brings to work at the same time: the same policy in parallel and serially, and hedged.

A *wide* run asks eight calls of 200 ms at once; in a *chain*, each of eight waits for the last.
The serial variant is the same policy under a budget of one call at a time. *Critical steps* are the
calls that had to wait for each other (`replay.critical`).

For hedging, a run asks two calls of 50 ms. One in twenty takes ten times as long, by a draw that is
the same with and without. What counts is the slowest in a hundred runs, on a worker that has worked
before.

Conductor, worker and client are in one process over a real broker: calls sleep, so nobody is busy.
"""

import asyncio
import pathlib
import random
import tempfile
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from actors.bus import NatsBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.ports import Attempt, Outcome
from actors.worker import Worker, WorkerOptions
from benchmarks import broker, contender, report
from podium.client import Client
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from replay.broker import Broker
from replay.critical import critical_steps
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams

WIDTH: Final = 8
CALL_S: Final = 0.2
"""Seconds of each call of a wide run and of a chain."""

RUNS: Final = 10
"""Runs of one measurement, one after the other."""

QUICK_S: Final = 0.05
"""Seconds of a call that is hedged, where it isn't slow."""

SLOW: Final = 10
"""Times as long as others a slow one takes."""

SHARE: Final = 0.05
"""Of the calls are slow."""

PAIR: Final = 2
"""Calls of a run whose calls are hedged. A second attempt is as likely to be slow: of more calls,
more than one run in a hundred would have both slow, and no second attempt could help it."""

HEDGED_RUNS: Final = 1_000
"""Runs of one measurement: ten are the slowest in a hundred."""

AT_ONCE: Final = 20
"""Of them in flight."""

WIDE: Final = report.at_least(5)
"""Times as long that a wide run takes serially."""

CHAIN: Final = report.at_most(1.05)
"""Of what a chain takes serially, where its calls might run side by side and can't."""

TAIL: Final = report.at_least(2)
"""Times as long that the slowest in a hundred runs takes without hedging."""

MORE: Final = report.at_most(1.1)
"""Of the calls that there are without hedging."""

LEASE_S: Final = 10.0
NAME: Final = "napper"


class Once:
    """Asks one round, then answers."""

    spec = PolicySpec(name="once")

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        if view.turns:
            done = all(seen.status == "OK" for seen in view.turns[0].observations)
            return Reply(decision=Decision(answer="done" if done else "failed"))
        number, chained = int(view.task.inputs["calls"]), bool(view.task.inputs["chained"])
        calls = (
            PlannedCall(NAME, {"n": index}, after=(index - 1,) if chained and index else ())
            for index in range(number)
        )
        return Reply(decision=Decision(calls=tuple(calls)))


class Naps:
    """Sleeps for as long as a draw by the call says."""

    def __init__(self, spec: WorkerSpec, call_s: float, share: float) -> None:
        self.spec, self.made = spec, 0
        self._call_s, self._share = call_s, share

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        self.made += 1
        drawn = random.Random(f"{self.made}").random()
        await asyncio.sleep(self._call_s * (SLOW if drawn < self._share else 1))
        return Outcome(value=1)

    async def close(self) -> None:
        """See `Adapter`."""


class Ran(NamedTuple):
    """What some runs took."""

    took_ms: list[int]
    steps: list[int]
    attempts: int


class Kind(NamedTuple):
    """One measurement."""

    calls: int
    chained: bool = False
    serial: bool = False
    hedge: bool = False
    call_s: float = CALL_S
    share: float = 0.0
    runs: int = RUNS
    at_once: int = 1


async def ran(url: str, kind: Kind) -> Ran:
    """Do the runs of one measurement, on actors of their own."""
    connection = await Broker.connect(url)
    await ensure_streams(connection)
    tasks = JetStreamQueue(connection, subjects.TASKS, lease_s=LEASE_S)
    calls = JetStreamQueue(connection, subjects.CALLS, lease_s=LEASE_S)
    await tasks.ensure(consumers_of("tasks"))
    await calls.ensure(consumers_of(NAME))
    log, bus = JetStreamLog(connection), NatsBus(connection)
    spec = WorkerSpec(name=NAME, concurrency=1_000, hedge=kind.hedge)
    policy, naps = Once(), Naps(spec, kind.call_s, kind.share)

    def clock() -> int:
        return time.time_ns() // 1_000_000

    conductor = Conductor(
        log=log,
        tasks=tasks,
        calls=calls,
        bus=bus,
        policies=lambda _: policy,
        clock=clock,
        options=ConductorOptions(lease_s=LEASE_S),
    )
    worker = Worker(
        adapter=naps,
        log=log,
        calls=calls,
        bus=bus,
        clock=clock,
        options=WorkerOptions(lease_s=LEASE_S),
    )
    await worker.start()
    await conductor.start()
    try:
        return await _measured(Client(log, tasks), kind, naps, spec)
    finally:
        await conductor.stop()
        await worker.stop()
        await connection.close()


async def _measured(client: Client, kind: Kind, naps: Naps, spec: WorkerSpec) -> Ran:
    gate = asyncio.Semaphore(kind.at_once)
    budget = Budget(parallel=1 if kind.serial else 64, calls=200)
    inputs = {"calls": kind.calls, "chained": kind.chained}

    async def one() -> tuple[int, int]:
        async with gate:
            task = Task(text="a benchmark", inputs=inputs)
            run = await client.submit(task, Pool((spec,)), Once.spec, budget)
            result = await client.result(run)
            if result.answer != "done":
                raise RuntimeError(f"run {run} ended with {result.answer!r}")
            log = await client.log(run)
            state = log.state()
            return state.ended_at - state.started_at, critical_steps(log.events())

    # Whatever is made once is made, and the worker has a past.
    await asyncio.gather(*(one() for _ in range(kind.at_once)))
    before = naps.made
    done = await asyncio.gather(*(one() for _ in range(kind.runs)))
    return Ran([took for took, _ in done], [steps for _, steps in done], naps.made - before)


def percentile(values: Sequence[int], share: float) -> int:
    """The value below which that share of them is."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


KINDS: Final[dict[str, Kind]] = {
    "wide": Kind(WIDTH),
    "wide, serial": Kind(WIDTH, serial=True),
    "chain": Kind(WIDTH, chained=True),
    "chain, serial": Kind(WIDTH, chained=True, serial=True),
    "tail": Kind(PAIR, call_s=QUICK_S, share=SHARE, runs=HEDGED_RUNS, at_once=AT_ONCE),
    "tail, hedged": Kind(
        PAIR, hedge=True, call_s=QUICK_S, share=SHARE, runs=HEDGED_RUNS, at_once=AT_ONCE
    ),
}


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Each kind, as often as asked."""
    found: dict[str, list[Ran]] = {name: [] for name in KINDS}
    for number in range(options.repeats):
        for name, kind in KINDS.items():
            folder = pathlib.Path(tempfile.mkdtemp(prefix="parallel-", dir=data))
            server = broker.Broker(folder, "process")
            try:
                found[name].append(asyncio.run(ran(server.url, kind)))
            finally:
                server.stop()
            took = percentile(found[name][-1].took_ms, 0.5)
            contender.progress(f"{number + 1}/{options.repeats} {name}: {took} ms a run")
    return report.Report("parallel", report.conditions(options, data), compared(found))


def compared(found: dict[str, list[Ran]]) -> list[report.Line]:
    """The figures."""

    def middle(name: str) -> list[float]:
        return [float(percentile(each.took_ms, 0.5)) for each in found[name]]

    def slowest(name: str) -> list[float]:
        return [float(percentile(each.took_ms, 0.99)) for each in found[name]]

    def over(above: list[float], below: list[float]) -> list[float]:
        return [a / b for a, b in zip(above, below, strict=True)]

    lines = [report.Line(f"{name}, a run", middle(name), "ms") for name in list(KINDS)[:4]]
    lines += [
        report.Line(
            f"{name}, critical steps",
            [float(max(each.steps)) for each in found[name]],
            "steps",
        )
        for name in list(KINDS)[:4]
    ]
    tried = [[float(each.attempts) for each in found[name]] for name in ("tail, hedged", "tail")]
    return [
        *lines,
        report.Line(
            "wide, serial / parallel", over(middle("wide, serial"), middle("wide")), "x", WIDE
        ),
        report.Line(
            "chain, parallel / serial", over(middle("chain"), middle("chain, serial")), "x", CHAIN
        ),
        report.Line("tail, a run in the middle", middle("tail"), "ms"),
        report.Line("tail, p99", slowest("tail"), "ms"),
        report.Line("tail, hedged, p99", slowest("tail, hedged"), "ms"),
        report.Line(
            "tail, p99 without / with hedging",
            over(slowest("tail"), slowest("tail, hedged")),
            "x",
            TAIL,
        ),
        report.Line("tail, calls with / without hedging", over(*tried), "x", MORE),
    ]
