"""The benchmarks' command line: ``python -m benchmarks NAME``. Options: ``--help``.

Exit codes: 0 when it ran and every target holds, 1 when a target is missed, 2 when it could not
run.
"""

import argparse
import importlib
import pathlib
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import msgspec
import psutil

from benchmarks import report
from benchmarks.contender import DURABILITIES
from benchmarks.errors import BenchmarkError

NAMES: Final = {
    "floor": "the broker and its client with Podium's messages and no logic",
    "throughput": "Podium beside the floor, in turns",
    "peers": "Podium beside LangGraph and DBOS on Postgres, in turns",
    "inflight": "memory and makespan of 10,000 runs in flight",
    "tracing": "Podium with and without its exporter of traces, in turns",
    "replay": "reading and folding runs: from memory, from JetStream, from the archive",
    "parallel": "wide and chained runs in parallel and serially; slow calls hedged and not",
    "learner": "learning beside TRL, packed beside padded, sampling beside generate",
    "learning": "a conductor from scratch, three seeds, each stage, beside every baseline: hours",
    "rollouts": "rollouts a minute of the fast lane: a script; a small model, and it alone",
    "dataset": "data sets written beside Arrow alone, their memory, rollouts from log to rows",
    "sampling": "tokens a second of small models beside Transformers' generate, in turns",
    "recovery": "time until 1,000 runs of a killed conductor go on, beside the lease",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure. " + "; ".join(f"{name}: {what}" for name, what in NAMES.items()),
    )
    defaults = report.Options(command="")
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="print the report as one last line")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/NAME.json")
    parser.add_argument("--durability", nargs="+", choices=DURABILITIES, default=list(DURABILITIES))
    parser.add_argument("--repeats", type=int, default=defaults.repeats, help="default: 3")
    parser.add_argument(
        "--seconds", type=float, default=defaults.seconds, help="of one measurement; default: 4"
    )
    parser.add_argument("--runs", type=int, help="of one measurement, instead of --seconds")
    parser.add_argument("--only", nargs="+", default=[], metavar="CONTENDER")
    parser.add_argument("--data", type=pathlib.Path, help="a folder on the disk to measure on")
    return parser


def _interrupted(_signal: int, _frame: object) -> NoReturn:
    """Make SIGTERM unwind the stack, so that servers are stopped and folders removed."""
    raise SystemExit(128 + signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark; gives the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if min(asked.repeats, asked.seconds, asked.runs or 1) <= 0:
        parser.error("--repeats, --seconds and --runs must be above zero")
    options = report.Options(
        command=shlex.join(["python", "-m", "benchmarks", *arguments]),
        durability=tuple(asked.durability),
        repeats=asked.repeats,
        seconds=asked.seconds,
        runs=asked.runs,
        load_1m=round(psutil.getloadavg()[0], 2),
        only=tuple(asked.only),
    )
    signal.signal(signal.SIGTERM, _interrupted)
    benchmark = importlib.import_module(f"benchmarks.{asked.name}").benchmark
    try:
        with report.data_folder(asked.data) as data:
            outcome: report.Report = benchmark(options, data)
    except BenchmarkError as error:
        print(f"{asked.name}: {error}", file=sys.stderr)
        return 2
    if asked.save:
        print(f"saved {outcome.save()}", file=sys.stderr)
    print(msgspec.json.encode(outcome.shown()).decode() if asked.json else outcome.table())
    return 0 if outcome.holds() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
