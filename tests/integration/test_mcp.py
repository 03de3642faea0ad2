"""MCP servers, real processes: what goes wrong, what changes, what is shared."""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from actors import tracing
from actors.ports import Outcome
from actors.worker import Worker, WorkerOptions
from actors.workers import McpAdapter, draft, host
from actors.workers.outcomes import leaving
from protocol.actions import Json, WorkerSpec
from protocol.errors import InvalidData, NotFound, Unreachable
from protocol.redaction import Redactor
from protocol.traces import Context
from tests.adapters.case import LIMIT_S, attempt, worked
from tests.mcp_server import over_http
from tests.world import World

ROOT: Final = Path(__file__).resolve().parent.parent

OLD: Final[dict[str, Json]] = {
    "command": sys.executable,
    "args": [str(ROOT / "old_mcp_server.py")],
}


@asynccontextmanager
async def hosted(options: dict[str, Json]) -> AsyncIterator[dict[str, McpAdapter]]:
    """All tools of a server, by name."""
    specs = await asyncio.to_thread(McpAdapter.discover, "mcp", options)
    adapters = {spec.name: McpAdapter(spec) for spec in specs}
    try:
        yield adapters
    finally:
        for adapter in adapters.values():
            await adapter.close()


async def ask(adapter: McpAdapter, **arguments: Json) -> Outcome:
    return await worked(adapter, attempt(arguments))


# ---------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("what", "status", "fault", "text"),
    [
        ("refuse", "PARSE_ERR", "policy", "what is no good"),
        ("break", "EXEC_ERR", "worker", "out of order"),
        ("strange", "EXEC_ERR", "infrastructure", "no result of a tool"),
        ("nan", "EXEC_ERR", "worker", "no JSON number"),
        ("odd", "OK", "none", "\N{REPLACEMENT CHARACTER}" * 2),
        ("noise", "OK", "none", "do noise"),
    ],
)
async def test_what_a_server_says_has_a_status(
    what: str, status: str, fault: str, text: str
) -> None:
    async with hosted(OLD) as tools:
        outcome = await ask(tools["do"], what=what)
        assert (outcome.status, outcome.fault) == (status, fault)
        assert text in outcome.value
        assert (await ask(tools["do"], what="still there")).value == "do still there"


@pytest.mark.parametrize(
    ("what", "text"),
    [("cancelled", "'pid' is a required property"), ("x", "did not return structured content")],
)
async def test_a_result_that_breaks_the_tools_own_promise_is_its_failure(
    what: str, text: str
) -> None:
    async with hosted(OLD) as tools:
        assert (await ask(tools["leave"], what="who")).value["pid"]
        outcome = await ask(tools["leave"], what=what)
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
        assert text in outcome.value


async def test_a_server_that_dies_is_started_anew_at_the_next_call() -> None:
    async with hosted(OLD) as tools:
        before = (await ask(tools["do"], what="who")).value["pid"]
        died = await ask(tools["do"], what="die")
        assert (died.status, died.fault) == ("EXEC_ERR", "infrastructure")
        assert "has ended" in died.value
        assert "I can't go on" in died.value
        after = (await ask(tools["do"], what="who")).value["pid"]
        assert after != before


async def test_one_that_died_between_two_calls_costs_no_call() -> None:
    async with hosted(OLD) as tools:
        before = (await ask(tools["do"], what="who")).value["pid"]
        os.kill(before, signal.SIGKILL)
        session = tools["do"]._session
        assert session is not None
        assert session._connection is not None
        await asyncio.wait({session._connection.task})
        assert (await ask(tools["do"], what="who")).status == "OK"


async def test_what_waits_when_a_server_dies_hears_of_it() -> None:
    async with hosted(OLD) as tools:
        waiting = asyncio.create_task(ask(tools["do"], what="silence"))
        who = (await ask(tools["go"], what="who")).value["pid"]
        os.kill(who, signal.SIGKILL)
        outcome = await waiting
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")


async def test_what_waits_for_a_list_when_a_server_dies_is_no_cancellation() -> None:
    async with hosted(OLD) as tools:
        who = (await ask(tools["go"], what="who")).value["pid"]
        await ask(tools["do"], what="never list again")
        waiting = asyncio.create_task(ask(tools["go"], what="who"))
        await asyncio.sleep(0)
        os.kill(who, signal.SIGKILL)
        assert (await waiting).value["pid"] != who


