"""The sandbox's own process: starts the code, watches it, and says how it ended.

Run by an isolated interpreter (``python -I -S sandbox_child.py``) with the standard library only,
and a clean environment. It reads one line of JSON from its input (`Request`), and writes one
JSON object to its output when the code has ended. Its input stays open as a lifeline: when that
ends, the worker has withdrawn the call or is dead, and the code is killed.

::

    supervisor   this process; outside of the pid namespace, so that it can end everything in it
      init       first process of the namespaces; reaps; when it ends the kernel kills all others
        code     limits set, then the user's code

With ``isolation`` set to ``process`` there are no namespaces and no init: only limits, a scratch
folder, and a search for descendants when it is over.
"""

import ast
import contextlib
import importlib.util
import io
import json
import linecache
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NoReturn, TypedDict

if TYPE_CHECKING:
    from actors.workers import sandbox_kernel as kernel

NAME: Final = "<code>"
"""The code's file name in tracebacks."""

LOOK_S: Final = 0.02
"""Seconds between looks at the memory of all processes together."""

CHUNK: Final = 65_536
"""Bytes of one read: what a pipe holds."""

MAX_REQUEST_BYTES: Final = 4_194_304
"""Bytes. Code comes inside a call's arguments, which are far smaller."""

TRACEBACK_LINES: Final = 20
"""Lines kept of a traceback: its end says what went wrong."""

UNREADY: Final = 125
"""Exit status of an init that could not isolate itself."""


class Request(TypedDict):
    """What the worker asks for."""

    code: str
    isolation: str
    wall_s: float
    cpu_s: int
    memory_bytes: int
    processes: int
    files: int
    tmp_bytes: int
    output_bytes: int
    """Of each stream; the result's text has the same limit in characters."""


class Streams:
    """What comes out of the code, cut at a limit; reading goes on so that nothing blocks."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.read: dict[str, int] = {}
        self.write: dict[str, int] = {}
        self.kept: dict[str, bytearray] = {}
        self.total: dict[str, int] = {}
        for name in ("stdout", "stderr", "result", "unready"):
            self.read[name], self.write[name] = os.pipe()
            os.set_blocking(self.read[name], False)
            self.kept[name], self.total[name] = bytearray(), 0

    def take(self, name: str) -> bool:
        """Read once from a stream; false when nothing is there, or nothing will ever be."""
        try:
            data = os.read(self.read[name], CHUNK)
        except BlockingIOError:
            return False
        # JSON may write a character in six bytes, and the result has some words around it.
        limit = self.limit if name.startswith("std") else self.limit * 6 + CHUNK
        self.total[name] += len(data)
        self.kept[name] += data[: max(0, limit - len(self.kept[name]))]
        return bool(data)

    def drain(self) -> None:
        """Take what is left once everything that could write has been killed."""
        for name in self.read:
            while self.take(name):
                pass

    def keep(self, *names: str) -> None:
        """Close, in a child, every file of the supervisor's but the named streams' write ends."""
        kept = sorted(self.write[name] for name in names)
        for low, high in zip([3, *(fd + 1 for fd in kept)], [*kept, 65_536], strict=True):
            os.closerange(low, high)


def main() -> None:
    """Read the request, run it, print what became of it."""
    line = sys.stdin.buffer.readline(MAX_REQUEST_BYTES)
    request: Request = json.loads(line)
    streams = Streams(request["output_bytes"])
    scratch = ""
    try:
        if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            raise kernel.Refused("a list of descendants: /proc/PID/task/PID/children is missing")
        kernel.adopt_orphans()
        if request["isolation"] == "namespaces":
            first = start_isolated(request, streams)
        else:
            scratch = tempfile.mkdtemp(prefix="podium-sandbox-")
            first = start_limited(request, streams, scratch)
        for fd in streams.write.values():
            os.close(fd)
        end, status = watch(first, request, streams)
        answer = report(end, status, streams)
    except kernel.Refused as error:
        answer = {"end": "refused", "error": str(error)}
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer))
        sys.stdout.flush()


def start_isolated(request: Request, streams: Streams) -> int:
    """Start init in namespaces of its own, and the code below it; init's pid."""
    to_nobody = kernel.new_namespaces()
    with child_of_mine() as pid:
        if pid:
            return pid
        try:
            kernel.new_root(request["tmp_bytes"], request["files"] * 64)
            kernel.drop_privileges(to_nobody=to_nobody)
            silence("stdin", "stdout", "stderr")
            streams.keep("stdout", "stderr", "result", "unready")
            kernel.die_with_parent()
            if orphaned(streams):
                os._exit(UNREADY)
        except (kernel.Refused, OSError) as error:
            os.write(streams.write["unready"], str(error).encode())
            os._exit(UNREADY)
        with child_of_mine() as code:
            if code == 0:
                run(request, streams, "/tmp", processes=request["processes"] + 2)
        os._exit(reap(code))
    raise AssertionError("unreachable: a child never leaves the block above")


def start_limited(request: Request, streams: Streams, scratch: str) -> int:
    """Start the code as a plain child with limits; its pid.

    Processes are not counted: without namespaces the kernel counts all of the user's.
    """
    supervisor = os.getpid()
    with child_of_mine() as pid:
        if pid == 0:
            silence("stdin")
            kernel.die_with_parent()
            if os.getppid() != supervisor:
                os._exit(UNREADY)
            run(request, streams, scratch, processes=None)
    return pid


