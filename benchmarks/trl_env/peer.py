"""TRL on a CPU in float32: steps of its `SFTTrainer`, timed, and one of its `GRPOTrainer`.

    python -m benchmarks.trl_env.peer

A line in is one object, a line out another:

    {"do": "sft", "folder", "ids": [[…]], "labels": [[…]], "steps", "threads"}
        → {"step_s": […], "loss": …}                  each step is the whole batch
    {"do": "grpo", "folder", "prompts": [[…]], "completions": [[…]], "rewards": […],
     "generations", "loss_type", "longest"}
        → {"grad_norm": …}                            of one step

Neither saves, logs to anybody, evaluates or recomputes activations. What is timed begins when the
trainer has its batch and ends when the weights have moved.
"""

import json
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from benchmarks.serving import claim_stdout

QUIET: dict[str, Any] = {
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "seed": 0,
}


class Timer(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Seconds of each step."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """The batch is there."""
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The weights have moved."""
        self.took.append(time.perf_counter() - self._began)


def opened(folder: str) -> tuple[Any, Any]:
    """Model and tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def sft(asked: dict[str, Any]) -> dict[str, Any]:
    """Steps of the same batch, an epoch each."""
    torch.set_num_threads(asked["threads"])
    model, tokenizer = opened(asked["folder"])
    timer = Timer()
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            args=SFTConfig(
                output_dir=out,
                per_device_train_batch_size=len(asked["ids"]),
                num_train_epochs=asked["steps"],
                learning_rate=1e-3,
                lr_scheduler_type="constant",
                max_length=None,
                logging_strategy="steps",
                logging_steps=asked["steps"],
                logging_first_step=True,
                **QUIET,
            ),
            train_dataset=Dataset.from_dict({"input_ids": asked["ids"], "labels": asked["labels"]}),
            callbacks=[timer],
        )
        trainer.train()
        first = next(each["loss"] for each in trainer.state.log_history if "loss" in each)
    return {"step_s": timer.took, "loss": first}


def grpo(asked: dict[str, Any]) -> dict[str, Any]:
    """One step on rollouts that are given."""
    torch.set_num_threads(1)
    model, tokenizer = opened(asked["folder"])
    rewards = dict(zip(map(tuple, asked["completions"]), asked["rewards"], strict=True))

    def given(prompts: list[str], _: Any) -> dict[str, Any]:
        completions = asked["completions"][: len(prompts)]
        return {
            "prompt_ids": asked["prompts"],
            "completion_ids": completions,
            "logprobs": [[0.0] * len(each) for each in completions],
        }

    def paid(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [rewards[tuple(each)] for each in completion_ids]

    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=paid,
            rollout_func=given,
            args=GRPOConfig(
                output_dir=out,
                per_device_train_batch_size=len(asked["prompts"]),
                num_generations=asked["generations"],
                max_completion_length=asked["longest"],
                max_steps=1,
                logging_steps=1,
                beta=0.0,
                loss_type=asked["loss_type"],
                shuffle_dataset=False,
                **QUIET,
            ),
            train_dataset=Dataset.from_dict(
                {"prompt": [str(each) for each in range(len(asked["prompts"]))]}
            ),
        )
        trainer.train()
        norm = next(each["grad_norm"] for each in trainer.state.log_history if "grad_norm" in each)
    return {"grad_norm": float(norm)}


def main() -> None:
    """Answer the parent until it closes the input."""
    pipe = claim_stdout()
    disable_progress_bar()
    print(json.dumps({"ready": True}), file=pipe, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"sft": sft, "grpo": grpo}[asked["do"]](asked)
        except Exception as error:  # whatever failed is for the parent to say
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=pipe, flush=True)


if __name__ == "__main__":
    main()
