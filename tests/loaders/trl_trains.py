"""TRL takes a step on each of its shapes: ``MODEL FOLDER``, a Parquet file of each in FOLDER."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

QUIET: dict[str, Any] = {
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "max_length": None,
    "max_steps": 1,
    "logging_steps": 1,
    "per_device_train_batch_size": 2,
}


def read(folder: Path, name: str) -> Any:
    """A data set's file, as `datasets` reads it."""
    cache = tempfile.mkdtemp(dir=folder)
    return load_dataset(
        "parquet", data_files=str(folder / f"{name}.parquet"), split="train", cache_dir=cache
    )


def main(model: str, folder: Path) -> dict[str, Any]:
    """What came of each."""
    torch.set_num_threads(1)
    words = AutoTokenizer.from_pretrained(model)
    found: dict[str, Any] = {}
    for name in ("tokens", "prompt", "chat"):
        data = read(folder, name)
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model),
            processing_class=words,
            args=SFTConfig(output_dir=str(folder / f"out-{name}"), **QUIET),
            train_dataset=data,
        )
        batch = trainer.data_collator([trainer.train_dataset[0]])
        trained = batch["labels"][0] >= 0
        trainer.train()
        found[name] = {
            "rows": len(data),
            "said": words.decode(batch["input_ids"][0][trained]),
            "loss": trainer.state.log_history[0]["loss"],
        }
    prompts = read(folder, "prompt")
    found["calls"] = [
        call["function"]["arguments"]
        for row in prompts
        for message in [*row["prompt"], *row["completion"]]
        for call in message.get("tool_calls") or ()
    ]
    pairs = read(folder, "preference")
    dpo = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        processing_class=words,
        args=DPOConfig(output_dir=str(folder / "out-dpo"), **QUIET),
        train_dataset=pairs,
    )
    dpo.train()
    found["preference"] = {"rows": len(pairs), "loss": dpo.state.log_history[0]["loss"]}
    canonical = read(folder, "canonical")
    found["canonical"] = {"rows": len(canonical), "ids": len(canonical[0]["input_ids"])}
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
