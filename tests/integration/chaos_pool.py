"""A policy and tools whose answer is a function of the task: what the runs of the kill tests are.

The policy's next round depends on every value of the round before, so a value that is lost, or
taken from the wrong attempt, changes the answer. The tools take their time asleep, so that a kill
finds them at work.
"""

import asyncio
from typing import Final

from podium.unhosted import CONDUCTOR, CONDUCTOR_PARAMETERS
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, Observation, PlannedCall, PolicySpec, Reply, Task, View

MODULUS: Final = 1_000_003
"""A prime: the values stay small and hit everything."""

MIN_MS: Final = 50
MAX_MS: Final = 300
"""Milliseconds that one call takes."""

CHILD_ROUNDS: Final = 2
"""Rounds of a child run."""

POLICY: Final = PolicySpec(name=f"python:{__name__}:Policy")


async def grow(n: int, ms: int) -> int:
    """A number made of another, after so many milliseconds."""
    await asyncio.sleep(ms / 1_000)
    return grown(n)


async def shift(n: int, ms: int) -> int:
    """A number made of another, after so many milliseconds."""
    await asyncio.sleep(ms / 1_000)
    return shifted(n)


def grown(n: int) -> int:
    """What `grow` gives."""
    return (n * n + 1) % MODULUS


def shifted(n: int) -> int:
    """What `shift` gives."""
    return (31 * n + 7) % MODULUS


def expected(n: int, rounds: int, child: bool = False) -> int:
    """The answer of a run that nothing disturbs."""
    for number in range(rounds):
        found = grown(n) + shifted(n + 1) + shifted(n + 2)
        if child and number == 0:
            found += expected(n, CHILD_ROUNDS)
        n = found % MODULUS
    return n


def task(n: int, rounds: int, child: bool = False) -> Task:
    """A task whose answer is ``expected(n, rounds, child)``."""
    return Task(text=f"{rounds} rounds from {n}", inputs={"n": n, "rounds": rounds, "child": child})


class Policy:
    """Three calls a round, the third one waiting for the others; in some runs a child run, too."""

    spec = POLICY

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        inputs = view.task.inputs
        rounds, n = len(view.turns), int(inputs["n"])
        if view.turns:
            found = [_number(seen) for seen in view.turns[-1].observations]
            if isinstance(text := next((f for f in found if isinstance(f, str)), 0), str):
                return Reply(decision=Decision(answer=text), version="chaos-1")
            n = sum(int(f) for f in found) % MODULUS
        if rounds == inputs["rounds"] or view.final:
            return Reply(decision=Decision(answer=str(n)), version="chaos-1")
        calls = [_call("grow", n), _call("shift", n + 1), _call("shift", n + 2, after=(0, 1))]
        if rounds == 0 and inputs.get("child"):
            of = {"n": n, "rounds": CHILD_ROUNDS}
            calls.append(PlannedCall("band", {"task": f"a child from {n}", "inputs": of}))
        return Reply(decision=Decision(calls=tuple(calls)), version="chaos-1")


def _number(seen: Observation) -> int | str:
    """The value, or a text that no undisturbed run answers with."""
    if seen.status != "OK":
        return f"call {seen.call.id} of {seen.call.worker}: {seen.status}: {seen.value}"
    value = seen.value
    return int(value["answer"] if seen.call.worker == "band" else value)


def _call(worker: str, n: int, after: tuple[int, ...] = ()) -> PlannedCall:
    ms = MIN_MS + n * 7_919 % (MAX_MS - MIN_MS + 1)
    return PlannedCall(worker, {"n": n, "ms": ms}, after=after)


def pool(slots: int) -> Pool:
    """The workers: two tools with so many slots each, and child runs."""
    parameters = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "ms": {"type": "integer"}},
        "required": ["n", "ms"],
    }
    tools = [
        WorkerSpec(
            name=name,
            adapter=f"function:{__name__}:{name}",
            parameters=parameters,
            concurrency=slots,
            attempts=3,
        )
        for name in ("grow", "shift")
    ]
    band = WorkerSpec(
        name="band",
        kind="conductor",
        adapter=CONDUCTOR,
        parameters=CONDUCTOR_PARAMETERS,
        timeout_ms=600_000,
    )
    return Pool((*tools, band))
