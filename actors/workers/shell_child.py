"""The `shell` worker's own process: starts a program, watches it, and says how it ended.

Run by an isolated interpreter (``python -I -S shell_child.py``) with the standard library only. It
reads one line of JSON from its input (`Request`), and writes one JSON object to its output when
the program has ended. Its input stays open as a lifeline: when that ends, the worker has withdrawn
the call or is dead, and the program is killed.

Whatever loses its parent below this process becomes its child, also what made a session of its own.
So nothing can leave the family, and all of it is killed when the program ends or must end. No
process of the family can gain privileges: none can become another user's, which could not be
killed.
"""

import contextlib
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import types
from typing import TYPE_CHECKING, Final, NoReturn, TypedDict

if TYPE_CHECKING:
    from actors.workers import sandbox_kernel as kernel

LOOK_S: Final = 0.02
"""Seconds between looks at the memory and the number of all processes together."""

CHUNK: Final = 65_536
"""Bytes of one read: what a pipe holds."""

MAX_REQUEST_BYTES: Final = 4_194_304
"""Bytes. Arguments and options are far smaller."""

TAIL_BYTES: Final = 2_000
"""Bytes kept of the end of each stream, to say how a program failed."""

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
    cpu_s: int
    memory_bytes: int
    """Of all processes together, and of the data of each."""
    processes: int
    file_bytes: int
    output_bytes: int


class Streams:
    """What comes out of the program, cut at a limit; reading goes on so that nothing blocks."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.read: dict[str, int] = {}
        self.write: dict[str, int] = {}
        self.kept: dict[str, bytearray] = {}
        self.tail: dict[str, bytes] = {}
        self.total: dict[str, int] = {}
        for name in ("stdout", "stderr", "unready"):
            self.read[name], self.write[name] = os.pipe()
            os.set_blocking(self.read[name], False)
            self.kept[name], self.tail[name], self.total[name] = bytearray(), b"", 0

    def take(self, name: str) -> bool:
        """Read once from a stream; false when nothing is there, or nothing will ever be."""
        try:
            data = os.read(self.read[name], CHUNK)
        except BlockingIOError:
            return False
        self.total[name] += len(data)
        self.kept[name] += data[: max(0, self.limit - len(self.kept[name]))]
        self.tail[name] = (self.tail[name] + data)[-TAIL_BYTES:]
        return bool(data)

    def drain(self) -> None:
        """Take what is left once everything that could write has been killed."""
        for name in self.read:
            while self.take(name):
                pass

    def text(self, name: str) -> str:
        """What was kept; a character that the limit cut in two is left out."""
        data = bytes(self.kept[name])
        if self.total[name] > self.limit:
            data = data[: len(data) - _half(data)]
        return data.decode(errors="replace")


def main() -> None:
    """Read the request, run it, print what became of it."""
    request: Request = json.loads(sys.stdin.buffer.readline(MAX_REQUEST_BYTES))
    streams = Streams(request["output_bytes"])
    scratch = ""
    try:
        if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            raise OSError("there is no list of descendants: /proc/PID/task/PID/children is missing")
        kernel.adopt_orphans()
        kernel.no_new_privileges()
        if not request["folder"]:
            request["folder"] = scratch = tempfile.mkdtemp(prefix="podium-shell-")
        first = start(request, streams)
        for fd in streams.write.values():
            os.close(fd)
        answer = report(*watch(first, request, streams), streams)
    except OSError as error:
        answer = {"end": "refused", "error": str(error)}
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer))
        sys.stdout.flush()


def start(request: Request, streams: Streams) -> int:
    """Start the program; its pid."""
    source = os.memfd_create("stdin") if request["stdin"] is not None else os.open("/dev/null", 0)
    with os.fdopen(source, "rb+" if request["stdin"] is not None else "rb") as opened:
        if request["stdin"] is not None:
            opened.write(request["stdin"].encode("utf-8", "replace"))
            opened.flush()
            opened.seek(0)
        supervisor = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            os.dup2(opened.fileno(), 0)
            become(request, streams, supervisor)
        except BaseException as error:
            os.write(streams.write["unready"], str(error).encode("utf-8", "replace")[:CHUNK])
        finally:
            os._exit(UNREADY)


def become(request: Request, streams: Streams, supervisor: int) -> NoReturn:
    """Become the program. All files of the supervisor's are closed by the kernel then."""
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
    if os.getppid() != supervisor:
        os._exit(UNREADY)
    try:
        os.execve(request["program"], request["argv"], request["env"])
    except OSError as error:
        raise OSError(f"{request['program']} can't be started: {error.strerror}") from None