async def test_a_call_that_is_withdrawn_is_cancelled_at_the_server() -> None:
    async with hosted(OLD) as tools:
        await ask(tools["go"], what="who")
        waiting = asyncio.create_task(ask(tools["do"], what="silence"))
        await ask(tools["go"], what="who")  # the server has read the other, too
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        seen = (await ask(tools["go"], what="cancelled")).value["cancelled"]
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"command": "no-such-command"}, NotFound, "No such file"),
        ({"command": "true", "cwd": "/no/such/folder"}, NotFound, "/no/such/folder"),
        ({"command": "true"}, Unreachable, "wrote nothing"),
        ({"command": sys.executable, "args": ["-c", "import nosuch"]}, Unreachable, "'nosuch'"),
        ({"url": "http://127.0.0.1:9/mcp"}, Unreachable, "can't be reached"),
        ({}, InvalidData, "neither a command nor a url"),
        ({"command": "a", "url": "http://b"}, InvalidData, "both a command and a url"),
        ({"url": "ftp://b"}, InvalidData, "no HTTP address"),
        ({"url": "http://b", "args": ["c"]}, InvalidData, "only goes with a command"),
        ({"command": "a", "headers": {"b": "c"}}, InvalidData, "only goes with a url"),
        ({"command": 1}, InvalidData, "wrong"),
        ({"command": "a", "comand": "b"}, InvalidData, "comand"),
    ],
)
def test_a_server_that_cant_be_had_says_why(
    options: dict[str, Json], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        McpAdapter.discover("mcp", options)
    assert raised.value.hint  # type: ignore[attr-defined]


async def test_one_that_cant_be_had_is_an_outcome_too() -> None:
    spec = WorkerSpec(name="x", adapter="mcp:x", options={"command": "no-such-command"})
    outcome = await ask(McpAdapter(spec))
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert "no-such-command" in outcome.value


def test_an_address_without_a_tool_is_none_to_host() -> None:
    with pytest.raises(InvalidData, match="names no tool"):
        host(WorkerSpec(name="x", adapter="mcp", options=OLD))


def test_a_tool_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFound, match="no 'mcp:nothing'") as raised:
        draft("mcp:nothing", OLD)
    assert "mcp:do, mcp:go, mcp:leave" in raised.value.hint


async def test_no_secret_is_in_what_a_server_wrote_before_it_ended() -> None:
    token = leaving.set(Redactor(values={"[the token]": "tok-123456789"}))
    async with hosted(OLD | {"env": {"TOKEN": "tok-123456789"}}) as tools:
        outcome = await ask(tools["do"], what="tell")
    leaving.reset(token)
    assert "the token is [the token]" in outcome.value


async def test_of_the_workers_environment_a_server_sees_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "of the worker")
    async with hosted(OLD) as tools:
        assert (await ask(tools["do"], what="who")).value["token"] is None
    async with hosted(OLD | {"env": {"TOKEN": "given"}}) as tools:
        assert (await ask(tools["do"], what="who")).value["token"] == "given"


async def test_python_is_the_one_that_podium_runs_in_with_the_pools_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no virtual environment is activated
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as loading a pool file does
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old_mcp_server.py").write_text("raise SystemExit('of the working folder')")
    async with hosted({"command": "python", "args": ["-m", "old_mcp_server"]}) as tools:
        assert (await ask(tools["do"], what="work")).value == "do work"


# ------------------------------------------------------------------------------------- what changes


@pytest.mark.parametrize("how", ["change", "change quietly"])
async def test_a_tool_that_is_gone_or_wants_other_arguments_says_so(how: str) -> None:
    async with hosted(OLD) as tools:
        told: list[list[WorkerSpec]] = []
        tools["go"].changed = tools["leave"].changed = told.append
        await ask(tools["go"], what="who")
        await ask(tools["leave"], what="who")
        await ask(tools["do"], what=how)
        gone = await ask(tools["leave"], what="x")
        assert (gone.status, gone.fault) == ("EXEC_ERR", "infrastructure")
        assert "no tool 'leave' any more. Its tools: do, go, come." in gone.value
        misfit = await ask(tools["go"], what="x")
        assert (misfit.status, misfit.fault) == ("PARSE_ERR", "policy")
        assert "'number' is required" in misfit.value
        assert '"integer"' in misfit.value
        fits = await ask(tools["go"], number=1)
        assert fits.status == "OK"
        names = [[spec.name for spec in there] for there in told]
        assert names == [["do", "go", "come"]] * 2


async def test_changes_are_seen_at_the_next_session_too() -> None:
    async with hosted(OLD) as tools:
        told: list[list[WorkerSpec]] = []
        tools["go"].changed = told.append
        await ask(tools["go"], what="who")
        await ask(tools["do"], what="change")
        assert (await ask(tools["go"], what="x")).status == "PARSE_ERR"
        await ask(tools["do"], what="die")
        assert (await ask(tools["go"], what="x")).value == "go x"  # a fresh server has the old ones
        assert [[spec.name for spec in there] for there in told] == [
            ["do", "go", "come"],
            ["do", "go", "leave"],
        ]


