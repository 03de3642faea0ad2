"""A model to be trained, from a folder: any causal model of Transformers, with its tokenizer.

Only what is in the folder is read: no code of the model's author runs, nothing is fetched, and
weights are safetensors.
"""

import copy
import importlib
import warnings
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidData, NotFound, Usage
from protocol.limits import MAX_DETAIL_CHARS
from trainer.learner.options import EXTRA, Lora

MODULES: Final = ("numpy", "torch", "transformers", "safetensors")
"""What a learner imports."""

ADAPTER: Final = "default"
"""The name of the adapter that is trained."""


def need(*modules: str) -> None:
    """Import what is needed. Raises `NotFound` where it is not installed."""
    for module in modules or MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise NotFound(
                f"{module} is needed, and can't be imported: {error}", hint=EXTRA
            ) from None


def placed(device: str) -> str:
    """Where a model goes for which a device is named: a GPU if there is one where it is empty.

    Raises:
        Usage: There is no such device; the message says why, and which there are.
    """
    import torch

    found = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=found).item()
    except Exception as error:  # each kind of device has its own
        here = ("cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count())))
        raise Usage(
            f"there is no device {found!r} here: {_said(error)}", hint=f"one of: {', '.join(here)}"
        ) from None
    return found


def read(folder: Path, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder; weights in float32, ready to be trained.

    Args:
        folder: What `save_pretrained` wrote.
        device: See `placed`.

    Raises:
        Usage: There is no such device.
        NotFound: There is no such folder, or the extra is not installed.
        InvalidData: They can't be loaded, or weights are missing; the message says why.
    """
    need()
    device = placed(device)
    if not (folder / "config.json").is_file():
        raise NotFound(
            f"{folder} is no folder of a model: it has no config.json",
            hint="name the folder that save_pretrained has written model and tokenizer to",
        )
    try:
        tokenizer, model = _read(folder)
    except Exception as error:  # whatever a foreign library makes of foreign files
        raise InvalidData(
            f"the model in {folder} can't be loaded: {_said(error)}",
            hint="save it with save_pretrained",
        ) from None
    return model.to(device), tokenizer


def _said(error: Exception) -> str:
    """What a foreign library says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_DETAIL_CHARS]


def _read(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # ours shows what takes long
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    model, told = AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
    )
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if wrong := sorted(map(str, told.get(what) or ())):
            raise ValueError(f"{len(wrong)} {what.replace('_', ' ')}, such as {wrong[0]}")
    return tokenizer, model


def adapted(model: Any, lora: Lora, seed: int) -> Any:
    """The model with an adapter of ``peft``, which alone is trained.

    Raises:
        NotFound: ``peft`` is not installed.
        InvalidData: The model has no modules of these names.
    """
    need("peft")
    import torch
    from peft import LoraConfig, get_peft_model

    named = lora.modules[0] if len(lora.modules) == 1 else list(lora.modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=named if named == "all-linear" else list(lora.modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=_devices(model)), warnings.catch_warnings():
        torch.manual_seed(seed)
        # It asks models for what their library has another name for.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return get_peft_model(model, config, adapter_name=ADAPTER)
        except ValueError as error:
            raise InvalidData(
                f"the model takes no adapter for {', '.join(lora.modules)}: {error}",
                hint="name modules as in model.named_modules()",
            ) from None


def recomputing(model: Any) -> None:
    """Have a model compute its activations again for the gradient."""
    older = "gradient_checkpointing_enable"  # what `activation_…` was called up to 5.23
    enable = getattr(model, "activation_checkpointing_enable", None) or getattr(model, older)
    enable({"use_reentrant": False})


def _devices(model: Any) -> list[Any]:
    return [model.device] if model.device.type == "cuda" else []


def merged(model: Any) -> Any:
    """A copy of a model with an adapter, in which the adapter is part of the weights."""
    return copy.deepcopy(model).merge_and_unload()
