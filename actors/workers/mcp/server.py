"""How to reach an MCP server, and what is said of one that can't be reached.

The SDK (``mcp``) is an extra, and loaded with the first server that is used.
"""

import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors import tracing
from actors.workers.options import converted
from actors.workers.outcomes import redacted
from actors.workers.trust import trusted
from protocol.actions import Json
from protocol.errors import InvalidData, NotFound, PodiumError, Unreachable
from protocol.limits import MAX_VALUE_BYTES
from replay.address import shown

if TYPE_CHECKING:
    import asyncio

    import httpx2

PYTHON: Final = "python"
"""The command that is not looked up: on a host where no virtual environment is activated, another
Python, or none, is what would be found."""

_IMPORTS: Final = "PYTHONPATH"
"""What that one needs of the environment besides: the pool file's folder is in it."""

INSTALL: Final = "pip install 'podium[mcp]'"

CONNECT_S: Final = 10.0
"""Seconds that a connection to a server may take: across the world it takes a third of one."""

MAX_EVENT_BYTES: Final = 2 * MAX_VALUE_BYTES
"""Bytes of one message over HTTP: the largest value there may be, with what JSON puts around it."""

STDERR_BYTES: Final = 4_096
"""Bytes kept of what a server writes to its standard error: the end of a traceback."""

STDERR_CHARS: Final = 1_000
"""Characters of that in an error, which has to leave room for the rest."""

refusals: Final[ContextVar[list[int] | None]] = ContextVar("refusals", default=None)
"""The HTTP statuses with which the server refused what is asked for in this context: the SDK's
errors don't say them."""


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind: a command, or a URL."""

    command: str = ""
    """The program that is the server, speaking over its standard input and output; `PYTHON` for
    the Python that this process runs in."""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Its environment, besides ``PATH``, ``HOME``, ``USER`` and the like."""
    cwd: str | None = None
    """Its working folder; else that of the worker."""
    url: str = ""
    """The address of a server that speaks streamable HTTP."""
    headers: dict[str, str] = {}
    """Sent with each request."""

    @property
    def key(self) -> bytes:
        """The same for those that may share a session."""
        return msgspec.json.encode(self, order="deterministic")

    def __str__(self) -> str:
        if self.url:
            return f"the MCP server at {shown(self.url)}"
        return f"the MCP server `{' '.join((self.command, *self.args))}`"


def server_of(options: Mapping[str, Json], whose: str) -> Server:
    """The server that options describe. Raises `InvalidData`."""
    server = converted(options, Server, "mcp", whose)
    if bool(server.command) == bool(server.url):
        both = "both a command and a url" if server.url else "neither a command nor a url"
        raise InvalidData(
            f"The options of {whose!r} name {both}.",
            hint='Give command = "…" (and args) for a program, or url = "https://…/mcp".',
        )
    others = ("headers",) if server.command else ("args", "env", "cwd")
    for name in others:
        if getattr(server, name):
            what = "a url" if server.command else "a command"
            raise InvalidData(
                f"The options of {whose!r} have {name}, which only goes with {what}.",
                hint=f"Remove {name}, or name the server by {what}.",
            )
    if server.url and not server.url.startswith(("http://", "https://")):
        raise InvalidData(
            f"The url of {whose!r} is no HTTP address: {shown(server.url)}.",
            hint='It looks like "https://example.com/mcp".',
        )
    return server


def sdk() -> ModuleType:
    """The official SDK. Raises `InvalidData` where it is not installed."""
    try:
        import mcp
    except ModuleNotFoundError as error:
        raise InvalidData(
            f"An mcp worker needs the MCP SDK, which is not installed here: no {error.name}.",
            hint=INSTALL,
        ) from None
    if not (said := logging.getLogger("mcp.client")).level:
        said.setLevel(logging.CRITICAL)  # what goes wrong is the outcome of a call
    return mcp


def ready(server: "Server") -> None:
    """Load all that a session with a server needs. Blocks; raises as `sdk`."""
    sdk()
    if server.url:
        trusted()


class Tail:
    """The end of what a process writes to its standard error, through a pipe of its own."""

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        self._loop, self._kept = loop, b""
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self.file = os.fdopen(writing, "w")
        """What the process is given. To be closed here when it has it."""
        loop.add_reader(self._reading, self._read)

    def _read(self) -> bool:
        try:
            data = os.read(self._reading, 65_536)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._reading)
        kept = self._kept + data
        if len(kept) > STDERR_BYTES:  # whole lines: half a secret could not be found again
            line = kept.find(b"\n", len(kept) - STDERR_BYTES) + 1
            kept = kept[line or -STDERR_BYTES :]
        self._kept = kept
        return bool(data)

    def close(self) -> None:
        """Read what is left, and let go."""
        self.file.close()
        while self._read():
            pass
        self._loop.remove_reader(self._reading)
        os.close(self._reading)

    def text(self) -> str:
        """What was kept, without secrets; "" for nothing."""
        text = redacted(self._kept.decode(errors="replace").strip())
        return text if len(text) <= STDERR_CHARS else f"… {text[-STDERR_CHARS:]}"


