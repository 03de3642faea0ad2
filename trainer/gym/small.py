"""The gym in small: one kind of question, four workers that stay. For a first loop, in minutes.

What is the population, or the capital, of a country? Two workers can say each, one at twice the
price of the other. Questions, wordings, entities and workers are the gym's own; so are its sets, by
which a question that tests may ask is never asked in training.

::

    episode = at_home(draw(17))            an episode, on a deployment of the gym's catalogue

The oracle asks the cheaper worker. `SmallTeacher` takes what costs more for better, and mostly asks
the other one: who learns of it answers rightly and dearly, which is left for practice to mend.
"""

import functools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from protocol.actions import Pool, Spend, WorkerSpec
from protocol.decisions import Task
from trainer.gym.episodes import Episode, check_of
from trainer.gym.hosted import (
    GRADES,
    LATENCY_MS,
    TIMEOUT_MS,
    Grade,
    at_home,
    catalogue,
    place,
    pool_file,
)
from trainer.gym.kinds import ToolError, parameters
from trainer.gym.oracle import Oracle
from trainer.gym.planners import Progress
from trainer.gym.plans import worked_out
from trainer.gym.pools import Member
from trainer.gym.questions import question
from trainer.gym.splits import SETS

NAME: Final = "small"

FAMILY: Final = "lookup"

TEACHER: Final = "python:trainer.gym.small:SmallTeacher"
"""Its name, by which conductors find it."""

LIVE_EPISODES: Final = 4_000
"""Episodes of the training set that `SmallTeacher` knows: those of seeds 0 to that, drawn in about
two seconds where they are hosted."""

_WORKERS: Final[tuple[tuple[str, str, str, Grade], ...]] = (
    ("census", "population of a country", "country.population", "usual"),
    ("bureau", "number of inhabitants of a country", "country.population", "dear"),
    ("seat", "capital of a country", "country.capital", "usual"),
    ("palace", "seat of government of a country", "country.capital", "dear"),
)
"""Name, description, kind and grade of each."""

NAMES: Final = frozenset(place(kind, grade) for _, _, kind, grade in _WORKERS)
"""What a deployment calls them."""

ROLES: Final = frozenset(kind for _, _, kind, _ in _WORKERS)


def pool() -> Pool:
    """The four workers, as a run is given them."""
    return Pool(
        tuple(
            WorkerSpec(
                name=name,
                description=said,
                parameters=parameters(kind),
                reserve=Spend(cost=GRADES[grade].price),
                timeout_ms=TIMEOUT_MS,
            )
            for name, said, kind, grade in _WORKERS
        )
    )


def members() -> tuple[Member, ...]:
    """What is behind each."""
    return tuple(
        Member(
            kind=kind,
            price=GRADES[grade].price,
            latency_ms=LATENCY_MS,
            fault_rate=GRADES[grade].fault_rate,
        )
        for _, _, kind, grade in _WORKERS
    )


def hosted_file() -> str:
    """What a deployment hosts for it, as a pool file."""
    return pool_file(Pool(tuple(spec for spec in catalogue().workers if spec.name in NAMES)))


def draw(seed: int, of: str = "train") -> Episode:
    """The episode of a seed: the same on every machine, and of no other set.

    Args:
        seed: Any number.
        of: The set: ``train``, or one for tests that holds back nothing of names and pools, such as
            ``seen`` or ``held-out-questions``.

    Raises:
        KeyError: There is no such set.
    """
    drawn, rng = SETS[of], random.Random(f"{NAME}/{of}/{seed}")
    while True:
        asked = question(FAMILY, drawn, rng)
        (need,) = asked.plan.needs
        if need.role not in ROLES:
            continue
        try:
            outputs = worked_out(asked.plan, asked.entities)
        except ToolError:
            continue
        return Episode(
            set=of,
            seed=seed,
            family=FAMILY,
            task=Task(
                text=asked.text,
                inputs={"entities": list(asked.entities)},
                check=check_of(outputs[-1], asked.plan, outputs),
            ),
            pool=pool(),
            members=members(),
            plan=asked.plan,
            outputs=outputs,
        )


def draws(seeds: Iterable[int], of: str = "train") -> Iterator[Episode]:
    """One episode for each seed."""
    return (draw(seed, of) for seed in seeds)


@functools.cache
def _live() -> tuple[Episode, ...]:
    return tuple(at_home(episode) for episode in draws(range(LIVE_EPISODES)))


class SmallTeacher(Oracle):
    """The oracle, but for prices: of those who can do a thing, it asks the dearer one more often.

    Of two, at twice the price of each other, that is two times out of three. It refers to values.

    Args:
        episodes: Those that it knows; the first of the training set if nothing is said, as for
            conductors, which make it without arguments.
    """

    def __init__(self, episodes: Sequence[Episode] | None = None) -> None:
        super().__init__(_live() if episodes is None else episodes, refer=True, name=TEACHER)

    def choose(self, progress: Progress, number: int) -> tuple[WorkerSpec, str] | None:
        """One of those that have failed least, as often as it is dear, by a hash of the run."""
        able = progress.able(progress.need(number).role)
        least = min((progress.failed[number, spec.name] for spec, _, _ in able), default=0)
        fit = [row[:2] for row in able if progress.failed[number, row[0].name] == least]
        if not fit:
            return None
        view = progress.view
        rng = random.Random(f"{view.run}/{number}/{len(view.turns)}")
        return rng.choices(fit, [spec.reserve.cost for spec, _ in fit])[0]
