"""The work on DBOS: an asynchronous workflow whose rounds gather their steps.

    python -m benchmarks.peers_env.dbos_peer URL

Calls are steps in the workflow's own process, not queued child workflows: the cheapest call that
DBOS makes durable.
"""

import asyncio
import sys
from typing import Final

import uvloop
from dbos import DBOS, DBOSConfig, SetWorkflowID

from benchmarks.serving import ARGUMENT, ROUNDS, VALUE, WIDTH, claim_stdout, serve

CONNECTIONS: Final = 60
"""Connections to its database: a tenth faster than its default of 20; Postgres allows 100."""


async def call(argument: str) -> str:
    """A worker that returns at once."""
    return VALUE


async def task() -> int:
    """One run: rounds of parallel calls."""
    results: list[str] = []
    for _ in range(ROUNDS):
        results += await asyncio.gather(*(durable_call(ARGUMENT) for _ in range(WIDTH)))
    return len(results)


durable_call = DBOS.step()(call)
durable_task = DBOS.workflow()(task)


async def run(name: str) -> int:
    """One workflow under that id, awaited where it runs."""
    with SetWorkflowID(name):
        results: int = await durable_task()
    return results


async def main(url: str) -> None:
    """Launch DBOS and serve."""
    pipe = claim_stdout()
    DBOS(
        config=DBOSConfig(
            name="peer",
            system_database_url=url,
            sys_db_pool_size=CONNECTIONS,
            log_level="ERROR",
        )
    )
    DBOS.launch()
    try:
        await serve(pipe, lambda: run)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
