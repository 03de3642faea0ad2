"""Sessions with MCP servers: one for all tools of a server that one process hosts.

A session is opened at the first call, in a task of its own that outlives the call, and closed when
the last adapter that shares it is. One that broke is opened anew at the next call: what was lost
with it is that server's to know (a browser's page, a transaction).
"""

import asyncio
import contextvars
import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from actors import tracing
from actors.workers.mcp.server import (
    Server,
    Tail,
    closed,
    ready,
    refusals,
    sdk,
    transport,
    unreachable,
)
from protocol.actions import Json
from protocol.errors import PodiumError, TooLarge, Unreachable

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

logger = logging.getLogger("podium.mcp")

OPEN_S: Final = 45.0
"""Seconds that a server may take to start and to say its tools: a cold interpreter with many
libraries takes ten."""

MAX_PAGES: Final = 100
"""Pages of one server's list of tools: one that never ends must not hang a call."""

LISTEN_AGAIN_S: Final = 5.0
"""Seconds before the server is asked again to say changes, after that has ended."""

Tools: TypeAlias = "Mapping[str, Tool]"
"""A server's tools, by name."""


class _NotOpened(Exception):
    """A connection ended before it was one."""


class _Connection:
    """One session while it lasts. All of it is entered and left in one task, as the SDK wants it.

    Args:
        server: Whom it is with.
        listed: Called with the tools, at first and whenever they have changed.
    """

    def __init__(self, server: Server, listed: Callable[[Tools], None]) -> None:
        self._server, self._listed = server, listed
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.opened.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.client: Client | None = None
        self.statuses: list[int] = []
        self.why: BaseException | None = None
        self._tail = Tail(loop)
        self._ending = asyncio.Event()
        self._relisting: asyncio.Task[None] | None = None
        self._stale = False
        # Whoever happens to open it has a span and secrets of its own.
        self.task = asyncio.create_task(self._live(), context=contextvars.Context())

    @property
    def over(self) -> bool:
        """Whether nothing more can be asked of it."""
        return self._ending.is_set() or self.task.done()

    def end(self) -> None:
        """Have it end, once it is open."""
        self._ending.set()

    async def close(self) -> None:
        """End it, also while it is being opened, and return when it has ended."""
        self._ending.set()
        await asyncio.sleep(0)  # a task that has not begun could not clean up
        if not self.opened.done() and not self.task.cancelling():
            self.task.cancel()  # its server may never answer
        await asyncio.wait({self.task})

    def lost(self, more: list[int] | None = None) -> PodiumError:
        """Why it is over, without the secrets of the attempt that asks."""
        statuses = self.statuses + (more or [])
        return unreachable(self._server, self.why, statuses, self._tail.text())

    async def _live(self) -> None:
        refusals.set(self.statuses)
        try:
            await self._until_end()
        except Exception as error:
            self.why = error
        finally:
            self._ending.set()
            self._tail.close()
            if not self.opened.done():
                self.opened.set_exception(_NotOpened())

    async def _until_end(self) -> None:
        mcp = sdk()
        streams = transport(self._server, self._tail, self.end)
        me = mcp.types.Implementation(name="podium", version=importlib.metadata.version("podium"))
        async with mcp.Client(
            streams, cache=None, message_handler=self._heard, client_info=me
        ) as client:
            self.client = client
            await self._list()
            self.opened.set_result(None)
            listening = asyncio.create_task(self._listen(client))
            try:
                await self._ending.wait()
            finally:
                for task in filter(None, (listening, self._relisting)):
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task

    # -------------------------------------------------------------------------------------- changes

    async def _heard(self, message: Any) -> None:
        from mcp.types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self.relist()

    async def _listen(self, client: "Client") -> None:
        """Have a server of the newer protocol say changes; `_heard` hears them."""
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
        from mcp.shared.exceptions import MCPError

        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self.relist()  # what has changed before it listened to us
                    async for _ in changes:
                        pass
            except ListenNotSupportedError:  # it says them unasked
                return
            except (MCPError, SubscriptionLost, TimeoutError) as error:
                logger.debug("%s says no changes: %s", self._server, error)
            await asyncio.sleep(LISTEN_AGAIN_S)
            self.relist()

    def relist(self) -> "asyncio.Task[None]":
        """Ask for the tools again."""
        self._stale = True
        if self._relisting is None or self._relisting.done():
            self._relisting = asyncio.create_task(self._relist(), context=contextvars.Context())
        return self._relisting

    async def _relist(self) -> None:
        while self._stale:
            self._stale = False
            try:
                await self._list()
            except Exception as error:  # whoever needs it asks again
                logger.warning("the tools of %s can't be listed: %s", self._server, error)

    async def settled(self) -> None:
        """Return when the tools are known that it has said it has."""
        if self._relisting is not None:
            await asyncio.wait({self._relisting})  # which may end with the connection

    async def _list(self) -> None:
        from mcp.shared.exceptions import MCPError
        from mcp.types import METHOD_NOT_FOUND

        assert self.client is not None
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            try:
                page = await self.client.list_tools(cursor=cursor)
            except MCPError as error:
                if error.code != METHOD_NOT_FOUND:
                    raise
                break  # a server without tools
            for tool in page.tools:
                found.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if not cursor:
                break
        else:
            raise TooLarge(f"{self._server} lists its tools on more than {MAX_PAGES} pages.")
        self._listed(found)


class Session:
    """What adapters share. Opened at the first use, and anew after it broke.

    Args:
        server: Whom it is with.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.users = 0
        """Adapters that share it."""
        self.listeners: list[Callable[[Tools], None]] = []
        """Told the tools whenever they were listed."""
        self._tools: Tools | None = None
        self._connection: _Connection | None = None

    async def tools(self, *, again: bool = False) -> Tools:
        """What the server has; ``again`` asks it, else what it said last.

        Raises:
            PodiumError: The session can't be had; the text says why.
        """
        connection = await self._opened()
        if again:
            connection.relist()
        await connection.settled()
        assert self._tools is not None
        return self._tools

    async def call(self, tool: str, arguments: dict[str, Json]) -> "CallToolResult":
        """Call a tool. Cancelled, it tells the server so.

        Raises:
            PodiumError: The session can't be had, or was lost meanwhile.
            MCPError: The server says that the call can't be made.
            RuntimeError, ValidationError: What it answered is no result of this tool.
        """
        connection = await self._opened()
        assert connection.client is not None
        statuses: list[int] = []
        token = refusals.set(statuses)
        try:
            with tracing.outside():
                # The SDK passes the current span on in the call's _meta.
                return await connection.client.call_tool(tool, arguments)
        except Exception as error:
            if connection.over or _breaks(error):
                if connection.why is None and not connection.over:
                    connection.why = error
                await connection.close()
                raise connection.lost(statuses) from None
            if _unanswered(error, statuses):
                raise unreachable(self.server, error, statuses, "") from None
            raise
        finally:
            refusals.reset(token)

    async def close(self) -> None:
        """End it, and the server if it was started here."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _opened(self) -> _Connection:
        connection = self._connection
        if connection is None or connection.over:
            await asyncio.to_thread(ready, self.server)  # loading the SDK takes a second
            if connection is not None:
                await asyncio.wait({connection.task})
            if self._connection is connection:  # nobody else was here first
                self._connection = _Connection(self.server, self._listed)
            connection = self._connection
            assert connection is not None
        try:
            async with asyncio.timeout(OPEN_S):
                await asyncio.shield(connection.opened)
        except TimeoutError:
            await connection.close()
            raise Unreachable(
                f"No session with {self.server} within {OPEN_S:g} s.",
                hint="Try it by hand: does it speak MCP?",
            ) from None
        except _NotOpened:
            raise connection.lost() from None
        return connection

    def _listed(self, tools: Tools) -> None:
        old, self._tools = self._tools, tools
        if old is not None and (said := _difference(old, tools)):
            logger.warning("the tools of %s have changed: %s", self.server, said)
        for listener in self.listeners:
            listener(tools)


def _breaks(error: Exception) -> bool:
    """Whether an error says that the session is no more, for any call."""
    from mcp.types import INVALID_REQUEST

    said = getattr(error, "code", None), getattr(error, "message", "")
    return closed(error) or said == (INVALID_REQUEST, "Session terminated")


def _unanswered(error: Exception, statuses: list[int]) -> bool:
    """Whether the SDK made up an error for a request by HTTP that got no answer of MCP."""
    from mcp.types import CONNECTION_CLOSED, INTERNAL_ERROR, METHOD_NOT_FOUND

    code = getattr(error, "code", None)
    return code == CONNECTION_CLOSED or (
        bool(statuses) and code in (INTERNAL_ERROR, METHOD_NOT_FOUND)
    )


def _difference(old: Tools, new: Tools) -> str:
    parts = {
        "gone": old.keys() - new.keys(),
        "added": new.keys() - old.keys(),
        "with other parameters": {
            name
            for name in old.keys() & new.keys()
            if old[name].input_schema != new[name].input_schema
        },
    }
    return "; ".join(
        f"{what}: {', '.join(sorted(names))}" for what, names in parts.items() if names
    )


_SESSIONS: Final[dict[tuple[asyncio.AbstractEventLoop, bytes], Session]] = {}
"""Those in use, by the loop that they live on and what they are with."""


def share(server: Server) -> Session:
    """The session with a server that all on this loop share; to be given back with `leave`."""
    key = (asyncio.get_running_loop(), server.key)
    session = _SESSIONS.setdefault(key, Session(server))
    session.users += 1
    return session


async def leave(session: Session) -> None:
    """Give a session back; the last one closes it."""
    session.users -= 1
    if not session.users:
        _SESSIONS.pop((asyncio.get_running_loop(), session.server.key), None)
        await session.close()
