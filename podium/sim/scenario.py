"""What a simulated deployment is asked to do: runs whose undisturbed answers are known.

The policy decides from the view alone, and what a worker gives depends on its arguments alone. So
the answer of a run that nothing disturbs is a pure function of its task, and a run that was crashed
over and over has to come to the same.
"""

import asyncio
import random
from collections import Counter
from typing import Final, Literal, TypeAlias

import msgspec

from actors.ports import Attempt, Outcome
from protocol import subjects
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, Observation, PlannedCall, PolicySpec, Reply, Task, View
from protocol.inbox import SignalKind

MODULUS: Final = 999_983

BUSY: Final = 0.1
"""The part of all questions that an endpoint refuses."""

DAY_MS: Final = 86_400_000
"""Milliseconds that no simulated run takes: where time must decide nothing."""

HANG_MS: Final = 800
"""Milliseconds after which a worker that hangs is given up."""

WIDE_CHARS: Final = 66_000
"""Characters of a value that has to travel as a blob."""

PRICE: Final = Spend(tokens=30, cost=7)
"""What one attempt of the agent spends."""

RESERVE: Final = Spend(tokens=50, cost=20)
"""What one attempt of the agent may spend."""

_NUMBER: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "op": {"type": "string"}},
    "required": ["n", "op"],
    "additionalProperties": False,
}

TOOL: Final = WorkerSpec(
    name="tool", parameters=_NUMBER, timeout_ms=DAY_MS, wait_ms=DAY_MS, attempts=1_000
)
SLOTH: Final = WorkerSpec(
    name="sloth", parameters=_NUMBER, timeout_ms=HANG_MS, wait_ms=DAY_MS, attempts=1_000
)
AGENT: Final = WorkerSpec(
    name="agent",
    kind="agent",
    replicas=2,
    parameters=_NUMBER,
    reserve=RESERVE,
    timeout_ms=DAY_MS,
    wait_ms=DAY_MS,
    attempts=1_000,
)
BAND: Final = WorkerSpec(
    name="band", kind="conductor", timeout_ms=DAY_MS, wait_ms=DAY_MS, attempts=1
)
WORKERS: Final = (TOOL, SLOTH, AGENT)
POOL: Final = Pool((*WORKERS, BAND))

ADA: Final = WorkerSpec(
    name="ada", kind="person", parameters=_NUMBER, timeout_ms=DAY_MS, wait_ms=1, attempts=1
)
SHARED: Final = Pool((TOOL, SLOTH, msgspec.structs.replace(AGENT, hedge=True), BAND, ADA))
"""The same workers and a person; the agent's calls may be made twice at a time."""

HASTY_MS: Final = 1_500
"""Milliseconds that a worker's answer is waited for, by a run that has no time."""

HASTY: Final = Pool(
    tuple(
        msgspec.structs.replace(spec, timeout_ms=HASTY_MS, wait_ms=HASTY_MS, attempts=2)
        for spec in POOL.workers
    )
)
"""The same workers, with deadlines that pass while something is down."""

HASTY_WALL_MS: Final = 12_000
"""Milliseconds of the whole run."""

AT_ONCE: Final = PolicySpec(name="at-once")
ASKED: Final = PolicySpec(name="asked", reserve=Spend(tokens=10, cost=3))

EAGER: Final = 4
"""One run in so many is replanned as soon as a call of it has failed."""

Op = Literal["grow", "shift", "hang", "flaky", "fail", "wide", "agent", "band", "ask"]

_VALUES: Final[tuple[tuple[Op, int], ...]] = (
    ("grow", 12),
    ("shift", 6),
    ("agent", 4),
    ("flaky", 3),
    ("hang", 1),
    ("fail", 1),
    ("wide", 1),
)


WishKind: TypeAlias = SignalKind | Literal["fork"]


