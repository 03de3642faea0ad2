"""The warehouse, an MCP server over standard input and output, with the official SDK.

Its scale is out of order: a failure that is planted for the desk to recover from.
"""

from typing import Final, TypedDict

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

LABELS: Final = {"P-7": 640, "P-8": 512}
"""Kilograms, by pallet."""

server: Final = MCPServer("warehouse", log_level="ERROR")


class Weight(TypedDict):
    """What a tool gives."""

    kg: int


@server.tool()
def weigh(pallet: str) -> Weight:
    """Puts a pallet on the scale."""
    raise ToolError(f"The scale is out of order, {pallet} can't be weighed; read its label.")


@server.tool()
def label(pallet: str) -> Weight:
    """Reads the label of a pallet: its weight when it was packed."""
    if pallet not in LABELS:
        raise ToolError(f"There is no pallet {pallet}. There are: {', '.join(LABELS)}.")
    return {"kg": LABELS[pallet]}


if __name__ == "__main__":
    server.run()
