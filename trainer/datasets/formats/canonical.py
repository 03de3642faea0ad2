"""Our own Parquet: everything that is known of a row, a column each.

Of ``sft`` and ``rl``: a row a series of tokens, or a conversation where tokens are not known. Of
``preference``: a row a pair. Messages are JSON texts, so no reader fills their arguments with
nulls.
"""

from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa

from trainer.datasets import columns
from trainer.datasets.columns import Column, Columns
from trainer.datasets.conversation import key_of
from trainer.datasets.made import Made, Pair, Sample
from trainer.datasets.spec import Spec

SUFFIX: Final = ".parquet"
KINDS: Final = ("sft", "rl", "preference")

SCORES: Final = columns.nested(
    "reward_components",  # no map: `datasets` reads none
    pa.list_(pa.struct([("channel", pa.string()), ("value", pa.float32())])),
    lambda each: 16 * len(each),
)

ROWS: Final[tuple[Column, ...]] = (
    columns.texts("row_id"),
    columns.texts("run_id"),
    columns.texts("group_id"),
    columns.numbers("segment_index", pa.int32()),
    columns.texts("view"),
    columns.numbers("recovery", pa.bool_()),
    columns.ids("input_ids"),
    columns.masks("loss_mask"),
    columns.floats("old_logprobs"),
    columns.floats("ce_weights"),
    columns.numbers("advantage", pa.float32()),
    columns.numbers("reward", pa.float32()),
    SCORES,
    columns.texts("policy_version"),
    columns.numbers("temperature", pa.float32()),
    columns.numbers("top_p", pa.float32()),
    columns.numbers("top_k", pa.int32()),
    columns.texts("tokenizer_hash"),
    columns.texts("template_hash"),
    columns.ids("turns"),
    columns.ids("turn_offsets"),
    columns.texts("head"),
    columns.texts("messages"),
    columns.texts("tools"),
    columns.masks("message_weights"),
)

PAIRS: Final[tuple[Column, ...]] = (
    columns.texts("row_id"),
    columns.texts("chosen_run_id"),
    columns.texts("rejected_run_id"),
    columns.texts("group_id"),
    columns.numbers("turn", pa.int32()),
    columns.numbers("reward_chosen", pa.float32()),
    columns.numbers("reward_rejected", pa.float32()),
    columns.texts("prompt"),
    columns.texts("tools"),
    columns.texts("chosen"),
    columns.texts("rejected"),
    columns.texts("chosen_head"),
    columns.texts("rejected_head"),
)


class Canonical:
    """See `formats.Writer`."""

    def __init__(self, file: BinaryIO, spec: Spec) -> None:
        self._pairs = spec.kind == "preference"
        about = {"podium.kind": spec.kind, "podium.format": "1"}
        self._columns = Columns(file, PAIRS if self._pairs else ROWS, about)

    @property
    def rows(self) -> int:
        """How many."""
        return self._columns.rows

    @property
    def bytes(self) -> int:
        """Before compression."""
        return self._columns.bytes

    def add(self, made: Made) -> None:
        """See `formats.Writer.add`."""
        for pair in made.pairs:
            self._columns.add(pair_row(pair))
        if not self._pairs:
            for sample in made.samples:
                self.sample(sample)

    def sample(self, sample: Sample) -> None:
        """One row."""
        self._columns.add(sample_row(sample))

    def close(self) -> None:
        """See `formats.Writer.close`."""
        self._columns.close()


def sample_row(sample: Sample) -> tuple[object, ...]:
    """The values of `ROWS`."""
    talk = sample.talk
    return (
        f"{sample.run}/{sample.segment}",
        sample.run,
        sample.group,
        sample.segment,
        sample.view,
        sample.recovery,
        sample.ids,
        sample.mask,
        sample.logprobs,
        sample.ce,
        sample.advantage,
        sample.reward,
        [{"channel": name, "value": sample.parts[name]} for name in sorted(sample.parts)],
        sample.version,
        sample.temperature,
        sample.top_p,
        sample.top_k,
        sample.tokenizer,
        sample.template,
        np.array(sample.turns, np.int32),
        np.array(sample.starts, np.int32),
        sample.head,
        key_of(talk.messages).decode() if talk is not None else None,
        key_of(talk.tools).decode() if talk is not None else None,
        np.array(talk.weights if talk is not None else (), np.uint8),
    )


def pair_row(pair: Pair) -> tuple[object, ...]:
    """The values of `PAIRS`."""
    return (
        f"{pair.better}/{pair.worse}",
        pair.better,
        pair.worse,
        pair.group,
        pair.turn,
        pair.reward_chosen,
        pair.reward_rejected,
        key_of(pair.prompt).decode(),
        key_of(pair.tools).decode(),
        key_of(pair.chosen).decode(),
        key_of(pair.rejected).decode(),
        pair.head_chosen,
        pair.head_rejected,
    )


def begin(file: BinaryIO, spec: Spec) -> Canonical:
    """See `formats`."""
    return Canonical(file, spec)
