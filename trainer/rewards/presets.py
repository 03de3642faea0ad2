"""Recipes of published systems: their formula where one is published, our choice where none is.

Every function has the weights as arguments; `PRESETS` holds them as they are by default.
"""

from collections.abc import Mapping
from typing import Final

from protocol.errors import Usage
from trainer.rewards.judging import ACCURACY
from trainer.rewards.recipes import Recipe, StepCost, Term


def paramanager(
    format: float = 0.1,  # noqa: A002
    diversity: float = 0.1,
    efficiency: float = 0.1,
) -> Recipe:
    """``accuracy + a * format + b * diversity + c * efficiency`` (ParaManager, arXiv 2604.17009).

    The paper names the four parts. Its weights and closed forms are not published: ours are a tenth
    each, and diversity and efficiency count for right answers alone, so that neither calling
    everybody nor giving up early is worth anything by itself.
    """
    return Recipe(
        terms=(
            Term(channel=ACCURACY),
            Term(channel="format", weight=format),
            Term(channel="diversity", weight=diversity, only_if=ACCURACY),
            Term(channel="efficiency", weight=efficiency, only_if=ACCURACY),
        )
    )


def conductor() -> Recipe:
    """0 if a reply can't be parsed, 0.5 if the answer is wrong, 1 if it is right.

    That is all of the paper's (arXiv 2512.04388), whose policy replies once. Of one that replies in
    rounds, every reply counts.
    """
    return Recipe(terms=(Term(channel=ACCURACY, weight=0.5),), base=0.5, only_if=("parsed",))


def toolorchestra(preferences: Mapping[str, float] | None = None) -> Recipe:
    """``M_norm · P`` if the answer is right, else 0 (ToolOrchestra, arXiv 2511.21689, equation 2).

    ``M`` holds the calls of each tool, the outcome, minus the cost and minus the time; each is put
    into its range within the batch, 0 where all are alike. By the paper's equation, not by its
    public code, in which the term of the cost grows with the cost.

    Args:
        preferences: ``P``, each from 0 to 1: of ``accuracy``, ``cost``, ``time`` and
            ``calls.WORKER``. The paper draws a user's anew for each task; by default the outcome
            counts whole, cost and time half each.
    """
    given = {ACCURACY: 1.0, "cost": 0.5, "time": 0.5} if preferences is None else preferences
    for name, weight in given.items():
        if not 0.0 <= weight <= 1.0:
            raise Usage(f"the preference {name} is {weight}", hint="give numbers from 0 to 1")
    less = {"cost", "time"}
    return Recipe(
        terms=tuple(
            Term(channel=name, weight=weight, per=-1.0 if name in less else 1.0, batch=True)
            for name, weight in given.items()
        ),
        only_if=(ACCURACY,),
    )


def parl(parallel: float = 0.3, finish: float = 0.2, critical_steps: float | None = None) -> Recipe:
    """``l1 * r_parallel + l2 * r_finish + r_perf``, l1 and l2 annealed to 0.

    Kimi K2.5 (arXiv 2602.02276), whose closed forms are not published. Ours: ``parallelism`` for
    the first, which more calls alone don't raise (OpenPARL's ``width`` was pumped up by its
    policy), ``completion`` for the second, and OpenPARL's weights, annealed in a straight line.

    Args:
        parallel: ``l1``, at the beginning.
        finish: ``l2``, at the beginning.
        critical_steps: The budget of an episode: beyond it nothing is earned. None for none.
    """
    return Recipe(
        terms=(
            Term(channel=ACCURACY),
            Term(channel="parallelism", weight=parallel, final=0.0),
            Term(channel="completion", weight=finish, final=0.0),
        ),
        limits={} if critical_steps is None else {"critical_steps": critical_steps},
    )


def puppeteer(
    weight: float = 0.1, discount: float = 1.0, factor: float = 1.0, phi: float = 0.0
) -> Recipe:
    """``R_t = g * R_(t+1) - l * C_t``, ``C_t = F * log(1 + t / phi)``.

    Puppeteer (arXiv 2505.19591), see `StepCost`; the reward of the end is the accuracy. Our choice
    of the numbers: a tenth for ``l``, no discount, F = 1 for each step, and the rounds of the
    budget for ``phi``.
    """
    return Recipe(
        terms=(Term(channel=ACCURACY),),
        steps=StepCost(weight=weight, discount=discount, factor=factor, phi=phi),
    )


PRESETS: Final[dict[str, Recipe]] = {
    "paramanager": paramanager(),
    "conductor": conductor(),
    "toolorchestra": toolorchestra(),
    "parl": parl(),
    "puppeteer": puppeteer(),
}


def preset(name: str) -> Recipe:
    """The preset of that name. Raises `Usage`."""
    if name not in PRESETS:
        raise Usage(f"there is no preset {name!r}", hint=f"one of: {', '.join(PRESETS)}")
    return PRESETS[name]
