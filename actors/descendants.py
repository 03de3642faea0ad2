"""The processes below this one: adopted when their parent dies, and ended with us.

What Ray starts is our grandchildren, and orphans when Ray's own daemon is killed. As their
*subreaper* this process becomes their parent instead of init, so that none can be left behind.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Collection
from typing import Final

import psutil

_PR_SET_CHILD_SUBREAPER: Final = 36
"""From ``linux/prctl.h``: orphans among our descendants become our children."""

ROUNDS: Final = 10
"""Looks for survivors: a process may be forking while its parent is killed."""

END_S: Final = 5.0
"""Seconds for killed processes to be gone."""


def adopt() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def pidfds(names: Collection[str], but: Collection[int] = ()) -> dict[int, int]:
    """The descendants of such a name, except those process ids.

    Returns:
        By process id, a descriptor that becomes readable when the process ends.
    """
    found: dict[int, int] = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if child.pid not in but and child.name() in names:
                found[child.pid] = os.pidfd_open(child.pid)
    return found


def kill(but: Collection[int] = ()) -> int:
    """Kill -9 every descendant, except these process ids and what is below them.

    Returns:
        How many there were.
    """
    killed = 0
    for _ in range(ROUNDS):
        left = list(_below(psutil.Process(), but))
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        killed += len(left)
        psutil.wait_procs(left, END_S)
    return killed


def _below(process: psutil.Process, but: Collection[int]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        for child in process.children():
            if child.pid not in but:
                found += [*_below(child, but), child]
    return found