async def test_what_comes_where_there_was_nothing_is_told_too() -> None:
    async with hosted(OLD) as tools:
        told: asyncio.Queue[list[WorkerSpec]] = asyncio.Queue()
        tools["do"].changed = told.put_nowait
        await ask(tools["do"], what="swap")
        async with asyncio.timeout(LIMIT_S):
            assert await told.get() == []
            assert [spec.name for spec in await told.get()] == ["come"]


async def test_a_worker_logs_what_has_become_of_its_own_tool(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    async with hosted(OLD) as tools:
        for adapter in tools.values():
            Worker(
                adapter=adapter,
                log=world.log,
                calls=world.calls,
                bus=world.bus,
                clock=world.clock,
                options=WorkerOptions(replica=adapter.spec.name),
            )
            await ask(adapter, what="who")
        await ask(tools["do"], what="change")
        await ask(tools["do"], what="who")
    assert [record.message for record in caplog.records if record.name == "podium.worker"] == [
        "worker do: mcp:do is there as recorded, but others have come, gone or changed",
        "worker go: mcp:go takes other parameters than were recorded",
        "worker leave: mcp:leave is gone",
    ]


# ----------------------------------------------------------------------------------- what is shared


async def test_tools_of_a_server_share_its_process() -> None:
    async with hosted(OLD) as tools, hosted(OLD | {"env": {"TOKEN": "another"}}) as others:
        pids = [(await ask(tool, what="who")).value["pid"] for tool in tools.values()]
        other = (await ask(others["do"], what="who")).value["pid"]
        assert len(set(pids)) == 1
        assert other not in pids


async def test_the_last_one_to_leave_ends_it() -> None:
    async with hosted(OLD) as tools:
        pid = (await ask(tools["do"], what="who")).value["pid"]
        await ask(tools["go"], what="who")
        await tools["do"].close()
        assert (await ask(tools["go"], what="who")).value["pid"] == pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_caller_that_goes_away_while_it_is_opened_takes_nothing_along() -> None:
    async with hosted(OLD) as tools:
        first = asyncio.create_task(ask(tools["do"], what="who"))
        second = asyncio.create_task(ask(tools["go"], what="who"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).status == "OK"


async def test_one_that_is_left_while_it_is_opened_is_ended(tmp_path: Path) -> None:
    os.mkfifo(said := tmp_path / "said")
    silent = f"import os, time; open({str(said)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    options: dict[str, Json] = {"command": sys.executable, "args": ["-c", silent]}
    adapter = McpAdapter(WorkerSpec(name="x", adapter="mcp:x", options=options))
    waiting = asyncio.create_task(ask(adapter))
    pid = int(await asyncio.to_thread(said.read_text))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(LIMIT_S):
        await adapter.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# ----------------------------------------------------------------------------------- over HTTP, SDK


async def test_a_server_of_the_sdk_over_http() -> None:
    """All in one: it takes seconds to start."""
    with over_http() as url:
        options: dict[str, Any] = {"url": url, "headers": {"Authorization": "Bearer abc"}}
        async with hosted(options) as tools:
            assert (await ask(tools["go"], page="a")).value == {"result": 1}
            assert (await ask(tools["where"])).value == {"result": ["a"]}
            misfit = await ask(tools["go"], page=["a"])
            assert (misfit.status, misfit.fault) == ("PARSE_ERR", "policy")
            assert "page" in misfit.value
            assert (await ask(tools["work"], what="token")).value == "Bearer abc"
            context = Context("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
            with tracing.under(lambda: (context, {"podium.run.id": "r"})):
                outcome = await ask(tools["work"], what="header")
            assert outcome.value == context.traceparent
            text, image = (await ask(tools["picture"])).value
            assert text == "a greeting"
            assert (image["type"], image["mimeType"]) == ("image", "image/png")
            assert base64.b64decode(image["data"]) == b"hi"
            assert (await ask(tools["huge"])).value == "x" * 2_000_000
            assert tools["go"].spec.description == "Goes to a page, and says how many there were."

            told: list[list[WorkerSpec]] = []
            tools["where"].changed = told.append
            await ask(tools["change"])
            gone = await ask(tools["where"])
            assert (gone.status, gone.fault) == ("EXEC_ERR", "infrastructure")
            assert (await ask(tools["go"], page="b")).status == "PARSE_ERR"
            assert [spec.name for spec in told[0]][-2:] == ["go", "left"]

            died = await ask(tools["die"])
            assert (died.status, died.fault) == ("EXEC_ERR", "infrastructure")
            dead = await ask(tools["go"], number=1)
            assert "can't be reached" in dead.value
        wrong = {"url": url.replace("/mcp", "/other")}
    with pytest.raises(Unreachable, match="can't be reached"):
        McpAdapter.discover("mcp", wrong)
