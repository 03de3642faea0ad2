"""Every step: one small history, killed at each of its steps, and again while it recovers.

Where `run` draws crashes by chance, this leaves none out: each process, at each step that it takes
while nothing else goes wrong, with what its client has buffered lost, and sent.
"""

from collections.abc import Iterator
from typing import Final

from podium.sim.faults import SEATS, AnyFault, Crash
from podium.sim.run import Summary, Verdict, judged, undisturbed
from podium.sim.scenario import Job, Wish
from podium.sim.world import REAL, Parts, World
from protocol import subjects

NEVER: Final = 10**9
"""A step that no process comes to."""

DOWN_MS: Final = 5
"""Milliseconds until a killed process is back: soon, so that it meets what it left."""

SMALL: Final = Job(
    run=subjects.run_id(b"every step"),
    n=7,
    rounds=(("grow", "agent"), ("shift",)),
    asked=False,
    tight=False,
    at_ms=0,
)
"""Two rounds, three calls, one of them costly."""


SHARED: Final = Job(
    run=subjects.run_id(b"every step"),
    n=7,
    rounds=(("agent", "agent"), ("ask",)),
    asked=False,
    tight=False,
    shared=True,
    at_ms=0,
    wishes=(Wish(50, "hedge"),),
)
"""Two calls that are hedged, of which a replica hands one back since it is at it already; and a
person who is waited for."""


def lengths(
    seed: int, plan: list[AnyFault], parts: Parts = REAL, job: Job = SMALL
) -> dict[str, int]:
    """How many steps each process takes in a history."""
    ends = [Crash(who=who, step=NEVER, down_ms=1, sent=0) for who in SEATS]
    world = World(seed, [job], [*plan, *ends], parts)
    with undisturbed():
        world.play()
    return {who: seat.steps for who, seat in world.seats.items()}


def crashes(
    seed: int, who: str, after: int = 0, plan: tuple[AnyFault, ...] = (), job: Job = SMALL
) -> Iterator[Crash]:
    """Every kill of one process after a step, while a plan happens."""
    for step in range(after + 1, lengths(seed, list(plan), job=job)[who] + 1):
        for sent in (0.0, 1.0):
            yield Crash(who=who, step=step, down_ms=DOWN_MS, sent=sent)


def singles(seed: int = 0, parts: Parts = REAL, job: Job = SMALL) -> Summary:
    """Every process killed once, at every step."""
    summary = Summary()
    for who in SEATS:
        for crash in crashes(seed, who, job=job):
            summary.count(_played(seed, [crash], parts, job))
    return summary


def pairs(who: str, seed: int = 0, *, stride: int = 1, parts: Parts = REAL) -> Summary:
    """One process killed at every step, and then whoever goes on at each of theirs.

    Args:
        who: The process that is killed first.
        seed: Of delays.
        stride: Take every n-th second kill only.
        parts: What the deployment is made of.
    """
    summary = Summary()
    number = 0
    for first in crashes(seed, who):
        for then in SEATS:
            after = first.step if then == who else 0
            for second in crashes(seed, then, after, (first,)):
                number += 1
                if number % stride == 0:
                    summary.count(_played(seed, [first, second], parts))
    return summary


def _played(seed: int, plan: list[AnyFault], parts: Parts, job: Job = SMALL) -> Verdict:
    history, wrong = judged(seed, [job], plan, parts)
    if wrong:
        wrong = [f"with {plan}", *wrong]
    return Verdict(seed=seed, wrong=wrong, history=history)
