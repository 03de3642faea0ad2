"""Python code as a worker, locked in: no network, no files, bounded in all that it uses.

Each call gets a sandbox that nobody has used (``ephemeral``), a warm one if there is any, or all
calls of a run share one (``persistent``). A sandbox is killed with all that it has started when it
is over, takes too long or is withdrawn. If the host can't isolate code that way, attempts are
refused with the reason; ``isolation = "process"`` in the worker's options accepts limits without
walls, for code that is trusted. Why it is built like this: ``docs/decisions/0005-sandbox.md`` and
``0021-sessions-and-warm-sandboxes.md``.
"""

import asyncio
import contextlib
import functools
import math
import signal
from collections.abc import Mapping
from typing import Final

import msgspec

from actors.ports import Attempt, Outcome
from actors.workers.options import converted
from actors.workers.outcomes import clean, failure
from actors.workers.processes.sandbox_process import (
    Answer,
    Isolation,
    Level,
    Mode,
    Refused,
    Request,
    tried,
)
from actors.workers.processes.sandbox_sessions import LOST, Full, Late, Sessions
from actors.workers.processes.sandbox_warm import WarmSandboxes
from actors.workers.processes.warden import CONCURRENCY, MARGIN_S, MAX_OUTPUT_BYTES, MEBIBYTE
from protocol.actions import Json, WorkerSpec
from protocol.errors import InvalidData

__all__ = ["Isolation", "Options", "PythonAdapter", "isolation"]

KIND: Final = "python"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

KEPT: Final[Mapping[Mode, str]] = {
    "ephemeral": "Nothing is kept between calls.",
    "persistent": "Variables, functions and files in /tmp are kept for the next call of this run.",
}
"""What a policy is told of one call and the next."""

DESCRIPTION: Final = (
    "Runs Python code in a sandbox without network and files, and gives what it prints and the "
    "value of its last expression."
)

MAX_WARM: Final = 64
"""Sandboxes: the most that ``warm`` can be set to; each holds some 15 MiB."""

END_CHARS: Final = 500
"""Characters shown of the end of each stream of code that failed, below what it raised."""

