"""The guard of a program that ends by itself: what it leaves ends, and nothing else does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from actors.embedded import guard
from tests.broker import wait_ended

LEAVING = """
import subprocess, sys
def sleeper():
    return subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL).pid
print(sleeper(), sleeper(), flush=True)
sys.exit(int(sys.stdin.readline()))
"""
"""Starts processes that leave its session, and ends as it is told without them."""

LEAVING_ONE = """
import os, signal, subprocess
left = subprocess.Popen(["cat"], start_new_session=True)
print(os.getpid(), left.pid, flush=True)
signal.pause()
"""
"""Leaves a process that ends when its input does, once it is killed."""

STARTER = """
import subprocess, sys
guard = subprocess.Popen(sys.argv[1:], start_new_session=True)
print(guard.pid, flush=True)
guard.wait()
"""
"""Starts a guard."""


@contextmanager
def started(*argv: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(pid) for pid in process.stdout.readline().split()]


def told(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def test_what_a_program_leaves_has_ended_when_its_guard_ends_as_it_did() -> None:
    with started("sleep", "600") as stranger:
        with started(*guard.command("family"), sys.executable, "-c", LEAVING) as process:
            left = heard(process)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(process.pid, number)  # it has to stay as long as there is anything
            told(process, "7")
            assert process.wait() == 7
            for pid in left:
                wait_ended(pid)
        assert stranger.poll() is None


def test_a_program_that_is_killed_is_said_to_have_been() -> None:
    with started(*guard.command("family"), "/bin/sh", "-c", "kill -9 $$") as process:
        assert process.wait() == 128 + signal.SIGKILL


def test_what_is_left_may_end_by_itself_when_nobody_waits_for_it() -> None:
    family = (*guard.command("family"), sys.executable, "-c", LEAVING_ONE)
    with started(sys.executable, "-c", STARTER, *family) as starter:
        (pid,) = heard(starter)
        program, left = heard(starter)
        starter.kill()
        starter.wait()
        os.kill(program, signal.SIGKILL)
        wait_ended(program)
        told(starter, f"{program}")
        assert heard(starter) == [program], "it works"
        assert starter.stdin is not None
        starter.stdin.close()
        for each in (left, pid):
            wait_ended(each)


def test_the_program_dies_with_its_guard() -> None:
    program = "import os; print(os.getpid(), flush=True); input()"
    with started(*guard.command("family"), sys.executable, "-c", program) as process:
        (pid,) = heard(process)
        process.kill()
        wait_ended(pid)
