"""An MCP server made with the official SDK, which does what tests ask for; a program of its own.

python -m tests.mcp_server           # over standard input and output
python -m tests.mcp_server http FD   # over HTTP, on a socket that it inherits
"""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ImageContent, TextContent

from tests.adapters.case import LARGE

PARTIES: Final = 3

server: Final = MCPServer("tested", log_level="CRITICAL")
started: Final = asyncio.Event()
stopped: Final = asyncio.Event()
met: Final = asyncio.Barrier(PARTIES)
pages: Final[list[str]] = []
"""Where it is, as a browser would say: what makes a session one."""


@server.tool(structured_output=False)
async def work(what: str, ctx: Context[Any, Any]) -> str | bytes:
    """Does what the suite asks for."""
    match what:
        case "fail":
            raise ToolError("no such thing")
        case "wait":
            stopped.clear()
            started.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                stopped.set()
        case "meet":
            await met.wait()
        case "large":
            return "x" * LARGE
        case "not text":
            return b"\xff\xfe"
        case "span":
            return str((ctx.request_context.meta or {}).get("traceparent"))
        case "header":
            return str((ctx.headers or {}).get("traceparent"))
        case "token":
            return str((ctx.headers or {}).get("authorization") or os.environ.get("TOKEN"))
    return what


@server.tool()
async def until(what: str) -> str:
    """Returns when the other tool has ``started``, or ``stopped``."""
    event = started if what == "started" else stopped
    await event.wait()
    event.clear()
    return what


@server.tool()
def go(page: str) -> int:
    """Goes to a page, and says how many there were."""
    pages.append(page)
    return len(pages)


@server.tool()
def where() -> list[str]:
    """The pages that there were."""
    return pages


@server.tool()
def picture() -> CallToolResult:
    """Says something, and shows it."""
    image = ImageContent(type="image", data="aGk=", mime_type="image/png")
    return CallToolResult(content=[TextContent(type="text", text="a greeting"), image])


@server.tool(structured_output=False)
def huge() -> str:
    """More than the SDK takes over HTTP unless it is told to."""
    return "x" * 2_000_000


@server.tool()
def die() -> str:
    """Ends the server, with a word."""
    sys.stderr.write("I can't go on\n")
    sys.stderr.flush()
    os._exit(3)


@server.tool()
async def change(ctx: Context[Any, Any]) -> str:
    """Takes ``where`` away, and has ``go`` want a number."""
    server.remove_tool("where")
    server.remove_tool("go")
    server.add_tool(lambda number: number, name="go", description="Goes to a page by its number.")
    server.add_tool(_left, name="left")
    await ctx.notify_tools_changed()
    return "done"


def _left(how: int = 1) -> int:
    """A tool that was not there before."""
    return how


async def _http(number: int) -> None:
    import uvicorn

    app = server.streamable_http_app()
    config = uvicorn.Config(app, log_level="critical")
    await uvicorn.Server(config).serve(sockets=[socket.socket(fileno=number)])


@contextmanager
def over_http() -> Iterator[str]:
    """The URL of such a server, for as long as it lives."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        command = [sys.executable, "-m", __name__, "http", str(number)]
        process = Popen(command, pass_fds=[number])
    try:
        yield url
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(_http(int(sys.argv[2])))
    else:
        server.run()
