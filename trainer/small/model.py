"""The weights of a small model: a Qwen3-style decoder of any size, from a seed.

The architecture is the library's own (``Qwen3ForCausalLM``), so whatever loads, hosts or trains a
Transformers folder takes it. The default has 3 layers of width 128 and 0.8M parameters, which is
what two cores train in minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from trainer.small import CARD


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a model is."""

    layers: int = 3
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    """Heads of keys and values, each shared by as many of ``heads``."""
    feed_forward: int = 384
    context: int = 2_048
    """Tokens of a prompt and its reply."""
    theta: float = 1_000_000.0
    """Base of the rotary positions: Qwen3's own."""
    spread: float = 0.02
    """Standard deviation of the weights before training."""

    @property
    def head_width(self) -> int:
        """Of one head."""
        return self.width // self.heads


def make(shape: Shape, words: Any, seed: int = 0) -> Any:
    """An untrained model. The same seed gives the same weights, whatever was drawn before.

    Args:
        shape: How large it is.
        words: Its tokenizer, as `train_tokenizer` gives it.
        seed: Of the weights.

    Raises:
        ValueError: A size is none, or the heads don't divide the width, or each other.
    """
    counted = ("layers", "width", "heads", "kv_heads", "feed_forward", "context")
    if wrong := [name for name in counted if getattr(shape, name) < 1]:
        raise ValueError(f"{', '.join(wrong)} has to be at least 1")
    if shape.width % shape.heads or shape.heads % shape.kv_heads:
        raise ValueError(f"{shape}: width, heads and kv_heads have to divide each other, in order")
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.theta},
        initializer_range=shape.spread,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def parameters(model: Any) -> int:
    """How many a model has, each once."""
    return sum(each.numel() for each in model.parameters())


def save(folder: Path, model: Any, words: Any, card: Mapping[str, Any] | None = None) -> Path:
    """Write the model as a Transformers folder, with what is said of it in `CARD`.

    Args:
        folder: Where it goes; made, if it isn't there.
        model: The model.
        words: Its tokenizer.
        card: What is said of it besides: data, steps, scores, limits. JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    config = model.config
    facts = {
        "architecture": type(model).__name__,
        "parameters": parameters(model),
        "vocabulary": len(words),
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "context": config.max_position_embeddings,
        "dialect": "slots",
        **(card or {}),
    }
    data = msgspec.json.format(msgspec.json.encode(facts, order="sorted"), indent=1)
    (folder / CARD).write_bytes(data + b"\n")
    return folder
