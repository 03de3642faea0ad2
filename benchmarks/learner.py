"""The learner's rates: learning beside TRL, packed beside padded, sampling beside `generate`.

A Qwen3-style decoder of 0.8 million parameters, float32, on a CPU, all with as many threads. The
same weights and the same batch for all: replies of about 27 tokens in examples of about 136, both
ragged as episodes are. TRL lives in a virtual environment of its own, made on first use, and pads
(without flash attention it can't do otherwise); its first loss has to be ours. What is timed of it
is a step from its batch to moved weights, without its data loader.

Sampling: prompts and replies of the same kind, as many rows at a time for both, the same limits,
and the same tokens that end a reply. In one batch of 32, and in a stream of prompts: there
`generate` takes them 32 by 32, and waits for the longest of each.
"""

import contextlib
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks import contender, peers, report
from benchmarks.child import ROOT, Child
from benchmarks.errors import BenchmarkError

HOME: Final = ROOT / ".venv-trl"
"""TRL's virtual environment."""

REQUIREMENTS: Final = pathlib.Path(__file__).resolve().parent / "trl_env" / "requirements.txt"

DISTRIBUTIONS: Final = ("trl", "torch", "transformers", "accelerate")

THREADS: Final = 1
"""CPU threads of each: with as many as cores, whoever else uses the machine decides."""

VOCABULARY: Final = 1_536
EXAMPLES: Final = 32
"""Of one batch; and rows that are sampled at a time."""

MEDIAN_TOKENS: Final = 122
SPREAD: Final = 0.45
"""Of the logarithm of an example's tokens: mean 136, the longest of a batch about twice that."""

SHORTEST, LONGEST = 40, 512
REPLY: Final = 27
"""Trained tokens of an example, and the mean of a reply."""

PROMPTS: Final = 128
"""Of the stream."""

LIMIT: Final = 128
"""The most tokens of a reply."""

PASS_TOKENS: Final = 4_096

TRL_TARGET = report.at_least(1.0)
PADDED_TARGET = report.at_least(1.5)
GENERATE_TARGET = report.at_least(2.0)


def trl() -> pathlib.Path:
    """The Python of TRL's virtual environment, made where it is missing."""
    return peers.environment(HOME, REQUIREMENTS)


class Work(NamedTuple):
    """What everybody does."""

    folder: pathlib.Path
    """Of the model."""
    examples: Sequence[Any]
    prompts: Sequence[Sequence[int]]
    tokens: int
    """Of the examples."""


def model(folder: pathlib.Path) -> None:
    """Write the model, and a tokenizer that says each id in a word of its own.

    So many tokens end a reply that, of a model without training, it has about `REPLY`.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    words = {f"w{number}": number for number in range(VOCABULARY)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="w1", pad_token="w2", unk_token="w0"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    torch.manual_seed(0)
    ends = list(range(VOCABULARY - VOCABULARY // REPLY, VOCABULARY))
    decoder = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=2_048,
            tie_word_embeddings=True,
            eos_token_id=[1, *ends],
            pad_token_id=2,
        )
    )
    decoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def work(folder: pathlib.Path) -> Work:
    """The model and what is done with it."""
    import numpy as np

    from trainer.learner.example import Example

    model(folder)
    drawn = np.random.default_rng(0)
    lengths = np.exp(drawn.normal(np.log(MEDIAN_TOKENS), SPREAD, EXAMPLES + PROMPTS))
    sizes = lengths.clip(SHORTEST, LONGEST).astype(int)
    examples = []
    for size in sizes[:EXAMPLES]:
        trained, none = np.zeros(size, np.float32), np.zeros(size, np.float32)
        trained[-REPLY:] = 1
        ids = drawn.integers(3, VOCABULARY, size).astype(np.int32)
        examples.append(Example(ids, trained, none, none, none, none))
    prompts = [
        drawn.integers(3, VOCABULARY, size - REPLY // 2).tolist() for size in sizes[EXAMPLES:]
    ]
    return Work(folder, examples, prompts, int(sizes[:EXAMPLES].sum()))


class Learning:
    """Ways of ours to do a step: tokens a second of each."""

    def __init__(self, given: Work) -> None:
        from trainer.learner.learner import Learner
        from trainer.learner.options import Objective, Options, Steps
        from trainer.learner.packing import PaddedBatcher

        def opened(packing: Any, tokens: int) -> Any:
            objective = Objective(per="token")
            steps = Steps(rate=1e-3)
            options = Options(objective=objective, steps=steps, packing=packing, tokens=tokens)
            return Learner.open(given.folder, options, device="cpu")

        self._given = given
        self.learners = {
            "packed": opened("auto", PASS_TOKENS),
            "padded": opened("padded", PASS_TOKENS),
            "padded, sorted": opened("padded", PASS_TOKENS),
        }
        as_they_come = PaddedBatcher(EXAMPLES * LONGEST, ordered=False)
        self.learners["padded"].deal(as_they_come)
        self.loss = self.learners["packed"].evaluate(given.examples)["loss"]

    def rates(self, steps: int) -> dict[str, float]:
        """Tokens a second of each, of so many steps the median; a step of each in turns."""
        took: dict[str, list[float]] = {name: [] for name in self.learners}
        for _ in range(steps):
            for name, learner in self.learners.items():
                began = time.perf_counter()
                stepped = learner.step(self._given.examples)
                took[name].append(time.perf_counter() - began)
                if stepped.refused:
                    raise BenchmarkError(f"a step was refused: {stepped.refused}")
        return {name: self._given.tokens / statistics.median(each) for name, each in took.items()}


class Trl:
    """TRL's `SFTTrainer`."""

    def __init__(self, given: Work, python: pathlib.Path, data: pathlib.Path) -> None:
        command: list[str | pathlib.Path] = [python, "-m", "benchmarks.trl_env.peer"]
        self._given, self._child = given, Child("trl", command, data / "trl.log")
        self.close = self._child.close

    def rate(self, steps: int, loss: float) -> float:
        """Tokens a second of so many steps, the median; the first of a training is left out."""
        import numpy as np

        examples = self._given.examples
        answer = self._child.ask(
            {
                "do": "sft",
                "folder": str(self._given.folder),
                "ids": [each.ids.tolist() for each in examples],
                "labels": [np.where(each.ce > 0, each.ids, -100).tolist() for each in examples],
                "steps": steps + 1,
                "threads": THREADS,
            }
        )
        if abs(answer["loss"] - loss) > 1e-3:
            raise BenchmarkError(f"TRL's first loss is {answer['loss']}, ours {loss}")
        took: list[float] = answer["step_s"][1:]
        return self._given.tokens / statistics.median(took)


