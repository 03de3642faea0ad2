"""Learners and examples for tests: tiny models, made here, trained by the real code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from actors.models.loading import Loaded, load
from actors.models.question import Sampling
from actors.models.sampler import Batch, Row
from actors.models.serving import Batching
from protocol.model_versions import BASE
from replay.model_folder import Version
from tests import models
from trainer.learner.example import Example
from trainer.learner.learner import Learner
from trainer.learner.options import Objective, Options, Steps

SIZE: Final = len(models.tokenizer())
"""Of the vocabulary."""

TOKEN: Final = Objective(per="token")


def options(objective: Objective = TOKEN, **given: Any) -> Options:
    """Options without a limit to the gradient, unless it is said."""
    return Options(objective=objective, **{"steps": Steps(clip=0), **given})


def learner(objective: Objective = TOKEN, seed: int = 0, **given: Any) -> Learner:
    """A learner of a model without any training. Its gradients are not cut, unless it is said."""
    words = models.tokenizer()
    return Learner(models.model(words, seed), words, options(objective, **given))


def example(
    ids: Sequence[int],
    *,
    ce: Sequence[int] = (),
    pg: Sequence[int] = (),
    ref_kl: Sequence[int] = (),
    advantage: float = 1.0,
    logprobs: Sequence[float] = (),
    **given: Any,
) -> Example:
    """An example with a weight of 1 at these places; ``logprobs`` are those of ``pg``'s."""

    def at(places: Sequence[int], values: Any = 1.0) -> Any:
        made = np.zeros(len(ids), dtype=np.float32)
        made[list(places)] = values
        return made

    known = list(logprobs) or [-5.0] * len(pg)
    return Example(
        ids=np.asarray(ids, dtype=np.int32),
        ce=at(ce),
        pg=at(pg),
        advantages=at(pg, advantage),
        logprobs=at(pg, known),
        ref_kl=at(ref_kl),
        **given,
    )


def ragged(lengths: Sequence[int], *, pg: bool = False, seed: int = 0) -> list[Example]:
    """Examples of these lengths; the last half of each is trained."""
    drawn = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        ids = drawn.integers(0, SIZE, length).tolist()
        places = range(length // 2, length)
        if pg:
            known = (-5 + drawn.normal(size=len(places))).tolist()
            advantage = float(drawn.normal())
            made.append(
                example(
                    ids, pg=places, advantage=advantage, logprobs=known, rollout=f"run-{number}"
                )
            )
        else:
            made.append(example(ids, ce=places))
    return made


def weights(of: Learner) -> dict[str, torch.Tensor]:
    """A copy of its weights."""
    return {name: each.detach().clone() for name, each in of.stepper.parameters.items()}


def gradient(of: Learner, examples: Sequence[Example]) -> torch.Tensor:
    """The gradient of a batch: what a step of plain descent moves the weights by."""
    kept: list[torch.Tensor] = []

    def keep(update: int) -> None:
        kept.extend(
            each.grad.flatten().clone()
            for each in of.stepper.parameters.values()
            if each.grad is not None
        )
        of.stepper.forget()

    stepper, step = of.stepper, of.stepper.step
    stepper.step = keep  # type: ignore[method-assign]
    try:
        of.step(examples)
    finally:
        stepper.step = step  # type: ignore[method-assign]
    return torch.cat(kept)


def engine(folder: Path) -> Loaded:
    """The model in a folder, as the sampler has it."""
    return load(Version(BASE, folder, None), Batching(device="cpu"))


def played(
    loaded: Loaded, prompts: Sequence[Sequence[int]], limit: int = 12, **sampling: Any
) -> list[Row]:
    """Replies that the real sampler draws, one a prompt, in the prompts' order."""
    batch = Batch(loaded, Batching(device="cpu"))
    rows = [
        Row(prompt, Sampling(max_tokens=limit, seed=number, **sampling), limit, float("inf"))
        for number, prompt in enumerate(prompts)
    ]
    batch.waiting.extend(rows)
    while not batch.idle:
        batch.step(0.0)
    return rows


def rolled(row: Row, advantage: float = 1.0, **given: Any) -> Example:
    """What the sampler drew, as an example for the policy gradient."""
    begin = len(row.prompt)
    places = range(begin, begin + len(row.output))
    sampling = row.sampling
    return example(
        [*row.prompt, *row.output],
        pg=places,
        advantage=advantage,
        logprobs=row.logprobs,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        **given,
    )
