"""The fast lane: rollouts a minute of one core, with a policy that takes no time and with a model.

An *instant* run is three rounds of seven calls, decided by a script: what rules, log, queues and
workers cost. In a *model* run a decoder of 0.8 million parameters that was never trained writes as
many tokens as an episode of the gym has. The same prompts, with the same limits and as many rows,
are then sampled without any run around them: what the model alone costs, and so what the lane adds.
"""

import asyncio
import pathlib
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from actors.models.loading import load
from actors.models.question import Sampling
from actors.models.sampler import Batch, Row
from actors.models.serving import Batching
from actors.policies.local import Options, spec_of
from actors.ports import Adapter, Attempt, Models, Outcome, Policy
from benchmarks import report
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from protocol.model_versions import BASE
from protocol.sampled import unpack_ids
from replay.model_folder import find
from replay.tokens import sampled
from trainer.rollouts import Ask, Ended, FastLane

TARGET: Final = report.at_least(1_000)
"""Rollouts a minute, of either kind: thousands, on the two cores that it was promised for."""

ROUNDS: Final = (3, 2, 2)
"""Calls of each round of an instant run."""

REPLY_TOKENS: Final = 27
"""Sampled in a model run, as many as an episode of the gym has: its only reply is its answer."""

ROWS: Final = 128
"""Replies that are sampled together."""

WARM_UP: Final = 16
"""Runs before time is taken."""

INSTANT_PER_S: Final = 300
MODEL_PER_S: Final = 20
"""Runs for each second that was asked for, so that a measurement takes about as long."""

NUMBER: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}

POOL: Final = Pool(
    tuple(
        WorkerSpec(
            name=f"worker-{place}",
            description="Doubles a whole number, for three micro-dollars.",
            parameters=NUMBER,
            reserve=Spend(cost=3),
        )
        for place in range(6)
    )
)

SHORT: Final = Pool(
    tuple(WorkerSpec(name=name, description="Doubles.", reserve=Spend(cost=3)) for name in "ab")
)
"""Of model runs: as short a prompt as a policy is shown that speaks compactly, about a hundred
tokens."""


class Doubles:
    """A worker that takes a tenth of a second, of virtual time."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        await asyncio.sleep(0.1)
        return Outcome(value=2 * attempt.arguments["n"], spend=Spend(cost=3))

    async def close(self) -> None:
        """See `Adapter`."""


class Rounds:
    """Calls as `ROUNDS` says, then answers."""

    spec = PolicySpec(name="rounds")

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        turn = len(view.turns)
        if turn == len(ROUNDS):
            return Reply(decision=Decision(answer="done"), version="1")
        names = [f"worker-{(turn + place) % 6}" for place in range(ROUNDS[turn])]
        calls = tuple(PlannedCall(name, {"n": turn}) for name in names)
        return Reply(decision=Decision(calls), version="1")


def hosted(_start: Start, spec: WorkerSpec) -> Adapter:
    """See `trainer.rollouts.cell.Hosting`."""
    return Doubles(spec)


def rounds(_spec: PolicySpec, _models: Models) -> Policy:
    """See `trainer.rollouts.lane.Policies`."""
    return Rounds()


def starts(policy: PolicySpec, count: int, job: str) -> Iterable[Start]:
    """That many runs."""
    pool = POOL if policy is Rounds.spec else SHORT
    ask = Ask(key="0", task=Task(text="Double it."), pool=pool, policy=policy, members=count)
    return ask.starts(job)


class Taken(NamedTuple):
    """What one measurement gave."""

    per_minute: float
    read: float
    """Tokens of prompts read in a second."""
    written: float
    """Tokens sampled in a second."""


def measured(lane: FastLane, policy: PolicySpec, count: int, job: str) -> tuple[Taken, list[Ended]]:
    """Some runs of a lane, timed on the real clock."""
    begun = time.perf_counter()
    found = lane.run(starts(policy, count, job))
    took = time.perf_counter() - begun
    usage = [
        event.usage for each in found for event in each.log.events() if hasattr(event, "usage")
    ]
    read, written = (sum(each) for each in zip(*((u.input, u.output) for u in usage), strict=True))
    return Taken(60 * count / took, read / took, written / took), found


def alone(found: Iterable[Ended], folder: pathlib.Path, batching: Batching) -> Taken:
    """The same questions to the same model, and nothing else."""
    loaded = load(find(folder, BASE), batching)
    batch, count = Batch(loaded, batching), 0
    for ended in found:
        known: dict[int, list[int]] = {}
        for turn, each in sampled(ended.log.events()):
            assert each.arrays is not None
            prompt = [*known.get(each.after, []), *unpack_ids(each.arrays.prompt)]
            known[turn] = [*prompt, *unpack_ids(each.arrays.output)]
            sampling = Sampling(max_tokens=each.max_tokens, seed=each.seed)
            batch.waiting.append(Row(prompt, sampling, each.max_tokens, float("inf")))
        count += 1
    read, written = sum(len(row.prompt) for row in batch.waiting), 0
    begun = time.perf_counter()
    while not batch.idle:
        written += sum(len(row.output) for row in batch.step(0.0))
    took = time.perf_counter() - begun
    return Taken(60 * count / took, read / took, written / took)


def made(folder: pathlib.Path) -> pathlib.Path:
    """A folder with a decoder of 0.8 million parameters, as the conductor that is shipped has."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1_536,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bare.train_from_iterator(_texts(), trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|end|>", pad_token="<|pad|>")
    words.chat_template = "{% for m in messages %}{{ m.content or '' }}\n{% endfor %}"
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=1_536,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2_048,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _texts() -> list[str]:
    """What prompts are made of, so that they are about as long as they are for a real one."""
    from protocol.dialects import request

    view = View(run="0" * 13, task=Task(text="Double it."), pool=SHORT)
    return [str(request(_spec(pathlib.Path("/")), view)) for _ in range(4)]


