"""Episodes: a task whose answer can be checked, and a pool, drawn from a set by a seed."""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from protocol.actions import Json, Pool
from protocol.budgets import Budget
from protocol.decisions import Task
from protocol.references import as_text
from trainer.gym.kinds import ToolError
from trainer.gym.plans import Plan, answer_of, worked_out
from trainer.gym.pools import STORM, Member, drawn_pool, fits_shipped, shipped_pool
from trainer.gym.questions import FAMILIES, Question, question
from trainer.gym.splits import SETS, Set

BUDGET: Final = Budget(rounds=16, calls=40, parallel=16, depth=0, cost=5_000_000)
"""What an episode may take: several times what the longest plan does, also where much fails."""

SHIPPED_SHARE: Final = 0.08
"""Of episodes whose task the shipped pool can do, those that have it."""

EXACT_TOLERANCE: Final = 1e-6
"""Relative, of numbers that were looked up or are whole."""

TOLERANCE: Final = 0.005
"""Relative, of all others: an answer may be rounded."""

WEIGHTS: Final = {
    "lookup": 2,
    "wide": 4,
    "chain": 3,
    "arithmetic": 4,
    "search": 2,
    "code": 1,
}
"""How often each family is drawn, beside the others: what is learned last more often."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be done, and all that is known of it."""

    set: str
    seed: int
    family: str
    task: Task
    """Its ``inputs["entities"]`` are the marked entities; its check has the answer."""
    pool: Pool
    members: tuple[Member, ...]
    """What is behind each worker, in the pool's order."""
    plan: Plan
    outputs: tuple[Json, ...]
    """What each need of the plan gives, in the plan's order."""
    budget: Budget = BUDGET

    @property
    def answer(self) -> Json:
        """The right answer: a value, or a text with several."""
        return answer_of(self.plan, self.entities, self.outputs)

    @property
    def entities(self) -> tuple[str, ...]:
        """The marked entities, as they come in the text."""
        return tuple(self.task.inputs["entities"])

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others for who is shown it: the question and the pool."""
        return key_of(self.task, self.pool)

    def member(self, worker: str) -> Member:
        """What is behind a worker. Raises `KeyError` if the pool has none of that name."""
        for spec, member in zip(self.pool.workers, self.members, strict=True):
            if spec.name == worker:
                return member
        raise KeyError(worker)


def key_of(task: Task, pool: Pool) -> tuple[str, str]:
    """See `Episode.key`."""
    return task.text, " ".join(f"{s.name}:{s.reserve.cost}" for s in pool.workers)


def draw(
    seed: int,
    of: str | Set = "train",
    families: Sequence[str] = (),
    *,
    shipped: bool | None = None,
    twins: bool = False,
) -> Episode:
    """The episode of a seed: the same on every machine, and of no other set.

    Args:
        seed: Any number.
        of: The set, or its name.
        families: Which families may be drawn; all if empty.
        shipped: Whether it has the shipped pool; None for now and then, where that will do. Tasks
            that it can't do get a drawn one in any case.
        twins: Whether a drawn pool has a worker that is easily taken for one that is needed, where
            there is such a kind, see `pools.TWINS`.

    Raises:
        KeyError: There is no such set or family.
    """
    drawn = SETS[of] if isinstance(of, str) else of
    rng = random.Random(f"{drawn.name}/{seed}")
    known = tuple(families) or tuple(FAMILIES)
    family = rng.choices(known, [WEIGHTS[each] for each in known])[0]
    asked, outputs = answerable(family, drawn, rng)
    roles = [need.role for need in asked.plan.needs]
    often = rng.random() < SHIPPED_SHARE
    plain = not drawn.held_out and not drawn.new_words
    there = often and plain if shipped is None else shipped
    there = there and fits_shipped(roles)
    pool = shipped_pool() if there else drawn_pool(roles, drawn, rng, twins=twins)
    return Episode(
        set=drawn.name,
        seed=seed,
        family=family,
        task=Task(
            text=asked.text,
            inputs={"entities": list(asked.entities)},
            check=check_of(answer_of(asked.plan, asked.entities, outputs), asked.plan, outputs),
        ),
        pool=pool.pool,
        members=pool.members,
        plan=asked.plan,
        outputs=outputs,
    )


def in_storm(episode: Episode) -> Episode:
    """The same, but that ordinary workers fail half of the time: lessons in what is met seldom.

    The worker that can do all fails no more often, and the shipped pool never does.
    """
    if episode.pool == shipped_pool().pool:
        return episode
    members = tuple(
        each
        if each.kind == "anything"
        else msgspec.structs.replace(each, fault_rate=max(STORM, each.fault_rate))
        for each in episode.members
    )
    return msgspec.structs.replace(episode, members=members)


def draws(
    seeds: Iterable[int], of: str | Set = "train", families: Sequence[str] = ()
) -> Iterator[Episode]:
    """One episode for each seed."""
    return (draw(seed, of, families) for seed in seeds)


def answerable(family: str, drawn: Set, rng: random.Random) -> tuple[Question, tuple[Json, ...]]:
    """A question that has an answer, and what each need of its plan gives."""
    while True:
        asked = question(family, drawn, rng)
        if outputs := outputs_of(asked):
            return asked, outputs


def outputs_of(asked: Question) -> tuple[Json, ...]:
    """What each need of a question's plan gives; none where it has no answer.

    It has one where nothing divides by zero, and the answer is not nothing.
    """
    try:
        outputs = worked_out(asked.plan, asked.entities)
    except ToolError:
        return ()
    found = outputs[-1] not in (0, "") and all(output != "" for output in outputs)
    return outputs if found else ()


def check_of(answer: Json, plan: Plan, outputs: tuple[Json, ...]) -> dict[str, Json]:
    """How an answer is checked, see the trainer's rewards.

    A text is not right where another output of the plan's is named before it.
    """
    if isinstance(answer, str):
        others = {as_text(output) for output in outputs}
        wrong = sorted(each for each in others if each not in answer and answer not in each)
        return {"kind": "exact", "answer": answer, **({"wrong": wrong} if wrong else {})}
    looked_up = plan.needs[-1].role != "calculator" or isinstance(answer, int)
    tolerance = EXACT_TOLERANCE if looked_up else TOLERANCE
    return {"kind": "number", "answer": answer, "tolerance": tolerance}
