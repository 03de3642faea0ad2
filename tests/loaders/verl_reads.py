"""verl's own data set classes read its two shapes: ``TOKENIZER SFT.parquet RL.parquet``."""

import json
import sys
from typing import Any

import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset


def main(tokenizer: str, sft: str, rl: str) -> dict[str, Any]:
    """What they are to it."""
    torch.set_num_threads(1)
    words = AutoTokenizer.from_pretrained(tokenizer)
    options = {"max_length": 8_192, "truncation": "error", "pad_mode": "no_padding"}
    talks = MultiTurnSFTDataset(
        parquet_files=sft, tokenizer=words, config=OmegaConf.create(options)
    )
    said = []
    for place in range(len(talks)):
        row = talks[place]
        trained = row["loss_mask"] > 0
        said.append(words.decode(row["input_ids"][trained]))
    asked = OmegaConf.create(
        {"max_prompt_length": 8_192, "filter_overlong_prompts_workers": 1, "cache_dir": rl + ".d"}
    )
    prompts = RLHFDataset(data_files=rl, tokenizer=words, config=asked)
    first = prompts[0]
    return {
        "sft": said,
        "rl": len(prompts),
        "prompt": [each["role"] for each in first["raw_prompt"]],
        "ground_truth": first["reward_model"]["ground_truth"],
        "rollouts": len(first["rollouts"]),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
