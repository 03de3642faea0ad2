"""The `shell` worker's own process: starts a program, watches it, and says how it ended.

Run by an isolated interpreter (`isolated`) with the standard library only. It reads one line of
JSON from its input (`Request`), and writes one JSON object to its output when the program has
ended. Its input stays open as a lifeline: when that ends, the worker has withdrawn the call or is
dead, and the program is killed.

Whatever loses its parent below this process becomes its child, also what made a session of its own.
So nothing can leave the family, and all of it is killed when the program ends or must end. No
process of the family can gain privileges: none can become another user's, which could not be
killed.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from typing import Final, NoReturn, TypedDict

from actors.workers.processes import family, kernel
from actors.workers.processes.pipes import CHUNK, PRINTED, Lifeline, Streams, say
from actors.workers.processes.watching import Watch

UNREADY: Final = 125
"""Exit status of a child that could not become the program."""


class Request(TypedDict):
    """What the worker asks for."""

    program: str
    """Where it is; a full path."""
    argv: list[str]
    stdin: str | None
    folder: str
    """Empty for a fresh one, which is removed in the end."""
    env: dict[str, str]
    wall_s: float
    """Of the program, which may be started late."""
    until: float
    """Until when it may go on at the most, by the monotonic clock that all processes share."""
    cpu_s: int
    memory_bytes: int
    """Of all processes together, and of the data of each."""
    processes: int
    file_bytes: int
    output_bytes: int


def main() -> None:
    """Read the request, run it, print what became of it."""
    line = Lifeline()
    if not (asked := line.first()):
        return
    request: Request = json.loads(asked)
    streams = Streams({**dict.fromkeys(PRINTED, request["output_bytes"]), "unready": CHUNK})
    scratch = ""
    try:
        kernel.adopt_orphans()
        kernel.no_new_privileges()
        if not request["folder"]:
            request["folder"] = scratch = tempfile.mkdtemp(prefix="podium-shell-")
        first = start(request, streams)
        streams.leave()
        answer = ProgramWatch(first, request, streams, line).run()
    except (kernel.Refused, OSError) as error:
        answer = {"end": "refused", "error": str(error)}
    finally:
        family.bury(0)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    say(answer)


def start(request: Request, streams: Streams) -> int:
    """Start the program; its pid."""
    source = os.memfd_create("stdin") if request["stdin"] is not None else os.open("/dev/null", 0)
    with os.fdopen(source, "rb+" if request["stdin"] is not None else "rb") as opened:
        if request["stdin"] is not None:
            opened.write(request["stdin"].encode("utf-8", "replace"))
            opened.flush()
            opened.seek(0)
        warden = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.dup2(opened.fileno(), 0)
            become(request, streams, warden)
        except BaseException as error:
            os.write(streams.write["unready"], str(error).encode("utf-8", "replace")[:CHUNK])
        finally:
            os._exit(UNREADY)


def become(request: Request, streams: Streams, warden: int) -> NoReturn:
    """Become the program. All files of the warden's are closed by the kernel then."""
    os.setsid()
    os.dup2(streams.write["stdout"], 1)
    os.dup2(streams.write["stderr"], 2)
    try:
        os.chdir(request["folder"])
    except OSError as error:
        raise OSError(
            f"its folder {request['folder']} can't be entered: {error.strerror}"
        ) from None
    limit(request)
    for name in ("SIGPIPE", "SIGXFSZ"):  # which Python ignores, and its children would, too
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    kernel.die_with_parent()
    if os.getppid() != warden:
        os._exit(UNREADY)
    try:
        os.execve(request["program"], request["argv"], request["env"])
    except OSError as error:
        raise OSError(f"{request['program']} can't be started: {error.strerror}") from None


def limit(request: Request) -> None:
    """Set the kernel's limits, soft and hard, for good.

    Data, not addresses: many a program reserves far more addresses than it will ever use.
    """
    kernel.limit(
        {
            resource.RLIMIT_CPU: request["cpu_s"],
            resource.RLIMIT_DATA: request["memory_bytes"],
            resource.RLIMIT_FSIZE: request["file_bytes"],
            resource.RLIMIT_CORE: 0,
        }
    )


class ProgramWatch(Watch):
    """Looks after the program until it ends or must end."""

    def __init__(self, first: int, request: Request, streams: Streams, line: Lifeline) -> None:
        super().__init__(first, streams, line)
        self.request = request

    def run(self) -> dict[str, object]:
        """See how it ends, and say so. A negative status is the signal that ended it."""
        began = time.monotonic()
        until = max(began, min(began + self.request["wall_s"], self.request["until"]))
        self.watch(until)
        status = family.bury(self.first)
        self.streams.drain()
        if unready := self.streams.text("unready"):
            return {"end": "refused", "error": unready}
        ended = {"end": self.end, "status": status, "wall_s": until - began}
        return {**ended, **self.streams.printed()}

    def excess(self) -> str:
        """See `Watch`.

        Processes are counted here: the kernel counts all of a user's, and those of root not at all.
        """
        reap_orphans(self.first)
        usage = family.usage()
        if len(usage) > self.request["processes"]:
            return "processes"
        memory = sum(memory for _, memory in usage.values())
        return "memory" if memory > self.request["memory_bytes"] else ""


def reap_orphans(first: int) -> None:
    """Bury what was left to us and has ended, so that it is not counted any more."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == first:
                return
            os.waitpid(ended.si_pid, 0)
