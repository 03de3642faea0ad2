"""A sandbox seen from the worker: a warden that locks code in, and is given calls.

What is said to it and by it stands in `sandbox_child`: a line of JSON each way, first what it must
hold to (`Request`), then one for each call.
"""

import subprocess
from typing import Any, Final, Literal

import msgspec

from actors import tracing
from actors.workers.processes.warden import Printed, Warden, command, heard

PROBE_S: Final = 20.0
"""Seconds that the trial of isolation may take on a busy machine; it needs a tenth of one."""

Level = Literal["namespaces", "process"]
Mode = Literal["ephemeral", "persistent"]

_CHILD: Final = "sandbox_child"

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # else each thread reserves 64 MiB of the limit on addresses
}
"""All that the code sees of an environment: nothing of the worker's, which holds its secrets."""


class Refused(Exception):
    """The host can't isolate code; the text says which layer is missing."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a warden is started with; see `sandbox_child.Request`."""

    isolation: Level
    persistent: bool
    cpu_s: int
    memory_bytes: int
    processes: int
    files: int
    tmp_bytes: int
    output_bytes: int


class Answer(Printed, frozen=True, kw_only=True):
    """What the warden says; see `sandbox_child.report`."""

    end: Literal[
        "ready",
        "unready",
        "done",
        "ended",
        "wall",
        "cpu",
        "memory",
        "forged",
        "restless",
        "withdrawn",
        "refused",
    ]
    status: int = 0
    wall_s: float = 0
    """Seconds that it was given."""
    result: dict[str, Any] = msgspec.field(default_factory=dict)
    error: str = ""


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """What the host offers, as ``podium doctor`` shows it."""

    level: Level
    """The strongest that works."""
    reason: str = ""
    """Why it is no better than ``process``: the layer that is missing, and the kernel's words."""
    layers: tuple[str, ...] = ()
    """What was tried out and stands, in words, outermost first."""


LAYERS: Final = (
    "namespaces of users, mounts, processes, networks, IPC and host names",
    "a read-only root with a private /tmp",
    "no capabilities",
    "no new privileges",
    "a filter of system calls",
)
"""The walls of ``namespaces``: all of them or none, see decision 0005."""


class Sandbox(Warden):
    """One warden and the interpreter that it has locked in. Made by `start`."""

    @staticmethod
    async def start(request: Request) -> "Sandbox":
        """Start a warden and wait until its code is locked in and waits for a call.

        Raises:
            Refused: The host can't isolate code.
            OSError: The warden or the interpreter can't be started, or ended without a word.
        """
        sandbox = await Sandbox.begin(_CHILD, _ENVIRONMENT)
        try:
            answer = await sandbox.ask(msgspec.json.encode(request), Answer)
            if answer.end == "refused":
                raise Refused(answer.error)
            if answer.end != "ready":
                raise OSError(f"its interpreter was not ready: {answer.error or answer.end}")
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def run(self, code: str, wall_s: float) -> Answer:
        """Have it run code. If this is cancelled or fails, the sandbox can only be closed.

        Args:
            code: Python.
            wall_s: Seconds that it may take.

        Raises:
            OSError: The warden ended without a word.
        """
        return await self.ask(_call(code, wall_s, tracing.passed_on("TRACEPARENT")), Answer)


def tried(request: Request) -> Isolation:
    """What comes of a trial of the strongest isolation. Blocks for a moment."""
    try:
        with subprocess.Popen(
            command(_CHILD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
        ) as trial:
            assert trial.stdin is not None
            assert trial.stdout is not None
            answer = Answer(end="ready")
            for line in (msgspec.json.encode(request), _call("1", PROBE_S, {})):
                if answer.end == "ready":
                    trial.stdin.write(line + b"\n")
                    trial.stdin.flush()
                    answer = heard(trial.stdout.readline(), Answer)
    except OSError as error:
        return Isolation(level="process", reason=f"the trial failed: {error}")
    if answer.end == "done" and answer.result.get("result") == "1":
        return Isolation(level="namespaces", layers=LAYERS)
    return Isolation(level="process", reason=answer.error or f"the trial ended with {answer.end}")


def _call(code: str, wall_s: float, environment: dict[str, str]) -> bytes:
    return msgspec.json.encode({"code": code, "wall_s": wall_s, "environment": environment})
