"""A terminal for a command: a real pty, whose picture a test can read."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
WITHIN_S: Final = 60
"""Seconds for a picture on a busy machine."""

FRAME: Final = re.compile(r"\x1b\[\?2026h(.*?)\x1b\[\?2026l", re.DOTALL)
"""One whole picture."""

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, *command: str, columns: int = 80, lines: int = 24) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(slave)
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**kept, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        self._slave = slave
        self._gone = False
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.said = ""
        """All that was written to the terminal."""

    def resize(self, columns: int, lines: int) -> None:
        """Make it another size; whoever is in it is told so."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def settings(self) -> list[Any]:
        """What the process has made of the terminal."""
        return termios.tcgetattr(self._slave)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def until(self, text: str) -> list[str]:
        """The lines of the first picture, after what was seen before, that has a text in it."""
        begun, seen = time.monotonic(), len(self.said)
        half = self.said.rfind("\x1b[?2026h")
        if half >= 0 and "\x1b[?2026l" not in self.said[half:]:
            seen = half
        while time.monotonic() - begun < WITHIN_S:
            for found in FRAME.finditer(self.said, seen):
                shown = _ESCAPES.sub("", found[1]).split("\r\n")
                if any(text in line for line in shown):
                    return shown
            if not self._hear():
                break
        raise AssertionError(f"no {text!r} in:\n{self.said[-4_000:]}")

    def _hear(self) -> bool:
        """Whether more came."""
        ready, _, _ = select.select([self._master], [], [], 1)
        if ready:
            self._read()
        return bool(ready) or self.process.poll() is None

    def _read(self) -> None:
        """Take what is there; it may end within a character."""
        self.said += self._decoder.decode(os.read(self._master, 65_536))

    def ended(self) -> int:
        """The exit code."""
        begun = time.monotonic()
        while self.process.poll() is None and time.monotonic() - begun < WITHIN_S:
            self._hear()
        while select.select([self._master], [], [], 0)[0]:
            self._read()
        return self.process.wait(1)

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self._master)
        os.close(self._slave)
        self._gone = True

    def close(self) -> None:
        """Take it away."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if not self._gone:
            self.hang_up()
