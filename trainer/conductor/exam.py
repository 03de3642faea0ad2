"""Exams: how well a model, or a baseline, does on the gym's sets. The same episodes for everybody.

Whoever is measured says what it holds most likely, unless it is to be drawn. The reward is that of
the plan.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.decisions import PolicySpec
from trainer.conductor.plan import Plan
from trainer.gym.baselines import Random, majority
from trainer.gym.episodes import Episode, draws
from trainer.gym.evaluate import Report, Runner, evaluate, spent_by
from trainer.gym.keywords import Router, Rules
from trainer.gym.oracle import Oracle, Strongest, serial
from trainer.gym.play import JOB, run
from trainer.gym.practice import Practice
from trainer.learner.loading import read
from trainer.records import Rollout
from trainer.rewards import score

GATED: Final = ("seen", "held-out-questions", "unseen-pools")
"""The sets that targets are set for."""


def episodes_of(name: str, count: int, families: Sequence[str] = ()) -> list[Episode]:
    """The episodes of a set that exams are made of."""
    return list(draws(range(count), name, tuple(families)))


class Exam:
    """The same episodes and rewards for everybody who is measured.

    Args:
        plan: Says what a rollout is worth, and which families are asked.
        count: Episodes of each set.
        sets: Which sets.
    """

    def __init__(self, plan: Plan, count: int, sets: Sequence[str] = GATED) -> None:
        self._plan = plan
        self.episodes = {name: episodes_of(name, count, plan.families) for name in sets}
        self._spent: Mapping[tuple[str, int], int] = {}
        for episodes in self.episodes.values():
            self._spent = {**self._spent, **spent_by(episodes, run(episodes, Oracle(episodes)))}

    @property
    def sha256(self) -> str:
        """Of its episodes: another gym's are others."""
        found = hashlib.sha256()
        for episodes in self.episodes.values():
            found.update(msgspec.json.encode(episodes))
        return found.hexdigest()

    def model(
        self,
        folder: Path,
        name: str,
        *,
        voters: int = 1,
        temperature: float = 0.0,
        sets: Sequence[str] = (),
    ) -> list[Report]:
        """What the model in a folder does, or several samples of it by majority.

        Args:
            folder: Of the model.
            name: What tables call it.
            voters: Samples of each episode, at a temperature of 1 if there are several.
            temperature: At which a single one is drawn.
            sets: Which sets; all if empty.

        Raises:
            NotFound, InvalidData: It can't be loaded.
        """
        model, words = read(folder, self._plan.device or "cpu")
        # The same seed and job as the baselines': so the same workers fail in the same places.
        practice = Practice(model.eval(), words, tokens=self._plan.reply_tokens)

        drawn_at = 1.0 if voters > 1 else temperature

        def runner(episodes: Sequence[Episode], _policy: Any) -> list[Rollout]:
            groups = practice.groups(episodes, voters, JOB, temperature=drawn_at)
            return [majority(group) if voters > 1 else group[0] for group in groups]

        return self._reports(runner, lambda _: _Named(name), sets)

    def baseline(self, name: str) -> list[Report]:
        """What a baseline of `BASELINES` does."""
        return self._reports(run, BASELINES[name])

    def _reports(
        self,
        runner: Runner,
        policy: Callable[[Sequence[Episode]], Any],
        sets: Sequence[str] = (),
    ) -> list[Report]:
        return [
            evaluate(
                episodes,
                policy(episodes),
                runner,
                reward=self._reward,
                seed=self._plan.seed,
                oracle=self._spent,
            )
            for name, episodes in self.episodes.items()
            if not sets or name in sets
        ]

    def _reward(self, rollout: Rollout) -> float | None:
        return score([rollout], self._plan.rl.reward)[0].reward


class _Named:
    """What a table calls whoever is measured."""

    def __init__(self, name: str) -> None:
        self.spec = PolicySpec(name=name)


BASELINES: Final[dict[str, Callable[[Sequence[Episode]], Any]]] = {
    "oracle": Oracle,
    "serial": serial,
    "strongest": Strongest,
    "rules": lambda _: Rules(),
    "router": lambda _: Router(),
    "random": lambda _: Random(),
}
"""Policies that need no training, by name."""
