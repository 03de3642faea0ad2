"""How a model is hosted: what its batches hold, and how its numbers are kept."""

from importlib.util import find_spec
from typing import Annotated, Final, Literal

import msgspec

EXTRA: Final = "pip install 'podium[local]'"

MODULES: Final = ("torch", "transformers", "safetensors", "tokenizers", "jinja2")
"""What whoever hosts a model imports."""

MAX_ROWS: Final = 32
"""Replies that are sampled at a time: a step of 32 takes little longer than one of 1."""

MAX_BATCH_TOKENS: Final = 131_072
"""Tokens of a batch, padding included: rows times the longest. Keys and values of each are kept."""


MAX_VERSIONS: Final = 3
"""Versions of a model that are kept loaded: the current one, a canary, and the one before, on which
runs have begun."""


class Batching(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What whoever hosts a model is told."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=4_096)] = MAX_ROWS
    """The most replies that are sampled at a time."""
    tokens: Annotated[int, msgspec.Meta(ge=1, le=10**9)] = MAX_BATCH_TOKENS
    """The most tokens, padding and what may yet be sampled included, whose keys and values are
    kept."""
    context: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    """The most tokens of one prompt and its reply; 0 for what the model was made for."""
    versions: Annotated[int, msgspec.Meta(ge=1, le=64)] = MAX_VERSIONS
    """The most versions that are kept loaded; the current one and a canary are in any case."""
    device: str = ""
    """Such as ``cuda:1`` or ``cpu``; empty for a GPU if there is one."""
    threads: Annotated[int, msgspec.Meta(ge=0, le=4_096)] = 0
    """CPU threads of one step; 0 for what the process has: one, where Ray started it."""
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    """Of weights and activations; empty for float32 on a CPU, and what was saved on a GPU.
    Log-probabilities are float32 in any case."""


DEFAULT: Final = Batching()
"""For a small model on whatever machine."""


def missing() -> str:
    """What of the extra is not installed here; "" if it is whole. Imports nothing."""
    return ", ".join(module for module in MODULES if find_spec(module) is None)
