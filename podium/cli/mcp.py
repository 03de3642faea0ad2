"""`podium mcp`: Podium as a tool of another agent, over stdin and stdout."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from cyclopts import Parameter

from podium.cli.interrupts import EXIT_INTERRUPTED, Interrupts
from podium.cli.options import RUN_LIMITS, RunLimits
from podium.cli.output import Output
from podium.cli.serve import SERVING, Orchestras, Serving, log_to_stderr
from podium.serve.mcp import need, over_stdio


def mcp(
    *,
    dry_run: Annotated[bool, Parameter(help="Check everything and begin nothing.")] = False,
    serving: Serving = SERVING,
    limits: RunLimits = RUN_LIMITS,
) -> int:
    """Offer pools as tools of an MCP server on stdin and stdout."""
    need()
    log_to_stderr()
    return asyncio.run(_serve(Output(serving.json), Orchestras(serving, limits), dry_run))


async def _serve(output: Output, orchestras: Orchestras, dry_run: bool) -> int:
    from podium.serve.runs import Runs

    with Interrupts(output) as interrupts:
        await orchestras.preflight()
        if dry_run:
            output.mutation("stdio", orchestras.would(), dry_run=True)
            return 0

        @asynccontextmanager
        async def hosted() -> AsyncIterator[Runs]:
            async with orchestras.open() as host:
                yield Runs(host.client, orchestras.models)

        async def serve() -> int:
            await over_stdio(orchestras.models, hosted())
            return 0

        ended = await interrupts.unless(serve())
    return EXIT_INTERRUPTED if ended is None else ended
