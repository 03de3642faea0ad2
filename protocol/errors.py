"""The error tree: an exception means bad input or a broken invariant.

A failed call is data, and so is a failed run.

::

    PodiumError
      x Usage          the command, the configuration or the pool file is wrong       exit 2
      x InvalidData    bytes that are no message, a schema that is none               exit 1
        - TooLarge     it would not fit into one message                              exit 1
      x NotFound       no run, worker or file of that name                            exit 4
      x Ambiguous      an id's prefix names several                                   exit 4
      x Conflict       somebody else did it first                                     exit 1
        - Fenced       another conductor owns the run now                             exit 1
      x Busy           at its limit; try again later                                  exit 5
      x Unreachable    a server does not answer                                       exit 5
        - DiskFault    nor does a disk: what its file holds may be sound              exit 5
      x TimedOut       it answers, but not in time                                    exit 5
      x Denied         a key or a permission is missing                               exit 1
      x Diverged       a log and the rules disagree                                   exit 3
      x Internal       a broken invariant: a bug of ours                              exit 1

Each message says what happened and to which id; each hint says what to do next.
"""

from typing import ClassVar, Final, Literal, TypeAlias

ErrorKind: TypeAlias = Literal[
    "usage",
    "not_found",
    "ambiguous",
    "conflict",
    "busy",
    "unreachable",
    "timeout",
    "denied",
    "diverged",
    "invalid_data",
    "internal",
]


class PodiumError(Exception):
    """The root of the tree.

    Args:
        message: What happened, and to which id.
        hint: What to do next: a command, a line of configuration, a place to look.
    """

    kind: ClassVar[ErrorKind] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def whole(self) -> str:
        """What happened and what to do next, as one text."""
        if not (self.message and self.hint):
            return self.message or self.hint
        if "\n" in self.message:
            return f"{self.message}\n{self.hint}"
        ended = self.message.endswith((".", "!", "?", ":", ";"))
        return f"{self.message}{' ' if ended else '; '}{self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(cls: type[PodiumError], message: str, hint: str) -> PodiumError:
    """Keep the hint when an error crosses a process."""
    return cls(message, hint=hint)


class Usage(PodiumError):
    """The command, the configuration or the pool file is wrong."""

    kind = "usage"
    exit_code = 2


class InvalidData(PodiumError):
    """Bytes that are no message of ours, or a schema that is none."""

    kind = "invalid_data"


class TooLarge(InvalidData):
    """It would not fit into one message."""


class NotFound(PodiumError):
    """No run, worker or file of that name."""

    kind = "not_found"
    exit_code = 4


class Ambiguous(PodiumError):
    """An id's prefix names several."""

    kind = "ambiguous"
    exit_code = 4


class Conflict(PodiumError):
    """Somebody else did it first."""

    kind = "conflict"


class Fenced(Conflict):
    """Another conductor owns the run now; this one must touch nothing of it any more."""


class Busy(PodiumError):
    """At its limit; try again later."""

    kind = "busy"
    exit_code = 5


class Unreachable(PodiumError):
    """A server does not answer."""

    kind = "unreachable"
    exit_code = 5


class DiskFault(Unreachable):
    """A file is there, and its disk or the system does not give it: nothing is known of it."""


class TimedOut(PodiumError):
    """A server answers, but not in time."""

    kind = "timeout"
    exit_code = 5


class Denied(PodiumError):
    """A key or a permission is missing."""

    kind = "denied"


class Diverged(PodiumError):
    """A log and the rules disagree."""

    kind = "diverged"
    exit_code = 3


class Internal(PodiumError):
    """A broken invariant: a bug of ours."""


UNREAD: Final = (InvalidData, NotFound, Denied, DiskFault)
"""What is raised of one run, or one file, that can't be read, and says nothing of the others."""
