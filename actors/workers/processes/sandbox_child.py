"""The sandbox's own process: starts the code, watches it, and says how each call ended.

Run by an isolated interpreter (`isolated`) with the standard library only, and a clean environment.
It reads lines of JSON from its input: first what it must hold to (`Request`), which it answers when
the code is locked in and waits, then one line for each call. An ephemeral sandbox has one call and
ends with it, a persistent one goes on. Its input is a lifeline: when that ends, or the worker does,
all is over and everything is killed.

::

    warden       this process; outside of the pid namespace, so that it can end everything in it
      init       first process of the namespaces; reaps; when it ends the kernel kills all others
        code     limits set, waits for a call, then is the user's code

With ``isolation`` set to ``process`` there are no namespaces and no init: only limits, a scratch
folder, and a search for descendants when it is over. Between two calls of a persistent sandbox
all of its processes are stopped: nothing of it works while nobody watches.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Final, NoReturn

from actors.workers.processes import family, kernel
from actors.workers.processes import sandbox_code as inside
from actors.workers.processes.pipes import CHUNK, PRINTED, Lifeline, Streams, say
from actors.workers.processes.watching import Watch

READY_S: Final = 20.0
"""Seconds until the code must be locked in; it needs a tenth of one."""

UNREADY: Final = 125
"""Exit status of an init that could not isolate itself."""


class Request(inside.Limits):
    """What the worker asks for, beside the limits that `sandbox_code` holds."""

    isolation: str
    processes: int


class CodeStreams(Streams):
    """What comes out of the code, and the other way round its calls."""

    def __init__(self, limit: int) -> None:
        # JSON may write a character in twelve bytes, and the result has some words around it.
        result = limit * 12 + CHUNK
        limits = {**dict.fromkeys(PRINTED, limit), "result": result, "unready": CHUNK}
        super().__init__(limits)
        self.calls, self.ask = os.pipe()
        """Where the code reads its calls, and where they are written."""
        os.set_blocking(self.ask, False)

    def keep(self, *wanted: int) -> None:
        """Close, in a child, every file of the warden's but the standard ones and these."""
        kept = sorted(wanted)
        for low, high in zip([3, *(fd + 1 for fd in kept)], [*kept, 65_536], strict=True):
            os.closerange(low, high)

    def leave(self) -> None:
        """Close, in the warden, the ends that belong to the code."""
        super().leave()
        os.close(self.calls)


class CodeWatch(Watch):
    """Looks after the code: `ready`, then `call` by call, until it says that it is over."""

    def __init__(self, first: int, request: Request, streams: CodeStreams, line: Lifeline) -> None:
        super().__init__(first, streams, line)
        self.request, self.ask = request, streams.ask
        self.spared = first if request["isolation"] == "namespaces" else 0
        """Init is never stopped: it only buries."""
        self.n = 0
        self.done = False
        """Whether the code has handed in a result."""
        self.unsent = b""
        self.used: dict[tuple[int, int], float] = {}
        """Seconds of CPU that each process had used before the call, by pid and time of birth."""

    def ready(self) -> dict[str, object]:
        """Wait until the code is locked in: ``ready``, or ``refused`` or ``unready`` and why."""
        self.watch(time.monotonic() + READY_S)
        if self.end == "done" and self.result():
            return {"end": "ready"}
        family.bury(self.first)
        self.streams.drain()
        if missing := self.streams.text("unready"):
            return {"end": "refused", "error": missing}
        said = self.streams.tail["stderr"].decode(errors="replace").strip()
        return {"end": "unready", "error": said.rpartition("\n")[2] or self.end}

    def asked(self) -> inside.Call | None:
        """Wait for a call; None if there will be none."""
        while not (line := self.line.line()):
            if self.n and not family.stop(self.spared):
                return None
            self.watch(None)
            if self.end:
                return None
        call: inside.Call = json.loads(line)
        return call

    def call(self, call: inside.Call) -> dict[str, object]:
        """Have a call run, and see how it ends."""
        self.n += 1
        self.streams.clear()
        self.unsent = json.dumps({**call, "n": self.n}).encode() + b"\n"
        self.poll.register(self.ask, select.POLLOUT)
        self.used = {key: cpu for key, (cpu, _) in family.usage().items()}
        if self.n > 1:
            family.send(signal.SIGCONT)
        self.watch(time.monotonic() + call["wall_s"])
        result = self.result() if self.end == "done" else {}
        if self.end == "done" and not result:
            self.end = "forged"
        status = 0
        if self.end == "done" and self.request["persistent"]:
            self.end = "done" if family.stop(self.spared) else "restless"
        if self.end != "done" or not self.request["persistent"]:
            status = as_shell(family.bury(self.first))
        self.streams.drain()
        made = report(self.end, status if self.end == "ended" else 0, result, self.streams)
        return {**made, "wall_s": call["wall_s"]}

    def result(self) -> dict[str, object]:
        """What the code handed in for this call; empty if it is none. It may be made up."""
        try:
            result = json.loads(self.streams.kept["result"])
        except (ValueError, RecursionError):
            return {}
        if not isinstance(result, dict) or result.get("n") != self.n:
            return {}
        return result

    def watch(self, until: float | None) -> None:
        """See `Watch`; a result is an end, too."""
        self.done = False
        super().watch(until)

    def attend(self, ready: set[int]) -> str:
        """See `Watch`; besides, the call is written."""
        end = super().attend(ready)
        if self.ask in ready:
            try:
                self.unsent = self.unsent[os.write(self.ask, self.unsent) :]
            except BrokenPipeError:  # the code has closed what it was to read
                self.unsent = b""
            if not self.unsent:
                self.poll.unregister(self.ask)
        return "done" if self.done else end

    def took(self, name: str) -> bytes:
        """See `Watch`."""
        data = super().took(name)
        self.done = self.done or (name == "result" and b"\n" in data)
        return data

    def excess(self) -> str:
        """The limit that the code has gone over, if it has."""
        usage = family.usage()
        if sum(memory for _, memory in usage.values()) > self.request["memory_bytes"]:
            return "memory"
        if self.request["persistent"]:  # in others the kernel counts it, for each process
            for key, (cpu, _) in usage.items():
                if cpu - self.used.get(key, 0) > self.request["cpu_s"]:
                    return "cpu"
        return ""


