"""A data set's rows as batches: each once an epoch, in another order each time.

What is shuffled are units: a row of imitation; a whole group of reinforcement, since its advantages
belong together. They are held in memory, some kilobytes a row.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from protocol.actions import Json
from protocol.errors import InvalidData, Usage
from trainer.datasets import manifest
from trainer.datasets.reader import batches, samples
from trainer.learner.example import Example
from trainer.learner.order import Fed, places
from trainer.training.spec import Kind, Spec

UNKNOWN: Final = ""
"""The hash of a tokenizer that a row does not name."""


def described(folder: Path, kind: Kind) -> dict[str, Json]:
    """What of a data set tells it from others.

    Raises:
        NotFound: There is none.
        Usage: It is of another kind.
        InvalidData: It is not complete, or has no rows.
    """
    found = manifest.must_read(folder)
    if found.spec.kind != kind:
        raise Usage(
            f"{folder} is a data set of kind {found.spec.kind}, and {kind} is to be trained",
            hint=f"podium dataset build {kind}"
            if found.spec.kind == "preference"
            else f"podium train {found.spec.kind} {folder}",
        )
    if not found.complete:
        raise InvalidData(
            f"{folder} is not complete: its build was cut short",
            hint=f"go on with it: podium dataset build {kind} --out {folder}",
        )
    if not found.rows:
        raise InvalidData(
            f"{folder} has no rows", hint=f"see what was left out: podium dataset show {folder}"
        )
    return {"dataset": str(folder), "digest": found.digest, "rows": found.rows}


class Rows:
    """Batches of a data set; a source, as `trainer.learner.fit` takes one.

    Args:
        units: What is shuffled, each with its examples; not empty.
        size: Units of a batch. The last of an epoch is filled with the first of the next.
        seed: Of the order.
    """

    def __init__(self, units: Sequence[Sequence[Example]], size: int, seed: int) -> None:
        self._units, self._size, self._seed = units, size, seed

    def steps(self, epochs: float) -> int:
        """Batches that so many epochs take."""
        return max(1, math.ceil(len(self._units) * epochs / self._size))

    def check(self, room: int, kind: Kind) -> None:
        """Raise `InvalidData` if a row is longer than the model has room for; 0 for any."""
        longest = max((each for unit in self._units for each in unit), key=lambda row: len(row.ids))
        if room and len(longest.ids) > room:
            raise InvalidData(
                f"a row of run {longest.rollout} has {len(longest.ids)} tokens, and the model has "
                f"room for {room}",
                hint=f"leave such rows out: podium dataset build {kind} --max-tokens {room}",
            )

    def __call__(self, step: int) -> Fed:
        """The batch of a step, counted from 0."""
        count, size = len(self._units), self._size
        chosen = places(count, size, self._seed, step)
        return Fed(
            examples=[example for place in chosen for example in self._units[place]],
            values={"epoch": round((step + 1) * size / count, 4)},
        )


def read(folder: Path, spec: Spec, tokenizer: str) -> Rows:
    """The rows of a data set.

    Args:
        folder: Of the data set.
        spec: Of the training.
        tokenizer: The hash of the model's.

    Raises:
        InvalidData: A row has no tokens, or those of another tokenizer.
        Usage: It is of another format.
    """
    units: dict[str, list[Example]] = {}
    for number, sample in enumerate(samples(folder)):
        example = sample.example()
        where = f"row {number} of {folder} (run {sample.run})"
        if sample.tokenizer not in (UNKNOWN, tokenizer):
            raise InvalidData(
                f"{where} has the tokens of another tokenizer ({sample.tokenizer[:12]}, and the "
                f"model's is {tokenizer[:12]})",
                hint=f"build it for this model: podium dataset build {spec.kind} --tokenizer MODEL",
            )
        if spec.ref_kl:
            example = anchored(example, spec.ref_kl)
        unit = sample.group if spec.kind == "rl" else f"{number}"
        units.setdefault(unit, []).append(example)
    return Rows(tuple(map(tuple, units.values())), spec.batch, spec.seed)


def anchored(example: Example, weight: float) -> Example:
    """The example with a divergence from the reference, where it is reinforced."""
    return replace(example, ref_kl=(np.float32(weight) * (example.pg != 0)).astype(np.float32))


def texts(folder: Path) -> Iterable[str]:
    """What the messages of a data set say, for a vocabulary.

    Raises:
        NotFound: There is no data set.
        InvalidData: It has no messages; or a file of it is damaged.
        Denied, DiskFault: One can't be read.
    """
    import msgspec

    found = manifest.must_read(folder)
    decode = msgspec.json.Decoder(list[dict[str, Json]]).decode
    if found.spec.format != "parquet" or found.spec.kind == "preference" or not found.spec.text:
        raise InvalidData(
            f"{folder} has no messages to read",
            hint="build it with --format parquet, of kind sft or rl, with its texts",
        )
    for batch in batches(folder, found, ["messages"]):
        for talk in batch.column(0).to_pylist():
            yield from _said(decode(talk) if talk else ())


def _said(talk: Iterable[Mapping[str, Json]]) -> Iterable[str]:
    return (str(each["content"]) for each in talk if each.get("content"))
