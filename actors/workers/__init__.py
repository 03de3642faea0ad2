"""Workers' adapters: what turns an `Attempt` into an `Outcome`, one small class for each kind.

``WorkerSpec.adapter`` begins with the kind:

========================  ==========================================================================
``a2a``                   an agent that speaks A2A, the protocol between agents
``class:module:name``     an adapter of one's own
``function:module:name``  a Python function, marked with `tool` or not
``mcp:tool``              a tool of an MCP server
``openai``                an agent behind an OpenAI-compatible endpoint
``openapi:operation``     an operation of an HTTP service, as an OpenAPI document describes it
``python``                Python code in a sandbox
``shell``                 a command from an allow-list
========================  ==========================================================================

One package or module for each: ``a2a``, ``agent`` (``openai``), ``function``, ``mcp``, ``openapi``,
``own`` (``class``), ``processes`` (``python`` and ``shell``). The others are what all of them
share.

`draft` makes a worker from such a text and its options; `host` makes the adapter that works for it.
An adapter never raises for what a call asks or what its worker does: that is an outcome. It holds
its own limits of time and size where it can stop what it started; the limit on an outcome's size
(``MAX_VALUE_BYTES``) and the deadline of an attempt are the hosting actor's.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from actors.ports import Adapter
from actors.workers.a2a import A2AAdapter
from actors.workers.agent import OpenAIAdapter
from actors.workers.function import FunctionAdapter, is_tool, spec_of, tool
from actors.workers.mcp import McpAdapter
from actors.workers.openapi import OperationAdapter
from actors.workers.own import OWN
from actors.workers.processes.sandbox import Isolation, PythonAdapter, isolation
from actors.workers.processes.shell import ShellAdapter
from actors.workers.signature import Seen
from actors.workers.threads import cancelled
from protocol.actions import Json, WorkerSpec
from protocol.errors import InvalidData

__all__ = [
    "ADAPTERS",
    "A2AAdapter",
    "Discovering",
    "FunctionAdapter",
    "Isolation",
    "McpAdapter",
    "OpenAIAdapter",
    "OperationAdapter",
    "PythonAdapter",
    "Seen",
    "Sharing",
    "ShellAdapter",
    "cancelled",
    "discovering",
    "draft",
    "host",
    "is_tool",
    "isolation",
    "sharing",
    "spec_of",
    "tool",
]


class Hosting(Protocol):
    """A kind of adapter: how its workers are drafted and hosted."""

    def __call__(self, spec: WorkerSpec) -> Adapter:
        """The adapter of one worker."""
        ...

    def draft(self, adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The worker with everything that the adapter knows of it filled in."""
        ...


@runtime_checkable
class Described(Protocol):
    """A kind whose workers describe themselves, to whoever asks them over the network."""

    def described(self, spec: WorkerSpec) -> WorkerSpec:
        """The worker with what it says of itself. Asks it; raises what keeps it from answering."""
        ...


@runtime_checkable
class Discovering(Hosting, Protocol):
    """A kind of adapter whose workers are what a server of somebody else's offers."""

    def discover(self, adapter: str, options: Mapping[str, Json]) -> list[WorkerSpec]:
        """All that is there: by bare names, with full addresses. May block.

        Args:
            adapter: An address; what follows its kind doesn't matter.
            options: What the kind takes, secrets filled in.

        Raises:
            InvalidData, NotFound, Unreachable: Why nothing can be had from it.
        """
        ...


@runtime_checkable
class Sharing(Hosting, Protocol):
    """A kind of adapter whose workers share a session, and so have to share a process."""

    def shared(self, options: Mapping[str, Json]) -> bytes:
        """The same for options of workers that share one. Raises `InvalidData`."""
        ...


ADAPTERS: Final[Mapping[str, Hosting]] = MappingProxyType(
    {
        "a2a": A2AAdapter,
        "class": OWN,
        "function": FunctionAdapter,
        "mcp": McpAdapter,
        "openai": OpenAIAdapter,
        "openapi": OperationAdapter,
        "python": PythonAdapter,
        "shell": ShellAdapter,
    }
)
"""Each kind of adapter."""


def draft(adapter: str, options: Mapping[str, Json] | None = None, **fields: Any) -> WorkerSpec:
    """The worker that ``adapter`` and ``options`` describe.

    One that describes itself is asked over the network, unless a description is given.

    Args:
        adapter: Its address, such as ``function:my_module:my_tool`` or ``python``.
        options: What its kind takes besides.
        **fields: Fields of `WorkerSpec` that a pool sets over those of the draft.

    Raises:
        InvalidData: An unknown kind, a wrong option, a function that can't be described.
        NotFound: A function, a skill or a server's tool that isn't there.
        Unreachable, Denied: A worker that describes itself, or its server, doesn't answer.
    """
    kind = _kind(adapter)
    spec = msgspec.structs.replace(kind.draft(adapter, options or {}), **fields)
    if not spec.description and isinstance(kind, Described):
        return kind.described(spec)
    return spec


def host(spec: WorkerSpec) -> Adapter:
    """The adapter that works for ``spec``. Starts nothing and connects to nothing yet.

    Raises:
        InvalidData: An unknown kind, a wrong option.
        NotFound: A function that isn't there.
    """
    return _kind(spec.adapter)(spec)


def discovering(adapter: str) -> Discovering | None:
    """The kind of an address, if it knows what there is."""
    kind = ADAPTERS.get(adapter.partition(":")[0])
    return kind if isinstance(kind, Discovering) else None


def sharing(adapter: str) -> Sharing | None:
    """The kind of an address, if its workers share sessions."""
    kind = ADAPTERS.get(adapter.partition(":")[0])
    return kind if isinstance(kind, Sharing) else None


def _kind(adapter: str) -> Hosting:
    kind = adapter.partition(":")[0]
    if kind not in ADAPTERS:
        raise InvalidData(
            f"There is no adapter {kind!r} (in {adapter!r}).",
            hint=f"Adapters: {', '.join(sorted(ADAPTERS))}.",
        )
    return ADAPTERS[kind]
