"""Drills: several questions to one pool, of each only whom to ask first.

A lesson reads a whole pool to decide once whom to ask. That is what is learned last, and in some
trainings never: which worker a question means, of descriptions that share no word with it. A drill
has the pool once and six such decisions, in one conversation.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from protocol.decisions import PolicySpec, Task, View
from protocol.dialects import referable, render
from trainer.conductor.plan import Plan
from trainer.datasets.conversation import Conversation, Place, messages_of
from trainer.gym.episodes import WEIGHTS, Episode, answerable
from trainer.gym.kinds import roles_of
from trainer.gym.oracle import Oracle
from trainer.gym.questions import FAMILIES
from trainer.gym.splits import SETS

QUESTIONS: Final = 6
"""Of a drill, at most: with their replies as long as a pool."""

TRIES: Final = 24
"""Questions that are drawn for it: a pool can do every second one, and 282 of 300 come to six."""

OFTEN: Final = {**WEIGHTS, "wide": 1}
"""How often each family is drawn: what is wide says the same worker several times."""


def drills(plan: Plan, episodes: Sequence[Episode], speaks: PolicySpec) -> Iterator[Conversation]:
    """A drill in the pool of each episode, its own question among others.

    Args:
        plan: Says which families are asked.
        episodes: Of the set that training asks.
        speaks: Who is taught.
    """
    for episode in episodes:
        every = asked(plan, episode)
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


def asked(plan: Plan, episode: Episode) -> list[Episode]:
    """An episode, and others of its pool, which can do what each of them needs first."""
    rng = random.Random(f"drill/{episode.seed}")
    able = {role for member in episode.members for role in roles_of(member.kind)}
    known = plan.families or tuple(FAMILIES)
    found = [episode]
    for _ in range(TRIES):
        family = rng.choices(known, [OFTEN[each] for each in known])[0]
        one, outputs = answerable(family, SETS[episode.set], rng)
        if not all(need.role in able for need in one.plan.needs if not need.waits):
            continue
        if any(one.text == each.task.text for each in found):
            continue
        task = Task(text=one.text, inputs={"entities": list(one.entities)})
        changed = {"family": family, "task": task, "plan": one.plan, "outputs": outputs}
        found.append(msgspec.structs.replace(episode, **changed))
        if len(found) == QUESTIONS:
            break
    rng.shuffle(found)
    return found
