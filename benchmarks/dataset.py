"""How fast data sets are written, in how much memory, and how fast rollouts become rows.

Rows are random in every token column, which nothing can compress: the worst case. Arrow's own rate
is that of the same columns, laid out as arrays beforehand, written with the same options in the
same process; ours begins with rows as the trainer has them. Both have one core.

The memory is the peak of a process of its own that writes 10,000 rows, and of one that writes a
million: a build's second pass. Its first, which plans what is written, is measured alike, of as
many runs. Rollouts are runs of three replies with tokens, made by the real rules, read from a log
in memory: both passes of a build, from its log to its files.
"""

import asyncio
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import contender, dataset_runs, report
from benchmarks.child import peak_bytes
from benchmarks.errors import BenchmarkError
from trainer.datasets.build import build
from trainer.datasets.columns import COMPRESSION_LEVEL, ROW_GROUP_BYTES
from trainer.datasets.facts import Facts
from trainer.datasets.formats.canonical import ROWS, Canonical, sample_row
from trainer.datasets.made import Sample
from trainer.datasets.parts import DATA, Folder
from trainer.datasets.plan import plan
from trainer.datasets.source import LogSource
from trainer.datasets.spec import PART_ROWS, Rl, Spec

MEAN_TOKENS: Final = 300
"""Of a row: a conductor's episode of some rounds."""

TOKENS: Final = 6_000_000
"""Tokens that are written in one measurement: about a second."""

SMALL_TOKENS: Final = 64
"""Of a row whose memory is measured: a million of them are written in seconds."""

FEW, MANY = 10_000, 1_000_000
"""Rows, and runs, whose memory is compared."""

RUNS: Final = 400
"""Rollouts that become rows, in groups of four."""

RATE: Final = report.at_least(5e6)
FLAT: Final = report.at_most(1.25)

MB: Final = 1_048_576

CHILD_LIMIT_S: Final = 600.0
"""Seconds of a process whose memory is measured: far beyond what any has taken."""

SPEC: Final = Spec(kind="rl", text=False)


