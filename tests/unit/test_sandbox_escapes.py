"""No attempt gets out of the sandbox, and the host is unharmed: cold, warm, and in a session.

Where this host can't isolate, code must be refused: `test_sandbox.py` shows that on any host.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from actors.ports import Outcome
from actors.workers import PythonAdapter, draft
from podium.render_text import clean
from protocol.limits import MAX_DETAIL_CHARS
from tests.escapes import ESCAPES, PRELUDE, Escape
from tests.sandboxes import attempt, walls, warm

pytestmark = walls

MODES: Final = ("cold", pytest.param("warm", marks=pytest.mark.slow), "session")
"""A warm sandbox is a cold one that has waited."""

LIMITS: Final = {
    "memory_mb": 256,
    "tmp_mb": 8,
    "processes": 16,
    "files": 32,
    "output_bytes": 10_000,
}

SECRET: Final = "PODIUM_TEST_SECRET"
"""The name of a variable of the worker's, and what stands in files of the host."""

REACHED: Final = ("/usr/escaped", "/escaped", "/dev/escaped", "/dev/shm/x")
"""Files that attempts try to make."""

MAX_GROWTH_BYTES: Final = 100 << 20
"""Bytes by which a worker may grow while code does its worst: its answers have limits."""

Run = Callable[[str, float], Outcome]


class Host:
    """What an escape would reach: a bystander, files, sockets that listen."""

    def __init__(self, folder: Path) -> None:
        self.bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        home = Path.home() / f".podium-escape-{os.getpid()}"
        shared = Path(tempfile.gettempdir()) / f"podium-escape-{os.getpid()}"
        self.files = [folder / "secret", home, shared]
        for file in self.files:
            file.write_text(SECRET)
        self.tcp, self.udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(str(folder / "socket"))
        self.abstract.bind(f"\0podium-escape-{os.getpid()}")
        for each in (self.tcp, self.udp):
            each.bind(("127.0.0.1", 0))
        for each in (self.tcp, self.unix, self.abstract):
            each.listen()
        self.before = self.shared()
        self.memory = psutil.Process().memory_info().rss

    @property
    def known(self) -> dict[str, Any]:
        """What the attempts are told of it."""
        return {
            "name": SECRET,
            "pid": self.bystander.pid,
            "files": [str(file) for file in self.files],
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": self.unix.getsockname(),
            "abstract": f"podium-escape-{os.getpid()}",
        }

    @staticmethod
    def shared() -> dict[str, object]:
        """What all of the host share, and no call may change."""
        return {
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "System V": [Path(f"/proc/sysvipc/{n}").read_text() for n in ("shm", "msg", "sem")],
            "name": socket.gethostname(),
            "files": [os.path.exists(p) for p in REACHED],
            "limits": Path("/proc/self/limits").read_text(),
        }

    def unharmed(self) -> None:
        """Nobody was reached, and nothing was changed."""
        assert self.bystander.poll() is None
        assert psutil.Process(self.bystander.pid).status() != psutil.STATUS_STOPPED
        assert [file.read_text() for file in self.files] == [SECRET] * 3
        for each in (self.tcp, self.udp, self.unix, self.abstract):
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(1) if each is self.udp else each.accept()
        assert self.shared() == self.before
        assert psutil.Process().memory_info().rss - self.memory < MAX_GROWTH_BYTES

    def close(self) -> None:
        self.bystander.kill()
        self.bystander.communicate()
        for each in (self.tcp, self.udp, self.unix, self.abstract):
            each.close()
        for file in self.files:
            file.unlink()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("host"))
    os.environ[SECRET] = "sk-SECRET"
    yield made
    del os.environ[SECRET]
    made.close()


@pytest.fixture(scope="module", params=MODES)
def run(request: pytest.FixtureRequest, host: Host) -> Iterator[Run]:
    """Runs code, each time as another run, in one worker; in the end nothing is left of any."""
    assert host.bystander.poll() is None
    before = set(psutil.Process().children(recursive=True))
    mode = "persistent" if request.param == "session" else "ephemeral"
    options = {"mode": mode, "warm": int(request.param == "warm"), "sessions": 4, **LIMITS}
    number = 0
    with asyncio.Runner() as runner:
        adapter = PythonAdapter(draft("python", options))

        def run(code: str, time_s: float) -> Outcome:
            nonlocal number
            number += 1
            if request.param == "session":
                assert runner.run(adapter.run(attempt("1", run=str(number)))).status == "OK"
            if request.param == "warm":
                runner.run(warm(adapter, 1))
            return runner.run(adapter.run(attempt(code, time_s, run=str(number))))

        try:
            runner.run(adapter.run(attempt("1")))
            yield run
            assert run("6 * 7", 30.0).value["result"] == "42", "it works on after all of them"
        finally:
            runner.run(adapter.close())
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("name", list(ESCAPES))
def test_no_attempt_gets_out(name: str, run: Run, host: Host) -> None:
    escape = ESCAPES[name]
    outcome = run(f"{PRELUDE}HOST = {host.known!r}\n{escape.code}", escape.time_s)
    contained(escape, outcome)
    host.unharmed()


def contained(escape: Escape, outcome: Outcome) -> None:
    assert outcome.status == escape.status, outcome.value
    assert "SECRET" not in str(outcome.value)
    if outcome.status == "OK":
        assert outcome.value["result"] == escape.result
    else:
        assert outcome.fault == "worker"
        assert escape.says in outcome.value
        assert len(outcome.value) <= MAX_DETAIL_CHARS


def test_what_is_printed_can_not_steer_a_terminal(run: Run) -> None:
    code = r"print('\x1b]0;owned\x07\x1b[2J\x1b[8m\u202e', 'x' * 99_999)"
    value = run(code, 30.0).value
    assert len(value["stdout"]) <= LIMITS["output_bytes"]
    assert value["cut"] == "stdout: the first 10000 of 100022 bytes"
    assert not set(clean(value["stdout"])) & {"\x1b", "\x07", "\u202e"}
