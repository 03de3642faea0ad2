"""prime-rl: its ``TrainingSample``s as msgpack, one array a file.

The struct is an array on the wire: fields by place, defaults left out at the end. A file is read by
``msgspec.msgpack.decode(data, type=list[TrainingSample])`` with prime-rl's own type (2026-08).
"""

from typing import BinaryIO, Final

import msgspec
import numpy as np

from trainer.datasets.made import Made, Sample
from trainer.datasets.spec import Spec

SUFFIX: Final = ".msgpack"
KINDS: Final = ("sft", "rl")

ENVIRONMENT: Final = "podium"
"""``env_name``: by it prime-rl groups its metrics."""

_ARRAY32: Final = b"\xdd"
"""What an array with a count of 32 bits begins with."""

_UNKNOWN: Final = "prime-rl has no unknown log-probabilities"

_encode: Final = msgspec.msgpack.Encoder().encode


class TrainingSample(msgspec.Struct, array_like=True, gc=False, omit_defaults=True):
    """As prime-rl's ``transports/rollouts/types.py`` has it; all arrays of one length."""

    token_ids: list[int]
    mask: list[bool]
    logprobs: list[float]
    temperatures: list[float]
    env_name: str
    ref_logprobs: list[float] | None = None
    multimodal: None = None
    routed_experts: None = None
    mm_token_type_ids: list[int] | None = None
    rl_weights: list[float] | None = None
    ce_weights: list[float] | None = None
    ref_kl_weights: list[float] | None = None
    advantages: list[float] | None = None


class PrimeRl:
    """See `formats.Writer`."""

    def __init__(self, file: BinaryIO, spec: Spec) -> None:
        self._file, self._rl = file, spec.kind == "rl"
        self.rows = self.bytes = 0
        self._begin = file.tell()
        file.write(_ARRAY32 + bytes(4))  # the count is written at the end

    def add(self, made: Made) -> None:
        """See `formats.Writer.add`."""
        for sample in made.samples:
            if not len(sample.ids):
                made.notes.append("no tokens: build with --tokenizer FOLDER")
                continue
            if self._rl and np.isnan(sample.logprobs).any():
                made.notes.append(_UNKNOWN)
                continue
            data = _encode(training_sample(sample, rl=self._rl))
            self._file.write(data)
            self.rows += 1
            self.bytes += len(data)

    def close(self) -> None:
        """See `formats.Writer.close`."""
        end = self._file.tell()
        self._file.seek(self._begin + 1)
        self._file.write(self.rows.to_bytes(4, "big"))
        self._file.seek(end)


def training_sample(sample: Sample, *, rl: bool) -> TrainingSample:
    """One row. Of imitation, all weight is on the cross-entropy and none on the policy gradient.

    So nothing of imitation hangs on log-probabilities, and those that are not known are 0 there.
    """
    size = len(sample.ids)
    logprobs = sample.logprobs if len(sample.logprobs) else np.zeros(size, np.float32)
    advantages = (sample.mask * np.float32(sample.advantage or 0.0)).tolist()
    return TrainingSample(
        token_ids=sample.ids.tolist(),
        mask=sample.mask.astype(bool).tolist(),
        logprobs=np.nan_to_num(logprobs).tolist(),
        temperatures=[sample.temperature] * size,
        env_name=ENVIRONMENT,
        rl_weights=None if rl else [0.0] * size,
        ce_weights=None if rl else sample.ce.tolist(),
        advantages=advantages if rl else None,
    )


def begin(file: BinaryIO, spec: Spec) -> PrimeRl:
    """See `formats`."""
    return PrimeRl(file, spec)
