"""Names on the broker: streams, subjects, and the ids that stand in them.

::

    LOG-<k>   log.<k>.<run>.c      commits: conductors only
              log.<k>.<run>.i      the inbox: many writers
              hint.<run>.<c|i>     core NATS: the server's own republication of both, never stored
    TASKS     tasks.<priority>.<run>
    CALLS     calls.<place>.<priority>.<run>.<call>.<attempt>
    BLOBS     blobs.<sha256>.<chunk>
    HEADS     heads.<run>
    WORKERS   workers                 the registry's log
    live.<run>                     core NATS: progress, never stored
    withdraw.<place>               core NATS: attempts that nobody waits for any more

``k`` is the shard of the log that a run lives in: the last character of its id.
"""

import re
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from protocol.errors import InvalidData
from protocol.limits import MAX_WORKER_NAME_CHARS, NAME_PATTERN

Priority: TypeAlias = Literal["high", "normal"]
"""High is for what others wait for: child runs, runs that go on."""

PRIORITIES: Final[tuple[Priority, ...]] = ("high", "normal")

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that a person could take for another."""

RUN_ID_CHARS: Final = 13
"""Twelve random characters (60 bits) and the shard."""

MAX_SHARDS: Final = len(ALPHABET)
"""Logs of one deployment: one character of the run id."""

TASKS: Final = "TASKS"
CALLS: Final = "CALLS"
BLOBS: Final = "BLOBS"
HEADS: Final = "HEADS"
WORKERS: Final = "WORKERS"

REGISTRY: Final = "workers"
"""Where the registry's changes stand: what only a conductor's rights allow to say."""

TASK: Final = "tasks.{priority}.{run}"
CALL: Final = "calls.{worker}.{priority}.{run}.{call}.{attempt}"
"""What `task` and `call` fill in: the kind of place, whoever's it is."""

_RUN: Final = re.compile(f"[{ALPHABET}]{{{RUN_ID_CHARS}}}")
_CALL: Final = re.compile(r"[0-9]{1,6}-[0-9]{1,6}")
_NAME: Final = re.compile(NAME_PATTERN)

AGAIN: Final = "@"
"""What stands between a name and the number of its definition; no name has it."""

_PLACE: Final = re.compile(rf"{NAME_PATTERN[1:-1]}(?:{AGAIN}[0-9]{{1,9}})?")


def run_id(randomness: bytes, shard: int = 0) -> str:
    """A run's id from at least 8 random bytes and its shard."""
    return _letters(int.from_bytes(randomness[:8], "big")) + ALPHABET[shard]


def child_id(run: str, call: str, attempt: int) -> str:
    """The id of the run that answers an attempt.

    Derived, so that beginning it twice begins it once.
    """
    digest = sha256(f"{run}/{call}/{attempt}".encode()).digest()
    return _letters(int.from_bytes(digest[:8], "big")) + run[-1]


def _letters(number: int) -> str:
    return "".join(ALPHABET[(number >> 5 * place) & 31] for place in range(RUN_ID_CHARS - 1))


def is_run(text: str) -> bool:
    """Whether the text could be a run's id."""
    return _RUN.fullmatch(text) is not None


def is_call(text: str) -> bool:
    """Whether the text could be a call's id."""
    return _CALL.fullmatch(text) is not None


def check_name(name: str, of: str) -> None:
    """Raise `InvalidData` unless the name of a worker or a policy is a name."""
    if not _NAME.fullmatch(name):
        raise InvalidData(
            f"{of}: {name!r} is no name",
            hint=f"a name starts with a letter and has at most {MAX_WORKER_NAME_CHARS} letters, "
            "digits, '_' and '-'",
        )


def check_place(place: str, of: str) -> None:
    """Raise `InvalidData` unless that is a place where calls can wait, or "" for the usual one."""
    if place and not _PLACE.fullmatch(place):
        raise InvalidData(
            f"{of}: {place!r} is no place for its calls",
            hint=f"it is a name, or a name, {AGAIN} and a number; leave it to the registry",
        )


def shard(run: str) -> int:
    """The shard of the log that a run lives in."""
    return ALPHABET.index(run[-1])


def log_stream(k: int) -> str:
    """The stream of a shard."""
    return f"LOG-{k}"


def commits(run: str) -> str:
    """Where the run's commits stand: written by its conductor only."""
    return f"log.{shard(run)}.{run}.c"


def inbox(run: str) -> str:
    """Where others write to the run."""
    return f"log.{shard(run)}.{run}.i"


def hint(run: str, of: Literal["c", "i"]) -> str:
    """Where the server republishes what is appended to the run's commits or inbox."""
    return f"hint.{run}.{of}"


def task(priority: Priority, run: str) -> str:
    """The one place of the run in the task queue."""
    return f"tasks.{priority}.{run}"


def call(place: str, priority: Priority, run: str, call_id: str, attempt: int) -> str:
    """The one place of an attempt in the call queue."""
    return f"calls.{place}.{priority}.{run}.{call_id}.{attempt}"


def blob(sha: str, chunk: int | str) -> str:
    """One chunk of a blob; ``*`` for all."""
    return f"blobs.{sha}.{chunk}"


def head(run: str) -> str:
    """The kept head of a run."""
    return f"heads.{run}"


def live(run: str) -> str:
    """Progress of a run, for whoever watches now."""
    return f"live.{run}"


def model(name: str, verb: Literal["ask", "stop", "begun"]) -> str:
    """Where a model of ours is asked, is told to stop, and says that it has begun."""
    return f"models.{name}.{verb}"


def withdraw(place: str) -> str:
    """What the worker is told to stop."""
    return f"withdraw.{place}"