@contextlib.contextmanager
def child_of_mine() -> Iterator[int]:
    """Fork; the child ends with the block, whatever happens in it."""
    pid = os.fork()
    try:
        yield pid
    except BaseException:
        if pid == 0:
            traceback.print_exc()
            os._exit(UNREADY)
        raise
    if pid == 0:
        os._exit(0)


def orphaned(streams: Streams) -> bool:
    """Whether the supervisor ended before init could ask to be killed with it.

    Its pid can't be asked for from inside the namespace, but a pipe without readers can be seen.
    """
    poll = select.poll()
    poll.register(streams.write["unready"], 0)
    return bool(poll.poll(0))


def silence(*names: str) -> None:
    """Point standard streams at nothing."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if name in names:
            os.dup2(null, fd)
    os.close(null)


def reap(code: int) -> int:
    """Init's work: bury orphans until the code has ended; its exit status as a shell says it."""
    while True:
        pid, status = os.wait()
        if pid == code:
            number = os.waitstatus_to_exitcode(status)
            return 128 - number if number < 0 else number


def watch(first: int, request: Request, streams: Streams) -> tuple[str, int]:
    """Look after the code until it ends or must end: why, and its exit status."""
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
        if not end and time.monotonic() >= deadline:
            end = "wall"
        if not end and memory_of(first) > request["memory_bytes"]:
            end = "memory"
    status = bury(first)
    streams.drain()
    return end, status


def bury(first: int) -> int:
    """Kill all that is left of the code, and wait for it; the first one's exit status."""
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
            number = os.waitstatus_to_exitcode(ended)
            status = 128 - number if number < 0 else number


def family(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in file.read().split():
                    found += [int(child), *family(int(child))]
    return found


def memory_of(first: int) -> int:
    """Bytes in memory of a process and its descendants."""
    pages = 0
    for pid in (first, *family(first)):
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm") as f:
            pages += int(f.read().split()[1])
    return pages * resource.getpagesize()


def report(end: str, status: int, streams: Streams) -> dict[str, object]:
    """What the worker is told. Nothing in it is trusted: the code may have written the result."""
    unready = streams.kept["unready"].decode(errors="replace")
    if unready:
        return {"end": "refused", "error": unready}
    try:
        result = json.loads(streams.kept["result"] or b"{}")
    except (ValueError, RecursionError):
        result = {}
    return {
        "end": end,
        "status": status,
        "stdout": streams.kept["stdout"].decode(errors="replace"),
        "stderr": streams.kept["stderr"].decode(errors="replace"),
        "stdout_bytes": streams.total["stdout"],
        "stderr_bytes": streams.total["stderr"],
        "result": result if isinstance(result, dict) else {},
    }


def run(request: Request, streams: Streams, folder: str, processes: int | None) -> NoReturn:
    """Become the code: set limits, run it, write what its last expression gave."""
    os.setsid()
    os.nice(5)
    os.dup2(streams.write["stdout"], 1)
    os.dup2(streams.write["stderr"], 2)
    streams.keep("result")
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    tempfile.tempdir = folder
    limit(request, processes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what was printed counts, even if time runs out
            stream.reconfigure(line_buffering=True)
    pid = os.getpid()
    result = execute(request["code"], request["output_bytes"])
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    if os.getpid() != pid:  # a copy that the code has forked and let fall through
        os._exit(0)
    data = json.dumps(result).encode()
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(streams.write["result"], data) :]
    os._exit(int("error" in result))


def limit(request: Request, processes: int | None) -> None:
    """Set the kernel's limits, soft and hard, for good."""
    limits = {
        resource.RLIMIT_CPU: request["cpu_s"] + 1,
        resource.RLIMIT_AS: request["memory_bytes"],
        resource.RLIMIT_FSIZE: request["tmp_bytes"],
        resource.RLIMIT_NOFILE: request["files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = processes
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
    # The soft limit ends code with a signal of its own, the hard one whoever ignores that.
    cpu = resource.getrlimit(resource.RLIMIT_CPU)[0]
    resource.setrlimit(resource.RLIMIT_CPU, (max(1, cpu - 1), cpu))


def execute(code: str, chars: int) -> dict[str, object]:
    """Run the code in a fresh ``__main__``: the last expression's repr, or the error's text."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.stdin = io.StringIO()
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    result: dict[str, object] = {}
    try:
        tree = ast.parse(code, NAME)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, NAME, "exec"), module.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), NAME, "eval"), module.__dict__)
            if value is not None:
                text = repr(value)
                result = {"result": text[:chars], "result_chars": len(text)}
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except SystemExit as error:
        if error.code not in (None, 0):
            return {"error": f"SystemExit: {error.code}"[:chars]}
    except BaseException as error:
        return {"error": explained(error)[-chars:]}
    return result


def explained(error: BaseException) -> str:
    """The last lines of the traceback, without our own frames."""
    try:
        own = error.__traceback__
        while own is not None and own.tb_frame.f_code.co_filename != NAME:
            own = own.tb_next
        shown = "".join(traceback.format_exception(type(error), error, own))
    except BaseException:
        return f"{type(error).__name__} (its text could not be made)"
    lines = shown.replace(os.path.dirname(os.__file__), "<python>").splitlines()
    return "\n".join(lines[-TRACEBACK_LINES:])


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
