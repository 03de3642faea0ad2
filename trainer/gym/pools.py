"""The pool of an episode: who is there, what is said of them, what they cost, how they fail.

A pool has what its task needs, and more: a second worker of the same role at another price, one
that fails often, decoys of roles that sound alike, and often a general worker that can do all and
costs much. At least one worker of each role that is needed does not fail often, or the one that
costs much doesn't.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import Pool, Spend, WorkerSpec
from trainer.gym import descriptions as said
from trainer.gym.grammar import draw
from trainer.gym.kinds import GENERAL, ROLES, SHIPPED, domain, parameters, roles_of, shipped
from trainer.gym.splits import Set

MIN_WORKERS: Final = 3
MAX_WORKERS: Final = 10

PRICE_STEP: Final = 100
"""Micro-dollars: prices are multiples of it."""

PRICES: Final = (10, 80)
"""Steps, from and to, of what a worker's attempt costs."""

FLAKY_PRICES: Final = (5, 40)
"""Of one that fails often: it is cheaper as a rule."""

ANYTHING_PRICES: Final = (250, 700)
"""Of one that can do all."""

LATENCY_MS: Final = {"fast": (50, 300), "usual": (300, 1_500), "slow": (1_500, 4_000)}
"""Milliseconds of an attempt, from and to, by a worker's pace."""

TIMEOUT_MS: Final = {"fast": 2_000, "usual": 6_000, "slow": 15_000}
"""Milliseconds after which an attempt is given up, by a worker's pace."""

WEATHER: Final = (0.0, 0.0, 0.0, 0.04, 0.1, 0.25)
"""How often attempts of ordinary workers fail, in one episode; each as likely as any other."""

STORM: Final = 0.5
"""How often they do in a storm, which is for training alone, see `episodes.in_storm`."""

FLAKY_RATE: Final = (0.35, 0.8)
"""How often those of a flaky one do, from and to."""

TWINS: Final = {
    "country.population": "city.population",
    "city.population": "country.population",
    "country": "city",
    "city": "country",
}
"""Kinds of whose descriptions one word alone tells one from the other: of what they speak."""

WARNED_SHARE: Final = 0.7
"""Of flaky workers that are said to be so; the others look like any."""

Pace: TypeAlias = Literal["fast", "usual", "slow"]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What is behind a worker of a pool. No policy is shown it."""

    kind: str
    """See `kinds`."""
    price: int = 0
    """Micro-dollars an attempt."""
    pace: Pace = "usual"
    latency_ms: int = 0
    fault_rate: float = 0.0
    """How many of its attempts fail."""
    warned: bool = False
    """Whether its description says that it often fails."""

    @property
    def flaky(self) -> bool:
        """Whether it fails often."""
        return self.fault_rate >= FLAKY_RATE[0]


class Drawn(msgspec.Struct, frozen=True):
    """A pool, and what is behind each of its workers, in the same order."""

    pool: Pool
    members: tuple[Member, ...]


def pool_key(kinds: Iterable[tuple[str, bool]]) -> str:
    """What of a pool's make-up decides whether it is held out: which kinds it has, how often."""
    return ",".join(sorted(kind for kind, _ in kinds))


def drawn_pool(
    roles: Sequence[str], drawn: Set, rng: random.Random, *, twins: bool = False
) -> Drawn:
    """A pool of a set that can do all of some roles.

    Args:
        roles: What is needed.
        drawn: The set.
        rng: Decides the rest.
        twins: Whether the twin of each kind that is needed is there, see `TWINS`.
    """
    kinds = drawn.drawn("pool", lambda: _kinds(roles, rng, twins=twins), pool_key)
    weather = rng.choice(WEATHER)
    members = [_member(kind, flaky, weather, drawn, rng) for kind, flaky in kinds]
    rng.shuffle(members)
    return Drawn(Pool(tuple(_specs(members, drawn, rng))), tuple(members))