def _spec(folder: pathlib.Path) -> PolicySpec:
    options = Options(folder=str(folder), max_tokens=REPLY_TOKENS)
    return spec_of(options, dialect="hermes", system="Decide.")


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Measure instant runs, model runs, and the model alone, in turns."""
    batching = Batching(rows=ROWS, threads=1)
    model = _spec(made(data / "model"))
    figures: dict[str, list[Taken]] = {"instant": [], "model": [], "alone": []}
    counts = {
        name: options.runs or max(1, round(per_s * options.seconds))
        for name, per_s in (("instant", INSTANT_PER_S), ("model", MODEL_PER_S))
    }
    with FastLane(hosted, rounds) as instant, FastLane(hosted, batching=batching) as lane:
        measured(instant, Rounds.spec, WARM_UP, "warm")
        measured(lane, model, WARM_UP, "warm")
        for repeat in range(options.repeats):
            job = str(repeat)
            figures["instant"].append(measured(instant, Rounds.spec, counts["instant"], job)[0])
            taken, found = measured(lane, model, counts["model"], job)
            figures["model"].append(taken)
            figures["alone"].append(alone(found, data / "model", batching))
    return report.Report("rollouts", _conditions(options, data, counts), _lines(figures))


def _lines(figures: dict[str, list[Taken]]) -> list[report.Line]:
    lane, alone_ = figures["model"], figures["alone"]
    share = [one.written / other.written for one, other in zip(lane, alone_, strict=True)]
    return [
        report.Line("instant policy", _of(figures["instant"], 0), "rollouts/min", TARGET),
        report.Line("model of 0.8M", _of(lane, 0), "rollouts/min", TARGET),
        report.Line("model of 0.8M, sampled", _of(lane, 2), "tokens/s"),
        report.Line("model of 0.8M, read", _of(lane, 1), "tokens/s"),
        report.Line("model alone, sampled", _of(alone_, 2), "tokens/s"),
        report.Line("of the model alone", share, "share"),
    ]


def _of(taken: Iterable[Taken], place: int) -> list[float]:
    return [each[place] for each in taken]


def _conditions(
    options: report.Options, data: pathlib.Path, counts: dict[str, int]
) -> dict[str, Any]:
    return {**report.conditions(options, data), "runs": counts, "rows": ROWS, "threads": 1}
