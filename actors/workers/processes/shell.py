"""A shell command from an allow-list, as a worker. No shell is involved: a program and arguments.

Each attempt is a warden (`shell_child`) and the program below it, killed with all that it has
started when it ends, takes too long or is withdrawn. The program sees nothing of the worker's
environment but where programs, the home and the language are. There are limits, and no walls: what
an allowed program can do, a policy can do. Why so: ``docs/decisions/0016-shell-and-openapi.md``.
"""

import contextlib
import math
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard

import msgspec

from actors import tracing
from actors.ports import Attempt, Outcome
from actors.workers.options import beside, converted
from actors.workers.outcomes import clean, failure
from actors.workers.processes.allowed import Allowed, Entry
from actors.workers.processes.warden import (
    CONCURRENCY,
    MARGIN_S,
    MAX_OUTPUT_BYTES,
    MEBIBYTE,
    Printed,
    Warden,
)
from protocol.actions import Json, WorkerSpec

KIND: Final = "shell"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

PASSED: Final = ("PATH", "HOME", "LANG")
"""All that a program sees of the worker's environment, which holds its secrets."""

SHELLS: Final = frozenset(
    {"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "env", "xargs", "find", "awk", "gawk"}
    | {"python", "python3", "perl", "ruby", "node", "sudo", "ssh", "tar", "vi", "vim", "less"}
    | {"make", "nice", "nohup", "timeout", "time", "strace", "git", "docker", "systemd-run", "at"}
)
"""Well-known programs that start whatever their arguments say. Allowed with any arguments they
allow everything; the list warns, and cannot be complete."""

END_CHARS: Final = 700
"""Characters shown of the end of each stream of a program that failed: both fit into its text."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind. Each limit is of one attempt."""

    allow: tuple[Entry, ...]
    """What may be started: programs, beginnings of command lines, or `allowed.Rule` tables."""
    folder: str = ""
    """Where commands run, a full path or one from the pool file's folder; empty for a fresh folder
    each time, removed afterwards."""
    env: dict[str, str] = {}
    """Further variables, and others in place of those that are passed on."""
    wall_s: float = 30.0
    """Seconds; the worker's time-out applies as well."""
    cpu_s: int = 20
    """Seconds of CPU of each process."""
    memory_mb: int = 1_024
    """MiB of all processes together, and of the data of each."""
    processes: int = 64
    """Processes at a time."""
    file_mb: int = 64
    """MiB of each file that is written."""
    output_bytes: int = 65_536
    """Bytes kept of what is printed, for each stream."""

    def __post_init__(self) -> None:
        """Refuse what would make a limit no limit, and what can't be meant."""
        for name in ("wall_s", "cpu_s", "memory_mb", "processes", "file_mb", "output_bytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, and a finite number")
        if self.output_bytes > MAX_OUTPUT_BYTES:
            raise ValueError(f"output_bytes can be at most {MAX_OUTPUT_BYTES}")
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"env has a variable {name!r}, which none can be called")

    def where(self) -> str:
        """`folder` as a full path, or as it was given if there is no such folder; "" for none."""
        found = beside(self.folder, Path.is_dir) if self.folder else None
        return os.path.expanduser(self.folder) if found is None else str(found)


class _Answer(Printed, frozen=True, kw_only=True):
    """What the warden says; see `shell_child.ProgramWatch`."""

    end: Literal["ended", "wall", "memory", "processes", "withdrawn", "refused"]
    status: int = 0
    wall_s: float = 0
    """Seconds that it was given."""
    error: str = ""