def limit(request: Request) -> None:
    """Set the kernel's limits, soft and hard, for good.

    Data, not addresses: many a program reserves far more addresses than it will ever use.
    """
    limits = {
        resource.RLIMIT_CPU: request["cpu_s"] + 1,
        resource.RLIMIT_DATA: request["memory_bytes"],
        resource.RLIMIT_FSIZE: request["file_bytes"],
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
    # The soft limit ends a program with a signal of its own, the hard one whoever ignores that.
    cpu = resource.getrlimit(resource.RLIMIT_CPU)[0]
    resource.setrlimit(resource.RLIMIT_CPU, (max(1, cpu - 1), cpu))


def watch(first: int, request: Request, streams: Streams) -> tuple[str, int]:
    """Look after the program until it ends or must end: why, and its exit status."""
    deadline = time.monotonic() + request["wall_s"]
    pidfd = os.pidfd_open(first)
    poll = select.poll()
    names = {fd: name for name, fd in streams.read.items()}
    for fd in (0, pidfd, *names):
        poll.register(fd, select.POLLIN)
    end = ""
    while not end:
        left = deadline - time.monotonic()
        for fd, _ in poll.poll(max(0, min(LOOK_S, left)) * 1_000):
            if fd == pidfd:
                end = "ended"
            elif fd == 0:
                end = end or ("" if os.read(0, CHUNK) else "withdrawn")
            elif not streams.take(names[fd]):
                poll.unregister(fd)
        reap_orphans(first)
        end = end or beyond(request, deadline)
    status = bury(first)
    streams.drain()
    return end, status


def beyond(request: Request, deadline: float) -> str:
    """Which limit of all processes together is passed; "" for none.

    They are counted here, since the kernel counts all of a user's, and those of root not at all.
    """
    if time.monotonic() >= deadline:
        return "wall"
    members = family(os.getpid())
    if len(members) > request["processes"]:
        return "processes"
    return "memory" if memory_of(members) > request["memory_bytes"] else ""


def reap_orphans(first: int) -> None:
    """Bury what was left to us and has ended, so that it is not counted any more."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == first:
                return
            os.waitpid(ended.si_pid, 0)


def bury(first: int) -> int:
    """Kill all that is left of the program, and wait for it; the first one's exit status."""
    status = 0
    while True:
        for pid in family(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            return status
        if pid == first:
            status = os.waitstatus_to_exitcode(ended)


def family(pid: int) -> list[int]:
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


def memory_of(members: list[int]) -> int:
    """Bytes in memory of processes; what several share is counted for each."""
    pages = 0
    for pid in members:
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm") as f:
            pages += int(f.read().split()[1])
    return pages * resource.getpagesize()


def report(end: str, status: int, streams: Streams) -> dict[str, object]:
    """What the worker is told. A negative status is the signal that ended the program."""
    unready = streams.kept["unready"].decode(errors="replace")
    if unready:
        return {"end": "refused", "error": unready}
    return {
        "end": end,
        "status": status,
        **{name: streams.text(name) for name in ("stdout", "stderr")},
        **{f"{name}_bytes": streams.total[name] for name in ("stdout", "stderr")},
        **{
            f"{name}_tail": streams.tail[name].decode(errors="replace")
            for name in ("stdout", "stderr")
        },
    }


def _half(data: bytes) -> int:
    """Bytes at the end that begin a character and don't end it."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < needed else 0
        if byte < 0x80:
            return 0
    return 0


def load_kernel() -> types.ModuleType:
    """The module beside this one; an isolated interpreter has no path to import it by."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox_kernel.py")
    spec = importlib.util.spec_from_file_location("sandbox_kernel", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    if not TYPE_CHECKING:
        kernel = load_kernel()
    main()
