"""A pool whose tools are instrumented, as a user's own code is: for the tests of traces.

`fetch` makes a span of its own and calls an HTTP server in another process with the context that is
current, as an instrumented client does.
"""

import os
import urllib.request
from typing import Final

from opentelemetry import propagate, trace

from actors.workers.function import spec_of, tool
from podium.unhosted import CONDUCTOR, CONDUCTOR_PARAMETERS
from protocol.actions import Pool, WorkerSpec

SERVER: Final = "TRACING_TEST_SERVER"
"""Environment variable with the address of the HTTP server."""

tracer = trace.get_tracer("a user's own")


@tool
def fetch(n: int) -> int:
    """Fetch a number from a server."""
    with tracer.start_as_current_span("GET /number"):
        headers: dict[str, str] = {}
        propagate.inject(headers)
        request = urllib.request.Request(f"{os.environ[SERVER]}/{n}", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.read())


@tool(timeout_s=0.4)
async def slow() -> int:
    """Never answer in time."""
    import asyncio

    await asyncio.Event().wait()
    return 0


def pool() -> Pool:
    """The two tools, and child runs."""
    band = WorkerSpec(
        name="band", kind="conductor", adapter=CONDUCTOR, parameters=CONDUCTOR_PARAMETERS
    )
    return Pool((spec_of(fetch), spec_of(slow), band))


__all__ = ["SERVER", "fetch", "pool", "slow"]
