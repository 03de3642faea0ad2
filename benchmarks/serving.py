"""The child's side of a measurement: the work, the loop that times it, the talk with the parent.

Every contender is timed by this loop, in a process of its own. Standard library only: the peers
load it in their own virtual environment.

The first line out is ``{"ready": true}``. A line in is ``{"concurrency": int, "runs": int}``, a
line out ``{"runs_per_s": float, "p50_ms": float}`` or ``{"error": str}``. The end of the input ends
the child, so none is left behind when the parent dies.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final, TextIO

ROUNDS: Final = 3
"""Rounds of one run."""

WIDTH: Final = 4
"""Parallel calls of one round."""

RESULTS: Final = ROUNDS * WIDTH
"""Results that a finished run has seen."""

ARGUMENT: Final = "y" * 100
"""What a call is asked with: 100 bytes, the size of a short instruction."""

VALUE: Final = "x" * 300
"""What a call returns: 300 bytes, the size of a short answer."""

Run = Callable[[str], Awaitable[int]]
"""Does one run, named by an id never used before, and gives the number of results it has seen."""


def claim_stdout() -> TextIO:
    """The pipe to the parent. Whatever else prints goes to standard error from now on."""
    pipe, sys.stdout = sys.stdout, sys.stderr
    return pipe


async def measure(run: Run, concurrency: int, runs: int) -> dict[str, float]:
    """Do ``runs`` runs, ``concurrency`` at a time: runs a second, and the median run's ms.

    Raises RuntimeError when a run ends without all of its results.
    """
    gate = asyncio.Semaphore(concurrency)
    took: list[float] = []
    stamp = f"{time.time_ns():x}"

    async def one(index: int) -> None:
        async with gate:
            started = time.perf_counter()
            results = await run(f"{stamp}-{index:x}")
            took.append(time.perf_counter() - started)
        if results != RESULTS:
            raise RuntimeError(f"run {index} saw {results} results instead of {RESULTS}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index in range(runs):
            group.create_task(one(index))
    elapsed = time.perf_counter() - began
    return {"runs_per_s": runs / elapsed, "p50_ms": statistics.median(took) * 1e3}


async def serve(pipe: TextIO, prepare: Callable[[], Run]) -> None:
    """Answer the parent until it closes the input; ``prepare`` gives each measurement its start."""
    print(json.dumps({"ready": True}), file=pipe, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        answer: dict[str, float] | dict[str, str]
        try:
            answer = await measure(prepare(), asked["concurrency"], asked["runs"])
        except Exception as error:  # whatever failed is for the parent to say
            causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
            answer = {"error": f"{type(causes[0]).__name__}: {causes[0]}"}
        print(json.dumps(answer), file=pipe, flush=True)


async def wait_for_end(pipe: TextIO) -> None:
    """For a child that measures nothing: say that it is ready, return when the parent is done."""
    print(json.dumps({"ready": True}), file=pipe, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        pass