class Wish(msgspec.Struct, frozen=True):
    """A signal that the user gives, about every open call if it is about one; or a fork."""

    after_ms: int
    kind: WishKind


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One root run of a scenario."""

    run: str
    n: int
    rounds: tuple[tuple[Op, ...], ...]
    """The calls of each round."""
    asked: bool
    """Whether the policy has to be waited for."""
    tight: bool
    """Whether the budget is too small for the work."""
    hasty: bool = False
    """Whether deadlines are short, and the run's whole time too."""
    shared: bool = False
    """Whether a person may be asked, and calls be hedged."""
    at_ms: int
    wishes: tuple[Wish, ...] = ()

    @property
    def eager(self) -> bool:
        """Whether the policy is asked as soon as a call has failed."""
        return self.n % EAGER == 0

    @property
    def exact(self) -> bool:
        """Whether the answer is the undisturbed one, whatever happens."""
        limited = self.tight or self.hasty or self.eager
        return not limited and all(w.kind not in ("cancel", "answer") for w in self.wishes)

    @property
    def policy(self) -> PolicySpec:
        """Its policy."""
        spec = ASKED if self.asked else AT_ONCE
        return msgspec.structs.replace(spec, replan_on="failure") if self.eager else spec

    @property
    def pool(self) -> Pool:
        """Its workers."""
        if self.shared:
            return SHARED
        return HASTY if self.hasty else POOL

    @property
    def task(self) -> Task:
        """Its task."""
        rounds = [list(ops) for ops in self.rounds]
        return Task(text=f"from {self.n}", inputs={"n": self.n, "rounds": rounds})

    @property
    def budget(self) -> Budget:
        """What it may spend."""
        if self.tight:
            return Budget(tokens=140, cost=100_000, calls=12, wall_ms=DAY_MS, on_limit="pause")
        wall_ms = HASTY_WALL_MS if self.hasty else DAY_MS
        return Budget(calls=100_000, tokens=10**9, cost=10**9, wall_ms=wall_ms)


def draw_jobs(chance: random.Random) -> list[Job]:
    """The runs of one history."""
    return [_job(chance, number) for number in range(chance.choice((1, 1, 2, 2, 3)))]


def _job(chance: random.Random, number: int) -> Job:
    names, weights = zip(*_VALUES, strict=True)
    rounds = [
        tuple(chance.choices(names, weights, k=chance.choice((1, 1, 2, 3))))
        for _ in range(chance.choice((1, 2, 2, 3)))
    ]
    if chance.random() < 0.25:
        rounds[0] = (*rounds[0], "band")
    run = subjects.run_id(chance.randbytes(8))
    wishes: tuple[Wish, ...] = ()
    kind = chance.random()
    if kind < 0.15:
        wishes = (Wish(_ms(chance), "pause"), Wish(_ms(chance), "resume"))
    elif kind < 0.22:
        wishes = (Wish(_ms(chance), "cancel"),)
    elif kind < 0.27:
        wishes = (Wish(_ms(chance), "answer"),)
    elif kind < 0.32:
        wishes = (Wish(_ms(chance), "extend"),)
    elif kind < 0.44:
        wishes = (Wish(_ms(chance), "fork"), Wish(_ms(chance), "fork"))
    return Job(
        run=run,
        n=chance.randrange(MODULUS),
        rounds=tuple(rounds),
        asked=chance.random() < 0.3,
        tight=chance.random() < 0.15,
        hasty=chance.random() < 0.12,
        at_ms=_ms(chance) if number else 0,
        wishes=wishes,
    )


def _ms(chance: random.Random) -> int:
    ms: float = 5_000 ** chance.random()
    return max(1, round(ms))


# ----------------------------------------------------------------------------------------- deciding


class Rules:
    """The policy: asks for the next round, then answers with the number it has come to."""

    spec = AT_ONCE

    def decide(self, shown: View) -> Reply:
        """See `InstantPolicy`."""
        return Reply(decision=decided(shown), version="sim")


class Endpoint:
    """The same policy, which has to be waited for, and can't always be had."""

    spec = ASKED

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def ask(self, shown: View) -> Reply:
        """See `EndpointPolicy`."""
        await asyncio.sleep(0.05 * self._chance.random())
        if self._chance.random() < BUSY:
            return Reply(status="EXEC_ERR", error="busy", spend=Spend(tokens=1))
        return Reply(decision=decided(shown), version="sim", spend=Spend(tokens=8, cost=2))


