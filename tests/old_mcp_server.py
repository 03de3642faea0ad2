"""An MCP server of the protocol before 2026, by hand: it starts at once, and does odd things.

python old_mcp_server.py
"""

import json
import os
import sys
from typing import Any, Final

KNOWN: Final = "2025-06-18"
ANY: Final = {"type": "object", "properties": {"what": {"type": "string"}}}
NUMBER: Final = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
}

PROMISED: Final = {
    "leave": {
        "type": "object",
        "properties": {"pid": {"type": "integer"}},
        "required": ["pid"],
    }
}
"""What tools say of their results."""

tools: Final = {"do": ANY, "go": ANY, "leave": ANY}
cancelled: Final[list[Any]] = []

swapped: Final[dict[str, Any]] = {}
"""The tools that there are once none was listed."""


def say(message: dict[str, Any]) -> None:
    data = json.dumps({"jsonrpc": "2.0"} | message).encode()
    sys.stdout.buffer.write(data.replace(b"NOT TEXT", b"\xff\xfe") + b"\n")
    sys.stdout.buffer.flush()


def end(words: str) -> None:
    sys.stderr.write(words)
    sys.stderr.flush()
    os._exit(3)


def fail(request: Any, code: int, message: str) -> None:
    say({"id": request, "error": {"code": code, "message": message}})


def call(request: Any, name: str, arguments: dict[str, Any]) -> None:
    what = arguments.get("what")
    result: dict[str, Any] = {"content": [{"type": "text", "text": f"{name} {what}"}]}
    if name not in tools:
        fail(request, -32602, f"Unknown tool: {name}")
        return
    match what:
        case "refuse":
            fail(request, -32602, "what is no good")
            return
        case "break":
            fail(request, -32603, "out of order")
            return
        case "silence":
            return
        case "cancelled":
            result["structuredContent"] = {"cancelled": cancelled}
        case "odd":
            result["content"][0]["text"] = "NOT TEXT"
        case "noise":
            sys.stdout.write("loading ...\n")
        case "nan":
            result["structuredContent"] = {"x": float("nan")}
        case "strange":
            result = {"content": "of another kind"}
        case "die":
            end("I can't go on\n")
        case "tell":
            end(f"{'long ' * 200}\nthe token is {os.environ.get('TOKEN')}\n")
        case "change" | "change quietly":
            del tools["leave"]
            tools["go"] = NUMBER
            tools["come"] = ANY
            if what == "change":
                say({"method": "notifications/tools/list_changed"})
        case "swap":
            tools.clear()
            swapped["come"] = ANY
            say({"method": "notifications/tools/list_changed"})
        case "never list again":
            tools.clear()
            say({"method": "notifications/tools/list_changed"})
        case "who":
            result["structuredContent"] = {"pid": os.getpid(), "token": os.environ.get("TOKEN")}
    say({"id": request, "result": result})


def answer(message: dict[str, Any]) -> None:
    request, parameters = message.get("id"), message.get("params") or {}
    match message["method"]:
        case "initialize":
            info = {"name": "old", "version": "1"}
            can = {"tools": {"listChanged": True}}
            result = {"protocolVersion": KNOWN, "capabilities": can, "serverInfo": info}
            say({"id": request, "result": result})
        case "tools/list":
            if swapped:
                tools.update(swapped)
                swapped.clear()
                say({"id": request, "result": {"tools": []}})
                say({"method": "notifications/tools/list_changed"})
                return
            if not tools:
                return
            # One on each page.
            number = int(parameters.get("cursor", 0))
            name = list(tools)[number]
            tool = {"name": name, "inputSchema": tools[name]}
            tool |= {"outputSchema": PROMISED[name]} if name in PROMISED else {}
            page: dict[str, Any] = {"tools": [tool]}
            if number + 1 < len(tools):
                page["nextCursor"] = str(number + 1)
            say({"id": request, "result": page})
        case "tools/call":
            call(request, parameters["name"], parameters.get("arguments") or {})
        case "notifications/cancelled":
            cancelled.append(parameters["requestId"])
        case _ if request is not None:
            fail(request, -32601, "Method not found")


if __name__ == "__main__":
    for line in sys.stdin:
        answer(json.loads(line))
