"""`podium reproduce --pdb` and `--break` in a terminal, as a person uses pdb there.

The run is recorded by a real conductor and worker on a real server; the command is a process of its
own behind a pseudo-terminal.
"""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from actors.embedded import NatsServer
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Connection, Declared, start
from podium import poolfile
from podium.client import Client
from protocol import subjects
from protocol.decisions import PolicySpec
from replay.broker import Broker
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT_S: Final = 60.0

MODULE: Final = "pdb_desk"
TOOLS: Final = '''
"""Tools of which one raises on one input."""
import asyncio
import json
import podium

@podium.tool
def price(product: str) -> float:
    """The price of a product."""
    wanted = product.strip()
    found = json.loads('{"chair": 12.5, "lamp": "1O"}')
    return to_number(found[wanted])

def to_number(text: object) -> float:
    return float(text)

@podium.tool
def broken(text: str) -> object:
    """Raises within a library."""
    return json.loads(text)

@podium.tool(timeout_s=1)
async def slow(product: str) -> str:
    """Waits before it raises."""
    name = product.upper()
    await asyncio.sleep(0.01)
    raise LookupError(name)

class Policy:
    spec = podium.PolicySpec(name="python:pdb_desk:Policy")

    def decide(self, view):
        if view.turns:
            return podium.Reply(decision=podium.Decision(answer="done"))
        calls = (
            podium.PlannedCall("price", {"product": "lamp"}),
            podium.PlannedCall("broken", {"text": "{"}),
            podium.PlannedCall("slow", {"product": "lamp"}),
        )
        return podium.Reply(decision=podium.Decision(calls=calls))
'''
PRICE, BROKEN, SLOW = "1-0", "1-1", "1-2"


class Recorded:
    """A folder in which a run was recorded by real processes' code."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pool = folder, folder / "pool.toml"
        (folder / f"{MODULE}.py").write_text(TOOLS)
        self.pool.write_text(f'[pool]\nmodule = "{MODULE}"\npolicy = "python:{MODULE}:Policy"\n')
        self.run = asyncio.run(self._recorded())

    async def _recorded(self) -> str:
        server = NatsServer.start(self.folder / ".podium" / "nats", "process")
        try:
            return await self._on(server)
        finally:
            await asyncio.to_thread(server.stop)

    async def _on(self, server: NatsServer) -> str:
        pool = poolfile.load(self.pool)

        def connection(role: str) -> Connection:
            user, password = server.credentials(role)  # type: ignore[arg-type]
            return Connection(url=server.url, user=user, password=password)

        owner: Broker = await connection("conductor").open("test")
        await ensure_streams(owner)
        tasks = JetStreamQueue(owner, subjects.TASKS, lease_s=10)
        await tasks.ensure(consumers_of("tasks"))
        calls = JetStreamQueue(owner, subjects.CALLS, lease_s=10)
        declared = [
            Declared(
                name="conductor-1",
                kind="conductor",
                connection=connection("conductor"),
                lease_s=10,
                policies=(pool.policy,),
            )
        ]
        for spec in pool.pool.workers:
            await calls.ensure(consumers_of(spec.name))
            there = connection("worker")
            declared.append(
                Declared(name=spec.name, kind="worker", connection=there, lease_s=10, specs=(spec,))
            )
        programs = [await start(each) for each in declared]
        client = Client(JetStreamLog(owner), tasks)
        try:
            run = await client.submit("Do it.", pool.pool, PolicySpec(name=pool.policy))
            async with asyncio.timeout(LIMIT_S):
                await client.result(run)
        finally:
            for program in programs:
                await program.stop()
            await owner.close()
        return run


class Terminal:
    """A command behind a pseudo-terminal."""

    def __init__(self, recorded: Recorded, *arguments: str) -> None:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "podium.cli", "reproduce", *arguments],
            cwd=recorded.folder,
            env={**kept, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "200"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> str:
        """What it says up to and with ``text``."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} never came:\n{self.seen}"
            try:
                data = os.read(self._ours, 65_536)
            except OSError:  # it has ended
                data = b""
            assert data, f"{text!r} never came:\n{self.seen}"
            self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        said, _, self.seen = self.seen.partition(text)
        return said + text

    def type(self, line: str) -> str:
        """Type a line at the prompt; what is said until the next one."""
        os.write(self._ours, f"{line}\n".encode())
        return self.until("(Pdb) ")

    def end(self, line: str) -> tuple[int, str]:
        """Type the last line; the exit code and what was said."""
        os.write(self._ours, f"{line}\n".encode())
        said = self.rest()
        return self.process.wait(LIMIT_S), said

    def rest(self) -> str:
        """All that it still says."""
        said = self.seen
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:
                break
            if not data:
                break
            said += data.decode(errors="replace").replace("\r\n", "\n")
        return said

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    path, modules, variable = list(sys.path), set(sys.modules), os.environ.get("PYTHONPATH")
    try:
        yield Recorded(tmp_path_factory.mktemp("desk"))
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name == MODULE:
                del sys.modules[name]
        os.environ.pop("PYTHONPATH", None)
        if variable is not None:
            os.environ["PYTHONPATH"] = variable


