"""The guard: holds one nats-server, and takes it down when nobody needs it any more.

Runs as a process of its own, by file and with ``-I -S``, on the standard library alone: it starts
in milliseconds. Whoever uses the server has a *shared* lock on the folder's ``holders.lock``; the
kernel drops it when that process ends, however it ends. The guard waits for the *exclusive* lock:
once granted, no user is left, and the server is stopped. Should the guard itself be killed, the
kernel kills the server with it, and the store's lock, which both hold open, is free exactly when
both are gone.

Usage: ``guard.py <folder> <binary> <store lock fd> <name> <durability>``. Ends with the server.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import Final, NoReturn

CONFIG_FILE: Final = "nats.conf"
SERVER_FILE: Final = "server.json"
HOLDERS_FILE: Final = "holders.lock"

STOP_LIMIT_S: Final = 10.0
"""Seconds a server may take to stop on SIGTERM, when it writes its indexes; usually 0.01."""

_PR_SET_PDEATHSIG: Final = 1
"""From ``linux/prctl.h``: the signal that this process gets when its parent dies."""

_EXEC_FAILED: Final = 127
"""Exit status of a child that could not run its program; the shells' convention."""


_ASKED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask the guard to stop its server cleanly."""


class _AskedToStop(Exception):
    """A signal asked the guard to stop."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    for number in _ASKED:  # Once is enough; a second one must not disturb the stopping.
        signal.signal(number, signal.SIG_IGN)
    raise _AskedToStop


def _become_server(binary: str, config: str, store_fd: int, guard: int) -> NoReturn:
    """Turn this forked child into the server."""
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # It died before the line above could take effect.
            os._exit(_EXEC_FAILED)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.set_inheritable(store_fd, True)
        os.execv(binary, [binary, "--config", config])
    except OSError as error:
        os.write(2, f"cannot run {binary}: {error}\n".encode())
    finally:
        os._exit(_EXEC_FAILED)


def write_atomically(path: str, data: bytes, *, synced: bool = False) -> None:
    """Replace a file so that a reader sees the old bytes or the new, readable by this user only.

    Args:
        path: the file.
        data: all of its new content.
        synced: whether it must outlive a power cut.
    """
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _await_last_holder(folder: str) -> None:
    """Return when no process holds the server any more; raise when a signal asks to stop."""
    holders = os.open(os.path.join(folder, HOLDERS_FILE), os.O_RDWR | os.O_CLOEXEC)
    for number in _ASKED:
        signal.signal(number, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    fcntl.flock(holders, fcntl.LOCK_EX)


def _end_with(server: int) -> None:
    os.waitpid(server, 0)
    os._exit(0)


def main(folder: str, binary: str, store_fd: int, name: str, durability: str) -> None:
    """Start the server and record it; stop it when nobody holds it any more."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
    guard = os.getpid()
    server = os.fork()
    if server == 0:
        _become_server(binary, os.path.join(folder, CONFIG_FILE), store_fd, guard)
    process = os.pidfd_open(server)  # A signal sent through it never meets a recycled id.
    watcher = threading.Thread(target=_end_with, args=(server,), daemon=True)
    watcher.start()
    record = {"name": name, "pid": server, "guard": guard, "durability": durability}
    try:
        write_atomically(os.path.join(folder, SERVER_FILE), json.dumps(record).encode())
        _await_last_holder(folder)
    except _AskedToStop:
        pass
    except OSError as error:
        os.write(2, f"the guard gives up: {error}\n".encode())
    signal.pidfd_send_signal(process, signal.SIGTERM)
    watcher.join(STOP_LIMIT_S)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    watcher.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
