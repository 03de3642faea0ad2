"""Arize Phoenix, a real OpenTelemetry backend, in an environment of its own, for tests.

Its packages would fight with ours over versions, so they live in ``.venv-phoenix``, made at the
first use and kept. Set ``PODIUM_TEST_PHOENIX`` to the ``phoenix`` command of another environment.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".venv-phoenix"
PACKAGE: Final = "arize-phoenix>=20.26"
"""What this was tried with; another version may have another API."""

COMMAND_VARIABLE: Final = "PODIUM_TEST_PHOENIX"

START_S: Final = 240.0
"""Seconds that a first start may take: it compiles itself, and makes its database."""

WITHIN_S: Final = 60.0
"""Seconds for what was sent to be found by its API."""

LOOK_S: Final = 0.2


def command() -> str:
    """The ``phoenix`` command; its environment is made if there is none."""
    if named := os.environ.get(COMMAND_VARIABLE):
        return named
    found = HOME / "bin" / "phoenix"
    if not found.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", HOME], check=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", PACKAGE]
        subprocess.run(pip, check=True)
    return str(found)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Phoenix:
    """A server of its own, on loopback, with an empty database in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Phoenix":
        environment = {name: os.environ[name] for name in os.environ if "OTEL" not in name}
        environment |= {
            "PHOENIX_WORKING_DIR": str(self._folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": self.url.rpartition(":")[2],
            "PHOENIX_GRPC_PORT": str(_free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        with (self._folder / "phoenix.log").open("wb") as log:
            self._process = subprocess.Popen(
                [command(), "serve"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._until(lambda: self._get("/healthz") is not None, START_S, "Phoenix to start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def spans(self, of_trace: str) -> list[dict[str, Any]]:
        """The spans of one trace, as its API gives them."""
        found = json.loads(self._get("/v1/projects/default/spans?limit=1000") or '{"data": []}')
        return [each for each in found["data"] if each["context"]["trace_id"] == of_trace]

    def wait(self, of_trace: str, count: int) -> list[dict[str, Any]]:
        """The spans of one trace, as soon as there are so many."""
        self._until(
            lambda: len(self.spans(of_trace)) >= count, WITHIN_S, f"{count} spans of {of_trace}"
        )
        return self.spans(of_trace)

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
            assert self._process is None or self._process.poll() is None, "Phoenix ended"
            time.sleep(LOOK_S)
