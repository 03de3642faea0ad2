"""The honest runs of the fuzz test: a policy and a tool whose answer is a function of the task.

Run as a program it hosts one actor, in a process of its own: ``python -m tests.fuzz_pool`` with a
`Declared` in JSON on its input. It says ``ready``, and ends with its input.
"""

import asyncio
import sys
from typing import Final

import msgspec

from actors import programs
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View

ROUNDS: Final = 3
MODULUS: Final = 1_000_003
"""A prime: the values stay small, and a value that is lost or forged changes all that follow."""

WORK_S: Final = 0.3
"""Seconds that a call takes, asleep."""

LARGE_CHARS: Final = 100_000
"""Characters of a value that goes to a blob."""

PLANNED: Final = frozenset(
    f"{number}-{index}" for number in range(1, ROUNDS + 1) for index in (0, 1)
)
"""Ids of the calls that an honest run makes."""

POLICY: Final = PolicySpec(name="python:tests.fuzz_pool:Policy")


async def grow(n: int, large: bool) -> dict[str, object]:
    """A number made of another, and something to carry."""
    await asyncio.sleep(WORK_S)
    return {"n": grown(n), "load": "x" * LARGE_CHARS if large else ""}


def grown(n: int) -> int:
    """What `grow` makes of a number."""
    return (n * n + 1) % MODULUS


def task(n: int) -> Task:
    """A task whose answer is ``expected(n)``."""
    return Task(text=f"grow {n}", inputs={"n": n})


def expected(n: int) -> str:
    """The answer of a run that nobody disturbs."""
    for _ in range(ROUNDS):
        n = (grown(n) + grown(n + 1)) % MODULUS
    return str(n)


class Policy:
    """Two calls a round, on what the round before gave."""

    spec = POLICY

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        n = int(view.task.inputs.get("n", 0))
        for turn in view.turns:
            values = [seen.value["n"] if seen.status == "OK" else 0 for seen in turn.observations]
            n = sum(values) % MODULUS
        if len(view.turns) == ROUNDS or view.final:
            return Reply(decision=Decision(answer=str(n)), version="fuzz")
        large = view.task.inputs.get("n", 0) % 8 == 0
        made = [PlannedCall("grow", {"n": n + i, "large": large and i == 0}) for i in (0, 1)]
        return Reply(decision=Decision(calls=tuple(made)), version="fuzz")


def pool() -> Pool:
    """One tool, with room for all honest calls at once."""
    parameters = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "large": {"type": "boolean"}},
        "required": ["n", "large"],
    }
    adapter = "function:tests.fuzz_pool:grow"
    spec = WorkerSpec(name="grow", adapter=adapter, parameters=parameters, concurrency=256)
    return Pool((spec,))


async def main() -> None:
    """Host one actor until the input ends."""
    line = await asyncio.to_thread(sys.stdin.buffer.readline)
    program = await programs.start(msgspec.json.decode(line, type=programs.Declared))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    await program.stop()


if __name__ == "__main__":
    asyncio.run(main())