_SIGXCPU_STATUS: Final = 128 + signal.SIGXCPU


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind. Each limit is of one sandbox."""

    mode: Mode = "ephemeral"
    """``persistent``: all calls of a run share an interpreter and its ``/tmp``, one at a time."""
    isolation: Level = "namespaces"
    """``process`` gives up the walls and keeps the limits: only for code that is trusted."""
    wall_s: float = 30.0
    """Seconds of one call; the worker's time-out applies as well."""
    cpu_s: int = 20
    """Seconds of CPU of each process in one call."""
    memory_mb: int = 512
    """MiB of all processes together, and of the address space of each."""
    processes: int = 16
    """Processes and threads."""
    files: int = 64
    """Files that each process may hold open; 64 times as many fit into ``/tmp``."""
    tmp_mb: int = 64
    """MiB of ``/tmp``, and of each file in it."""
    output_bytes: int = 65_536
    """Bytes kept of what a call prints, for each stream, and characters of the result."""
    warm: int = 2
    """Sandboxes that wait for a call, made once the first has come; 0 for none."""
    sessions: int = 16
    """Runs that have a session at a time, if ``mode`` is ``persistent``: each may hold its memory
    and its ``/tmp``. For another run, the session that was idle for longest is ended."""
    idle_s: float = 600.0
    """Seconds without a call after which a session is ended."""

    def __post_init__(self) -> None:
        """Refuse what would make a limit no limit."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name != "warm" and not isinstance(value, str) and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, and a finite number")
        if not 0 <= self.warm <= MAX_WARM:
            raise ValueError(f"warm must be from 0 to {MAX_WARM}")
        if self.output_bytes > MAX_OUTPUT_BYTES:
            raise ValueError(f"output_bytes can be at most {MAX_OUTPUT_BYTES}")


class _Result(msgspec.Struct, frozen=True):
    result: str | None = None
    result_chars: int = 0
    error: str | None = None


class PythonAdapter:
    """Hosts sandboxed Python.

    Args:
        spec: Its worker; ``spec.options`` are `Options`.

    Raises:
        InvalidData: An option is unknown or out of range, or does not go with the worker's own.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.options = options = converted(spec.options, Options, KIND, spec.name)
        if options.mode == "persistent":
            _check_sessions(spec, options)
        self.warm = WarmSandboxes(_request(options), options.warm)
        self._sessions = Sessions(self.warm.take, options.sessions, options.idle_s)

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """A sandbox with these options."""
        made = converted(options, Options, KIND, adapter)
        return WorkerSpec(
            name="python",
            description=DESCRIPTION,
            parameters=_parameters(made.mode),
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
        latest = asyncio.get_running_loop().time() + attempt.timeout_s - MARGIN_S
        try:
            if self.options.mode == "persistent":
                answer, session = await self._sessions.call(
                    attempt.run, clean(code), lambda: self._wall_s(latest), latest
                )
                return self._outcome(answer, session)
            return self._outcome(await self._once(clean(code), latest))
        except Refused as error:
            return failure("EXEC_ERR", "infrastructure", _refusal(str(error)))
        except Late:
            text = "The code was not run: earlier calls of its run took all of the call's time."
            return failure("TIMEOUT", "worker", text)
        except Full:
            text = f"All {self.options.sessions} sessions are at work for other runs. Call again."
            return failure("EXEC_ERR", "infrastructure", text)
        except OSError as error:
            return failure("EXEC_ERR", "infrastructure", f"The sandbox failed: {error}.")

    async def close(self) -> None:
        """End every session, and what waits for calls."""
        await self._sessions.close()
        await self.warm.close()

    async def _once(self, code: str, latest: float) -> Answer:
        sandbox = await self.warm.take()
        try:
            return await sandbox.run(code, self._wall_s(latest))
        finally:
            await sandbox.close()

    def _wall_s(self, latest: float) -> float:
        left = latest - asyncio.get_running_loop().time()
        return min(self.options.wall_s, max(MARGIN_S, left))

    def _outcome(self, answer: Answer, session: str = "") -> Outcome:
        """The outcome of a call.

        Args:
            answer: How it ended.
            session: What it began with, if there are sessions.
        """
        options = self.options
        printed = answer.ends(END_CHARS)
        if session:
            if answer.end in LOST:
                session += "; it is gone, with its variables and files: the next call has none"
            printed += f"\nsession: {session}"
        if answer.end == "withdrawn":
            return failure("EXEC_ERR", "infrastructure", "The code was stopped from outside.")
        if answer.end == "wall":
            text = f"The code was stopped after {answer.wall_s:g} seconds."
            return failure("TIMEOUT", "worker", text + printed)
        if answer.end == "cpu" or answer.status == _SIGXCPU_STATUS:
            text = f"The code was stopped: it had used {options.cpu_s} seconds of CPU."
            return failure("TIMEOUT", "worker", text + printed)
        if answer.end == "memory":
            text = f"The code was stopped: it had used more than {options.memory_mb} MiB."
            return failure("EXEC_ERR", "worker", text + printed)
        result = _result(answer)
        if result.error is not None:
            return failure("EXEC_ERR", "worker", result.error + printed)
        if answer.status != 0:
            text = f"The code ended with {_exit(answer.status)}."
            return failure("EXEC_ERR", "worker", text + printed)
        shown = None if result.result is None else clean(result.result)
        value = answer.value(
            options.output_bytes, result=(shown, result.result_chars, "characters")
        )
        return Outcome(value=value | ({"session": session} if session else {}))


@functools.cache
def isolation() -> Isolation:
    """The strongest isolation that this host offers, tried out once. Blocks for a moment."""
    return tried(_request(Options()))


def _result(answer: Answer) -> _Result:
    with contextlib.suppress(msgspec.ValidationError):
        if answer.end != "forged":
            return msgspec.convert(answer.result, _Result)
    return _Result(error="The code wrote over its own result.")


def _parameters(mode: Mode) -> dict[str, Json]:
    """What a call of this worker takes."""
    return {
        "type": "object",
        "properties": {
            "code": {
                "type": "string",
                "description": "Python code, standard library only. The value of the last "
                f"expression and what is printed are the result. {KEPT[mode]}",
            }
        },
        "required": ["code"],
        "additionalProperties": False,
    }


def _check_sessions(spec: WorkerSpec, options: Options) -> None:
    if options.sessions < spec.concurrency:
        raise InvalidData(
            f"The worker {spec.name!r} works on {spec.concurrency} calls at a time and keeps "
            f"only {options.sessions} sessions.",
            hint=f"Set sessions to {spec.concurrency} or more, or concurrency to less.",
        )
    if spec.hedge:
        raise InvalidData(
            f"The worker {spec.name!r} keeps state, which a hedged call would change twice.",
            hint='Remove hedge = true, or mode = "persistent".',
        )


def _request(options: Options) -> Request:
    return Request(
        isolation=options.isolation,
        persistent=options.mode == "persistent",
        cpu_s=options.cpu_s,
        memory_bytes=options.memory_mb * MEBIBYTE,
        processes=options.processes,
        files=options.files,
        tmp_bytes=options.tmp_mb * MEBIBYTE,
        output_bytes=options.output_bytes,
    )


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
