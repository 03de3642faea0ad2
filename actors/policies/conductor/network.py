"""A small model's arithmetic, with NumPy alone: a Qwen3-style decoder, read from safetensors.

The base install has no torch, and importing it takes longer than a whole run of the shipped pool.
A model of a few million parameters needs none: a decision is some two hundred tokens read and some
twenty written. Logits are the library's to 10⁻⁴, which a test holds.
"""

import json
import math
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InvalidData

ARCHITECTURE: Final = "Qwen3ForCausalLM"
"""What is read here, as the library calls it."""

Floats = NDArray[np.float32]

_TYPES: Final = {"F16": "<f2", "F32": "<f4"}
"""Of weights, as safetensors names them and NumPy does."""

_LENGTH_BYTES: Final = 8
"""What stands first in a file of safetensors: the length of its header."""


class Written(NamedTuple):
    """What a model says."""

    ids: tuple[int, ...]
    """Without the token that ended it."""
    logprobs: tuple[float, ...]
    """Natural, one for each token, that which ended it included."""
    ended: bool
    """Whether it ended its reply; else the room was used up."""


def tensors(path: Path) -> dict[str, Floats]:
    """All tensors of a file of safetensors, as float32.

    Raises:
        InvalidData: It is none, or holds other types than float16 and float32.
    """
    try:
        data = path.read_bytes()
        begin = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        header = json.loads(data[_LENGTH_BYTES:begin])
        header.pop("__metadata__", None)
        return {
            name: np.frombuffer(
                data,
                _TYPES[said["dtype"]],
                math.prod(said["shape"]),
                begin + said["data_offsets"][0],
            )
            .astype(np.float32)
            .reshape(said["shape"])
            for name, said in header.items()
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidData(
            f"the weights in {path} can't be read: {type(error).__name__}: {error}",
            hint="they have to be safetensors of float16 or float32",
        ) from None


class Network:
    """The decoder in a folder of Transformers.

    Args:
        folder: With ``config.json`` and ``model.safetensors``.

    Raises:
        InvalidData: It is of another architecture, or its weights can't be read.
    """

    def __init__(self, folder: Path) -> None:
        try:
            said: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
            if said["architectures"] != [ARCHITECTURE] or not said["tie_word_embeddings"]:
                raise ValueError(f"only {ARCHITECTURE} with tied embeddings is read here")
            self.context = int(said["max_position_embeddings"])
            self.end = int(said["eos_token_id"])
            self._layers = int(said["num_hidden_layers"])
            self._heads = int(said["num_attention_heads"])
            self._shared = self._heads // int(said["num_key_value_heads"])
            self._width = int(said["head_dim"])
            self._small = np.float32(said["rms_norm_eps"])
            theta = float(said["rope_parameters"]["rope_theta"])
            known = tensors(folder / "model.safetensors")
            self._embeddings = known["model.embed_tokens.weight"]
            self._norm = known["model.norm.weight"]
            self._weights = [_layer(known, index) for index in range(self._layers)]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InvalidData(
                f"the model in {folder} can't be read: {type(error).__name__}: {error}",
                hint="it has to be a folder as `make conductor` writes it",
            ) from None
        half = np.arange(0, self._width, 2, dtype=np.float32) / self._width
        self._turns = (1.0 / theta**half).astype(np.float32)

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        there = sum(each.size for layer in self._weights for each in layer.values())
        return int(there + self._embeddings.size + self._norm.size)

    def write(self, prompt: list[int], most: int) -> Written:
        """What it holds most likely to follow a prompt.

        Args:
            prompt: Ids of its tokens, at least one.
            most: Tokens of the reply, at most; fewer where the context has no room.
        """
        ids: list[int] = []
        logprobs: list[float] = []
        room = min(most, self.context - len(prompt))
        if room <= 0:
            return Written((), (), False)
        kept: Kept = [None] * self._layers
        last = self.logits(prompt, kept)[-1]
        for _ in range(room):
            best = int(last.argmax())
            logprobs.append(float(last[best] - _log_sum(last)))
            if best == self.end:
                return Written(tuple(ids), tuple(logprobs), True)
            ids.append(best)
            last = self.logits([best], kept)[-1]
        return Written(tuple(ids), tuple(logprobs), False)

    def logits(self, ids: list[int], kept: "Kept | None" = None) -> Floats:
        """Logits after each of some tokens, ``[tokens, vocabulary]``.

        Args:
            ids: The tokens.
            kept: Keys and values of those before them, by layer; those of these are added.
        """
        kept = [None] * self._layers if kept is None else kept
        before = 0 if kept[0] is None else kept[0][0].shape[1]
        positions = np.arange(before, before + len(ids), dtype=np.float32)
        angles = np.outer(positions, self._turns)
        turned = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        x: Floats = self._embeddings[ids]
        for index, layer in enumerate(self._weights):
            seen = _normed(x, layer["input_layernorm"], self._small)
            x = x + self._attended(seen, layer, turned, kept, index)
            seen = _normed(x, layer["post_attention_layernorm"], self._small)
            wide = _opened(seen @ layer["mlp.gate_proj"].T) * (seen @ layer["mlp.up_proj"].T)
            x = np.add(x, wide @ layer["mlp.down_proj"].T, dtype=np.float32)
        logits: Floats = _normed(x, self._norm, self._small) @ self._embeddings.T
        return logits

    def _attended(
        self,
        x: Floats,
        layer: dict[str, Floats],
        turned: tuple[Floats, Floats],
        kept: "Kept",
        index: int,
    ) -> Floats:
        """Attention of each of some tokens to itself and all before it."""
        q = self._by_head(x @ layer["self_attn.q_proj"].T, layer["self_attn.q_norm"])
        k = self._by_head(x @ layer["self_attn.k_proj"].T, layer["self_attn.k_norm"])
        v = self._by_head(x @ layer["self_attn.v_proj"].T)
        q, k = _rotated(q, turned), _rotated(k, turned)
        if (there := kept[index]) is not None:
            k, v = np.concatenate((there[0], k), 1), np.concatenate((there[1], v), 1)
        kept[index] = (k, v)
        k, v = np.repeat(k, self._shared, 0), np.repeat(v, self._shared, 0)
        scores = q @ k.swapaxes(1, 2) / np.float32(math.sqrt(self._width))
        tokens, every = scores.shape[1:]
        scores[:, np.arange(every) > np.arange(every - tokens, every)[:, None]] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        out: Floats = mixed.swapaxes(0, 1).reshape(tokens, -1) @ layer["self_attn.o_proj"].T
        return out

    def _by_head(self, x: Floats, norm: Floats | None = None) -> Floats:
        """``[tokens, heads * width]`` as ``[heads, tokens, width]``."""
        heads = x.reshape(len(x), -1, self._width)
        if norm is not None:
            heads = _normed(heads, norm, self._small)
        return heads.swapaxes(0, 1)


Kept = list[tuple[Floats, Floats] | None]
"""Keys and values of what was read, by layer."""


def _layer(known: dict[str, Floats], index: int) -> dict[str, Floats]:
    head = f"model.layers.{index}."
    found = {
        name.removeprefix(head).removesuffix(".weight"): each
        for name, each in known.items()
        if name.startswith(head)
    }
    if found.keys() != _PARTS:
        raise ValueError(f"layer {index} has {', '.join(sorted(found))}")
    return found


_PARTS: Final = frozenset(
    {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"}
    | {f"self_attn.{each}_proj" for each in "qkvo"}
    | {f"mlp.{each}_proj" for each in ("gate", "up", "down")}
)
"""What a layer consists of."""


def _normed(x: Floats, weight: Floats, small: np.float32) -> Floats:
    mean = np.square(x).mean(-1, keepdims=True, dtype=np.float32)
    normed: Floats = x / np.sqrt(mean + small) * weight
    return normed


def _opened(x: Floats) -> Floats:
    """SiLU: a gate."""
    with np.errstate(over="ignore"):  # far below zero it is shut
        opened: Floats = x / (1 + np.exp(-x))
    return opened


def _rotated(x: Floats, turned: tuple[Floats, Floats]) -> Floats:
    cos, sin = turned
    left, right = np.split(x, 2, -1)
    return np.concatenate((left * cos - right * sin, right * cos + left * sin), -1)


def _log_sum(x: Floats) -> float:
    top = float(x.max())
    return top + math.log(float(np.exp(x - top).sum(dtype=np.float64)))
