"""The learner's rates: learning beside TRL, packed beside padded, sampling beside `generate`.

A Qwen3-style decoder of 0.8 million parameters, float32, on a CPU, all with as many threads. The
same weights and the same batch for all: replies of about 27 tokens in examples of about 136, both
ragged as episodes are. TRL lives in a virtual environment of its own, made on first use, and pads
(without flash attention it can't do otherwise); its first loss has to be ours. What is timed of it
is a step from its batch to moved weights, without its data loader.

Sampling is what `benchmarks.sampling` measures, here of its smallest model and with one thread.
"""

import contextlib
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks import contender, peers, report, sampling
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
"""Of one batch."""

MEDIAN_TOKENS: Final = 122
SPREAD: Final = 0.45
"""Of the logarithm of an example's tokens: mean 136, the longest of a batch about twice that."""

SHORTEST, LONGEST = 40, 512
REPLY: Final = 27
"""Trained tokens of an example."""

PASS_TOKENS: Final = 4_096

TRL_TARGET = report.at_least(1.0)
PADDED_TARGET = report.at_least(1.5)


def trl() -> pathlib.Path:
    """The Python of TRL's virtual environment, made where it is missing."""
    return peers.environment(HOME, REQUIREMENTS)


class Work(NamedTuple):
    """What everybody does."""

    folder: pathlib.Path
    """Of the model."""
    examples: Sequence[Any]
    tokens: int
    """Of the examples."""


def model(folder: pathlib.Path) -> None:
    """Write the model, and a tokenizer that says each id in a word of its own."""
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
            eos_token_id=1,
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
    lengths = np.exp(drawn.normal(np.log(MEDIAN_TOKENS), SPREAD, EXAMPLES))
    sizes = lengths.clip(SHORTEST, LONGEST).astype(int)
    examples = []
    for size in sizes:
        trained, none = np.zeros(size, np.float32), np.zeros(size, np.float32)
        trained[-REPLY:] = 1
        ids = drawn.integers(3, VOCABULARY, size).astype(np.int32)
        examples.append(Example(ids, trained, none, none, none, none))
    return Work(folder, examples, int(sizes.sum()))


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


def sampled(loaded: Any, repeat: int) -> dict[str, float]:
    """Tokens a second of the sampler and of ``generate``, in turns."""
    given = sampling.drawn(repeat, len(loaded.tokenizer))
    return {"sampling": sampling.ours(loaded, given), "generate": sampling.theirs(loaded, given)}


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """All of it in turns, as often as was asked."""
    try:
        import torch

        import trainer.learner.learner  # noqa: F401
    except ImportError as error:
        raise BenchmarkError(f"{error}; install the extra: pip install 'podium[train]'") from None
    torch.set_num_threads(THREADS)
    given = work(data / "model")
    learning, loaded = Learning(given), sampling.made(sampling.KINDS[0])
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
                rates |= sampled(loaded, repeat)
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
        ("sampling", "generate", sampling.TARGET),
    )
    for above, below, target in pairs:
        if above in values and below in values:
            ratios = [a / b for a, b in zip(values[above], values[below], strict=True)]
            lines.append(report.Line(f"{above} / {below}", ratios, "x", target))
    return lines