class Sampling:
    """Two ways to sample: tokens a second of each, those that end replies included."""

    def __init__(self, given: Work) -> None:
        from actors.models.loading import load
        from actors.models.serving import Batching
        from protocol.model_versions import BASE
        from replay.model_folder import Version

        self._given = given
        self._batching = Batching(rows=EXAMPLES, device="cpu", threads=THREADS)
        self._loaded = load(Version(BASE, given.folder, None), self._batching)

    def rates(self) -> dict[str, float]:
        """Tokens a second of each, in turns."""
        one, stream = self._given.prompts[:EXAMPLES], self._given.prompts
        return {
            "sampling, one batch": self.ours(one),
            "generate, one batch": self.generate(one),
            "sampling": self.ours(stream),
            "generate": self.generate(stream),
        }

    def ours(self, prompts: Sequence[Sequence[int]]) -> float:
        """The sampler of `actors.models`."""
        from actors.models.question import Sampling as How
        from actors.models.sampler import Batch, Row

        batch = Batch(self._loaded, self._batching)
        rows = [
            Row(prompt, How(temperature=1.0, max_tokens=LIMIT, seed=seed), LIMIT, float("inf"))
            for seed, prompt in enumerate(prompts)
        ]
        batch.waiting.extend(rows)
        began = time.perf_counter()
        while not batch.idle:
            batch.step(0.0)
        return sum(len(row.output) for row in rows) / (time.perf_counter() - began)

    def generate(self, prompts: Sequence[Sequence[int]]) -> float:
        """Transformers' `generate`, with keys and values kept, 32 prompts at a time."""
        import torch

        loaded, pad = self._loaded, 2
        ends = torch.tensor(sorted(loaded.ends))
        torch.manual_seed(0)
        count = 0
        began = time.perf_counter()
        for begin in range(0, len(prompts), EXAMPLES):
            some = prompts[begin : begin + EXAMPLES]
            width = max(map(len, some))
            ids = torch.tensor([[pad] * (width - len(each)) + list(each) for each in some])
            mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in some])
            with torch.inference_mode():
                made = loaded.model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    max_new_tokens=LIMIT,
                    eos_token_id=ends.tolist(),
                    pad_token_id=pad,
                )
            ended = torch.isin(made[:, width:], ends)
            before = ended.cumsum(-1) - ended.long()
            count += int((before == 0).sum())
        return count / (time.perf_counter() - began)


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """All of it in turns, as often as was asked."""
    try:
        import torch

        import trainer.learner.learner  # noqa: F401
    except ImportError as error:
        raise BenchmarkError(f"{error}; install the extra: pip install 'podium[train]'") from None
    torch.set_num_threads(THREADS)
    given = work(data / "model")
    learning, sampling = Learning(given), Sampling(given)
    values: dict[str, list[float]] = {}
    with contextlib.ExitStack() as owned:
        found, peer = {}, None
        if options.wants("trl"):
            python = trl()
            found = peers.versions(python, DISTRIBUTIONS)
            peer = Trl(given, python, data)
            owned.callback(peer.close)
        steps = max(2, round(options.seconds))  # all three ways take about a second
        for repeat in range(options.repeats + 1):
            contender.progress(f"repeat {repeat} of {options.repeats}; 0 is to warm up")
            rates = {"trl": peer.rate(steps, learning.loss)} if peer else {}
            if options.wants("learning"):
                rates |= learning.rates(steps)
            if options.wants("sampling"):
                rates |= sampling.rates()
            for name, rate in rates.items() if repeat else ():
                values.setdefault(name, []).append(rate)
    conditions = report.conditions(options, data, None, _versions())
    conditions |= {"threads": THREADS, "batch_tokens": given.tokens, "batch_examples": EXAMPLES}
    conditions |= {"peer_versions": found}
    return report.Report("learner", conditions, lines_of(values))


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("torch", "transformers")}


def lines_of(values: dict[str, list[float]]) -> list[report.Line]:
    """Everyone's rate, then ours over the others', repeat by repeat."""
    lines = [report.Line(name, each, "tokens/s") for name, each in values.items()]
    pairs = (
        ("packed", "trl", TRL_TARGET),
        ("packed", "padded", PADDED_TARGET),
        ("packed", "padded, sorted", None),
        ("sampling, one batch", "generate, one batch", None),
        ("sampling", "generate", GENERATE_TARGET),
    )
    for above, below, target in pairs:
        if above in values and below in values:
            ratios = [a / b for a, b in zip(values[above], values[below], strict=True)]
            lines.append(report.Line(f"{above} / {below}", ratios, "x", target))
    return lines
