"""The innermost part of a sandbox: sets limits, then runs the code of one call after another.

Loaded by `sandbox_child`, the standard library only. It shares its process with the code that it
runs: nothing that it says is trusted by the warden.
"""

import ast
import contextlib
import io
import json
import linecache
import os
import resource
import sys
import threading
import traceback
import types
from collections.abc import Mapping
from typing import Final, NoReturn, TypedDict

from actors.workers.processes import kernel

NAME: Final = "<code>"
"""The code's file name in tracebacks; ``<code 2>`` for a second call."""

TRACEBACK_LINES: Final = 20
"""Lines kept of a traceback: its end says what went wrong."""

MAX_SIGNALS: Final = 1_024
"""Signals that may be queued, and timers: the kernel keeps a piece of memory for each."""


class Call(TypedDict):
    """One call, as the worker writes it; the warden adds the number."""

    n: int
    code: str
    wall_s: float
    environment: dict[str, str]
    """Variables that are the call's own, such as ``TRACEPARENT``; those of the one before go."""


class Limits(TypedDict):
    """The part of the warden's request that is held here."""

    persistent: bool
    cpu_s: int
    memory_bytes: int
    files: int
    tmp_bytes: int
    output_bytes: int


def limit(limits: Limits, processes: int | None) -> None:
    """Set the kernel's limits, soft and hard, for good."""
    most = {
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["tmp_bytes"],
        resource.RLIMIT_NOFILE: limits["files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: MAX_SIGNALS,
    }
    if processes is not None:
        most[resource.RLIMIT_NPROC] = processes
    if not limits["persistent"]:  # there each call has its own, which the warden looks after
        most[resource.RLIMIT_CPU] = limits["cpu_s"]
    kernel.limit(most)


def serve(calls: int, results: int, chars: int) -> NoReturn:
    """Run what comes, and hand in what each last expression gave, until nothing comes any more.

    Args:
        calls: File from which calls are read, a line of JSON each.
        results: File to which results are written likewise; a first one says that all is ready.
        chars: Characters kept of a result, and of an error's text.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what was printed counts, even if time runs out
            stream.reconfigure(line_buffering=True)
    sys.stdin = io.StringIO()
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    pid = os.getpid()
    own: set[str] = set()
    hand_in(results, {"n": 0})
    with open(calls, "rb") as lines:
        while line := lines.readline():
            call: Call = json.loads(line)
            for name in own:
                os.environ.pop(name, None)
            os.environ.update(call["environment"])
            own = set(call["environment"])
            name = NAME if call["n"] == 1 else f"{NAME[:-1]} {call['n']}>"
            result = execute(call["code"], name, module, chars)
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            if os.getpid() != pid:  # a copy that the code has forked and let fall through
                os._exit(0)
            hand_in(results, {"n": call["n"], **result})
    os._exit(0)


def hand_in(results: int, result: Mapping[str, object]) -> None:
    """Write a result, all of it."""
    data = json.dumps(result).encode() + b"\n"
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(results, data) :]


def execute(code: str, name: str, module: types.ModuleType, chars: int) -> dict[str, object]:
    """Run code in a module: the last expression's repr, or the error's text."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    result: dict[str, object] = {}
    try:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), module.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), module.__dict__)
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
        while own is not None and not own.tb_frame.f_code.co_filename.startswith(NAME[:-1]):
            own = own.tb_next
        shown = "".join(traceback.format_exception(type(error), error, own))
    except BaseException:
        return f"{type(error).__name__} (its text could not be made)"
    lines = shown.replace(os.path.dirname(os.__file__), "<python>").splitlines()
    return "\n".join(lines[-TRACEBACK_LINES:])
