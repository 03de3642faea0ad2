"""A conductor from scratch: how good it gets, in how many minutes, and what each stage is worth.

``--repeats`` is how many seeds, ``--runs`` how many episodes of each set. It takes hours, and goes
on where it stopped: what is done stands in ``build/learning``. What is measured of a seed is
written to ``benchmarks/results/learning/seed-N.json``, and the table to ``learning.md`` beside it.

With ``--only seed-1`` no other seed is trained: those of the same plan are taken from what is
written there. So each may be measured on a day, or a machine, of its own.
"""

import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from benchmarks import report
from benchmarks.errors import BenchmarkError
from protocol.errors import Conflict, PodiumError
from trainer.conductor.plan import Plan
from trainer.conductor.results import (
    BY_RL,
    CORRECTED,
    DRAWN,
    PAIRS,
    Result,
    Study,
    as_markdown,
    cost_beside,
    gained,
    joined,
)
from trainer.conductor.study import study

FOLDER: Final = pathlib.Path("build/learning")
EPISODES: Final = 300
"""Of each set: an accuracy of 90 % is known to 3.4 points for each seed."""

STORED: Final = report.RESULTS / "learning"
"""Where what is known of each seed is committed."""

WHERE: Final = ("date", "cores", "cpu", "load_1m")
"""What is said of each seed's measurement, where they are of several."""

SETS: Final = (
    "seen",
    "held-out-questions",
    "unseen-pools",
    "held-out-entities",
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
"""In percent, of what is made as the shipped model is: on what is known, and what was held out."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one seed, and of the baselines beside it."""

    conditions: dict[str, Any]
    """Under which it was measured."""
    study: Study


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Train and measure, or go on with it."""
    count = options.runs or EPISODES
    try:
        found = study(FOLDER, Plan(), seeds(options), count, sets=SETS, say=_say)
    except Conflict as error:
        raise BenchmarkError(f"{error.message}; move {FOLDER} away to begin anew") from error
    except PodiumError as error:
        raise BenchmarkError(error.whole()) from error
    conditions = report.conditions(options, data) | {"sets": list(SETS), "episodes": count}
    for seed in found.seeds:
        store(STORED, found.only(seed), conditions)
    known = {each.study.seeds[0]: each for each in stored(STORED, found)}
    if options.only:
        found = joined(found, [each.study for each in known.values()])
        conditions["seeds"] = {
            f"seed-{seed}": {name: known[seed].conditions[name] for name in WHERE}
            for seed in found.seeds
        }
    (report.RESULTS / "learning.md").write_text(as_markdown(found) + "\n")
    return report.Report("learning", conditions, lines(found))


def seeds(options: report.Options) -> list[int]:
    """Those that are to be trained.

    Raises:
        BenchmarkError: One of ``--only`` names none.
    """
    if not options.only:
        return list(range(options.repeats))
    found = [re.fullmatch(r"seed-([0-9]+)", name) for name in options.only]
    if not all(found):
        raise BenchmarkError(f"--only {' '.join(options.only)}: name seeds, such as seed-1")
    return [int(each[1]) for each in found if each]


def store(folder: pathlib.Path, found: Study, conditions: dict[str, Any]) -> None:
    """Keep what was measured of one seed, and in which conditions, unless it is kept already."""
    path = folder / f"seed-{found.seeds[0]}.json"
    slim = found.slim()
    if path.exists() and msgspec.json.decode(path.read_bytes(), type=Stored).study == slim:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(Stored(conditions=conditions, study=slim)) + b"\n")


def stored(folder: pathlib.Path, like: Study) -> Iterator[Stored]:
    """What is kept of seeds that were made and measured in the same way."""
    for path in sorted(folder.glob("seed-*.json")):
        found = msgspec.json.decode(path.read_bytes(), type=Stored)
        if found.study.comparable(like):
            yield found
        else:
            _say(f"{path} is of another plan, or other sets: it is left out")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def lines(found: Study) -> list[report.Line]:
    """The figures, and what was promised of them."""
    shipped = found.of(CORRECTED)
    minutes = [each.seconds / 60 for each in shipped]
    made = [report.Line(f"{CORRECTED}, minutes", minutes, "min", report.at_most(45))]
    for name, figure, target in _SHARES:
        values = [100 * value for value in _values(shipped, name, figure)]
        made.append(report.Line(f"{figure}, {name}", values, "%", target))
    made += [*_cost(found), _wide(found)]
    for of, less in PAIRS:
        promised = report.above(0.0) if (of, less) in BY_RL else None
        for sets, how in ((found.known_words, ""), ((DRAWN,), ", drawn")):
            if (gain := gained(found, of, less, sets)) is not None:
                name = f"reward of {of} over {less}{how}"
                # What a stage is worth is a claim of trainings, and there are as many as seeds.
                seeds = gain.seeds or gain.pairs
                made += [
                    report.Line(name, [gain.pairs.value], ""),
                    report.Line(f"{name}, least of its interval", [seeds.low], "", promised),
                    report.Line(f"{name}, least for these very models", [gain.pairs.low], ""),
                ]
    return made


def _values(results: Sequence[Result], name: str, figure: str, family: str = "") -> list[float]:
    """A figure of each seed."""
    found = []
    for each in results:
        one = next(report for report in each.reports if report.total.set == name)
        scores = one.families.get(family) if family else one.total
        known = None if scores is None else scores.get(figure)
        if known is not None and known.n:
            found.append(known.value)
    return found


def _cost(found: Study) -> list[report.Line]:
    """Beside having everything done by the strongest worker.

    What is wrong is cheap, too: so they are compared where both are right.
    """
    shipped, strongest = found.of(CORRECTED), found.of("strongest")
    every = (cost_beside(each, strongest[0], "seen") for each in shipped)
    costs = [cost for cost in every if cost is not None]
    right = 100 * _values(strongest, "seen", "accuracy")[0]
    less = [right - 100 * own for own in _values(shipped, "seen", "accuracy")]
    made = [report.Line("right less often than always the strongest", less, "points")]
    if costs:
        name = "cost beside always the strongest, where both are right"
        made.insert(0, report.Line(name, costs, "x", report.at_most(1 / 3)))
    return made


def _wide(found: Study) -> report.Line:
    """Beside one call after the other, where calls don't need each other."""
    serial = _values(found.of("serial"), "seen", "critical_steps", "wide")[0]
    own = _values(found.of(CORRECTED), "seen", "critical_steps", "wide")
    name = "critical steps of wide tasks, serially over in parallel"
    # Who makes no call at all has no critical steps, and is no faster for it.
    fewer = [serial / steps if steps else 0.0 for steps in own]
    return report.Line(name, fewer, "x", report.at_least(3))