@pytest.fixture
def terminal(recorded: Recorded, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    call, *more = request.param
    name = f"{recorded.run}/{call}"
    terminal = Terminal(recorded, name, "--pool", str(recorded.pool), *more)
    yield terminal
    terminal.close()


def typing(*arguments: str) -> pytest.MarkDecorator:
    """The arguments of the command that a test types to."""
    return pytest.mark.parametrize("terminal", [arguments], indirect=True, ids=" ".join)


@typing(PRICE, "--pdb")
def test_post_mortem_stands_where_the_users_function_raised(terminal: Terminal) -> None:
    opened = terminal.until("(Pdb) ")
    assert "ValueError: could not convert string to float: '1O'" in opened
    assert f"{MODULE}.py(15)to_number()" in opened
    assert "'1O'" in terminal.type("p text")
    stack = [line for line in terminal.type("w").splitlines() if ".py(" in line]
    assert ["price()" in stack[0], "to_number()" in stack[-1]] == [True, True]
    assert len(stack) == 2, "nothing of ours is in the stack"
    assert "'lamp'" in terminal.type("up") + terminal.type("p wanted")
    code, said = terminal.end("q")
    assert code == 0, "the same error as recorded"
    assert "the same as recorded" in said


@typing(BROKEN, "--pdb")
def test_post_mortem_begins_in_the_users_code_not_in_a_library(terminal: Terminal) -> None:
    terminal.until("(Pdb) ")
    assert "'{'" in terminal.type("p text")
    assert "json" in terminal.type("down")
    assert terminal.end("q")[0] == 0


@typing(SLOW, "--pdb")
def test_async_functions_have_a_post_mortem_too(terminal: Terminal) -> None:
    assert "LookupError: LAMP" in terminal.until("(Pdb) ")
    assert "'LAMP'" in terminal.type("p name")
    assert terminal.end("q")[0] == 0


@typing(PRICE, "--break")
def test_break_stops_at_the_first_line(terminal: Terminal) -> None:
    opened = terminal.until("(Pdb) ")
    assert f"{MODULE}.py(10)price()" in opened
    assert "wanted = product.strip()" in opened
    stack = [line for line in terminal.type("w").splitlines() if ".py(" in line]
    assert len(stack) == 1, "nothing of ours is in the stack"
    assert "'lamp'" in terminal.type("p product")
    assert "json.loads" in terminal.type("n")
    code, said = terminal.end("c")
    assert code == 0, said
    assert "the same as recorded" in said


@typing(PRICE, "--break")
def test_a_changed_variable_changes_the_result(terminal: Terminal) -> None:
    terminal.until("(Pdb) ")
    terminal.type("!product = 'chair'")
    code, said = terminal.end("c")
    assert code == 1
    assert '+  "value": 12.5' in said


@typing(SLOW, "--break", "--pdb")
def test_time_stands_still_in_an_async_function_too(terminal: Terminal) -> None:
    assert "name = product.upper()" in terminal.until("(Pdb) ")
    # Longer than the tool's time-out.
    terminal.type("!import threading; threading.Event().wait(1.5)")
    assert "LookupError: LAMP" in terminal.type("c")
    assert terminal.end("q")[0] == 0


@typing(PRICE, "--break")
def test_leaving_the_debugger_compares_nothing(terminal: Terminal) -> None:
    terminal.until("(Pdb) ")
    code, said = terminal.end("q")
    assert code == 130
    assert "left the debugger" in said
    assert "Traceback" not in said


@typing(PRICE, "--break")
def test_ctrl_c_interrupts_what_runs_and_not_the_debugger(terminal: Terminal) -> None:
    terminal.until("(Pdb) ")
    os.write(terminal._ours, b"!while True: pass\n")
    terminal.until("pass\n")
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.until("KeyboardInterrupt")
    terminal.until("(Pdb) ")
    assert "'lamp'" in terminal.type("p product")
    assert terminal.end("c")[0] == 0
