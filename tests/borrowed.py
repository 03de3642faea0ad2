"""Servers of others, each in an environment of its own, for tests.

Their packages would fight with ours over versions, so each lives in a ``.venv-NAME`` of its own,
made at the first use and kept.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent

LOOK_S: Final = 0.2


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process at a time: several share the tests, and would make one environment at once."""
    root = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(root, fcntl.LOCK_EX)
        yield
    finally:
        os.close(root)


class Borrowed:
    """A server of its own, on loopback, with its data in a folder."""

    name: ClassVar[str]
    """Of its environment."""
    package: ClassVar[str]
    """What this was tried with; another version may have another API."""
    program: ClassVar[str]
    """The command."""
    variable: ClassVar[str]
    """Environment variable that names the command of another environment instead."""
    start_s: ClassVar[float]
    """Seconds that a first start may take."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

    def arguments(self) -> Sequence[str]:
        """Of the command."""
        return ()

    def environment(self) -> Mapping[str, str]:
        """What it is told by variables."""
        return {}

    def ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    @classmethod
    def command(cls) -> str:
        """The command's path; its environment is made if there is none."""
        if named := os.environ.get(cls.variable):
            return named
        home = ROOT / f".venv-{cls.name}"
        found = home / "bin" / cls.program
        with alone():
            if not found.exists():
                subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
                python = str(home / "bin" / "python")
                pip = [python, "-m", "pip", "install", "--quiet", cls.package]
                subprocess.run(pip, check=True)
        return str(found)

    def __enter__(self) -> Self:
        ours = {name: os.environ[name] for name in os.environ if "OTEL" not in name}
        with (self._folder / f"{self.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.command(), *self.arguments()],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ours | dict(self.environment()),
                cwd=self._folder,
                start_new_session=True,
            )
        self._until(self.ready, self.start_s, f"{self.name} to start")
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return None

    def _until(self, done: Callable[[], bool], within_s: float, what: str) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < end, f"{what}: not within {within_s:g} s"
            assert self._process is None or self._process.poll() is None, f"{self.name} ended"
            time.sleep(LOOK_S)
