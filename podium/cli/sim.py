"""`podium sim`: simulate whole deployments with every fault, and show that nothing is lost."""

import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from podium.sim.run import Summary, Verdict


def sim(
    *,
    seed: Annotated[int, Parameter(help="The first seed.")] = 0,
    seeds: Annotated[int, Parameter(help="How many seeds, one after the other.")] = 1,
    faults: Annotated[
        str | None, Parameter(help="Which of the seed's faults happen: 3,7,12, or none.")
    ] = None,
    runs: Annotated[str | None, Parameter(help="Which of the seed's runs are begun: 0,2.")] = None,
    shrink: Annotated[bool, Parameter(help="Make the first failing history small.")] = False,
    processes: Annotated[int, Parameter(help="Processes that share the seeds; 0 for all.")] = 1,
    common: Common = COMMON,
) -> int:
    """Simulate a deployment on virtual time: crashes, lost and late messages, elections, freezes.

    A seed always gives the same history. Ends with 1 if one is wrong, and says which command
    plays it again.
    """
    from podium.sim import run as histories
    from protocol.errors import Usage

    output = Output(common.json)
    if seeds < 1 or seed < 0:
        raise Usage("A simulation needs at least one seed, from 0.", hint="podium sim --seed 7")
    chosen = faults is not None or runs is not None
    if chosen and seeds > 1:
        raise Usage("--faults and --runs choose from one seed.", hint="podium sim --seed 7")
    summary = histories.Summary()
    if chosen:
        kept, begun = _numbers(faults, "--faults"), _numbers(runs, "--runs")
        summary.count(histories.simulate(seed, kept=kept, runs=begun))
    else:
        processes = processes or os.cpu_count() or 1
        summary = histories.many(seed, seeds, processes=processes, told=_until_failed(shrink))
    if shrink and summary.failed and not chosen:
        summary.failed[0] = histories.shrink(summary.failed[0].seed)
    _show(output, summary)
    return 1 if summary.failed else 0


def _until_failed(shrink: bool) -> "Callable[[Summary], bool]":
    return lambda sum_: not (shrink and sum_.failed)


def _numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """``3,7,12`` as numbers."""
    from protocol.errors import Usage

    if text is None:
        return None
    if text == "none":
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise Usage(f"{option} {text!r} is no list of numbers.", hint=f"{option} 3,7,12, or none")
    return tuple(int(word) for word in words)


def _show(output: Output, summary: "Summary") -> None:
    from podium.render_rich import table

    rows = [{"seed": each.seed, "wrong": each.wrong, "again": each.line} for each in summary.failed]
    counts = {
        "histories": summary.histories,
        "crash_points": summary.crashes,
        "crash_points_at_work": summary.at_work,
        "runs": summary.runs,
        "commits": summary.commits,
        "steps": summary.steps,
        "virtual_seconds": round(summary.seconds),
        "failed": len(summary.failed),
        **{f"fault_{kind.replace(' ', '_')}": n for kind, n in sorted(summary.met.items())},
    }
    lines = [[name.replace("_", " "), f"{number:,}"] for name, number in counts.items()]
    output.read(rows, table(["what", "how many"], lines, wide="what"), counts=counts)
    for verdict in summary.failed:
        _tell(output, verdict)


def _tell(output: Output, verdict: "Verdict") -> None:
    """A failing history, to a person: what is wrong, what went wrong, how to see it again."""
    from podium.sim.faults import told
    from podium.sim.run import drawn

    output.hint(f"seed {verdict.seed} is wrong:")
    for what in verdict.wrong:
        output.hint(f"  {what}")
    if verdict.faults is not None:
        plan = drawn(verdict.seed)[1]
        output.hint("what went wrong before:")
        for number in verdict.faults:
            if number < len(plan):
                output.hint(f"  {number}: {told(plan[number])}")
    output.hint(f"again: {verdict.line}")
