"""The parent's side of a measurement: a child process that answers JSON, a line for a line."""

import json
import pathlib
import select
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.errors import BenchmarkError

ROOT: Final = pathlib.Path(__file__).resolve().parent.parent
"""Where children start, so that ``python -m benchmarks.something`` finds this package."""

READY_S: Final = 120.0
"""Seconds that a child may take to be ready: one migrates a database, another starts a cluster."""

ANSWER_S: Final = 600.0
"""Seconds of one measurement: far above the slowest peer's, short enough to notice a hang."""

STOP_S: Final = 20.0
"""Seconds that a child may take to end after its input has ended, before it is killed."""

LOG_TAIL_CHARS: Final = 2_000
"""Characters of a child's standard error shown when it fails: one screen."""


class Child:
    """A process that speaks as `serving` says. Its standard error goes to ``log``.

    ``said`` is what it is told before it is ready.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | pathlib.Path],
        log: pathlib.Path,
        env: Mapping[str, str] | None = None,
        said: bytes = b"",
    ) -> None:
        self._name = name
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                cwd=ROOT,
                env=env,
            )
        try:
            if said:
                assert self._process.stdin is not None
                self._process.stdin.write(said)
            self.ready = self._read(READY_S)
            """What it said when it was ready."""
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def ask(self, question: Mapping[str, Any], limit_s: float = ANSWER_S) -> dict[str, Any]:
        """Send one object and give the one that comes back.

        Raises BenchmarkError when the child fails, ends or takes longer than ``limit_s`` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            raise self._failed("ended before it was asked") from None
        answer = self._read(limit_s)
        if "error" in answer:
            raise self._failed(f"answered with an error: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the child's input and wait for it; kill it if it does not end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _read(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], limit_s)
        if not readable:
            raise self._failed(f"said nothing for {limit_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._failed("ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, what: str) -> BenchmarkError:
        tail = self._log.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip()
        said = f"; its standard error ends with:\n{tail}" if tail else ""
        return BenchmarkError(f"the process of {self._name} {what}{said}")


def peak_bytes() -> int:
    """The most memory that this process has had since its program began.

    Not `resource`'s, which begins with what the process had that started it.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1_024
