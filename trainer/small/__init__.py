"""A small model from scratch, that speaks the dialect of slots: vocabulary, template, weights.

::

    words = train_tokenizer(texts)             1,536 tokens: pointers, statuses, bytes, merges
    model = make(Shape(), words, seed=0)       a Qwen3-style decoder, 0.8M parameters by default
    save(folder, model, words, {"data": …})    a folder of Transformers, for `local:FOLDER`

Nothing here is imported until it is asked for: it takes the extra ``train``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from trainer.small.model import Shape, make, parameters, save
    from trainer.small.vocabulary import (
        CONTROL,
        END,
        TEMPLATE,
        pointers,
        train_tokenizer,
    )

__all__ = [
    "CARD",
    "CONTROL",
    "END",
    "TEMPLATE",
    "Shape",
    "make",
    "parameters",
    "pointers",
    "save",
    "train_tokenizer",
]

CARD: Final = "card.json"
"""What is said of a model, in its folder."""

_MODEL = frozenset({"Shape", "make", "parameters", "save"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "model" if name in _MODEL else "vocabulary"
    try:
        return getattr(import_module(f"trainer.small.{home}"), name)
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'podium[train]'") from error
