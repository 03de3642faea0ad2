"""A training in a process of its own, for tests that kill it.

    python -m tests.trained FOLDER STEPS EVERY

The model is in FOLDER/model; checkpoints and metrics are beside it. After each
step its number is printed, and a line is waited for.
"""

import sys
from pathlib import Path
from typing import Final

import torch

from tests.learners import TOKEN, ragged
from trainer.learner.fit import fit
from trainer.learner.learner import Learner, Stepped
from trainer.learner.options import Lora, Options, Steps
from trainer.learner.order import Shuffled
from trainer.learner.sinks import FileSink

OPTIONS: Final = Options(
    objective=TOKEN,
    steps=Steps(kind="muon", ema=0.9, schedule="cosine", total=60, warmup=3),
    tokens=60,
    seed=5,
)

ADAPTED: Final = Options(objective=TOKEN, lora=Lora(rank=2, dropout=0.3), tokens=60, seed=5)
"""With dropout: what is random has to come again, too."""


def train(
    folder: Path, steps: int, every: int, options: Options = OPTIONS, *, asks: bool = False
) -> Learner:
    """Train, going on from what is there."""
    torch.set_num_threads(1)
    learner = Learner.open(folder / "model", options, device="cpu")

    def watch(stepped: Stepped) -> None:
        sys.stdout.write(f"{stepped.step}\n")
        sys.stdout.flush()
        sys.stdin.readline()

    examples = ragged((9, 14, 6, 20, 11)) + ragged((8, 13, 7), pg=True)
    fit(
        learner,
        Shuffled(examples, size=3, seed=5),
        steps,
        checkpoints=folder / "checkpoints",
        every=every,
        sinks=[FileSink(folder / "metrics.jsonl", "rl")],
        watch=watch if asks else None,
    )
    return learner


if __name__ == "__main__":
    train(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        ADAPTED if sys.argv[4:] == ["adapted"] else OPTIONS,
        asks=True,
    )