def samples(count: int, mean: int, seed: int = 0) -> Iterator[Sample]:
    """Rows of random tokens."""
    drawn = np.random.default_rng(seed)
    for number in range(count):
        size = int(drawn.integers(mean // 2, mean * 3 // 2 + 1))
        yield Sample(
            run=f"{number:013}",
            group=f"{number // 8:032x}",
            segment=0,
            ids=drawn.integers(0, 151_936, size, np.int32),
            mask=(drawn.random(size, np.float32) < 0.5).astype(np.float32),
            logprobs=-drawn.random(size, np.float32),
            ce=drawn.random(size, np.float32),
            turns=(1, 2),
            starts=(size // 3, size // 2),
            reward=0.5,
            parts={"accuracy": 1.0, "format": 0.1},
            advantage=float(drawn.random()),
            version="000001",
            tokenizer="0123456789abcdef",
            template="0123456789abcdef",
            head=f"{number:032x}",
        )


def ours(rows: list[Sample], path: pathlib.Path) -> float:
    """Tokens a second, from rows to a file."""
    begun = time.perf_counter()
    with path.open("w+b") as file:
        writer = Canonical(file, SPEC)
        for row in rows:
            writer.sample(row)
        writer.close()
    return sum(len(row.ids) for row in rows) / (time.perf_counter() - begun)


def arrows(rows: list[Sample], path: pathlib.Path) -> float:
    """Tokens a second of Arrow alone, with its columns laid out beforehand."""
    schema = pa.schema([(column.name, column.type) for column in ROWS])
    batches: list[Any] = []
    waiting: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        waiting.append(sample_row(row))
        size += 17 * len(row.ids)
        if size >= ROW_GROUP_BYTES or row is rows[-1]:
            columns = zip(ROWS, zip(*waiting, strict=True), strict=True)
            arrays = [column.build(values) for column, values in columns]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            waiting, size = [], 0
    plain = [each.name for each in ROWS if pa.types.is_string(each.type)]
    begun = time.perf_counter()
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=plain,
        write_statistics=plain,
    ) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sum(len(row.ids) for row in rows) / (time.perf_counter() - begun)


def written(options: report.Options, data: pathlib.Path) -> list[report.Line]:
    """Tokens a second, ours beside Arrow's, in turns on one core."""
    rows = list(samples(TOKENS // MEAN_TOKENS, MEAN_TOKENS))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    own, theirs = [], []
    try:
        for _ in range(options.repeats):
            theirs.append(arrows(rows, data / "arrow.parquet"))
            own.append(ours(rows, data / "ours.parquet"))
            contender.progress(f"ours {own[-1]:.3g}, Arrow {theirs[-1]:.3g} tokens/s")
    finally:
        os.sched_setaffinity(0, before)
    size = (data / "ours.parquet").stat().st_size / sum(len(row.ids) for row in rows)
    ratios = [one / other for one, other in zip(own, theirs, strict=True)]
    return [
        report.Line("written, on one core", own, "tokens/s", RATE),
        report.Line("Arrow alone, the same columns", theirs, "tokens/s"),
        report.Line("written / Arrow alone", ratios, "x"),
        report.Line("rows written", [each / MEAN_TOKENS for each in own], "rows/s"),
        report.Line("bytes of a token, random", [size], "bytes"),
    ]


def fill(folder: pathlib.Path, count: int) -> None:
    """Write so many rows, part by part, as a build does."""
    place = Folder(folder)
    rows = samples(count, SMALL_TOKENS)
    for number in range(-(-count // PART_ROWS)):
        with place.begin(DATA, number, ".parquet") as draft:
            writer = Canonical(draft.file, SPEC)
            for row, _ in zip(rows, range(PART_ROWS), strict=False):
                writer.sample(row)
            writer.close()
            draft.finish(writer.rows)


def planned(_: pathlib.Path, count: int) -> None:
    """Plan a data set of so many runs, in groups of eight, half of them right."""
    known = (
        Facts(
            run=f"{number:013}",
            head=f"{number:032x}",
            said=f"{0:016x}",
            redact="",
            events=30,
            key=f"{number // 8:032x}",
            began=10 * number,
            ended=10 * number + 5,
            versions=("000001",),
            reward=float(number % 2),
            accuracy=float(number % 2),
            finished=True,
            answered=True,
            tokens=True,
            workers=("one", "other"),
            rounds=2,
            cost=100,
        )
        for number in range(count)
    )
    kept = sum(len(unit.kept) for unit in plan(known, SPEC))
    if kept != count:
        raise BenchmarkError(f"{kept} of {count} runs were kept")


def peak(data: pathlib.Path, what: str, count: int) -> float:
    """Bytes at the peak of a process that does one of `_CHILDREN`."""
    with tempfile.TemporaryDirectory(dir=data) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.dataset", what, folder, str(count)],
            capture_output=True,
            text=True,
            timeout=CHILD_LIMIT_S,
            check=False,
        )
    if done.returncode:
        raise BenchmarkError(f"{what} {count} failed: {done.stderr[-500:]}")
    return float(done.stdout)


def memory(options: report.Options, data: pathlib.Path) -> list[report.Line]:
    """The peak of few rows and of many, and of few runs and of many."""
    many = options.runs or MANY
    lines = []
    for what, called, things in (("write", "writing", "rows"), ("plan", "planning", "runs")):
        few = [peak(data, what, FEW) / MB for _ in range(options.repeats)]
        most = [peak(data, what, many) / MB]
        contender.progress(f"{called}: {FEW:,} {few[0]:.0f} MB, {many:,} {most[0]:.0f} MB")
        ratio = most[0] / sorted(few)[len(few) // 2]
        lines += [
            report.Line(f"peak memory of {called}, {FEW:,} {things}", few, "MB"),
            report.Line(f"peak memory of {called}, {many:,} {things}", most, "MB"),
            report.Line(f"{called}, many / few", [ratio], "x", FLAT),
        ]
    return lines


def rollouts(options: report.Options, data: pathlib.Path) -> list[report.Line]:
    """Rollouts a second, from their log to files."""
    log = dataset_runs.filled(RUNS)
    spec = Spec(kind="rl", rl=Rl(mixed=False))
    rates, again = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory(dir=data) as folder:
            where = pathlib.Path(folder)
            begun = time.perf_counter()
            built = asyncio.run(build(LogSource(log), where, spec)).manifest
            rates.append(RUNS / (time.perf_counter() - begun))
            if built.rows != RUNS:
                raise BenchmarkError(f"{RUNS} rollouts gave {built.rows} rows: {built.verdicts}")
            begun = time.perf_counter()
            asyncio.run(build(LogSource(log), where, spec))
            again.append(1e3 * (time.perf_counter() - begun))
    contender.progress(f"rollouts: {rates}")
    return [
        report.Line("rollouts, from log to files", rates, "rollouts/s"),
        report.Line(f"a build of {RUNS} rollouts with nothing new", again, "ms"),
    ]


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Every figure, as often as asked."""
    parts = {"written": written, "memory": memory, "rollouts": rollouts}
    lines = [
        line for name, part in parts.items() if options.wants(name) for line in part(options, data)
    ]
    conditions = report.conditions(options, data, versions={"pyarrow": pa.__version__})
    conditions["runs"] = {"rollouts": RUNS, "tokens of one measurement": TOKENS}
    return report.Report("dataset", conditions, lines)


_CHILDREN: Final[dict[str, Callable[[pathlib.Path, int], None]]] = {"write": fill, "plan": planned}
"""What a process of its own does."""

if __name__ == "__main__":
    _CHILDREN[sys.argv[1]](pathlib.Path(sys.argv[2]), int(sys.argv[3]))
    print(peak_bytes())
