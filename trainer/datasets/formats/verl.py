"""verl 0.9: Parquet of native structs, for `MultiTurnSFTDataset` and `RLHFDataset`.

``sft`` has ``messages``, a struct of ``role`` and ``content`` each: verl's loader reads it with
pandas, which sees `datasets`' ``Json`` as texts. Calls and tools of several schemas have no such
struct that would not fill each other's fields with nulls, so the policy to be trained has to speak
a dialect of texts. verl trains every reply of a row, so a conversation with one that is not to be
trained is left out, and said so: the clean view of a recovery has none.

``rl`` has a row a task: ``prompt``, ``data_source``, ``ability``, ``reward_model``, ``extra_info``
as `RLHFDataset` reads them, and in ``rollouts`` what was rolled out already, in the fields of
`AgentLoopOutput`: arrays of a response begin where the policy first wrote.
"""

from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as pa

from protocol.actions import Json
from trainer.datasets import columns
from trainer.datasets.columns import Columns
from trainer.datasets.conversation import Message, messages_of
from trainer.datasets.made import Kept, Made, Sample
from trainer.datasets.spec import Spec

SUFFIX: Final = ".parquet"
KINDS: Final = ("sft", "rl")

SOURCE: Final = "podium"
"""``data_source``: by it verl chooses what scores an answer."""

MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

ROLLOUTS: Final = pa.list_(
    pa.struct(
        [
            ("prompt_ids", pa.list_(pa.int32())),
            ("response_ids", pa.list_(pa.int32())),
            ("response_mask", pa.list_(pa.uint8())),
            ("response_logprobs", pa.list_(pa.float32())),
            ("reward_score", pa.float32()),
            ("advantage", pa.float32()),
            ("num_turns", pa.int32()),
            ("run", pa.string()),
            ("segment", pa.int32()),
            ("policy_version", pa.string()),
        ]
    )
)

_TALK: Final = columns.nested(
    "messages", MESSAGES, lambda talk: sum(len(each["content"]) for each in talk)
)

SFT: Final = (_TALK, columns.texts("run_id"))

RL: Final = (
    _TALK._replace(name="prompt"),
    columns.texts("data_source"),
    columns.texts("ability"),
    columns.nested(
        "reward_model",
        pa.struct([("style", pa.string()), ("ground_truth", pa.string())]),
        lambda each: len(each["ground_truth"]),
    ),
    columns.nested(
        "extra_info",
        pa.struct([("index", pa.int64()), ("split", pa.string()), ("group", pa.string())]),
        lambda _each: 64,
    ),
    columns.nested(
        "rollouts", ROLLOUTS, lambda all_: sum(13 * len(each["response_ids"]) for each in all_)
    ),
)

_NATIVE: Final = "calls and tools can't be native structs: build with --dialect hermes"


class Verl:
    """See `formats.Writer`."""

    def __init__(self, file: BinaryIO, spec: Spec) -> None:
        self._rl = spec.kind == "rl"
        self._columns = Columns(file, RL if self._rl else SFT)

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
        if self._rl:
            self._task(made)
            return
        for sample in made.spoken:
            self._talk(sample, made.notes)

    def _talk(self, sample: Sample, notes: list[str]) -> None:
        talk = sample.talk
        if talk is None:
            notes.append("no messages: build with text = true")
            return
        if talk.tools or any("tool_calls" in each for each in talk.messages):
            notes.append(_NATIVE)
            return
        trained = {place.message for place in talk.replies if place.trained}
        untrained = [
            index
            for index, message in enumerate(talk.messages)
            if message["role"] == "assistant" and index not in trained
        ]
        if not untrained:
            self._columns.add([_plain(talk.messages), sample.run])
            return
        notes.append("verl trains every reply: a conversation with one that is not was left out")

    def _task(self, made: Made) -> None:
        if not made.kept:
            return
        first = made.kept[0].rollout
        if not first.steps:
            made.notes.append("no prompt")
            return
        prompt, tools = messages_of(first.policy, first.steps[0].view)
        if tools:
            made.notes.append(_NATIVE)
            return
        self._columns.add(
            [
                _plain(prompt),
                SOURCE,
                "orchestration",
                {"style": "rule", "ground_truth": _text(first.task.check)},
                {"index": self.rows, "split": "train", "group": made.key},
                [_rollout(kept, sample) for kept in made.kept for sample in kept.samples],
            ]
        )

    def close(self) -> None:
        """See `formats.Writer.close`."""
        self._columns.close()


def _plain(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": each["role"], "content": each.get("content") or ""} for each in messages]


def _text(check: Json) -> str:
    return msgspec.json.encode(check, order="deterministic").decode() if check is not None else ""


def _rollout(kept: Kept, sample: Sample) -> dict[str, Any]:
    begin = sample.starts[0] if sample.starts else len(sample.ids)
    return {
        "prompt_ids": sample.ids[:begin],
        "response_ids": sample.ids[begin:],
        "response_mask": sample.mask[begin:].astype(np.uint8),
        "response_logprobs": sample.logprobs[begin:],
        "reward_score": sample.reward,
        "advantage": sample.advantage,
        "num_turns": len(kept.rollout.steps),
        "run": sample.run,
        "segment": sample.segment,
        "policy_version": sample.version,
    }


def begin(file: BinaryIO, spec: Spec) -> Verl:
    """See `formats`."""
    return Verl(file, spec)
