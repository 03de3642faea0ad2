"""A Postgres of the benchmark's own, as it ships, from the system's binaries."""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from benchmarks.errors import BenchmarkError

DEBIAN_FOLDER: Final = pathlib.Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu put the server's binaries, one folder a version, not on the path."""

START_S: Final = 30.0
"""Seconds that the server may take to accept connections."""

STOP_S: Final = 20.0
"""Seconds that a fast shutdown may take before the server is killed."""

MAX_SOCKET_PATH: Final = 100
"""Bytes of a unix socket's path: the kernel's limit is 108 with the terminator."""

USERS: Final = ("postgres", "nobody")
"""Whom to run as when started by root, whom initdb refuses: the first that exists."""


class Postgres(NamedTuple):
    """A running server."""

    url: str
    """For psycopg and SQLAlchemy alike, over a unix socket."""


class Binaries(NamedTuple):
    """An installed server."""

    home: pathlib.Path
    """The folder of ``initdb`` and ``postgres``."""

    @property
    def version(self) -> str:
        """Such as ``15.18``."""
        command = [str(self.home / "postgres"), "--version"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        return str(shown.stdout.split()[2])


def binaries() -> Binaries:
    """The server that is installed: the one on the path, else Debian's newest.

    Raises BenchmarkError when there is none.
    """
    found = shutil.which("postgres")
    if found and pathlib.Path(found).resolve().with_name("initdb").exists():
        return Binaries(pathlib.Path(found).resolve().parent)
    versions = sorted(
        (folder for folder in DEBIAN_FOLDER.glob("*/bin") if (folder / "initdb").exists()),
        key=lambda folder: float(folder.parent.name),
    )
    if versions:
        return Binaries(versions[-1])
    raise BenchmarkError(
        "the peers need a Postgres server, and neither PATH nor "
        f"{DEBIAN_FOLDER}/*/bin has postgres and initdb. "
        "Install it (Debian, Ubuntu: apt-get install postgresql) and run this again, "
        "or leave those peers out: --only langgraph-memory podium."
    )


def _identity() -> dict[str, Any]:
    """How to start a process that is not root."""
    if os.geteuid() != 0:
        return {}
    for name in USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise BenchmarkError(
        f"Postgres refuses to run as root, and there is no user named {' or '.join(USERS)}. "
        "Run this as another user."
    )


def _initialise(home: pathlib.Path, folder: pathlib.Path, identity: dict[str, Any]) -> None:
    made = subprocess.run(
        [
            home / "initdb",
            f"--pgdata={folder / 'data'}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        **identity,
    )
    if made.returncode != 0:
        raise BenchmarkError(f"initdb failed in {folder}: {made.stderr.strip()}")


def _ready(folder: pathlib.Path) -> bool:
    """Whether the server says so, in the last line of its pid file."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().split("\n")
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _wait_until_ready(folder: pathlib.Path, server: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + START_S
    while not _ready(folder):
        if server.poll() is not None or time.monotonic() > limit:
            log = (folder / "log").read_text(errors="replace")[-2000:]
            raise BenchmarkError(f"Postgres did not start in {folder}; its log ends with:\n{log}")
        time.sleep(0.05)


@contextlib.contextmanager
def postgres(folder: pathlib.Path) -> Iterator[Postgres]:
    """Make a database in ``folder``, which must not exist, run it, and remove both at the end."""
    home, identity = binaries().home, _identity()
    if len(str(folder / ".s.PGSQL.5432")) > MAX_SOCKET_PATH:
        raise BenchmarkError(f"{folder} is too long for a socket's path; choose a shorter --data.")
    folder.mkdir(mode=0o755)
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    _initialise(home, folder, identity)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                home / "postgres",
                *("-D", str(folder / "data")),
                *("-c", f"unix_socket_directories={folder}"),
                *("-c", "listen_addresses="),
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
            **identity,
        )
    try:
        _wait_until_ready(folder, server)
        yield Postgres(f"postgresql://postgres@/postgres?host={folder}")
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
