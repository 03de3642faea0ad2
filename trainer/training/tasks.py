"""What a live training asks in each step: a pure function of its seed and the step.

A file of tasks has one a line::

    {"text": "What is 6 times 7?", "check": {"kind": "exact", "answer": "42"}}
    {"text": "The capital of Chad?", "inputs": {"entities": ["Chad"]}, "check": {...}}
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from protocol.actions import Json, Pool
from protocol.budgets import Budget
from protocol.decisions import Task
from protocol.errors import InvalidData, NotFound, Usage
from trainer.gym import small
from trainer.gym.episodes import draw
from trainer.gym.gate import GYMS
from trainer.gym.hosted import at_home
from trainer.gym.questions import FAMILIES
from trainer.learner.order import places
from trainer.rewards import Exact, Number, check_of

FROM: Final = 4 * 10**9
"""The first seed of the gym's episodes that are asked: none of a lesson's, of a test's, of practice
in memory or of correction."""

SEEDS: Final = 10**7
"""Episodes between those of two trainings' seeds."""


class Asked(NamedTuple):
    """One task, and who may do it."""

    task: Task
    pool: Pool
    budget: Budget


class Tasks(Protocol):
    """What is asked."""

    @property
    def described(self) -> dict[str, Json]:
        """What tells it from others."""
        ...

    def __call__(self, step: int, count: int, seed: int) -> list[Asked]:
        """So many tasks for a step, counted from 0."""
        ...


class Listed:
    """Tasks of a file: each once an epoch, in another order each time.

    Args:
        path: The file.
        pool: Who may do them.
        budget: What each run may spend.

    Raises:
        NotFound: There is no such file.
        InvalidData: A line is no task that can be checked; the message names it.
    """

    def __init__(self, path: Path, pool: Pool, budget: Budget) -> None:
        self._pool, self._budget = pool, budget
        self._tasks, digest = read(path)
        self.described: dict[str, Json] = {
            "tasks": str(path),
            "digest": digest,
            "pool": [spec.name for spec in pool.workers],
        }

    def __call__(self, step: int, count: int, seed: int) -> list[Asked]:
        """See `Tasks`."""
        chosen = places(len(self._tasks), count, seed, step)
        return [Asked(self._tasks[place], self._pool, self._budget) for place in chosen]


class Gym:
    """Episodes of the gym, fresh ones in each step, on a deployment of its catalogue.

    Args:
        name: One of `GYMS`.
        families: Which may be drawn; all if empty.

    Raises:
        Usage: There is no such gym or family.
    """

    def __init__(self, name: str, families: Sequence[str] = ()) -> None:
        if name not in GYMS:
            raise Usage(
                f"there is nothing to train on in {name!r}", hint=f"one of: {', '.join(GYMS)}"
            )
        if unknown := set(families) - FAMILIES.keys():
            raise Usage(
                f"the gym has no family {', '.join(sorted(unknown))}",
                hint=f"one of: {', '.join(FAMILIES)}",
            )
        if families and name == small.NAME:
            raise Usage("the gym in small has one family", hint="leave --family out")
        self._name, self._families = name, tuple(families)
        self.described: dict[str, Json] = {"gym": name, "families": list(families)}

    def __call__(self, step: int, count: int, seed: int) -> list[Asked]:
        """See `Tasks`."""
        begin = FROM + (seed % 100) * SEEDS + step * count
        episodes = [
            at_home(
                small.draw(each)
                if self._name == small.NAME
                else draw(each, self._name, self._families, shipped=False)
            )
            for each in range(begin, begin + count)
        ]
        return [Asked(each.task, each.pool, each.budget) for each in episodes]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a file of tasks."""

    text: str
    check: Json
    inputs: dict[str, Json] = {}


def read(path: Path) -> tuple[list[Task], str]:
    """The tasks of a file, and its SHA-256. Raises as `Listed`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"{path} can't be read: {error.strerror}", hint="name a file with a task a line"
        ) from None
    tasks = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            tasks.append(_task(line, f"{path}:{number}"))
    if not tasks:
        raise InvalidData(f"{path} has no tasks", hint="write one a line")
    return tasks, sha256(data).hexdigest()


def _task(line: bytes, where: str) -> Task:
    hint = 'such as {"text": "…", "check": {"kind": "exact", "answer": "42"}}'
    try:
        said = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidData(f"{where}: {error}", hint=hint) from None
    task = Task(text=said.text, inputs=said.inputs, check=said.check)
    try:
        check = check_of(task)
    except InvalidData as error:
        raise InvalidData(f"{where}: {error.message}", hint=error.hint) from None
    if not isinstance(check, Exact | Number):
        raise InvalidData(
            f"{where}: its check has to be read off the answer at once",
            hint="give a check of the kind exact or number",
        )
    return task
