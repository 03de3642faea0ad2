"""What a model of ours read and wrote, token by token: what training needs and nothing can rebuild.

Kept beside a reply's text, for replies of models whose tokens we see; no rule looks at it. Numbers
are packed: token ids as unsigned 32-bit integers, log-probabilities as 32-bit floats, both
little-endian.
"""

import struct
from collections.abc import Sequence

import msgspec

from protocol.actions import BlobRef


class Arrays(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The numbers of one reply, packed."""

    prompt: bytes = b""
    """Ids of the prompt's tokens, from where the ones that it goes on from end."""
    output: bytes = b""
    """Ids of the tokens that were sampled, the one that ended the reply included."""
    logprobs: bytes = b""
    """For each of those its log-probability (natural) under the distribution that it was drawn
    from: after temperature, ``top_k`` and ``top_p``, renormalised; 0 for each at temperature 0."""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.prompt) + len(self.output) + len(self.logprobs)


class Sampled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reply's tokens, how they were drawn, and what drew them."""

    after: int = 0
    """The question, by its turn, whose whole prompt and sampled tokens this prompt begins with;
    0 where ``prompt`` is whole."""
    arrays: Arrays | None = None
    """None where ``blob`` names them."""
    blob: BlobRef | None = None
    """Where the encoded arrays are when they are large."""
    temperature: float = 1.0
    """What the logits were divided by; 0 took the likeliest token each time."""
    top_p: float = 1.0
    top_k: int = 0
    """0 for all."""
    max_tokens: int = 0
    """The most that could be sampled."""
    seed: int = 0
    """Of the random numbers: one for each token, whatever else was in the batch."""
    version: str = ""
    """The published version of the model."""
    weights: str = ""
    """Hash of its weights."""
    tokenizer: str = ""
    """Hash of its tokenizer."""
    template: str = ""
    """Hash of its chat template and the values that it was given."""


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as they are recorded."""
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(data: bytes) -> tuple[int, ...]:
    """Token ids; bytes beyond the last whole one are none."""
    return struct.unpack_from(f"<{len(data) // 4}I", data)


def pack_floats(values: Sequence[float]) -> bytes:
    """Log-probabilities as they are recorded."""
    return struct.pack(f"<{len(values)}f", *values)


def unpack_floats(data: bytes) -> tuple[float, ...]:
    """Log-probabilities; bytes beyond the last whole one are none."""
    return struct.unpack_from(f"<{len(data) // 4}f", data)
