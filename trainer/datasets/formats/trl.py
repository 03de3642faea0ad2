"""TRL 1.16: Parquet for `datasets`, with the columns of `SFTTrainer` and `DPOTrainer`.

=========  ===================================================================================
layout     columns
=========  ===================================================================================
tokens     ``input_ids``, ``labels`` (-100: no loss): exact, what `SFTTrainer` takes as it is
prompt     ``prompt``, ``completion``, ``tools``: a row a trained reply, its failures before it
chat       ``messages``, ``tools``: whole conversations; for ``assistant_only_loss``
=========  ===================================================================================

Preference has ``prompt``, ``chosen``, ``rejected``, ``tools``. TRL has no weight a message, and
``assistant_only_loss`` trains every reply: a conversation with a reply that is not trained can't be
a ``chat`` row. Messages are `datasets`' ``Json``, each object with the keys that it has: plain
structs would give every call the arguments of all others, as nulls. So these files are for
`datasets`; verl's loader takes native structs, see there.
"""

import json
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as pa

from trainer.datasets import columns
from trainer.datasets.chat import with_objects
from trainer.datasets.columns import Column, Columns
from trainer.datasets.conversation import Conversation, Message
from trainer.datasets.made import Made, Sample
from trainer.datasets.spec import Layout, Spec

SUFFIX: Final = ".parquet"
KINDS: Final = ("sft", "preference")

NO_LOSS: Final = -100
"""The label of a token that is not trained."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def _jsons(values: Sequence[list[Any]]) -> pa.Array:
    """Lists of objects as `datasets`' ``List(Json())``."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(each) for each in values], out=offsets[1:])
    flat = pa.array((_encode(each).decode() for value in values for each in value), pa.string())
    items = pa.ExtensionArray.from_storage(pa.json_(), flat)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=pa.list_(pa.json_()))


def _messages(name: str) -> Column:
    return Column(
        name, pa.list_(pa.json_()), _jsons, lambda each: sum(map(len, map(_encode, each)))
    )


_LIST: Final = {"feature": {"_type": "Json"}, "_type": "List"}
_IDS: Final = {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"}
_TEXT: Final = {"dtype": "string", "_type": "Value"}

_RUN: Final = columns.texts("run_id")

LAYOUTS: Final[dict[str, tuple[Column, ...]]] = {
    "tokens": (columns.ids("input_ids"), columns.ids("labels"), _RUN),
    "prompt": (_messages("prompt"), _messages("completion"), _messages("tools"), _RUN),
    "chat": (_messages("messages"), _messages("tools"), _RUN),
    "preference": (
        _messages("prompt"),
        _messages("chosen"),
        _messages("rejected"),
        _messages("tools"),
        _RUN,
    ),
}


class Trl:
    """See `formats.Writer`.

    Where no layout is said it is ``tokens`` with a tokenizer and ``prompt`` without one: all files
    of a data set have the same columns.
    """

    def __init__(self, file: BinaryIO, spec: Spec) -> None:
        self._file = file
        self._layout: Layout | str = "preference" if spec.kind == "preference" else spec.layout
        if self._layout == "auto":
            self._layout = "tokens" if spec.tokenizer else "prompt"
        made = LAYOUTS[self._layout]
        features = {each.name: _feature(each) for each in made}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        self._columns = Columns(file, made, metadata)

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
            texts = [_shown(each) for each in (pair.prompt, pair.chosen, pair.rejected)]
            self._columns.add([*texts, pair.tools, pair.better])
        for sample in made.spoken if self._layout == "chat" else made.samples:
            if self._layout == "tokens":
                self._tokens(sample, made.notes)
            elif sample.talk is None:
                made.notes.append("no messages: build with text = true")
            elif self._layout == "prompt":
                self._prompts(sample.talk, sample)
            else:
                self._chat(sample.talk, sample, made.notes)

    def _tokens(self, sample: Sample, notes: list[str]) -> None:
        if not len(sample.ids):
            notes.append("no tokens: build with --tokenizer FOLDER")
            return
        labels = np.where(sample.ce > 0, sample.ids, NO_LOSS).astype(np.int32)
        self._columns.add([sample.ids, labels, sample.run])

    def _prompts(self, talk: Conversation, sample: Sample) -> None:
        for place in talk.replies:
            if place.trained and place.turn in sample.turns:
                prompt = _shown(talk.messages[: place.message])
                reply = _shown([talk.messages[place.message]])
                self._columns.add([prompt, reply, talk.tools, sample.run])

    def _chat(self, talk: Conversation, sample: Sample, notes: list[str]) -> None:
        weights = talk.weights
        if any(
            message["role"] == "assistant" and not weight
            for message, weight in zip(talk.messages, weights, strict=True)
        ):
            notes.append("a reply that is not trained can't be in a chat row: use another layout")
            return
        self._columns.add([_shown(talk.messages), talk.tools, sample.run])

    def close(self) -> None:
        """See `formats.Writer.close`."""
        self._columns.close()


def _feature(column: Column) -> dict[str, Any]:
    if pa.types.is_string(column.type):
        return _TEXT
    return _IDS if column.type.value_type == pa.int32() else _LIST


def _shown(messages: list[Message]) -> list[Message]:
    return [with_objects(each) for each in messages]


def begin(file: BinaryIO, spec: Spec) -> Trl:
    """See `formats`."""
    return Trl(file, spec)
