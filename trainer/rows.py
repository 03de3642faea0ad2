"""Rows: a rollout's tokens as a learner takes them.

A rollout becomes one row where each prompt begins with all that came before it, and a further one
wherever it does not: a token may only be trained in a row whose prefix is the one that it was drawn
under, and each sampled token is trained once. Ids come from the log alone; nothing is decoded and
encoded again. What a fork shares with its origin is context: it is trained as the origin's.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainer.records import Rollout, Step

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A series of tokens, all arrays of shape ``[n]``."""

    rollout: str
    """The run."""
    group: str
    segment: int
    """Its place among the rollout's rows, from 0."""
    ids: Ids
    sampled: Mask
    """True where the policy drew the token and this is the row that trains it."""
    logprobs: Floats
    """Natural, of what was drawn, under the distribution that it was drawn from; 0 elsewhere, NaN
    where it is not known."""
    turns: tuple[int, ...]
    """The questions whose replies it trains."""
    starts: tuple[int, ...]
    """Where each of those replies begins."""
    temperature: float
    top_p: float
    top_k: int
    version: str
    """Of the weights that drew it."""
    tokenizer: str
    template: str


_BYTES: Final = 4
"""Of a packed id, and of a packed log-probability."""


Unfit: TypeAlias = Literal["", "greedy", "truncated"]
"""Why tokens are none for policy gradients, by how they were drawn; "" if they are. ``greedy``: the
likeliest each time, of which there is no gradient. ``truncated``: with ``top_p`` or ``top_k``, from
a part of the vocabulary, of which their log-probabilities are."""


def unfit(temperature: float, top_p: float, top_k: int) -> Unfit:
    """Why tokens that were drawn so are none for policy gradients."""
    if temperature <= 0:
        return "greedy"
    return "truncated" if top_p < 1 or top_k > 0 else ""


class _Drawn(NamedTuple):
    """How tokens were drawn: a row holds those that were drawn alike."""

    temperature: float
    top_p: float
    top_k: int
    version: str
    weights: str
    tokenizer: str
    template: str


@dataclass(slots=True)
class _Chain:
    """Replies each of whose prompts begins with all that was there before it."""

    drawn: _Drawn
    context: bytes
    """Prompt and output of the last of them."""
    steps: list[Step] = field(default_factory=list)


def rows(rollout: Rollout) -> list[Row]:
    """The rows of a rollout, in the order of the replies that begin them.

    A reply goes on in the last row whose whole context its prompt begins with, if both were drawn
    alike (weights, tokenizer, template, temperature, ``top_p``, ``top_k``); else it begins a row.
    Replies that were rejected are among them: they are the policy's doing. One without a token, and
    a row without any that is trained, are no errors. No rows come of replies whose tokens are not
    known.
    """
    chains: list[_Chain] = []
    for step in rollout.steps:
        if not step.own or (how := _drawn(step)) is None:
            continue
        goes_on = (
            each
            for each in reversed(chains)
            if each.drawn == how and step.prompt.startswith(each.context)
        )
        chain = next(goes_on, None)
        if chain is None:
            chains.append(chain := _Chain(how, b""))
        chain.context = step.prompt + step.output
        chain.steps.append(step)
    return [_row(rollout, place, chain) for place, chain in enumerate(chains)]


def _drawn(step: Step) -> _Drawn | None:
    said = step.sampled
    if said is None:
        return None
    return _Drawn(
        said.temperature,
        said.top_p,
        said.top_k,
        said.version or step.version,
        said.weights,
        said.tokenizer,
        said.template,
    )


def logprobs_of(step: Step) -> Floats:
    """The log-probability of each token of a reply; NaN where it is not known."""
    count = len(step.output) // _BYTES
    known = np.frombuffer(step.logprobs, dtype="<f4")
    return known if len(known) == count else np.full(count, np.nan, dtype=np.float32)


def _row(rollout: Rollout, segment: int, chain: _Chain) -> Row:
    ids = np.frombuffer(chain.context, dtype="<u4").astype(np.int32)
    sampled = np.zeros(len(ids), dtype=np.bool_)
    logprobs = np.zeros(len(ids), dtype=np.float32)
    starts = []
    for step in chain.steps:
        begin, count = len(step.prompt) // _BYTES, len(step.output) // _BYTES
        sampled[begin : begin + count] = True
        logprobs[begin : begin + count] = logprobs_of(step)
        starts.append(begin)
    how = chain.drawn
    return Row(
        rollout=rollout.run,
        group=rollout.group,
        segment=segment,
        ids=ids,
        sampled=sampled,
        logprobs=logprobs,
        turns=tuple(step.turn for step in chain.steps),
        starts=tuple(starts),
        temperature=how.temperature,
        top_p=how.top_p,
        top_k=how.top_k,
        version=how.version,
        tokenizer=how.tokenizer,
        template=how.template,
    )
