"""Drills: some questions to one small pool, of each only whom to ask first.

Which worker a question means, of descriptions that share no word with it, is what is learned last,
and in some trainings never. A lesson reads a whole pool to decide it once, and may do without: who
can do all, or all of countries, is seldom wrong, and is found by how its line looks. A drill has
only workers that do one thing each, at times no more than two, and a question to most of them.
"""

import random
from collections.abc import Iterator
from typing import Final

import msgspec

from protocol.decisions import PolicySpec, Task, View
from protocol.dialects import referable, render
from trainer.conductor.plan import Plan
from trainer.datasets.conversation import Conversation, Place, messages_of
from trainer.gym.episodes import WEIGHTS, Episode, outputs_of
from trainer.gym.kinds import ROLES
from trainer.gym.oracle import Oracle
from trainer.gym.pools import MAX_WORKERS, pool_key
from trainer.gym.questions import FAMILIES, question
from trainer.gym.splits import SETS

SIZES: Final = ((2, 4), (5, MAX_WORKERS))
"""Workers of an episode's two drills, from and to. To tell two apart is learned first; and what is
learned of pools of one size alone does not hold for another."""

QUESTIONS: Final = 6
"""Of a drill, at most: with their replies as long as a pool."""

SAME: Final = 2
"""Questions that ask the same roles first, at most: whom to ask has to be found each time."""

TRIES: Final = 40
"""Questions that are drawn for a drill; most of them ask what none of its workers does."""

OFTEN: Final = {**WEIGHTS, "wide": 1}
"""How often each family is drawn: what is wide says the same worker several times."""


def drills(plan: Plan, episode: Episode, speaks: PolicySpec) -> Iterator[Conversation]:
    """The drills in the pool of an episode, its own question among others: two as a rule.

    Args:
        plan: Says which families are asked.
        episode: Of the set that training asks.
        speaks: Who is taught.
    """
    for every in questions(plan, episode):
        oracle = Oracle(every, refer=True)
        talk = Conversation([])
        for turn, each in enumerate(every):
            view = View(run="", task=each.task, pool=each.pool)
            prompt, _ = messages_of(speaks, view)
            said = render(speaks, oracle.decision(view), each.pool, referable(view))
            talk.messages += prompt[1:] if talk.messages else prompt
            talk.replies.append(Place(len(talk.messages), turn, trained=True))
            talk.messages.append({"role": "assistant", "content": said.text})
        yield talk


def questions(plan: Plan, episode: Episode) -> Iterator[list[Episode]]:
    """What each of those drills asks: episodes of one pool."""
    for least, most in SIZES:
        rng = random.Random(f"drill/{episode.seed}/{most}")
        small = cut(episode, rng.randint(least, most), rng)
        if small and (every := asked(plan, small, rng)):
            yield every


def cut(episode: Episode, most: int, rng: random.Random) -> Episode | None:
    """The same in a part of its pool: of those that do one thing each, so many at most.

    Who is needed first stays, if anyone. None where fewer than two are left, or such a pool is
    kept for tests.
    """
    roles = episode.plan.first
    kept = [k for k, each in enumerate(episode.members) if each.kind in ROLES]
    rng.shuffle(kept)
    kept = sorted(sorted(kept, key=lambda k: episode.members[k].kind not in roles)[:most])
    members = tuple(episode.members[k] for k in kept)
    kinds = pool_key((each.kind, each.flaky) for each in members)
    if len(members) < 2 or not SETS[episode.set].admits("pool", kinds):
        return None
    workers = tuple(episode.pool.workers[k] for k in kept)
    pool = msgspec.structs.replace(episode.pool, workers=workers)
    return msgspec.structs.replace(episode, pool=pool, members=members)


def asked(plan: Plan, episode: Episode, rng: random.Random) -> list[Episode]:
    """Episodes of one pool, which can do what each of them needs first: its own, and others."""
    able = {each.kind for each in episode.members}
    known = plan.families or tuple(FAMILIES)
    found = [episode] if episode.plan.first <= able else []
    for _ in range(TRIES):
        if len(found) == QUESTIONS:
            break
        family = rng.choices(known, [OFTEN[each] for each in known])[0]
        one = question(family, SETS[episode.set], rng)
        first = one.plan.first
        if not first <= able or sum(each.plan.first == first for each in found) == SAME:
            continue
        outputs = outputs_of(one)
        if not outputs or any(one.text == each.task.text for each in found):
            continue
        task = Task(text=one.text, inputs={"entities": list(one.entities)})
        changed = {"family": family, "task": task, "plan": one.plan, "outputs": outputs}
        found.append(msgspec.structs.replace(episode, **changed))
    rng.shuffle(found)
    return found