def main() -> None:
    """Lock the code in, say so, have it run each call, and say what became of it."""
    line = Lifeline()
    if not (first := line.first()):
        return
    request: Request = json.loads(first)
    scratch = ""
    try:
        kernel.adopt_orphans()
        streams = CodeStreams(request["output_bytes"])
        if request["isolation"] == "namespaces":
            code = start_isolated(request, streams)
        else:
            scratch = tempfile.mkdtemp(prefix="podium-sandbox-")
            code = start_limited(request, streams, scratch)
        streams.leave()
        serve(CodeWatch(code, request, streams, line))
    except kernel.Refused as error:
        say({"end": "refused", "error": str(error)})
    finally:
        family.bury(0)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def serve(watch: CodeWatch) -> None:
    """One call after another, until the code or the worker is gone."""
    said = watch.ready()
    say(said)
    while said["end"] == "ready" or (said["end"] == "done" and watch.request["persistent"]):
        call = watch.asked()
        if call is None:
            return
        said = watch.call(call)
        say(said)


def start_isolated(request: Request, streams: CodeStreams) -> int:
    """Start init in namespaces of its own, and the code below it; init's pid."""
    to_nobody = kernel.new_namespaces()
    with child_of_mine() as pid:
        if pid:
            return pid
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that init can't be sent any
            kernel.new_root(request["tmp_bytes"], request["files"] * 64)
            kernel.drop_privileges(to_nobody=to_nobody)
            silence("stdin", "stdout", "stderr")
            streams.keep(streams.calls, *streams.write.values())
            kernel.die_with_parent()
            if orphaned(streams):
                os._exit(UNREADY)
        except (kernel.Refused, OSError) as error:
            os.write(streams.write["unready"], str(error).encode())
            os._exit(UNREADY)
        with child_of_mine() as code:
            if code == 0:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                run(request, streams, "/tmp", processes=request["processes"] + 2)
        streams.keep(streams.write["unready"])
        os._exit(reap(code))
    raise AssertionError("unreachable: a child never leaves the block above")


def start_limited(request: Request, streams: CodeStreams, scratch: str) -> int:
    """Start the code as a plain child with limits; its pid.

    Processes are not counted: without namespaces the kernel counts all of the user's.
    """
    warden = os.getpid()
    with child_of_mine() as pid:
        if pid == 0:
            silence("stdin")
            kernel.die_with_parent()
            if os.getppid() != warden:
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


def orphaned(streams: CodeStreams) -> bool:
    """Whether the warden ended before init could ask to be killed with it.

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
            return as_shell(os.waitstatus_to_exitcode(status))


def as_shell(status: int) -> int:
    """An exit status as a shell says it, which is all that init can say of the code's."""
    return 128 - status if status < 0 else status


def report(end: str, status: int, result: dict[str, object], streams: Streams) -> dict[str, object]:
    """What the worker is told. Nothing in it is trusted: the code may have written the result."""
    return {"end": end, "status": status, **streams.printed(), "result": result}


def run(request: Request, streams: CodeStreams, folder: str, processes: int | None) -> NoReturn:
    """Become the code."""
    os.setsid()
    os.nice(5)
    os.dup2(streams.write["stdout"], 1)
    os.dup2(streams.write["stderr"], 2)
    streams.keep(streams.calls, streams.write["result"])
    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    tempfile.tempdir = folder
    inside.limit(request, processes)
    inside.serve(streams.calls, streams.write["result"], request["output_bytes"])
