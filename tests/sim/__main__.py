"""`python -m tests.sim`: the table of planted bugs, as docs/simulator.md has it."""

import argparse
import sys

from podium.sim.faults import told
from podium.sim.run import drawn, many, shrink
from tests.sim.planted import PLANTED


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Plant each bug, find it, make it small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    say("| planted | found by seed | of so many seeds | what it takes | what is wrong |")
    say("|---|---|---|---|---|")
    for name, parts in PLANTED.items():
        summary = many(0, options.seeds, processes=options.processes, parts=parts)
        failed = sorted(summary.failed, key=lambda each: each.seed)
        if not failed:
            say(f"| {name} | none | 0 of {options.seeds} | | |")
            continue
        small = shrink(failed[0].seed, parts)
        plan = drawn(small.seed)[1]
        faults = "; ".join(told(plan[number]) for number in small.faults or ())
        share = f"{len(failed)} of {options.seeds}"
        say(f"| {name} | {small.seed} | {share} | {faults} | {small.wrong[0]} |")


if __name__ == "__main__":
    main()
