"""Sampling from small models: tokens a second beside Transformers' ``generate``, in turns.

The same untrained model, the same prompts of random tokens, each as long and with as long a reply
as a draw says, 32 rows at a time. ``generate`` is given a batch of 32, padded on the left, and
samples as long as the longest reply of it wants; only what was asked for counts. Nothing ends early
on either side. Podium's batch takes a row in when one has ended, which is part of what it does.

*Turns* are conversations: each prompt is the one before, its reply, and some new tokens, as a
conductor's are. They are sampled with and without the keys and values of earlier turns.
"""

import math
import pathlib
import random
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks import contender, report

ROWS: Final = 32
"""At a time."""

REPLIES: Final = 96
"""Of one measurement: three batches."""

PROMPT: Final = (60, 200)
"""Tokens, from and to, as in the dialect of slots."""

REPLY: Final = (8, 64)
"""Tokens."""

RUNS: Final = 32
TURNS: Final = 4
"""Of a conversation."""

TOLD: Final = 24
"""Tokens that come new with each turn."""

TARGET: Final = report.at_least(2)
"""Times as many tokens as ``generate``."""

AGAIN: Final = report.at_least(1.2)
"""Times as fast where earlier turns are not read again."""

THREADS: Final = (1, 2)


class Kind(NamedTuple):
    """A model's size."""

    name: str
    layers: int
    width: int
    heads: int
    feed_forward: int


KINDS: Final = (
    Kind("tiny, 0.8M", 3, 128, 4, 384),
    Kind("small, 5M", 6, 256, 8, 768),
    Kind("larger, 25M", 8, 512, 8, 1_536),
)


def made(kind: Kind) -> Any:
    """A model that answers, in memory; no token ends its replies."""
    from actors.models.loading import living
    from trainer.small import Shape, make, train_tokenizer

    words = train_tokenizer(["the quick brown fox jumps over the lazy dog " * 4], 400)
    shape = Shape(
        layers=kind.layers,
        width=kind.width,
        heads=kind.heads,
        kv_heads=kind.heads // 2,
        feed_forward=kind.feed_forward,
    )
    loaded = living(make(shape, words), words)
    loaded.ends = frozenset()
    return loaded


Work = list[tuple[list[int], int]]
"""Prompts, and how many tokens each wants."""


def drawn(seed: int, vocabulary: int) -> Work:
    """Prompts and lengths of one measurement."""
    chance = random.Random(seed)
    return [
        (
            [chance.randrange(10, vocabulary) for _ in range(chance.randint(*PROMPT))],
            chance.randint(*REPLY),
        )
        for _ in range(REPLIES)
    ]


def ours(loaded: Any, work: Work) -> float:
    """Tokens a second of Podium's batch."""
    begun = time.perf_counter()
    rows = sampled(loaded, work)
    return sum(len(row.output) for row in rows) / (time.perf_counter() - begun)


def sampled(loaded: Any, work: Sequence[tuple[list[int], int]]) -> list[Any]:
    """The rows, ended."""
    from actors.models.question import Sampling
    from actors.models.sampler import Batch, Row
    from actors.models.serving import Batching

    batch = Batch(loaded, Batching(rows=ROWS))
    rows = [Row(ids, Sampling(seed=seed), want, math.inf) for seed, (ids, want) in enumerate(work)]
    batch.waiting.extend(rows)
    while not batch.idle:
        batch.step(0.0)
    return rows


def theirs(loaded: Any, work: Work) -> float:
    """Tokens a second of ``generate``."""
    import torch

    begun = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(work), ROWS):
            some = work[first : first + ROWS]
            wide = max(len(ids) for ids, _ in some)
            longest = max(want for _, want in some)
            pads = [wide - len(ids) for ids, _ in some]
            loaded.model.generate(
                torch.tensor([[0] * pad + ids for pad, (ids, _) in zip(pads, some, strict=True)]),
                attention_mask=torch.tensor([[0] * pad + [1] * (wide - pad) for pad in pads]),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                max_new_tokens=longest,
                min_new_tokens=longest,
                pad_token_id=0,
            )
    return sum(want for _, want in work) / (time.perf_counter() - begun)


def turns(loaded: Any, seed: int, *, kept: bool) -> float:
    """Tokens a second of conversations.

    Args:
        loaded: The model.
        seed: Of what is said.
        kept: Whether earlier turns need not be read again.
    """
    chance = random.Random(seed)
    size = len(loaded.tokenizer)
    talks = [[chance.randrange(10, size) for _ in range(PROMPT[0])] for _ in range(RUNS)]
    count = 0
    begun = time.perf_counter()
    for _ in range(TURNS):
        if not kept:
            loaded.decoder.kept.clear()
        rows = sampled(loaded, [(ids, REPLY[0]) for ids in talks])
        for ids, row in zip(talks, rows, strict=True):
            ids += [*row.output, *(chance.randrange(10, size) for _ in range(TOLD))]
            count += len(row.output)
    return count / (time.perf_counter() - begun)


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Measure every size that is wanted, with one thread and with two, in turns."""
    import torch

    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        contender.progress(f"{name}: {value:.0f} tokens/s")

    before = torch.get_num_threads()
    names = [kind for kind in KINDS if options.wants(kind.name.partition(",")[0])]
    try:
        for kind in names:
            loaded = made(kind)
            for threads in THREADS:
                torch.set_num_threads(threads)
                at = f"{kind.name}, {threads} thread{'s' * (threads > 1)}"
                for repeat in range(options.repeats):
                    work = drawn(repeat, len(loaded.tokenizer))
                    note(f"{at}, Podium", ours(loaded, work))
                    note(f"{at}, generate", theirs(loaded, work))
                    note(f"{at}, turns, read again", turns(loaded, repeat, kept=False))
                    note(f"{at}, turns", turns(loaded, repeat, kept=True))
    finally:
        torch.set_num_threads(before)
    versions = {"torch": str(torch.__version__)}
    return report.Report(
        "sampling", report.conditions(options, data, versions=versions), compared(found)
    )


def compared(found: dict[str, list[float]]) -> list[report.Line]:
    """The figures."""

    def over(above: str, below: str) -> list[float]:
        return [a / b for a, b in zip(found[above], found[below], strict=True)]

    lines = [report.Line(name, values, "tokens/s") for name, values in found.items()]
    for name in [each for each in found if each.endswith(", Podium")]:
        at = name.removesuffix(", Podium")
        beside, again = (
            over(name, f"{at}, generate"),
            over(f"{at}, turns", f"{at}, turns, read again"),
        )
        lines.append(report.Line(f"{at}, Podium / generate", beside, "x", TARGET))
        lines.append(report.Line(f"{at}, turns, kept / read again", again, "x", AGAIN))
    return lines
