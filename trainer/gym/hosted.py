"""The gym on real actors: a deployment hosts a catalogue of workers, and each run renames some.

A deployment knows its workers before any run; an episode draws its own. So what is hosted is one
worker of each kind and grade, all in one process, and an episode's pool has the drawn names and
descriptions, and says for each where it is hosted (`WorkerSpec.queue`)::

    podium gym pool > gym.toml; podium up --pool gym.toml

    episode = at_home(draw(17, shipped=False))  # the shipped pool is not hosted
    run = await client.submit(episode.task, episode.pool, policy, episode.budget)

Prices and rates of failure are those of the grades, since a worker reports what it really costs.
"""

import asyncio
import functools
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from actors.ports import Attempt, Outcome
from protocol.actions import MICRO, Json, Pool, Spend, WorkerSpec
from protocol.errors import InvalidData
from trainer.gym.descriptions import CORES
from trainer.gym.episodes import Episode, draw
from trainer.gym.grammar import every
from trainer.gym.kinds import parameters
from trainer.gym.oracle import Oracle
from trainer.gym.pools import Member
from trainer.gym.teacher import Teacher
from trainer.gym.workers import ToolAdapter

Grade: TypeAlias = Literal["usual", "dear", "flaky"]

ADAPTER: Final = "class:trainer.gym.hosted:Hosted"

HOST: Final = "gym"
"""The process that hosts all of them: they are tools, and a process each would be waste."""

TIMEOUT_MS: Final = 2_000
"""Milliseconds after which an attempt is given up: a failure that takes so long is waited for."""

LATENCY_MS: Final = 20

LIVE_EPISODES: Final = 2_000
"""Episodes of the training set that `LiveOracle` and `LiveTeacher` know: those of seeds 0 to that,
none with the shipped pool, which no such deployment hosts. Drawn in about two seconds."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a grade costs, and how often it fails."""

    price: int
    """Micro-dollars an attempt."""
    fault_rate: float


GRADES: Final[Mapping[Grade, Terms]] = {
    "usual": Terms(price=3_000, fault_rate=0.05),
    "dear": Terms(price=6_000, fault_rate=0.05),
    "flaky": Terms(price=1_500, fault_rate=0.5),
}

ANYTHING: Final[Mapping[Grade, Terms]] = {"dear": Terms(price=45_000, fault_rate=0.02)}
"""Of workers that can do all."""