def decided(shown: View) -> Decision:
    """What the policy decides: a pure function of what it is shown."""
    inputs = shown.task.inputs
    n, rounds = int(inputs["n"]), inputs["rounds"]
    for turn in shown.turns:
        if turn.observations:
            n = sum(map(worth, (*turn.observations, *turn.late))) % MODULUS
    done = sum(bool(turn.observations) for turn in shown.turns)
    if shown.final or done >= len(rounds):
        return Decision(answer=str(n))
    return Decision(calls=tuple(planned(op, n + i, i) for i, op in enumerate(rounds[done])))


def planned(op: Op, n: int, index: int) -> PlannedCall:
    """One call of a round; the third waits for the first and sees it."""
    if op == "band":
        inputs = {"n": n, "rounds": [["grow", "shift"]]}
        return PlannedCall("band", {"task": f"a child from {n}", "inputs": inputs})
    worker = {"agent": "agent", "hang": "sloth", "ask": "ada"}.get(op, "tool")
    sees = (0,) if index == 2 else ()
    return PlannedCall(worker, {"n": n, "op": op}, sees=sees)


def worth(seen: Observation) -> int:
    """The number that an observation stands for."""
    match seen.status:
        case "TIMEOUT":
            return 1
        case "EXEC_ERR" | "PARSE_ERR":
            return 2
        case _:
            value = seen.value
            if seen.call.worker == "band":
                answer = str(value["answer"])
                return int(answer) if answer.isdecimal() else 3  # it was composed
            return number(value)


def number(value: object) -> int:
    """The number that a worker's value stands for; what is wide begins with it."""
    return int(value[:6]) if isinstance(value, str) else int(str(value))


def expected(job: Job) -> str:
    """The answer of the run when nothing disturbs it."""
    return str(_expected(job.n, job.rounds))


def _expected(n: int, rounds: tuple[tuple[Op, ...], ...]) -> int:
    for ops in rounds:
        n = sum(_gives(op, n + index) for index, op in enumerate(ops)) % MODULUS
    return n


def _gives(op: Op, n: int) -> int:
    match op:
        case "hang":
            return 1
        case "fail":
            return 2
        case "band":
            return _expected(n, (("grow", "shift"),))
        case _:
            return made(op, n)


def made(op: str, n: int) -> int:
    """The number that a worker makes of a number."""
    if op in ("shift", "agent"):
        return (31 * n + 7) % MODULUS
    if op == "wide":
        return 100_000 + n % 800_000
    return (n * n + 1) % MODULUS


# ------------------------------------------------------------------------------------------ working


class Hands:
    """The adapter of all workers; remembers what was really worked on.

    Args:
        spec: Which worker it is.
        chance: For how long it takes.
        worked: Attempts that were worked on, by run, call and attempt.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        chance: random.Random,
        worked: Counter[tuple[str, str, int]],
    ) -> None:
        self.spec, self._chance, self._worked = spec, chance, worked

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        n = int(attempt.arguments["n"])
        op = str(attempt.arguments["op"])
        if self.spec.name == "agent":
            self._worked[attempt.run, attempt.call, attempt.attempt] += 1
        await asyncio.sleep(0.3 * self._chance.random() ** 3)
        match op:
            case "hang":
                await asyncio.sleep(DAY_MS)
                raise AssertionError("it is given up before")
            case "fail":
                raise ValueError("it fails whenever it is called")
            case "flaky" if attempt.attempt == 1:
                return Outcome(status="EXEC_ERR", fault="infrastructure", value="the first time")
            case "wide":
                return Outcome(value=f"{made(op, n)}{'.' * WIDE_CHARS}")
            case "agent":
                return Outcome(value=made(op, n), spend=PRICE)
            case _:
                return Outcome(value=made(op, n))

    async def close(self) -> None:
        """See `Adapter`."""
