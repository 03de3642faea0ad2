"""The guard: runs one program, and leaves nothing of it behind when nobody needs it any more.

Runs as a process of its own, by file and with ``-I -S``, on the standard library alone: it starts
in milliseconds (`command`). Should the guard itself be killed, the kernel kills the program with
it. There are two kinds:

``guard.py server <folder> <binary> <store lock fd> <name> <durability>`` is nats-server's. Whoever
uses the server has a *shared* lock on the folder's ``holders.lock``; the kernel drops it when that
process ends, however it ends. The guard waits for the *exclusive* lock: once granted, no user is
left, and the server is stopped. The store's lock, which both hold open, is free exactly when both
are gone. Ends with the server.

``guard.py family <program> <arguments>`` is Ray's driver's, and could be any program's that ends
by itself. Whatever loses its parent below the guard becomes its child: so all that the program has
started, and nothing else, is found and ended when the program has. Ends with the last of them.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Final, Literal, NoReturn

CONFIG_FILE: Final = "nats.conf"
SERVER_FILE: Final = "server.json"
HOLDERS_FILE: Final = "holders.lock"

STOP_LIMIT_S: Final = 10.0
"""Seconds a server may take to stop on SIGTERM, when it writes its indexes; usually 0.01."""

GRACE_S: Final = 5.0
"""Seconds in which a family that nobody waits for may end by itself. Ray's workers and agents do
within one, but for two agents that want to tell a dead control store of it, for a minute."""

END_S: Final = 5.0
"""Seconds for killed processes to be gone. What the kernel lets nobody kill is given up then."""

_PR_SET_PDEATHSIG: Final = 1
"""From ``linux/prctl.h``: the signal that this process gets when its parent dies."""

_PR_SET_CHILD_SUBREAPER: Final = 36
"""Likewise: orphans among our descendants become our children."""

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


def command(kind: Literal["server", "family"]) -> list[str]:
    """How a guard is started; what it is to be told follows."""
    return [sys.executable, "-I", "-S", __file__, kind]


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _become(program: list[str], guard: int, kept: int | None = None) -> NoReturn:
    """Turn this forked child into the program, which keeps that file open."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # It died before the line above could take effect.
            os._exit(_EXEC_FAILED)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if kept is not None:
            os.set_inheritable(kept, True)
        os.execv(program[0], program)
    except OSError as error:
        os.write(2, f"cannot run {program[0]}: {error}\n".encode())
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


def keep_server(folder: str, binary: str, store_fd: int, name: str, durability: str) -> None:
    """Start the server and record it; stop it when nobody holds it any more."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
    guard = os.getpid()
    server = os.fork()
    if server == 0:
        _become([binary, "--config", os.path.join(folder, CONFIG_FILE)], guard, store_fd)
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


def keep_family(program: list[str]) -> int:
    """Run a program, and end what it has left when it has ended. Its exit status, as shells say it.

    While whoever started the guard lives, that is done at once: it waits for the guard's end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_ASKED, signal.SIGCHLD))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    starter, guard = os.getppid(), os.getpid()
    first = os.fork()
    if first == 0:
        _become(program, guard)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # They are the program's, and say by their end that it has ended.
        os.dup2(nothing, number)
    ended, status = os.wait()
    while ended != first:
        ended, status = os.wait()
    if os.getppid() != starter:
        _await_children(GRACE_S)
    _kill_children()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _await_children(limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while _any_left() and (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait((signal.SIGCHLD,), left)


def _kill_children() -> None:
    """Kill every child, and those that become ours by that, until there is none."""
    deadline = time.monotonic() + END_S
    while _any_left() and (left := deadline - time.monotonic()) > 0:
        for pid in _children():
            with contextlib.suppress(PermissionError):
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait((signal.SIGCHLD,), left)


def _any_left() -> bool:
    """Whether there is any child, ended ones aside."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Our children. Nobody else can have the id of one until `_any_left` has buried it."""
    found, ours = [], str(os.getpid()).encode()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with (
            contextlib.suppress(OSError, ValueError),  # it has ended meanwhile
            open(f"/proc/{name}/stat", "rb") as file,
        ):
            _state, parent, *_ = file.read().rpartition(b")")[2].split()
            if parent == ours:
                found.append(int(name))
    return found


if __name__ == "__main__":
    if sys.argv[1] == "family":
        sys.exit(keep_family(sys.argv[2:]))
    keep_server(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6])
