"""What tests of rollouts have in common: a small pool, policies that are scripts, and what counts.

The same workers are hosted by the fast lane and by a deployment in memory.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from actors.ports import Adapter, Attempt, Models, Outcome, Policy
from podium.client import Client
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from replay.history import reports
from tests.world import Adapted, World, calls
from trainer.rollouts import Ask, Ended, FastLane

NUMBER: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}

DOUBLE: Final = WorkerSpec(
    name="double", description="Doubles a number.", parameters=NUMBER, reserve=Spend(cost=3)
)
LOSES: Final = WorkerSpec(name="loses", parameters=NUMBER, attempts=1)
HANGS: Final = WorkerSpec(name="hangs", parameters=NUMBER, timeout_ms=200, attempts=1)
POOL: Final = Pool((DOUBLE, LOSES, HANGS))


async def double(attempt: Attempt) -> Outcome:
    """Takes a hundredth of a second for each unit."""
    await asyncio.sleep(attempt.arguments["n"] / 100)
    return Outcome(value=attempt.arguments["n"] * 2, spend=Spend(cost=2))


async def loses(_: Attempt) -> Outcome:
    """The infrastructure's fault."""
    return Outcome(status="EXEC_ERR", fault="infrastructure", value="the host went away")


async def hangs(_: Attempt) -> Outcome:
    """Never comes back."""
    await asyncio.Event().wait()
    raise AssertionError


WORK: Final = {"double": double, "loses": loses, "hangs": hangs}


def host(_start: Start, spec: WorkerSpec) -> Adapter:
    """What the lane hosts for a run."""
    return Adapted(spec, WORK[spec.name])


class Script:
    """Decides by the task's text, at once."""

    def __init__(self, name: str = "script", version: str = "1") -> None:
        self.spec = PolicySpec(name=name)
        self.version = version

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        return Reply(decision=self._decision(view), version=self.version)

    def _decision(self, view: View) -> Decision | None:
        match view.task.text.split():
            case ["circle"]:
                return Decision(answer="dizzy") if view.final else calls(("double", {"n": 1}))
            case ["lose"]:
                return None if view.final else calls(("loses", {"n": len(view.turns)}))
            case ["hang"]:
                seen = [each.status for turn in view.turns for each in turn.observations]
                return Decision(answer=str(seen)) if seen else calls(("hangs", {"n": 1}))
            case ["once"]:
                return Decision(answer="done") if view.turns else calls(("double", {"n": 1}))
            case ["double", *numbers]:
                return self._doubled(view, [int(each) for each in numbers])
            case _:
                return Decision(answer="what?")

    @staticmethod
    def _doubled(view: View, numbers: list[int]) -> Decision:
        """Each number twice, in two rounds; then their sum."""
        if not view.turns:
            return Decision(tuple(PlannedCall("double", {"n": n}) for n in numbers))
        seen = [each.value for each in view.turns[-1].observations]
        if len(view.turns) == 1:
            return Decision(tuple(PlannedCall("double", {"n": n}) for n in seen))
        return Decision(answer=str(sum(seen)))


SCRIPT: Final = Script()


def policies(_spec: PolicySpec, _models: Models) -> Policy:
    """The script, whatever is asked for."""
    return SCRIPT


def lane(**options: Any) -> FastLane:
    """A lane with these workers and the script."""
    return FastLane(host, policies, **options)


def ask(text: str, key: str = "", members: int = 2, **fields: Any) -> Ask:
    """A group of a task."""
    return Ask(
        key=key or text,
        task=Task(text=text),
        pool=POOL,
        policy=fields.pop("policy", SCRIPT.spec),
        budget=fields.pop("budget", Budget(rounds=12)),
        members=members,
    )


def starts(count: int, job: str = "job") -> list[Start]:
    """That many runs, each with numbers of its own."""
    asks = (ask(f"double {n % 7} {n % 3 + 1}", f"{n}", members=1) for n in range(count))
    return [start for each in asks for start in each.starts(job)]


def essence(ended: Ended) -> Any:
    """What a rollout is, but for times and ids; of equal calls, one."""
    state, known = ended.log.state(), reports(ended.log)
    made = {
        repr((each.call.worker, each.call.arguments, each.status, each.fault))
        + (repr((known[each.report].value, known[each.report].spend)) if each.report else "")
        for each in state.calls.values()
    }
    rollout = ended.rollout
    return state.task, state.outcome, state.answer, state.limited_by, rollout.unscorable, made


def as_bytes(ended: Ended) -> bytes:
    """A rollout's log."""
    return msgspec.json.encode([ended.log.commits, ended.log.inbox])


class Memory:
    """A deployment in memory that outlives its connections: each runs in a loop of its own."""

    def __init__(self, *, conducted: bool = True) -> None:
        self.world: World | None = None
        self.log = World().log
        self.conducted = conducted
        self.submitted: list[str] = []

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        """Everything at work, for as long as somebody is connected."""
        world = World(lease_s=30.0)
        world.log = self.log
        world.policies["script"] = SCRIPT
        if self.conducted:
            await world.conductor()
        for spec in POOL.workers:
            await world.worker(spec, WORK[spec.name])
        put = world.tasks.put

        async def noted(subject: str, *rest: Any) -> bool:
            self.submitted.append(subject.rpartition(".")[2])
            return await put(subject, *rest)

        world.tasks.put = noted  # type: ignore[method-assign, assignment]
        try:
            yield Client(world.log, world.tasks, by="trainer", look_s=0.2)
        finally:
            await world.close()