class _Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a hosted worker is made with."""

    kind: str
    grade: Grade = "usual"
    seed: int = 0
    """Of the faults."""


class Hosted:
    """Hosts one worker of the catalogue. An adapter, ``class:trainer.gym.hosted:Hosted``.

    Args:
        spec: Its worker; ``spec.options`` has ``kind`` and ``grade``.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        options = _options(spec.options)
        terms = _terms(options)
        member = Member(
            kind=options.kind,
            price=spec.reserve.cost,
            latency_ms=LATENCY_MS,
            fault_rate=terms.fault_rate,
        )
        self.spec = spec
        self._tool = ToolAdapter(spec, member, options.seed, asyncio.sleep)

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The worker of these options. Raises `InvalidData`."""
        read = _options(options)
        return WorkerSpec(
            name=place(read.kind, read.grade),
            description=next(every(CORES[read.kind])),
            parameters=parameters(read.kind),
            adapter=adapter,
            options=dict(options),
            reserve=Spend(cost=_terms(read).price),
            timeout_ms=TIMEOUT_MS,
            concurrency=64,
            host=HOST,
        )

    async def run(self, attempt: Attempt) -> Outcome:
        """See `actors.ports.Adapter`."""
        return await self._tool.run(attempt)

    async def close(self) -> None:
        """See `actors.ports.Adapter`."""


def _options(options: Mapping[str, Json]) -> _Options:
    try:
        read = msgspec.convert(options, _Options)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"a worker of the gym can't be made: {error}",
            hint='give it options such as kind = "country.population", grade = "usual"',
        ) from None
    if read.kind not in CORES:
        raise InvalidData(
            f"the gym has no worker of the kind {read.kind!r}", hint=f"one of: {', '.join(CORES)}"
        )
    return read


def _terms(options: _Options) -> Terms:
    terms = (ANYTHING if options.kind == "anything" else GRADES).get(options.grade)
    if terms is None:
        raise InvalidData(
            f"the gym has no {options.grade} worker of the kind {options.kind}",
            hint="see trainer.gym.hosted.catalogue",
        )
    return terms


def place(kind: str, grade: Grade) -> str:
    """Where a worker of the catalogue is hosted, which is its name there."""
    return f"gym-{kind.replace('.', '-').replace('_', '-')}-{grade}"


def catalogue() -> Pool:
    """All that a deployment hosts for the gym."""
    grades = {kind: ANYTHING if kind == "anything" else GRADES for kind in CORES}
    return Pool(
        tuple(
            Hosted.draft(ADAPTER, {"kind": kind, "grade": grade})
            for kind, known in grades.items()
            for grade in known
        )
    )


def grade_of(member: Member) -> Grade:
    """The grade that is nearest to what an episode has drawn."""
    if member.kind == "anything":
        return "dear"
    if member.flaky:
        return "flaky"
    middle = (GRADES["usual"].price + GRADES["dear"].price) / 2
    return "dear" if member.price > middle else "usual"


def at_home(episode: Episode) -> Episode:
    """The episode with its workers where a deployment of the catalogue hosts them.

    Names and descriptions stay as they were drawn; prices and rates are those of the grades. One
    with the shipped pool is left as it is: that is hosted under its own names.
    """
    if any(spec.adapter for spec in episode.pool.workers):
        return episode
    every_one = zip(episode.pool.workers, episode.members, strict=True)
    moved = [_moved(spec, member) for spec, member in every_one]
    return msgspec.structs.replace(
        episode,
        pool=Pool(tuple(spec for spec, _ in moved)),
        members=tuple(member for _, member in moved),
    )


def _moved(spec: WorkerSpec, member: Member) -> tuple[WorkerSpec, Member]:
    grade = grade_of(member)
    terms = (ANYTHING if member.kind == "anything" else GRADES)[grade]
    there = msgspec.structs.replace(
        spec,
        queue=place(member.kind, grade),
        reserve=Spend(cost=terms.price),
        timeout_ms=TIMEOUT_MS,
    )
    known = msgspec.structs.replace(
        member, price=terms.price, fault_rate=terms.fault_rate, latency_ms=LATENCY_MS
    )
    return there, known


def pool_file(hosted: Pool | None = None) -> str:
    """The catalogue, or a part of it, as a pool file for ``podium up --pool``."""
    lines = [
        "# The workers of Podium's gym, for runs on real actors.",
        "",
        "[pool]",
        'name = "gym"',
    ]
    for spec in (hosted or catalogue()).workers:
        options = ", ".join(f'{key} = "{value}"' for key, value in spec.options.items())
        lines += [
            "",
            "[[worker]]",
            f'name = "{spec.name}"',
            f'adapter = "{spec.adapter}"',
            f"options = {{ {options} }}",
            f"reserve_cost_usd = {spec.reserve.cost / MICRO:g}",
        ]
    return "\n".join(lines) + "\n"


@functools.cache
def _live() -> tuple[Episode, ...]:
    return tuple(at_home(draw(seed, shipped=False)) for seed in range(LIVE_EPISODES))


class LiveOracle(Oracle):
    """The oracle of the first training episodes, for conductors: it is made without arguments."""

    def __init__(self) -> None:
        super().__init__(_live())


class LiveTeacher(Teacher):
    """The imperfect teacher of the first training episodes, for conductors."""

    def __init__(self) -> None:
        super().__init__(_live())
