"""Rewards: named channels of a rollout, and recipes that make one number of them.

::

    checks     how a task's answer is judged: exact, number, program, judge
    numbers    the numbers in a text
    judging    checks that need somebody, and the rewards that keep what they said
    channels   what a rollout is scored by, each a formula with a range and a unit
    recipes    weights, annealing, gates and bounds: channels to one reward
    presets    the recipes of published systems

``score(rollouts, preset("conductor"))`` is all of it, at any time and without a new run.
"""

from trainer.rewards.channels import CHANNELS, value, values
from trainer.rewards.checks import Check, Exact, Judge, Number, Program, check_of, right
from trainer.rewards.judging import Judges, Said, judged, missing
from trainer.rewards.presets import (
    PRESETS,
    conductor,
    paramanager,
    parl,
    preset,
    puppeteer,
    toolorchestra,
)
from trainer.rewards.recipes import Recipe, Scored, StepCost, Term, returns, score

__all__ = [
    "CHANNELS",
    "PRESETS",
    "Check",
    "Exact",
    "Judge",
    "Judges",
    "Number",
    "Program",
    "Recipe",
    "Said",
    "Scored",
    "StepCost",
    "Term",
    "check_of",
    "conductor",
    "judged",
    "missing",
    "paramanager",
    "parl",
    "preset",
    "puppeteer",
    "returns",
    "right",
    "score",
    "toolorchestra",
    "value",
    "values",
]
