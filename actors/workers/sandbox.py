"""Python code as a worker, locked in: no network, no files, bounded in all that it uses.

Each attempt is a process of its own, in namespaces of its own, killed with all that it has started
when it ends, takes too long or is withdrawn. If the host can't isolate code that way, attempts are
refused with the reason; ``isolation = "process"`` in the worker's options accepts limits without
walls, for code that is trusted. Why it is built like this: ``docs/decisions/0005-sandbox.md``.
"""

import asyncio
import contextlib
import functools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from actors import tracing
from actors.ports import Attempt, Outcome
from actors.workers.outcomes import clean, failure
from protocol.actions import Json, WorkerSpec
from protocol.errors import InvalidData

KIND: Final = "python"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "code": {
            "type": "string",
            "description": "Python code, standard library only. The value of the last expression "
            "and what is printed are the result. Nothing is kept between calls.",
        }
    },
    "required": ["code"],
    "additionalProperties": False,
}
"""What a call of this worker takes."""

DESCRIPTION: Final = (
    "Runs Python code in a sandbox without network and files, and gives what it prints and the "
    "value of its last expression."
)

MEBIBYTE: Final = 1 << 20

CONCURRENCY: Final = 4
"""Attempts at a time unless the pool says otherwise: each is a process that may want a core."""

MARGIN_S: Final = 0.25
"""Seconds before the attempt's deadline at which code is stopped: time to hand in its output."""

STOP_S: Final = 5.0
"""Seconds that the supervisor may take to kill and bury everything before it is killed itself."""

PROBE_S: Final = 20.0
"""Seconds that the trial of `isolation` may take on a busy machine; it needs a tenth of one."""

CHUNK: Final = 65_536
"""Bytes of one read: what a pipe holds."""

MAX_ANSWER_BYTES: Final = 20 * MEBIBYTE
"""Bytes of the supervisor's answer: all streams at their limit, each character escaped."""

MAX_OUTPUT_BYTES: Final = MEBIBYTE
"""Bytes: the most that ``output_bytes`` can be set to; more belongs in no prompt."""

_CHILD: Final = Path(__file__).with_name("sandbox_child.py")

_SIGXCPU_STATUS: Final = 128 + signal.SIGXCPU

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # else each thread reserves 64 MiB of the limit on addresses
}
"""All that the code sees of an environment: nothing of the worker's, which holds its secrets."""

Level = Literal["namespaces", "process"]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind. Each limit is of one attempt."""

    isolation: Level = "namespaces"
    """``process`` gives up the walls and keeps the limits: only for code that is trusted."""
    wall_s: float = 30.0
    """Seconds; the worker's time-out applies as well."""
    cpu_s: int = 20
    """Seconds of CPU of each process."""
    memory_mb: int = 512
    """MiB of all processes together, and of the address space of each."""
    processes: int = 16
    """Processes and threads."""
    files: int = 64
    """Files that each process may hold open; 64 times as many fit into ``/tmp``."""
    tmp_mb: int = 64
    """MiB of ``/tmp``, and of each file in it."""
    output_bytes: int = 65_536
    """Bytes kept of what is printed, for each stream, and characters of the result."""

    def __post_init__(self) -> None:
        """Refuse what would make a limit no limit."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, str) and not value > 0:
                raise ValueError(f"{name} must be above 0")
        if self.output_bytes > MAX_OUTPUT_BYTES:
            raise ValueError(f"output_bytes can be at most {MAX_OUTPUT_BYTES}")


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """What the host offers, as ``podium doctor`` shows it."""

    level: Level
    """The strongest that works."""
    reason: str = ""
    """Why it is no better than ``process``: the layer that is missing, and the kernel's words."""


class _Result(msgspec.Struct, frozen=True):
    result: str | None = None
    result_chars: int = 0
    error: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    """What the supervisor says; see `sandbox_child.report`."""

    end: Literal["ended", "wall", "memory", "withdrawn", "refused"]
    status: int = 0
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    result: dict[str, Any] = {}
    error: str = ""