class ShellAdapter:
    """Hosts allowed commands.

    Args:
        spec: Its worker; ``spec.options`` are `Options`.

    Raises:
        InvalidData: An option is missing, unknown or out of range.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.options, self.allowed = _options(spec.options, spec.name)

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """A worker with these options; its description and parameters say what is allowed."""
        made, allowed = _options(options, adapter)
        return WorkerSpec(
            name="shell",
            description="Runs one command, without a shell: no pipes, no redirection, no globs, "
            f"no variables. Programs: {', '.join(allowed.programs)}.",
            parameters=_parameters(allowed),
            adapter=adapter,
            options=dict(options),
            concurrency=CONCURRENCY,
            timeout_ms=math.ceil((made.wall_s + MARGIN_S) * 1_000),
        )

    async def run(self, attempt: Attempt) -> Outcome:
        """Run ``argv``. An exit status that is not 0 is an ``EXEC_ERR``."""
        until = time.monotonic() + attempt.timeout_s - MARGIN_S
        argv, stdin = attempt.arguments.get("argv"), attempt.arguments.get("stdin")
        if not _is_command(argv) or not isinstance(stdin, str | None):
            text = "Give the command as `argv`, a list of texts without NUL, its program first."
            return failure("PARSE_ERR", "policy", text)
        argv = [clean(part) for part in argv]
        if not self.allowed.allows(argv):
            text = f"{argv!r} is not allowed. Allowed: {self.allowed.text()}."
            return failure("PARSE_ERR", "policy", text)
        environment = self._environment()
        program = located(argv[0], environment.get("PATH", ""))
        if program is None:
            text = f"{argv[0]} is allowed, but not installed where the worker runs (PATH)."
            return failure("EXEC_ERR", "infrastructure", text)
        request = _request(program, argv, stdin, environment, self.options, until)
        try:
            answer = await _supervised(request)
        except OSError as error:
            text = f"The command was not run to its end: {error}."
            return failure("EXEC_ERR", "infrastructure", text)
        return self._outcome(argv[0], answer)

    async def close(self) -> None:
        """Nothing is held between attempts."""

    def _environment(self) -> dict[str, str]:
        """All that the program sees of an environment."""
        passed = {name: clean(os.environ[name]) for name in PASSED if name in os.environ}
        return passed | tracing.passed_on("TRACEPARENT") | self.options.env

    def _outcome(self, name: str, answer: _Answer) -> Outcome:
        options = self.options
        match answer.end:
            case "refused":
                text = f"The command was not run: {answer.error}."
                return failure("EXEC_ERR", "infrastructure", text)
            case "withdrawn":
                return failure("EXEC_ERR", "infrastructure", f"{name} was stopped from outside.")
            case "wall":
                text = f"{name} was stopped after {round(answer.wall_s, 2):g} seconds."
                return failure("TIMEOUT", "worker", text + answer.ends(END_CHARS))
            case "memory":
                text = f"{name} was stopped: it had used more than {options.memory_mb} MiB."
                return failure("EXEC_ERR", "worker", text + answer.ends(END_CHARS))
            case "processes":
                text = f"{name} was stopped: it had more than {options.processes} processes."
                return failure("EXEC_ERR", "worker", text + answer.ends(END_CHARS))
            case "ended":
                return self._ended(name, answer)

    def _ended(self, name: str, answer: _Answer) -> Outcome:
        if answer.status == -signal.SIGXCPU:
            text = f"{name} was stopped: it had used {self.options.cpu_s} seconds of CPU."
            return failure("TIMEOUT", "worker", text + answer.ends(END_CHARS))
        if answer.status == -signal.SIGXFSZ:
            text = f"{name} was stopped: it wrote a file of more than {self.options.file_mb} MiB."
            return failure("EXEC_ERR", "worker", text + answer.ends(END_CHARS))
        if answer.status != 0:
            text = f"{name} ended with {_exit(answer.status)}."
            return failure("EXEC_ERR", "worker", text + answer.ends(END_CHARS))
        value = answer.value(self.options.output_bytes)
        return Outcome(value=value | {"exit": answer.status})


def located(program: str, path: str) -> str | None:
    """Where a program is; None if it is not installed.

    Folders on the path that are relative are passed over: they would be the command's own.
    """
    folders = [folder for folder in path.split(os.pathsep) if os.path.isabs(folder)]
    return (
        shutil.which(program, path=os.pathsep.join(folders)) if folders or "/" in program else None
    )


def look(spec: WorkerSpec) -> tuple[list[str], list[str], str]:
    """What a host lacks for a worker, and what its list can't hold back.

    Returns:
        Programs that are not installed; programs allowed with any arguments that start whatever
        those say; the folder if it is missing, else "".
    """
    options, allowed = _options(spec.options, spec.name)
    path = options.env.get("PATH", os.environ.get("PATH", ""))
    absent = [program for program in allowed.programs if located(program, path) is None]
    open_ended = [name for name in allowed.free() if os.path.basename(name) in SHELLS]
    folder = options.where()
    return absent, open_ended, folder if folder and not os.path.isdir(folder) else ""


def _parameters(allowed: Allowed) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": {
            "argv": {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
                "description": "The program and its arguments, each a text of its own; nothing is "
                f"expanded. Allowed: {allowed.text()}.",
            },
            "stdin": {"type": "string", "description": "What the program reads as its input."},
        },
        "required": ["argv"],
        "additionalProperties": False,
    }


def _is_command(argv: object) -> TypeGuard[list[str]]:
    return (
        isinstance(argv, list)
        and len(argv) > 0
        and all(isinstance(part, str) and "\0" not in part for part in argv)
    )


def _options(options: Mapping[str, Json], whose: str) -> tuple[Options, Allowed]:
    made = converted(options, Options, KIND, whose)
    return made, Allowed(made.allow)


def _request(
    program: str,
    argv: list[str],
    stdin: str | None,
    environment: dict[str, str],
    options: Options,
    until: float,
) -> bytes:
    request: dict[str, Any] = {
        "program": program,
        "argv": argv,
        "stdin": stdin if stdin is None else clean(stdin),
        "folder": options.where(),
        "env": environment,
        "wall_s": options.wall_s,
        "until": until,
        "cpu_s": options.cpu_s,
        "memory_bytes": options.memory_mb * MEBIBYTE,
        "processes": options.processes,
        "file_bytes": options.file_mb * MEBIBYTE,
        "output_bytes": options.output_bytes,
    }
    return msgspec.json.encode(request)


async def _supervised(request: bytes) -> _Answer:
    """Have a warden run it. However this is left, nothing of the program is left behind."""
    warden = await Warden.begin("shell_child", {})
    try:
        return await warden.ask(request, _Answer)
    finally:
        await warden.close()


def _exit(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
