"""The command line over a log in memory with one long run: a process to be given a terminal.

``python -m tests.e2e.long_run EVENTS ARGUMENTS…``, where ``RUN`` stands for the run's id.
"""

import fcntl
import sys
import termios

from benchmarks import synthetic
from podium.cli import main
from podium.cli.world import World
from tests.e2e.memory_host import MemoryDeployments


def deployments(events: int) -> MemoryDeployments:
    """A deployment that holds nothing but the run."""
    made, found = synthetic.run(events), MemoryDeployments()
    found.store.messages[made.run, "c"], found.store.messages[made.run, "i"] = made.stored()
    return found


def command(events: str, *arguments: str) -> int:
    """Run one command; gives its exit code."""
    if sys.stdin.isatty():  # the terminal sends its signals only to whom it belongs
        fcntl.ioctl(sys.stdin.fileno(), termios.TIOCSCTTY, 0)
    there = deployments(int(events))
    ((run, _), *_) = there.store.messages
    return main([run if each == "RUN" else each for each in arguments], World(deployments=there))


if __name__ == "__main__":
    sys.exit(command(*sys.argv[1:]))
