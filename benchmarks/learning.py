"""A conductor from scratch: how good it gets, in how many minutes, and what each stage is worth.

``--repeats`` is how many seeds, ``--runs`` how many episodes of each set. It takes hours, and goes
on where it stopped: what is done stands in ``build/learning``. The whole table is written beside
the figures, as ``benchmarks/results/learning.md``.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks import report
from trainer.conductor.plan import Plan
from trainer.conductor.study import PAIRS, WHOLE, Result, Study, as_markdown, gained, study

FOLDER: Final = pathlib.Path("build/learning")
EPISODES: Final = 300
"""Of each set: an accuracy of 90 % is known to 3.4 points for each seed."""

SETS: Final = (
    "seen",
    "held-out-questions",
    "unseen-pools",
    "held-out-names",
    "held-out-descriptions",
    "unseen-words",
)

_SHARES: Final = (
    ("seen", "accuracy", report.at_least(92)),
    ("seen", "valid", report.at_least(98)),
    ("seen", "recovery", report.at_least(85)),
    ("held-out-questions", "accuracy", None),
    ("held-out-names", "accuracy", report.at_least(85)),
    ("held-out-descriptions", "accuracy", report.at_least(85)),
    ("unseen-pools", "accuracy", report.at_least(85)),
    ("unseen-pools", "valid", report.at_least(98)),
    ("unseen-pools", "recovery", report.at_least(85)),
    ("unseen-words", "accuracy", None),
)
"""In percent, of the whole training: on what is known, and on what was held out."""


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Train and measure, or go on with it."""
    found = study(
        FOLDER,
        Plan(),
        range(options.repeats),
        options.runs or EPISODES,
        sets=SETS,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    (report.RESULTS / "learning.md").write_text(as_markdown(found) + "\n")
    conditions = report.conditions(options, data) | {"sets": list(SETS), "episodes": found.episodes}
    return report.Report("learning", conditions, lines(found))


def lines(found: Study) -> list[report.Line]:
    """The figures, and what was promised of them."""
    whole = found.of(WHOLE)
    minutes = [each.seconds / 60 for each in whole]
    made = [report.Line(f"{WHOLE}, minutes", minutes, "min", report.at_most(45))]
    for name, figure, target in _SHARES:
        values = [100 * value for value in _values(whole, name, figure)]
        made.append(report.Line(f"{figure}, {name}", values, "%", target))
    made += [_cost(found), _wide(found)]
    for of, less in PAIRS:
        gain = gained(found, of, less, "seen")
        if gain is not None:
            name = f"reward of {of} over {less}, least of its interval"
            made.append(report.Line(name, [gain.low], "", report.at_least(0.0)))
    return made


def _values(results: Sequence[Result], name: str, figure: str, family: str = "") -> list[float]:
    """A figure of each seed."""
    found = []
    for each in results:
        one = next(report for report in each.reports if report.total.set == name)
        scores = one.families[family] if family else one.total
        known = scores.get(figure)
        if known is not None:
            found.append(known.value)
    return found


def _cost(found: Study) -> report.Line:
    """Beside having everything done by the strongest worker."""
    strongest = _values(found.of("strongest"), "seen", "cost")[0]
    values = [cost / strongest for cost in _values(found.of(WHOLE), "seen", "cost")]
    return report.Line("cost beside always the strongest", values, "x", report.at_most(1 / 3))


def _wide(found: Study) -> report.Line:
    """Beside one call after the other, where calls don't need each other."""
    serial = _values(found.of("serial"), "seen", "critical_steps", "wide")[0]
    own = _values(found.of(WHOLE), "seen", "critical_steps", "wide")
    name = "critical steps of wide tasks, serially over in parallel"
    return report.Line(name, [serial / steps for steps in own], "x", report.at_least(3))
