"""The learner on a GPU: is it right there, how fast is it, what does it keep in memory.

    python -m benchmarks.learner_gpu                   about a minute on one large GPU
    python -m benchmarks.learner_gpu --size tiny       anywhere, a CPU included

Needs torch, transformers, numpy, peft and msgspec, and nothing else; models are made here. The last
line is one JSON object: ``{"device", "checks": {name: {"value", "most", "holds"}}, "rates": {name:
{"tokens_per_s", "step_ms", "memory_gib", "filled"}}}``. Exit code 1 if a check fails.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from actors.models.decoder import Decoder, Slots
from trainer.learner.example import Example
from trainer.learner.learner import Learner
from trainer.learner.options import Lora, Objective, Options, Steps


class Size(NamedTuple):
    """A model and its batch."""

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head: int
    vocabulary: int
    examples: int
    """Of a batch."""
    median: int
    """Tokens of an example."""
    pass_tokens: int


SIZES: Final = {
    "tiny": Size(64, 128, 2, 4, 2, 16, 512, 8, 40, 400),
    # The conductor that the package ships is of this kind.
    "small": Size(128, 384, 3, 4, 2, 32, 1_536, 512, 122, 65_536),
    # Qwen3-0.6B.
    "0.6b": Size(1_024, 3_072, 28, 16, 8, 128, 151_936, 64, 400, 16_384),
}

LONGEST: Final = 8
"""Times the median that the longest example may have."""

MOST: Final = {
    "float32, here and on the CPU: nats": 1e-3,
    "packed and padded: share of the gradient's norm": 1e-4,
    "bfloat16 and float32: nats a token, mean": 1e-2,
    "bfloat16 and float32: nats a token, most": 0.2,
    "bfloat16 and float32: share of the gradient's norm": 0.05,
    "merged and with its adapter: nats": 1e-3,
    "loss after 30 steps over that before": 0.7,
    "sampler and model, after prompts of many lengths: logits": 1e-3,
}
"""What each check may come to."""


def made(size: Size, device: str) -> Any:
    """A model without any training, float32."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        head_dim=size.head,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    with torch.device(device):
        return Qwen3ForCausalLM(config)


