"""Measure the rules: the figures of decisions 0001 and 0002. Run with ``python -m``; prints JSON.

Best of several, since the machine may be busy. Not a test: a figure that fails proves little.
"""

import itertools
import sys
import time
import tracemalloc
from collections.abc import Callable

import msgspec

from protocol.actions import NOTHING
from protocol.codec import Commit, decode_commit, encode
from protocol.decisions import Reply
from protocol.replies import as_recorded
from protocol.run import fold, step
from protocol.schemas import misfit
from protocol.state import RunState
from tests.runs import AT, RUN, Driver, answer, begin, plan, planned

REPEATS = 5
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "n": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["km", "mi"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def micros(work: Callable[[], object], times: int) -> float:
    """Microseconds of one call, at best."""
    results = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(times):
            work()
        results.append((time.perf_counter() - start) / times * 1e6)
    return round(min(results), 2)


def four_calls() -> Reply:
    """A decision for a round of four."""
    return plan(*[planned(n=number) for number in range(4)])


def small_run() -> Driver:
    """Three rounds of four calls, then the answer."""
    driver = Driver(begin())
    for number in range(1, 4):
        driver.reply(four_calls())
        for index in range(4):
            driver.report(f"{number}-{index}")
    driver.reply(answer())
    return driver


def state_bytes(runs: int = 1_000) -> float:
    """Bytes of the state of one run with four open calls."""
    tracemalloc.start()
    kept = []
    for _ in range(runs):
        driver = Driver(begin())
        driver.reply(four_calls())
        kept.append(driver.state)
        del driver
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(held / len(kept))


def main() -> None:
    """Print every figure."""
    run = small_run()
    commits = [
        encode(Commit(run=RUN, n=1, epoch=1, at=AT, causes=(), events=tuple(draft.events), prev=""))
        for _, _, draft in run.steps
    ]
    counter = itertools.count()
    figures = {
        "events": len(run.events),
        "steps": len(run.steps),
        "decide_run_us": micros(lambda: [step(b, c, d.at) for b, c, d in run.steps], 50),
        "fold_run_us": micros(lambda: fold(RunState(), run.events), 200),
        "decode_run_us": micros(lambda: [decode_commit(data) for data in commits], 100),
        "commit_bytes": sum(map(len, commits)),
        "as_recorded_us": micros(lambda: as_recorded(four_calls(), NOTHING), 2_000),
        "state_bytes": state_bytes(),
        "schema_fits_us": micros(lambda: misfit(SCHEMA, {"city": "Rome", "n": 2}), 2_000),
        "schema_misfit_us": micros(lambda: misfit(SCHEMA, {"city": "R", "n": 0}), 500),
        "schema_compile_us": micros(
            lambda: misfit({**SCHEMA, "title": str(next(counter))}, {"city": "Rome"}), 200
        ),
    }
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


if __name__ == "__main__":
    main()
