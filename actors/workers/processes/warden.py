"""A warden seen from the worker: a process that is started, asked, and closed.

It looks after what the worker must not be: it limits it, watches it and kills it with all that it
has started. It is an isolated interpreter (`isolated`), and what is said to it and by it is a line
of JSON each way. Its input is its lifeline: when that ends, it kills everything and ends too.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from actors.workers.outcomes import clean
from protocol.actions import Json

MEBIBYTE: Final = 1 << 20

CONCURRENCY: Final = 4
"""Attempts at a time unless the pool says otherwise: each is a process that may want a core."""

MARGIN_S: Final = 0.25
"""Seconds before the attempt's deadline at which it is stopped: time to hand in its output."""

STOP_S: Final = 5.0
"""Seconds that the warden may take to kill and bury everything before it is killed itself."""

MAX_OUTPUT_BYTES: Final = MEBIBYTE
"""Bytes: the most that ``output_bytes`` can be set to; more belongs in no prompt."""

MAX_ANSWER_BYTES: Final = 25 * MEBIBYTE
"""Bytes of the warden's answer: two streams of ``MAX_OUTPUT_BYTES`` and a result of as many
characters, escaped in JSON (6 bytes for each byte, 12 for each character), and their ends."""

_ISOLATED: Final = Path(__file__).with_name("isolated.py")

_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of what a warden looks after; see `pipes.Streams.printed`."""

    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    """Bytes that there were, of which no more than a limit are kept."""
    stderr_bytes: int = 0
    stdout_tail: str = ""
    """The end, for a text that says how it failed."""
    stderr_tail: str = ""

    def value(self, limit: int, **more: tuple[Json, int, str]) -> dict[str, Json]:
        """What a policy is shown, and in ``cut`` what is missing of it, if anything is.

        Args:
            limit: How much is kept of each.
            more: Further values, the size that each had, and its unit.
        """
        every: dict[str, tuple[Json, int, str]] = {
            "stdout": (clean(self.stdout), self.stdout_bytes, "bytes"),
            "stderr": (clean(self.stderr), self.stderr_bytes, "bytes"),
            **more,
        }
        value: dict[str, Json] = {name: shown for name, (shown, _, _) in every.items()}
        cut = [
            f"{name}: the first {limit} of {size} {unit}"
            for name, (_, size, unit) in every.items()
            if size > limit
        ]
        return value | ({"cut": "; ".join(cut)} if cut else {})

    def ends(self, chars: int) -> str:
        """The end of each stream, for a text that says how it failed."""
        tails = (("stdout", self.stdout_tail), ("stderr", self.stderr_tail))
        return "".join(f"\n{name}: {text[-chars:]}" for name, text in tails if text)


class Warden:
    """A warden at work. Made by `begin`, and to be closed by whoever made it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._lifeline, self._answers = process, process.stdin, process.stdout

    @classmethod
    async def begin(cls, name: str, environment: Mapping[str, str]) -> Self:
        """Start a warden.

        Args:
            name: Its module, beside this one.
            environment: All that it sees of an environment.

        Raises:
            OSError: It can't be started.
        """
        return cls(
            await asyncio.create_subprocess_exec(
                *command(name),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,
                limit=MAX_ANSWER_BYTES,
            )
        )

    @property
    def alive(self) -> bool:
        """Whether it is there and can be spoken to."""
        return self._process.returncode is None and not self._answers.at_eof()

    async def ask(self, line: bytes, kind: type[_Answer]) -> _Answer:
        """Say a line, and hear what it answers. If this fails, it can only be closed.

        The line goes by its input: what stands there, variables too, is in no list of processes.

        Raises:
            OSError: It ended without a word.
        """
        self._lifeline.write(line + b"\n")
        with contextlib.suppress(ConnectionError):  # it has refused already, and says so
            await self._lifeline.drain()
        try:
            return heard(await self._answers.readline(), kind)
        except ValueError as error:
            raise OSError(f"its answer has more than {MAX_ANSWER_BYTES} bytes") from error

    async def close(self) -> None:
        """Let go of the lifeline, on which the warden kills all, and see it end."""
        self._lifeline.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._process.wait()
        finally:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()


def command(name: str) -> list[str]:
    """A warden, by the interpreter itself: a virtual environment's packages stay outside."""
    python = getattr(sys, "_base_executable", None) or sys.executable
    return [python, "-I", "-S", "-B", "-X", "utf8", str(_ISOLATED), name]


def heard(line: bytes, kind: type[_Answer]) -> _Answer:
    """What a warden answered.

    Raises:
        OSError: It ended without a word.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError as error:
        raise OSError(f"its warden ended without a word that can be read: {error}") from error
