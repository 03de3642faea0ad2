"""MCP servers that others have written: two from PyPI, one from npm, over stdio and HTTP."""

import asyncio
import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.workers import McpAdapter
from protocol.actions import Json
from protocol.schemas import check_schema
from tests.borrowed import free_port
from tests.borrowed_mcp import from_npm, from_pypi
from tests.integration.test_mcp import ask, hosted

pytestmark = pytest.mark.slow

START_S = 60.0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One with a file that nobody has added yet."""
    where = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", where], check=True)
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.com")):
        subprocess.run(["git", "-C", where, "config", name, value], check=True)
    (where / "poem.txt").write_text("Roses are red.\n")
    return where


async def test_time() -> None:
    async with hosted(from_pypi("mcp-server-time", "--local-timezone", "UTC")) as tools:
        arguments = {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "UTC"}
        outcome = await ask(tools["convert_time"], **arguments)
        assert outcome.status == "OK"
        assert "T03:00:00+00:00" in str(outcome.value)
        wrong = await ask(tools["convert_time"], **arguments | {"source_timezone": "Moon/Crater"})
        assert (wrong.status, wrong.fault) == ("EXEC_ERR", "worker")
        assert "Moon/Crater" in wrong.value
        assert "time" in tools["get_current_time"].spec.description


async def test_git(repository: Path) -> None:
    """Something that one tool does and another sees."""
    async with hosted(from_pypi("mcp-server-git", "--repository", str(repository))) as tools:
        where = {"repo_path": str(repository)}
        assert "poem.txt" in str((await ask(tools["git_status"], **where)).value)
        added = await ask(tools["git_add"], **where, files=["poem.txt"])
        assert added.status == "OK", added
        committed = await ask(tools["git_commit"], **where, message="A poem")
        assert committed.status == "OK", committed
        assert "A poem" in str((await ask(tools["git_log"], **where)).value)
        outside = await ask(tools["git_status"], repo_path="/")
        assert (outside.status, outside.fault) == ("EXEC_ERR", "worker")


@pytest.fixture(params=["stdio", "http"])
def everything(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Json]]:
    """The server that has a tool for everything of the protocol, over both transports."""
    if request.param == "stdio":
        yield from_npm()
        return
    options, port = from_npm("streamableHttp"), free_port()
    environment = os.environ | {"PORT": str(port)}
    command = [options["command"], *options["args"]]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            while b"listening" not in (line := process.stderr.readline()):
                assert line, "it has ended"
            yield {"url": f"http://127.0.0.1:{port}/mcp"}
        finally:
            process.kill()


async def test_everything(everything: dict[str, Json]) -> None:
    async with hosted(everything) as tools:
        for tool in tools.values():
            check_schema(tool.spec.parameters, tool.tool)
        assert (await ask(tools["echo"], message="ä😀")).value == "Echo: ä😀"
        weather = (await ask(tools["get-structured-content"], location="Chicago")).value
        assert set(weather) == {"conditions", "humidity", "temperature"}
        text, image, *_ = (await ask(tools["get-tiny-image"])).value
        assert isinstance(text, str)
        assert image["mimeType"] == "image/png"
        assert base64.b64decode(image["data"])[1:4] == b"PNG"
        _, link, *_ = (await ask(tools["get-resource-links"], count=1)).value
        assert (link["type"], link["uri"][:7]) == ("resource_link", "demo://")
        wrong = await ask(tools["get-sum"], a="x")
        assert (wrong.status, wrong.fault) == ("PARSE_ERR", "policy")
        assert "expected number" in wrong.value

        long = asyncio.create_task(
            ask(tools["trigger-long-running-operation"], duration=600, steps=6_000)
        )
        assert (await ask(tools["echo"], message="meanwhile")).status == "OK"
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert (await ask(tools["echo"], message="after")).value == "Echo: after"


def test_the_second_look_is_the_same(everything: dict[str, Json]) -> None:
    """What was recorded is what is hosted, and compared with what is there."""
    first, second = (McpAdapter.discover("mcp", everything) for _ in range(2))
    assert first == second
