"""An adapter of a user's own."""

import asyncio

from actors import tracing
from actors.ports import Adapter, Attempt, Outcome
from actors.workers import draft, host
from actors.workers.outcomes import failure
from protocol.actions import Json, Spend, WorkerSpec
from tests.adapters.case import LARGE, LIMIT_S, together

COST = Spend(cost=70)


class Own:
    """Does what the suite asks for."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.started, self.stopped = asyncio.Event(), asyncio.Event()
        self._barrier = asyncio.Barrier(3)

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        what = attempt.arguments["what"]
        match what:
            case "fail":
                return failure("EXEC_ERR", "worker", "no such thing", COST)
            case "wait":
                self.started.set()
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.stopped.set()
            case "large":
                return Outcome(value="x" * LARGE, spend=COST)
            case "not text":
                return failure("EXEC_ERR", "worker", "\udcff is no text", COST)
            case "span":
                return Outcome(value=tracing.caller(), spend=COST)
            case "meet":
                async with asyncio.timeout(LIMIT_S):
                    await self._barrier.wait()
        return Outcome(value=what, spend=COST)

    async def close(self) -> None:
        """See `Adapter`."""


class OwnCase:
    """A class of a user's own."""

    value: Json = "ok"
    spend = COST
    parties = 3

    def __init__(self) -> None:
        adapter = host(draft(f"class:{__name__}:Own"))
        assert isinstance(adapter, Own)
        self.own = adapter
        self.adapter: Adapter = adapter

    def ask(self, what: str) -> dict[str, Json]:
        return {"what": what}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value)

    async def started(self) -> None:
        await asyncio.wait_for(self.own.started.wait(), LIMIT_S)

    async def stopped(self) -> bool:
        await asyncio.wait_for(self.own.stopped.wait(), LIMIT_S)
        return True

    async def meet(self) -> list[Outcome]:
        return await together(self)
