"""A tool of an MCP server as a worker, over the official SDK."""

import asyncio
import contextvars
import re
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from actors.ports import Attempt, Outcome
from actors.workers.mcp.server import server_of
from actors.workers.mcp.session import Session, Tools, leave, share
from actors.workers.outcomes import Unrepresentable, failure, json_value, unable
from protocol.actions import Json, WorkerSpec
from protocol.errors import InvalidData, NotFound, PodiumError
from protocol.schemas import misfit
from protocol.views import short

if TYPE_CHECKING:
    from mcp import MCPError
    from mcp.types import CallToolResult, ContentBlock

KIND: Final = "mcp"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

SCHEMA_CHARS: Final = 1_200
"""Characters of a schema in the text of an error: that of a tool with a handful of parameters."""

_UNKNOWN: Final = re.compile(
    r"unknown tool|tool\b.*\bnot (found|exist)|no such tool", re.IGNORECASE
)
"""How servers say that they have no such tool, where they say it as the tool's own failure."""

_MISFIT: Final = re.compile(
    r"MCP error -32602\b"  # the SDK for TypeScript
    r"|Error executing tool \S+: \d+ validation errors? for \w*Arguments\b"  # that for Python
)
"""How the official SDKs say that arguments don't fit, where they say it as the tool's failure."""

_T = TypeVar("_T")


def _nobody(_: list[WorkerSpec]) -> None:
    """What is told of changes where nobody asked to be."""


class McpAdapter:
    """Hosts one tool of a server.

    Args:
        spec: Its worker: the address is ``mcp:TOOL``, ``spec.options`` are `server.Server`.

    Raises:
        InvalidData: The address names no tool, or an option is wrong.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.tool = spec.adapter.partition(":")[2]
        if not self.tool:
            raise InvalidData(
                f"The worker {spec.name!r} names no tool of its server.",
                hint='adapter = "mcp:TOOL"; "mcp" alone is one worker for each tool.',
            )
        self.server = server_of(spec.options, spec.name)
        self.changed: Callable[[list[WorkerSpec]], None] = _nobody
        """Told all tools that the server has, as `discover` does but without options, when this
        one is no more what was recorded, or others come, go or change."""
        self._seen: dict[str, Json] | None = spec.parameters
        self._tools: Tools | None = None
        self._session: Session | None = None

    @staticmethod
    def discover(adapter: str, options: Mapping[str, Json]) -> list[WorkerSpec]:
        """The tools of a server: bare names, full addresses. Starts it, asks it and ends it.

        Raises:
            InvalidData: An option is wrong, or the SDK is not installed.
            NotFound: The command isn't there.
            Unreachable: The server ended, refused, or doesn't answer.
        """
        server = server_of(options, adapter)

        async def ask() -> Tools:
            session = Session(server)
            try:
                return await session.tools()
            finally:
                await session.close()

        return _specs(_apart(ask), options)

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The tool that the address names, as the server describes it. Raises as `discover`."""
        there = McpAdapter.discover(adapter, options)
        found = next((spec for spec in there if spec.adapter == adapter), None)
        if found is None:
            names = ", ".join(spec.adapter for spec in there) or "nothing"
            raise NotFound(
                f"There is no {adapter!r} at {server_of(options, adapter)}.",
                hint=f"It has: {names}.",
            )
        return found

    @staticmethod
    def shared(options: Mapping[str, Json]) -> bytes:
        """What workers have in common that have to share a process, since they share a session."""
        return server_of(options, KIND).key

    async def run(self, attempt: Attempt) -> Outcome:
        """Call the tool once."""
        try:
            session = self._shared()
            if problem := self._unfit(await session.tools(), attempt):
                return problem
            return await self._called(session, attempt)
        except PodiumError as error:
            return unable(error)

    async def close(self) -> None:
        """Leave the session; the last one ends it."""
        session, self._session = self._session, None
        if session is not None:
            session.listeners.remove(self._listed)
            await leave(session)

    def _shared(self) -> Session:
        if self._session is None:
            self._session = share(self.server)
            self._session.listeners.append(self._listed)
        return self._session

    def _listed(self, tools: Tools) -> None:
        tool = tools.get(self.tool)
        now = None if tool is None else tool.input_schema
        changed = now != self._seen or self._tools not in (None, tools)
        self._seen, self._tools = now, tools
        if changed:
            self.changed(_specs(tools, {}))

    def _unfit(self, tools: Tools, attempt: Attempt) -> Outcome | None:
        """What is wrong with a call that was recorded when the server had other tools."""
        tool = tools.get(self.tool)
        if tool is None:
            names = short(", ".join(tools), SCHEMA_CHARS) or "none"
            text = f"The server has no tool {self.tool!r} any more. Its tools: {names}."
            return failure("EXEC_ERR", "infrastructure", text)
        if tool.input_schema == self.spec.parameters:
            return None
        wrong = misfit(tool.input_schema, attempt.arguments)
        if not wrong:
            return None
        wanted = short(tool.input_schema, SCHEMA_CHARS)
        text = f"The server wants other arguments than those declared: {wrong}. It wants: {wanted}"
        return failure("PARSE_ERR", "policy", text)

    async def _unknown(self, session: Session, attempt: Attempt) -> Outcome | None:
        """What is wrong, if the server has other tools by now and has not said so."""
        return self._unfit(await session.tools(again=True), attempt)

    async def _called(self, session: Session, attempt: Attempt) -> Outcome:
        from mcp import MCPError
        from pydantic import ValidationError

        try:
            result = await session.call(self.tool, attempt.arguments)
            if result.is_error and (_UNKNOWN.search(said := _texts(result)) or _refuses(said)):
                return await self._unknown(session, attempt) or outcome_of(result)
            return outcome_of(result)
        except MCPError as error:
            return await self._refused(session, attempt, error)
        except ValidationError as error:
            text = f"The server sent no result of a tool: {error}"
            return failure("EXEC_ERR", "infrastructure", text)
        except RuntimeError as error:  # of the SDK: not what the tool's own schema promises
            return failure("EXEC_ERR", "worker", str(error))

    async def _refused(self, session: Session, attempt: Attempt, error: "MCPError") -> Outcome:
        from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND, PARSE_ERROR, REQUEST_TIMEOUT

        text = f"{error.message} (JSON-RPC error {error.code})"
        match error.code:
            case code if code == INVALID_PARAMS:
                # Servers say it of a tool that they don't have, too.
                unknown = await self._unknown(session, attempt)
                return unknown or failure("PARSE_ERR", "policy", f"The server refused: {text}")
            case code if code == REQUEST_TIMEOUT:
                return failure("TIMEOUT", "worker", f"The server gave up: {text}")
            case code if code in (METHOD_NOT_FOUND, PARSE_ERROR):
                return failure("EXEC_ERR", "infrastructure", f"The server can't do it: {text}")
            case _:
                return failure("EXEC_ERR", "worker", f"The server failed: {text}")