def shipped_pool() -> Drawn:
    """The functions of the shipped pool, as they are: they cost nothing and don't fail."""
    return Drawn(Pool(shipped()), tuple(Member(kind=kind) for kind in SHIPPED))


def fits_shipped(roles: Sequence[str]) -> bool:
    """Whether the shipped pool can do these."""
    can = {role for kind in SHIPPED for role in roles_of(kind)}
    return can.issuperset(roles)


def _kinds(
    roles: Sequence[str], rng: random.Random, *, twins: bool = False
) -> list[tuple[str, bool]]:
    """Kinds of workers, and whether each fails often."""
    found: list[tuple[str, bool]] = []
    anything = rng.random() < 0.5
    for role in dict.fromkeys(roles):
        if any(role in roles_of(kind) for kind, flaky in found if not flaky):
            continue
        general = domain(role) in GENERAL and rng.random() < 0.3
        kind = domain(role) if general else role
        others = rng.random()
        if others < 0.25:  # a second one, at another price
            found += [(kind, False), (role, rng.random() < 0.5)]
        elif others < 0.45:
            found += [(kind, False), (kind, True)]
        elif others < 0.55 and anything:
            found.append((kind, True))  # the only one but for the one that costs much
        else:
            found.append((kind, False))
    if anything:
        found.append(("anything", False))
    if twins:
        there = dict.fromkeys(kind for kind, _ in found)
        beside = dict.fromkeys(TWINS[kind] for kind in there if kind in TWINS)
        found += [(kind, False) for kind in beside if kind not in there]
    size = max(rng.randint(MIN_WORKERS, MAX_WORKERS), min(len(found), MAX_WORKERS))
    while len(found) < size:
        found.append((_decoy(roles, rng), rng.random() < 0.15))
    return found[:MAX_WORKERS]


def _decoy(roles: Sequence[str], rng: random.Random) -> str:
    """A kind whose description sounds as if it could be needed: of the same things, mostly."""
    near = [role for role in ROLES if domain(role) in {domain(each) for each in roles}]
    twins = [f"{where}.population" for where in ("city", "country")]
    choice = rng.choice((near, near, twins, list(ROLES)))
    others = [role for role in choice or ROLES if role not in roles]
    return rng.choice(others or [role for role in ROLES if role not in roles])


def _member(kind: str, flaky: bool, weather: float, drawn: Set, rng: random.Random) -> Member:
    pace: Pace = rng.choice(("fast", "usual", "usual", "slow"))
    prices = ANYTHING_PRICES if kind == "anything" else FLAKY_PRICES if flaky else PRICES
    price = drawn.drawn(
        "pool", lambda: PRICE_STEP * rng.randint(*prices), lambda each: f"price:{each}"
    )
    return Member(
        kind=kind,
        price=price,
        pace=pace,
        latency_ms=rng.randint(*LATENCY_MS[pace]),
        fault_rate=round(rng.uniform(*FLAKY_RATE), 3) if flaky else weather,
        warned=flaky and rng.random() < WARNED_SHARE,
    )


def _specs(members: Sequence[Member], drawn: Set, rng: random.Random) -> list[WorkerSpec]:
    names: dict[str, None] = {}
    while len(names) < len(members):
        name = draw(said.UNSEEN_NAMES if drawn.new_words else said.NAMES, rng)
        if drawn.new_words or drawn.admits("name", name):
            names[name] = None
    return [
        WorkerSpec(
            name=name,
            description=said.description(_core(member.kind, drawn, rng), rng, warned=member.warned),
            parameters=parameters(member.kind),
            options={} if member.pace == "usual" else {"speed": member.pace},
            reserve=Spend(cost=member.price),
            timeout_ms=TIMEOUT_MS[member.pace],
        )
        for name, member in zip(names, members, strict=True)
    ]


def _core(kind: str, drawn: Set, rng: random.Random) -> str:
    if drawn.new_words:
        return rng.choice(said.UNSEEN[kind])
    return drawn.drawn("description", lambda: draw(said.CORES[kind], rng), said.core_key)
