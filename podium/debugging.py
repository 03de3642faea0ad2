"""A debugger around one call of a function: at its first line, or where it raised.

The function runs in the thread that asks, which has to be the main one: a terminal belongs to it,
and so does Ctrl-C.
"""

import dis
import inspect
import signal
import sys
import sysconfig
import traceback
from bdb import BdbQuit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pdb import Pdb
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

_LIBRARIES: Final = tuple(
    {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
"""Folders in which there is none of the user's code."""


class Debugger:
    """Calls a function under pdb; what it returns or raises comes back as ever.

    Args:
        stop: Whether to stop at its first line.
        post_mortem: Whether to look around where it raised.
    """

    def __init__(self, *, stop: bool, post_mortem: bool) -> None:
        self._stop, self._post_mortem = stop, post_mortem
        self.left = False
        """Whether the person has left the debugger before the function ended."""

    async def call(self, function: Callable[..., Any], arguments: dict[str, Any]) -> object:
        """What the function returns."""
        with _ctrl_c(), self._following(function):
            try:
                value = function(**arguments)
                return await value if inspect.isawaitable(value) else value
            except BdbQuit:
                self.left = True
                raise
            except BaseException as error:
                if self._post_mortem:
                    sys.settrace(None)
                    look_around(error)
                raise

    @contextmanager
    def _following(self, function: Callable[..., Any]) -> Iterator[None]:
        """Stop at the function's first line, if that is wanted."""
        if not self._stop:
            yield
            return
        debugger = _FromFunction(inspect.unwrap(function).__code__)
        debugger.begin()
        sys.settrace(debugger.trace_dispatch)
        try:
            yield
        finally:
            sys.settrace(None)
            debugger.clear_all_breaks()


class _FromFunction(Pdb):
    """Pdb that runs until a function's first line, and shows no stack above it."""

    def __init__(self, code: CodeType) -> None:
        super().__init__(nosigint=True)
        self._code = code

    def begin(self) -> None:
        """Be ready to follow.

        Our own frame is where stepping ends: pdb wants one, and no coroutine's.
        """
        self.reset()
        self.botframe = sys._getframe()
        self.set_break(self._code.co_filename, first_line(self._code))
        self.set_continue()

    def get_stack(
        self, f: FrameType | None, t: TracebackType | None
    ) -> tuple[list[tuple[FrameType, int]], int]:
        """The stack from the function on."""
        stack, place = super().get_stack(f, t)
        ours = (number for number, (frame, _) in enumerate(stack) if frame.f_code is self._code)
        above = next(ours, 0)
        return stack[above:], place - above


def look_around(error: BaseException) -> None:
    """Post-mortem of an exception: the stack begins with the user's function.

    It starts at the innermost frame of the user's own; those of libraries are further ``down``.
    """
    trace = error.__traceback__
    trace = trace.tb_next or trace if trace is not None else None
    traceback.print_exception(type(error), error, trace, file=sys.stderr)
    if trace is None:
        return
    debugger = Pdb(nosigint=True)
    debugger.reset()
    if deeper := in_libraries(trace):
        debugger.cmdqueue.append(f"up {deeper}")
    debugger.interaction(None, trace)


def in_libraries(trace: TracebackType) -> int:
    """How many frames at the end of a stack are in libraries; 0 if all are."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    own = (place for place, file in enumerate(reversed(files)) if not _in_library(file))
    return next(own, 0)


def _in_library(file: str) -> bool:
    path = Path(file)
    return file.startswith("<") or any(path.is_relative_to(folder) for folder in _LIBRARIES)


def first_line(code: CodeType) -> int:
    """The first line of a function that does something."""
    lines = [line for _, line in dis.findlinestarts(code) if line]
    return next((line for line in lines if line > code.co_firstlineno), code.co_firstlineno)


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Have Ctrl-C interrupt the function: an event loop would only cancel its task."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