def outcome_of(result: "CallToolResult") -> Outcome:
    """A tool's result as a call's: structured content if there is some, else its texts."""
    text = _texts(result)
    if result.is_error:
        if _refuses(text):
            return failure("PARSE_ERR", "policy", text)
        return failure("EXEC_ERR", "worker", text or "The tool failed, and said nothing.")
    blocks = [_block(block) for block in result.content]
    others = [block for block in blocks if not isinstance(block, str)]
    value: Json
    if result.structured_content is not None:
        value = [result.structured_content, *others] if others else result.structured_content
    else:
        value = blocks if others else text
    try:
        return Outcome(value=json_value(value))
    except Unrepresentable as error:
        return failure("EXEC_ERR", "worker", str(error))


def _refuses(text: str) -> bool:
    return _MISFIT.match(text) is not None


def _texts(result: "CallToolResult") -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def _block(block: "ContentBlock") -> Json:
    """A piece of content: a text, or an object with type, mimeType, and data or uri."""
    match block.type:
        case "text":
            return block.text
        case "image" | "audio":
            return {"type": block.type, "mimeType": block.mime_type, "data": block.data}
        case "resource_link":
            said = {"type": block.type, "mimeType": block.mime_type, "uri": str(block.uri)}
            return {name: value for name, value in said.items() if value is not None}
        case "resource":
            held = block.resource
            said = {"type": block.type, "mimeType": held.mime_type, "uri": str(held.uri)}
            said |= {"text": getattr(held, "text", None), "data": getattr(held, "blob", None)}
            return {name: value for name, value in said.items() if value is not None}


def _specs(tools: Tools, options: Mapping[str, Json]) -> list[WorkerSpec]:
    return [
        WorkerSpec(
            name=name,
            description=tool.description or tool.title or name,
            parameters=tool.input_schema,
            adapter=f"{KIND}:{name}",
            options=dict(options),
        )
        for name, tool in tools.items()
    ]


def _apart(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """What a coroutine gives, waited for also where a loop runs: in a thread with its own."""
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "mcp-discover") as thread:
        return thread.submit(context.run, asyncio.run, work()).result()
