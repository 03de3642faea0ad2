"""Podium: a conductor breaks a task into subtasks, a pool of workers does them, a log keeps it all.

All that a user's own code needs is here::

    import podium

    @podium.tool
    def price(product: str) -> float:
        '''The price of a product, in euros.'''
        ...

    result = podium.run("What do a chair and a table cost together?", pool="shop.toml")
    print(result)

`tool` makes a function a worker; a pool file names the workers; `run` has a task done. For more
than that, `Host` opens a deployment and `Client` does everything with runs. Names are loaded when
they are first used, so that importing this is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from actors.workers import Seen, cancelled, tool
    from podium.client import Client
    from podium.config import Config
    from podium.host import Host
    from podium.policyfile import policy_spec
    from podium.poolfile import LoadedPool
    from podium.poolfile import load as load_pool
    from podium.rows import Result, RunRow
    from podium.running import run, run_async
    from protocol.actions import Pool, Spend, WorkerSpec
    from protocol.budgets import Budget, Extension
    from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
    from protocol.errors import (
        Ambiguous,
        Busy,
        Conflict,
        Denied,
        DiskFault,
        Diverged,
        Fenced,
        Internal,
        InvalidData,
        NotFound,
        PodiumError,
        TimedOut,
        TooLarge,
        Unreachable,
        Usage,
    )

_HOMES: Final[dict[str, str]] = {
    "Ambiguous": "protocol.errors",
    "Budget": "protocol.budgets",
    "Busy": "protocol.errors",
    "Client": "podium.client",
    "Config": "podium.config",
    "Conflict": "protocol.errors",
    "Decision": "protocol.decisions",
    "Denied": "protocol.errors",
    "DiskFault": "protocol.errors",
    "Diverged": "protocol.errors",
    "Extension": "protocol.budgets",
    "Fenced": "protocol.errors",
    "Host": "podium.host",
    "Internal": "protocol.errors",
    "InvalidData": "protocol.errors",
    "LoadedPool": "podium.poolfile",
    "NotFound": "protocol.errors",
    "PlannedCall": "protocol.decisions",
    "PodiumError": "protocol.errors",
    "PolicySpec": "protocol.decisions",
    "Pool": "protocol.actions",
    "Reply": "protocol.decisions",
    "Result": "podium.rows",
    "RunRow": "podium.rows",
    "Seen": "actors.workers",
    "Spend": "protocol.actions",
    "Task": "protocol.decisions",
    "TimedOut": "protocol.errors",
    "TooLarge": "protocol.errors",
    "Unreachable": "protocol.errors",
    "Usage": "protocol.errors",
    "View": "protocol.decisions",
    "WorkerSpec": "protocol.actions",
    "cancelled": "actors.workers",
    "load_pool": "podium.poolfile:load",
    "policy_spec": "podium.policyfile",
    "run": "podium.running",
    "run_async": "podium.running",
    "tool": "actors.workers",
}
"""Where each public name lives, and under which name if under another."""

__all__ = [
    "Ambiguous",
    "Budget",
    "Busy",
    "Client",
    "Config",
    "Conflict",
    "Decision",
    "Denied",
    "DiskFault",
    "Diverged",
    "Extension",
    "Fenced",
    "Host",
    "Internal",
    "InvalidData",
    "LoadedPool",
    "NotFound",
    "PlannedCall",
    "PodiumError",
    "PolicySpec",
    "Pool",
    "Reply",
    "Result",
    "RunRow",
    "Seen",
    "Spend",
    "Task",
    "TimedOut",
    "TooLarge",
    "Unreachable",
    "Usage",
    "View",
    "WorkerSpec",
    "cancelled",
    "load_pool",
    "policy_spec",
    "run",
    "run_async",
    "tool",
]


if not TYPE_CHECKING:  # a type checker has the names from above, and finds those misspelt

    def __getattr__(name: str) -> object:
        """Load a public name from its home, once."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'podium' has no attribute {name!r}")
        module, _, other = home.partition(":")
        value: object = getattr(import_module(module), other or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
