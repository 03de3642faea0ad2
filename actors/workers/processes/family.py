"""A warden's family, all that it has ever started: what it uses, and how it is ended.

Loaded by an isolated interpreter, the standard library only. The warden adopts whoever has lost
its parent (`kernel.adopt_orphans`), so that nothing can leave the family.
"""

import contextlib
import os
import signal
import time
from typing import Final

STOP_S: Final = 1.0
"""Seconds until all must be stopped; they need a thousandth, unless they wake each other."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        with contextlib.suppress(OSError, ValueError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                todo += children
    return found


def usage() -> dict[tuple[int, int], tuple[float, int]]:
    """Seconds of CPU and bytes in memory of each process, by pid and time of birth."""
    found = {}
    for pid in descendants(os.getpid()):
        if fields := _stat(pid):
            cpu = (int(fields[11]) + int(fields[12])) / _TICKS
            found[pid, int(fields[19])] = (cpu, int(fields[21]) * _PAGE)
    return found


def stop(spared: int) -> bool:
    """Stop every process but one, until they are told to go on; whether all are."""
    latest = time.monotonic() + STOP_S
    while send(signal.SIGSTOP, spared):  # what forks meanwhile is found by the next look
        if time.monotonic() >= latest:
            return False
    return True


def send(number: signal.Signals, spared: int = 0) -> int:
    """Send a signal to all, but `SIGSTOP` only to those that go on; how many it was sent to."""
    sent = 0
    for pid in descendants(os.getpid()):
        fields = _stat(pid)
        if not fields or pid == spared or (number == signal.SIGSTOP and fields[0] in "TtZX"):
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent += 1
    return sent


def bury(first: int) -> int:
    """Kill all, and wait for them; the exit status of ``first``, negative if a signal ended it."""
    status = 0
    while True:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            return status
        if pid == first:
            status = os.waitstatus_to_exitcode(ended)


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name, the state first; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []
