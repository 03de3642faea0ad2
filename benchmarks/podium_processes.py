"""Podium's processes for the benchmarks: real conductor, real worker, a policy without thought.

    python -m benchmarks.podium_processes conductor|worker URL DURABILITY [SLEEP_S]

The conductor's process also submits: each task goes through the task queue, as a user's would. A
run counts as done when its end is in the log and its effects are over.
"""

import asyncio
import json
import logging
import resource
import secrets
import sys
import time
from typing import Any, Final, TextIO

import uvloop

from actors import tracing
from actors.bus import NatsBus
from actors.conductor import Conductor, ConductorOptions
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.ports import Attempt, Outcome
from actors.programs import own_process
from actors.run_shell import RunShell
from actors.worker import Worker, WorkerOptions
from benchmarks.child import peak_bytes
from benchmarks.serving import ARGUMENT, ROUNDS, VALUE, WIDTH, claim_stdout, measure, wait_for_end
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.codec import encode
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams

WORKER: Final = "echo"
SLOTS: Final = 20_000
"""Attempts at a time: none of 200 runs of 4 calls, or of 10,000 that sleep, waits for a place."""

LEASE_S: Final = 10.0

SCHEMA: Final = {
    "type": "object",
    "properties": {"q": {"type": "string"}},
    "required": ["q"],
}


class Rounds:
    """Asks for so many rounds of calls, then answers."""

    def __init__(self, rounds: int, width: int) -> None:
        self.spec = PolicySpec(name="rounds")
        self._rounds = rounds
        call = PlannedCall(WORKER, {"q": ARGUMENT})
        self._round = Reply(decision=Decision(calls=(call,) * width), version="1")

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        if len(view.turns) < self._rounds:
            return self._round
        seen = sum(item.value == VALUE for turn in view.turns for item in turn.observations)
        return Reply(decision=Decision(answer=str(seen)), version="1")


class Echo:
    """Returns a short value, at once or after having slept."""

    def __init__(self, sleep_s: float) -> None:
        self.spec = spec(sleep_s)
        self._sleep_s = sleep_s

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        if self._sleep_s:
            await asyncio.sleep(self._sleep_s)
        return Outcome(value=VALUE)

    async def close(self) -> None:
        """See `Adapter`."""


def spec(sleep_s: float) -> WorkerSpec:
    """The one worker of the pool."""
    return WorkerSpec(
        name=WORKER,
        description="returns a short text",
        parameters=SCHEMA,
        concurrency=SLOTS,
        timeout_ms=round(60_000 + 2_000 * sleep_s),
    )


async def queues(broker: Broker) -> tuple[JetStreamQueue, JetStreamQueue]:
    """Tasks and calls, with their consumers."""
    tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=LEASE_S)
    calls = JetStreamQueue(broker, subjects.CALLS, lease_s=LEASE_S)
    await tasks.ensure(consumers_of("tasks"))
    await calls.ensure(consumers_of(WORKER))
    return tasks, calls


class Side:
    """The conductor's process: conducts, submits, and times."""

    def __init__(self, broker: Broker, tasks: JetStreamQueue, conductor: Conductor, start: Start):
        self._broker, self._tasks, self._start = broker, tasks, start
        self._waiting: dict[str, asyncio.Future[int]] = {}
        conductor.on_over = self._over

    def _over(self, shell: RunShell) -> None:
        future = self._waiting.pop(shell.run, None)
        if future is not None and not future.done():
            state = shell.state
            future.set_result(int(state.answer) if state.outcome == "finished" else -1)

    async def run(self, _: str) -> int:
        """One run, from its submission to its end: how many results it saw."""
        run = subjects.run_id(secrets.token_bytes(8))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[run] = future
        start = Start(
            run=run,
            task=self._start.task,
            pool=self._start.pool,
            policy=self._start.policy,
            budget=self._start.budget,
        )
        await self._tasks.put(subjects.task("normal", run), encode(start))
        return await future

    async def serve(self, pipe: TextIO) -> None:
        """Answer the parent until it closes the input."""
        print(json.dumps({"ready": True}), file=pipe, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            answer: dict[str, Any]
            try:
                if "hold" in asked:
                    answer = await self._hold(asked["hold"])
                else:
                    answer = await measure(self.run, asked["concurrency"], asked["runs"])
            except Exception as error:  # whatever failed is for the parent to say
                causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
                answer = {"error": f"{type(causes[0]).__name__}: {causes[0]}"}
            print(json.dumps(answer), file=pipe, flush=True)

    async def _hold(self, runs: int) -> dict[str, float]:
        before = _resident_bytes()
        began = time.perf_counter()
        results = await asyncio.gather(*(self.run("") for _ in range(runs)))
        makespan = time.perf_counter() - began
        if any(result != 1 for result in results):
            raise RuntimeError(f"{sum(r != 1 for r in results)} of {runs} runs did not finish")
        return {"makespan_s": makespan, "before_bytes": before, "peak_bytes": peak_bytes()}


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def conduct(url: str, durability: str, sleep_s: float) -> None:
    """The conductor's process."""
    pipe = claim_stdout()
    broker = await Broker.connect(url, grouped=durability == "power")
    await ensure_streams(broker)
    tasks, calls = await queues(broker)
    rounds = Rounds(1, 1) if sleep_s else Rounds(ROUNDS, WIDTH)
    conductor = Conductor(
        log=JetStreamLog(broker),
        tasks=tasks,
        calls=calls,
        bus=NatsBus(broker),
        policies=lambda _: rounds,
        clock=lambda: time.time_ns() // 1_000_000,
        options=ConductorOptions(lease_s=LEASE_S, traced=tracing.wanted()),
    )
    start = Start(
        run="",
        task=Task(text="a benchmark"),
        pool=Pool((spec(sleep_s),)),
        policy=rounds.spec,
        budget=Budget(),
    )
    side = Side(broker, tasks, conductor, start)
    await conductor.start()
    own_process()
    await side.serve(pipe)
    await conductor.stop()
    await broker.close()


async def work(url: str, durability: str, sleep_s: float) -> None:
    """The worker's process."""
    pipe = claim_stdout()
    broker = await Broker.connect(url, grouped=durability == "power")
    await ensure_streams(broker)
    _, calls = await queues(broker)
    flush = tracing.set_up(WORKER)
    worker = Worker(
        adapter=Echo(sleep_s),
        log=JetStreamLog(broker),
        calls=calls,
        bus=NatsBus(broker),
        clock=lambda: time.time_ns() // 1_000_000,
        options=WorkerOptions(lease_s=LEASE_S),
    )
    await worker.start()
    own_process()
    await wait_for_end(pipe)
    await worker.stop()
    flush()
    await broker.close()


def main() -> None:
    """Be one of the two processes."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    role, url, durability, *rest = sys.argv[1:]
    sleep_s = float(rest[0]) if rest else 0.0
    uvloop.run({"conductor": conduct, "worker": work}[role](url, durability, sleep_s))


if __name__ == "__main__":
    main()
