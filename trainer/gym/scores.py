"""What a policy does on a set of tasks: figures with intervals, as tables and gates read them."""

from typing import Final

import msgspec

HIGHER: Final = frozenset({"accuracy", "valid", "recovery", "reward"})
"""Figures of which more is better; of the others (rounds, cost, critical steps, regret) less is."""

SHARES: Final = frozenset({"accuracy", "valid", "recovery", "answered", "early"})
"""Figures that are shares, and shown in per cent."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    n: int
    """Rollouts that it is made of."""
    unit: str = ""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one set of tasks."""

    policy: str
    version: str = ""
    set: str = ""
    """Which tasks: ``seen``, ``held-out-questions``, ``unseen-pools``, ..."""
    seed: int = 0
    figures: tuple[Figure, ...] = ()
    outcomes: dict[str, dict[str, float]] = {}
    """By a figure's name its value in each episode, by the episode's name: those of two policies in
    the same episodes are pairs. Empty where only the figures were kept."""

    def get(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((each for each in self.figures if each.name == name), None)