def batch(size: Size, *, pg: bool, seed: int = 0) -> list[Example]:
    """Ragged examples; the last fifth of each is trained."""
    drawn = np.random.default_rng(seed)
    lengths = np.exp(drawn.normal(np.log(size.median), 0.5, size.examples))
    examples = []
    for number, length in enumerate(lengths.clip(8, LONGEST * size.median).astype(int)):
        weights, none = np.zeros(length, np.float32), np.zeros(length, np.float32)
        weights[-max(2, length // 5) :] = 1
        known = weights * np.float32(-np.log(size.vocabulary))
        advantages = weights * np.float32(drawn.normal())
        ids = drawn.integers(0, size.vocabulary, length).astype(np.int32)
        ce, gradient = (none, weights) if pg else (weights, none)
        run = f"run-{number}"
        examples.append(Example(ids, ce, gradient, advantages, known, none, rollout=run))
    return examples


def learner(size: Size, device: str, model: Any = None, **given: Any) -> Learner:
    """A learner of such a model."""
    told = {"steps": Steps(rate=1e-3), "tokens": size.pass_tokens, **given}
    options = Options(objective=Objective(per="token"), **told)
    return Learner(made(size, device) if model is None else model, None, options)


def known(of: Learner, examples: list[Example]) -> Any:
    """Log-probabilities of all trained tokens."""
    return np.concatenate([each[~np.isnan(each)] for each in of.known(examples)])


def checks(size: Size, device: str) -> dict[str, float]:
    """What `MOST` bounds."""
    some = batch(size, pg=True)[:6]
    exact, rough = (learner(size, device, autocast=how) for how in ("off", "bfloat16"))
    gap = np.abs(known(exact, some) - known(rough, some))
    norms = [each.step(some).values["grad_norm"] for each in (exact, rough)]
    padded = learner(size, device, autocast="off", packing="padded")
    beside = padded.step(some).values["grad_norm"]
    found = {
        "packed and padded: share of the gradient's norm": abs(beside / norms[0] - 1),
        "bfloat16 and float32: nats a token, mean": float(gap.mean()),
        "bfloat16 and float32: nats a token, most": float(gap.max()),
        "bfloat16 and float32: share of the gradient's norm": abs(norms[1] / norms[0] - 1),
    }
    shown = batch(size, pg=False)[:4]
    first = rough.evaluate(shown)["nll"]
    for _ in range(30):
        rough.step(shown)
    found["loss after 30 steps over that before"] = rough.evaluate(shown)["nll"] / first
    del exact, rough, padded
    little = SIZES["tiny"]
    few = batch(little, pg=False)
    there = made(little, "cpu")
    here = made(little, "cpu")
    here.load_state_dict(there.state_dict())
    pair = [
        learner(little, "", model.to(where), autocast="off")
        for model, where in ((there, "cpu"), (here, device))
    ]
    far = np.abs(known(pair[0], few) - known(pair[1], few))
    found["float32, here and on the CPU: nats"] = float(far.max())
    adapted = learner(little, device, lora=Lora(rank=4), autocast="off")
    for _ in range(5):
        adapted.step(few)
    from trainer.learner.loading import merged

    whole = learner(little, device, merged(adapted.model), autocast="off")
    found["merged and with its adapter: nats"] = float(
        np.abs(known(adapted, few) - known(whole, few)).max()
    )
    found["sampler and model, after prompts of many lengths: logits"] = sampled(device)
    return found


def sampled(device: str, tokens: int = 40) -> float:
    """How far the sampler's logits are from the model's own, at most, as rows come and go."""
    little = SIZES["tiny"]
    model = made(little, device).eval()
    drawn = np.random.default_rng(0)

    def some(length: int) -> list[int]:
        return [int(each) for each in drawn.integers(0, little.vocabulary, length)]

    rows, far = [some(length) for length in (3, 70, 11, 25)], 0.0
    with torch.inference_mode():
        slots = Slots(Decoder(model))
        logits = slots.join(rows)
        for number in range(tokens):
            for row, said in zip(rows, logits, strict=True):
                own = model(input_ids=torch.tensor([row], device=device)).logits[0, -1]
                far = max(far, float((own - said).abs().max()))
            more = some(len(rows))
            rows = [[*row, token] for row, token in zip(rows, more, strict=True)]
            logits = slots.read(more)
            if number % 10 == 9:  # one ends, and a long one begins
                kept = [at for at in range(len(rows)) if at != 1]
                slots.keep(kept)
                fresh = some(80 + number)
                rows = [*(rows[at] for at in kept), fresh]
                logits = torch.cat([logits[kept], slots.join([fresh])])
    return far


def rate(size: Size, device: str, count: int, *, pg: bool, **given: Any) -> dict[str, float]:
    """Tokens a second of so many steps, the median, and the most memory that they took."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    mine, examples = learner(size, device, **given), batch(size, pg=pg)
    took, values = [], {}
    for _ in range(count + 2):
        began = time.perf_counter()
        values = mine.step(examples).values
        if on_gpu:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    median = statistics.median(took[2:])
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    return {
        "tokens_per_s": round(values["tokens"] / median),
        "step_ms": round(median * 1e3, 1),
        "memory_gib": round(memory, 2),
        "filled": round(values["filled"], 3),
    }


WAYS: Final[dict[str, dict[str, Any]]] = {
    "imitation, packed": {"pg": False},
    "imitation, packed by the model": {"pg": False, "packing": "model"},
    "imitation, padded and sorted": {"pg": False, "packing": "padded"},
    "reinforcement, packed": {"pg": True},
    "imitation, packed, muon": {"pg": False, "steps": Steps(kind="muon")},
    "imitation, packed, adapter": {"pg": False, "lora": Lora(rank=16)},
    "imitation, packed, recomputed": {"pg": False, "recompute": True},
}


def main() -> int:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*WAYS, "checks"], default=[*WAYS, "checks"])
    asked = parser.parse_args()
    size = SIZES[asked.size]
    on_gpu = asked.device.startswith("cuda")
    out: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": str(torch.__version__),
        "size": asked.size,
        "mode": learner(SIZES["tiny"], asked.device).network.mode,
    }
    if "checks" in asked.only:
        values = checks(size, asked.device)
        out["checks"] = {
            name: {"value": values[name], "most": most, "holds": values[name] <= most}
            for name, most in MOST.items()
        }
    out["rates"] = {}
    for name, way in WAYS.items():
        if name in asked.only:
            print(name, file=sys.stderr, flush=True)
            out["rates"][name] = rate(size, asked.device, asked.steps, **way)
    print(json.dumps(out))
    return 0 if all(each["holds"] for each in out.get("checks", {}).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