class _UntilEnd:
    """A stream of messages that says when it has ended: the SDK's client doesn't."""

    def __init__(self, stream: Any, ended: Callable[[], None]) -> None:
        self._stream, self._ended = stream, ended

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> "_UntilEnd":
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            self._ended()
            raise

    async def __aenter__(self) -> "_UntilEnd":
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, trace)


@contextlib.asynccontextmanager
async def transport(
    server: Server, tail: Tail, ended: Callable[[], None]
) -> AsyncIterator[tuple[Any, Any]]:
    """The SDK's transport to a server.

    Args:
        server: Which.
        tail: What takes the standard error of one that is started here.
        ended: Called when such a one has closed its output.
    """
    if server.url:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        # How long an answer may take is for each attempt to say.
        timeout = httpx2.Timeout(CONNECT_S, read=None)
        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [_with_span],
            "response": [_noted],
        }
        async with (
            httpx2.AsyncClient(
                headers=server.headers,
                timeout=timeout,
                event_hooks=hooks,
                verify=trusted(),
            ) as client,
            streamable_http_client(
                server.url, http_client=client, max_sse_event_size=MAX_EVENT_BYTES
            ) as streams,
        ):
            yield streams
        return
    from mcp.client.stdio import StdioServerParameters, stdio_client

    own = server.command == PYTHON
    imports = {_IMPORTS: os.environ[_IMPORTS]} if own and _IMPORTS in os.environ else {}
    args = list(server.args)
    if own and args[:1] == ["-m"] and server.cwd is None:
        args.insert(0, "-P")  # else the working folder goes before the pool file's
    parameters = StdioServerParameters(
        command=sys.executable if own else server.command,
        args=args,
        env=imports | server.env,
        cwd=server.cwd,
        encoding_error_handler="replace",  # what is no UTF-8 must not end the session
    )
    async with stdio_client(parameters, errlog=tail.file) as (reading, writing):
        tail.file.close()
        yield _UntilEnd(reading, ended), writing


async def _with_span(request: "httpx2.Request") -> None:
    request.headers.update(tracing.passed_on())


async def _noted(response: "httpx2.Response") -> None:
    seen = refusals.get()
    if response.status_code >= 400 and seen is not None:
        seen.append(response.status_code)


def first(error: BaseException) -> BaseException:
    """The error that a group of them, as the SDK's task groups make it, is about."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def unreachable(
    server: Server, error: BaseException | None, statuses: list[int], stderr: str
) -> PodiumError:
    """Why a session with a server could not be had, or was lost, and how to mend it."""
    error = first(error) if error is not None else None
    if isinstance(error, PodiumError):
        return error
    name = str(server)
    name = name[0].upper() + name[1:]
    if server.url:
        return _refused(name, error, statuses)
    if isinstance(error, OSError):
        what = error.filename or server.command
        return NotFound(
            f"{name} can't be started: {error.strerror or error}: {what}.",
            hint="Install it, or correct command and cwd in its options.",
        )
    said = f" It wrote:\n{stderr}" if stderr else " It wrote nothing to its standard error."
    ended = error is None or closed(error)
    what = "has ended" if ended else f"does not speak MCP: {type(error).__name__}: {error}"
    return Unreachable(
        f"{name} {what}.{said}", hint="Try it by hand: it should wait for its input."
    )


def _refused(name: str, error: BaseException | None, statuses: list[int]) -> PodiumError:
    if not statuses:
        why = "the session has ended" if error is None or closed(error) else _worded(error)
        hint = "Start it, or correct url in its options."
        return Unreachable(f"{name} can't be reached: {why}.", hint=hint)
    code = statuses[-1]
    cures = {
        401: "Correct headers in its options: it wants another key, or one at all.",
        404: "Correct url in its options: the path is often /mcp.",
    }
    cure = cures.get(401 if code == 403 else code, "It may work later, or want another url.")
    return Unreachable(f"{name} refused with HTTP {code}.", hint=cure)


def closed(error: BaseException) -> bool:
    """Whether it is what the SDK says to all who wait for a session that has ended."""
    from mcp.types import CONNECTION_CLOSED

    said = getattr(error, "code", None), getattr(error, "message", "")
    return said == (CONNECTION_CLOSED, "Connection closed")


def _worded(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
