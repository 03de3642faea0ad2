"""Baselines beside the oracle's relatives and the rules: chance, and a vote of several runs."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from protocol.actions import NOTHING
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View
from protocol.references import as_text
from trainer.gym.kinds import value_of
from trainer.gym.planners import UNKNOWN
from trainer.records import Rollout

RANDOM: Final = "gym-random"

VOTERS: Final = 5
"""Runs whose answers are voted on."""

STOP_SHARE: Final = 0.4
"""How often chance stops, once it has any output."""

MAX_CALLS: Final = 3
"""Calls of one round of chance."""


class Random:
    """Calls any workers with anything marked, and stops by chance. An `InstantPolicy`.

    Args:
        seed: What it does follows from it, the run and the turn.
    """

    def __init__(self, seed: int = 0) -> None:
        self.spec, self._seed = PolicySpec(name=RANDOM), seed

    def decide(self, view: View) -> Reply:
        """See `actors.ports.InstantPolicy`."""
        rng = random.Random(f"{self._seed}/{view.run}/{view.task.text}/{len(view.turns)}")
        seen = [
            as_text(value_of(item.value))
            for turn in view.turns
            for item in turn.observations
            if item.status == "OK"
        ]
        if view.final or (seen and rng.random() < STOP_SHARE):
            return Reply(decision=Decision(answer=(seen or [UNKNOWN])[-1]), version="gym-1")
        texts = [*map(str, view.task.inputs.get("entities", ())), *seen] or [view.task.text]
        calls = tuple(self._call(view, texts, rng) for _ in range(rng.randint(1, MAX_CALLS)))
        return Reply(decision=Decision(calls=calls), version="gym-1")

    def _call(self, view: View, texts: Sequence[str], rng: random.Random) -> PlannedCall:
        worker = rng.choice(view.pool.workers)
        fields = worker.parameters.get("properties", {})
        needed = worker.parameters.get("required", list(fields))
        return PlannedCall(worker.name, {name: _word(fields[name], texts, rng) for name in needed})


def _word(schema: dict[str, object], texts: Sequence[str], rng: random.Random) -> str:
    choices = schema.get("enum")
    if isinstance(choices, list):
        return str(rng.choice(choices))
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        return rng.choice(pattern.strip("^()$").split("|"))
    return rng.choice(texts)


def majority(rollouts: Sequence[Rollout]) -> Rollout:
    """One rollout of several of one task: the answer that most gave, and what all of them cost.

    They run side by side, so it takes as many rounds and critical steps as the longest of them. Of
    a tie the first counts. What is shown of its steps is those of a rollout with that answer.

    Raises:
        ValueError: There are none.
    """
    if not rollouts:
        raise ValueError("a vote of nobody says nothing: give the rollouts of one task")
    given = [each for each in rollouts if each.outcome == "finished"] or list(rollouts)
    votes = Counter(" ".join(each.answer.casefold().split()) for each in given)
    answer, _ = votes.most_common(1)[0]
    chosen = next(each for each in given if " ".join(each.answer.casefold().split()) == answer)
    spent = NOTHING
    for each in rollouts:
        spent += each.spend
    return msgspec.structs.replace(
        chosen,
        spend=spent,
        rounds=max(each.rounds for each in rollouts),
        critical_steps=max(each.critical_steps for each in rollouts),
        elapsed_ms=max(each.elapsed_ms for each in rollouts),
    )