class PythonAdapter:
    """Hosts sandboxed Python.

    Args:
        spec: Its worker; ``spec.options`` are `Options`.

    Raises:
        InvalidData: An option is unknown or out of range.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.options = _options(spec.options, spec.name)

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """A sandbox with these options."""
        made = _options(options, adapter)
        return WorkerSpec(
            name="python",
            description=DESCRIPTION,
            parameters=PARAMETERS,
            adapter=adapter,
            options=dict(options),
            concurrency=CONCURRENCY,
            timeout_ms=math.ceil((made.wall_s + MARGIN_S) * 1_000),
        )

    async def run(self, attempt: Attempt) -> Outcome:
        """Run ``code``. What it raises is an ``EXEC_ERR``, too much time a ``TIMEOUT``."""
        code = attempt.arguments.get("code")
        if not isinstance(code, str):
            return failure("PARSE_ERR", "policy", "Give the Python code as the text `code`.")
        wall_s = min(self.options.wall_s, max(MARGIN_S, attempt.timeout_s - MARGIN_S))
        try:
            raw = await _supervised(_request(clean(code), self.options, wall_s))
            answer = msgspec.json.decode(raw, type=_Answer)
        except OSError as error:
            text = f"The sandbox can't be started: {error}."
            return failure("EXEC_ERR", "infrastructure", text)
        except msgspec.MsgspecError as error:
            text = f"The sandbox's supervisor ended without a word that can be read: {error}."
            return failure("EXEC_ERR", "infrastructure", text)
        return self._outcome(answer, wall_s)

    async def close(self) -> None:
        """Nothing is held between attempts."""

    def _outcome(self, answer: _Answer, wall_s: float) -> Outcome:
        options = self.options
        if answer.end == "refused":
            return failure("EXEC_ERR", "infrastructure", _refusal(answer.error))
        if answer.end == "withdrawn":
            return failure("EXEC_ERR", "infrastructure", "The code was stopped from outside.")
        if answer.end == "wall":
            text = f"The code was stopped after {wall_s:g} seconds."
            return failure("TIMEOUT", "worker", text + _printed(answer))
        if answer.status == _SIGXCPU_STATUS:
            text = f"The code was stopped: it had used {options.cpu_s} seconds of CPU."
            return failure("TIMEOUT", "worker", text + _printed(answer))
        if answer.end == "memory":
            text = f"The code was stopped: it had used more than {options.memory_mb} MiB."
            return failure("EXEC_ERR", "worker", text + _printed(answer))
        try:
            result = msgspec.convert(answer.result, _Result)
        except msgspec.ValidationError:
            result = _Result(error="The code wrote over its own result.")
        if result.error is not None:
            return failure("EXEC_ERR", "worker", result.error + _printed(answer))
        if answer.status != 0:
            text = f"The code ended with {_exit(answer.status)}."
            return failure("EXEC_ERR", "worker", text + _printed(answer))
        return Outcome(value=_value(answer, result, options.output_bytes))


@functools.cache
def isolation() -> Isolation:
    """The strongest isolation that this host offers, tried out once. Blocks for a moment."""
    try:
        with subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
        ) as trial:
            assert trial.stdin is not None
            assert trial.stdout is not None
            trial.stdin.write(_request("1", Options(), PROBE_S))
            trial.stdin.flush()
            answer = msgspec.json.decode(trial.stdout.read(), type=_Answer)
    except (OSError, msgspec.MsgspecError) as error:
        return Isolation(level="process", reason=f"The trial failed: {error}")
    if answer.end == "ended" and answer.result.get("result") == "1":
        return Isolation(level="namespaces")
    return Isolation(level="process", reason=answer.error or f"The trial ended with {answer.end}.")


def _command() -> list[str]:
    """The supervisor, by the interpreter itself: a virtual environment's packages stay outside."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    return [python, "-I", "-S", "-B", "-X", "utf8", str(_CHILD)]


def _request(code: str, options: Options, wall_s: float) -> bytes:
    request = {
        "code": code,
        "isolation": options.isolation,
        "wall_s": wall_s,
        "cpu_s": options.cpu_s,
        "memory_bytes": options.memory_mb * MEBIBYTE,
        "processes": options.processes,
        "files": options.files,
        "tmp_bytes": options.tmp_mb * MEBIBYTE,
        "output_bytes": options.output_bytes,
    }
    return json.dumps(request).encode() + b"\n"


def _options(options: Mapping[str, Json], whose: str) -> Options:
    try:
        return msgspec.convert(options, Options)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"The options of the worker {whose!r} are wrong: {error}.",
            hint=f"Options of a {KIND} worker: {', '.join(Options.__struct_fields__)}.",
        ) from error


async def _supervised(request: bytes) -> bytes:
    """Run the supervisor to its end. However this is left, nothing of the code is left behind."""
    process = await asyncio.create_subprocess_exec(
        *_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT | tracing.passed_on("TRACEPARENT"),
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request)
        with contextlib.suppress(ConnectionError):  # it has refused already, and says so
            await process.stdin.drain()
        return await _read(process.stdout)
    finally:
        await _stop(process, process.stdin)


async def _read(stream: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while data := await stream.read(CHUNK):
        answer += data
        if len(answer) > MAX_ANSWER_BYTES:
            raise OSError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(answer)


async def _stop(process: asyncio.subprocess.Process, lifeline: asyncio.StreamWriter) -> None:
    """Let go of the lifeline, on which the supervisor kills all, and see it end."""
    lifeline.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _value(answer: _Answer, result: _Result, limit: int) -> dict[str, Json]:
    value: dict[str, Json] = {
        "stdout": clean(answer.stdout),
        "stderr": clean(answer.stderr),
        "result": None if result.result is None else clean(result.result),
    }
    sizes = {
        "stdout": (answer.stdout_bytes, "bytes"),
        "stderr": (answer.stderr_bytes, "bytes"),
        "result": (result.result_chars, "characters"),
    }
    cut = [
        f"{name}: the first {limit} of {size} {unit}"
        for name, (size, unit) in sizes.items()
        if size > limit
    ]
    if cut:
        value["cut"] = "; ".join(cut)
    return value


def _printed(answer: _Answer) -> str:
    """The end of what the code had printed, for a text that says how it failed."""
    parts = [
        f"\n{name}: {text[-500:]}"
        for name, text in (("stdout", answer.stdout), ("stderr", answer.stderr))
        if text
    ]
    return "".join(parts)


def _exit(status: int) -> str:
    with contextlib.suppress(ValueError):
        if status > 128:
            return f"signal {signal.Signals(status - 128).name}"
    return f"exit status {status}"


def _refusal(reason: str) -> str:
    return (
        f"This host can't isolate code, so it was not run. Missing: {reason}. "
        "Allow user namespaces on the host (`podium doctor` shows what it offers), or set "
        'isolation = "process" in the worker\'s options if the code is trusted.'
    )
