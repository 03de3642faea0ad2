"""One adapter of the suite, and how to make it do what the suite asks for."""

import asyncio
from typing import Final, Protocol

from actors.ports import Adapter, Attempt, Outcome
from protocol.actions import Json, Spend

LIMIT_S: Final = 20.0
"""Seconds after which a test that waits for something gives up."""

LARGE: Final = 300_000
"""Characters of a large value: more than one message would keep inline."""


class Case(Protocol):
    """One adapter, and how to make it do each of the things that the suite asks for."""

    adapter: Adapter
    spend: Spend
    """What one attempt that succeeds costs."""
    value: Json
    """What ``ask("ok")`` gives."""
    parties: int
    """Attempts that can be seen to work at the same time."""

    def ask(self, what: str) -> dict[str, Json]:
        """Arguments that bring about ok, fail, wait, large, not text, span."""
        ...

    def span(self, outcome: Outcome) -> str:
        """The traceparent that reached whoever worked, given the outcome of ``span``."""
        ...

    async def started(self) -> None:
        """Return when what ``wait`` starts is at work."""
        ...

    async def stopped(self) -> bool:
        """Whether nothing of it works any more; may wait for it."""
        ...

    async def meet(self) -> list[Outcome]:
        """The outcomes of ``parties`` attempts none of which can end before all have begun."""
        ...


def attempt(arguments: dict[str, Json], timeout_s: float = LIMIT_S) -> Attempt:
    return Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=timeout_s)


async def worked(adapter: Adapter, work: Attempt) -> Outcome:
    """The outcome as the hosting actor makes it: it cancels the adapter at the deadline."""
    try:
        async with asyncio.timeout(work.timeout_s):
            return await adapter.run(work)
    except TimeoutError:
        return Outcome(status="TIMEOUT", fault="worker", value="The deadline is over.")


async def together(case: Case) -> list[Outcome]:
    works = [attempt(case.ask("meet")) for _ in range(case.parties)]
    return list(await asyncio.gather(*(worked(case.adapter, work) for work in works)))
