"""A data set's rows again, as the trainer takes them: one row group in memory at a time."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from protocol.errors import InvalidData, Usage
from replay.disk import raise_fault
from trainer.datasets import manifest
from trainer.datasets.made import Sample
from trainer.datasets.manifest import Manifest
from trainer.learner.example import Example

BATCH_ROWS: Final = 1_024
"""Rows that are read at a time: some megabytes of tokens."""

_ARRAYS: Final = ("input_ids", "loss_mask", "old_logprobs", "ce_weights", "turns", "turn_offsets")

_PLAIN: Final = (
    "run_id",
    "group_id",
    "segment_index",
    "view",
    "recovery",
    "advantage",
    "reward",
    "reward_components",
    "policy_version",
    "temperature",
    "top_p",
    "top_k",
    "tokenizer_hash",
    "template_hash",
    "head",
)

COLUMNS: Final = [*_ARRAYS, *_PLAIN]
"""Those that a learner needs: messages are not read."""


def samples(folder: Path) -> Iterator[Sample]:
    """The rows of a canonical data set of kind ``sft`` or ``rl``, in their order.

    Raises:
        NotFound: There is none.
        Usage: It is of another format, or of another kind.
        InvalidData: A file of it is damaged.
        Denied, DiskFault: One can't be read.
    """
    found = manifest.must_read(folder)
    if found.spec.format != "parquet" or found.spec.kind == "preference":
        raise Usage(
            f"{folder} holds {found.spec.kind} as {found.spec.format}, which has no rows to learn "
            "from here",
            hint="build it with --format parquet, of kind sft or rl",
        )
    for batch in batches(folder, found, COLUMNS):
        yield from _batch(batch)


def batches(folder: Path, found: Manifest, columns: list[str]) -> Iterator[Any]:
    """Some columns of a data set in Parquet, batch by batch. Raises as `samples`."""
    for part in found.parts:
        path = folder / part.data.name
        try:
            yield from pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise_fault(path, error)
            raise InvalidData(
                f"{path} can't be read: {error}", hint=f"podium dataset show {folder}"
            ) from None


def examples(folder: Path) -> Iterator[Example]:
    """The same as a learner takes them. Raises as `samples`, and for rows without tokens."""
    return (sample.example() for sample in samples(folder))


def _batch(batch: Any) -> Iterator[Sample]:
    arrays = {name: _cut(batch.column(name)) for name in _ARRAYS}
    plain = {name: batch.column(name).to_pylist() for name in _PLAIN}
    for place in range(batch.num_rows):
        row = {name: values[place] for name, values in plain.items()}
        ids, mask, logprobs, ce, turns, starts = (arrays[name][place] for name in _ARRAYS)
        yield Sample(
            run=row["run_id"],
            group=row["group_id"],
            segment=row["segment_index"],
            view=row["view"],
            recovery=row["recovery"],
            ids=ids,
            mask=mask.astype("float32"),
            logprobs=logprobs,
            ce=ce,
            turns=tuple(turns.tolist()),
            starts=tuple(starts.tolist()),
            reward=row["reward"],
            parts={each["channel"]: each["value"] for each in row["reward_components"]},
            advantage=row["advantage"],
            version=row["policy_version"],
            temperature=row["temperature"],
            top_p=row["top_p"],
            top_k=row["top_k"],
            tokenizer=row["tokenizer_hash"],
            template=row["template_hash"],
            head=row["head"],
        )


def _cut(column: Any) -> list[Any]:
    """The arrays of a column; none of them is copied."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    return [values[begin:end] for begin, end in pairwise(offsets)]
