"""How much each token of a batch counts: weights over normalisers of the whole batch.

Computed once a batch, before it is cut into passes. So a batch that is read in many passes gives
the gradient of one that is read in a single one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from protocol.errors import InvalidData
from trainer.learner.example import Example
from trainer.learner.options import Objective
from trainer.rows import Floats, Ids, unfit

PARTS: Final = ("ce", "pg", "ref_kl")
"""What a loss is the sum of."""


class Room(NamedTuple):
    """What a model has room for; 0 for what it doesn't say."""

    context: int = 0
    """Tokens of one example."""
    vocabulary: int = 0
    """Ids are below it."""


ANY: Final = Room()
"""Room for whatever comes."""


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """An example, cut to what is read, and what its trained tokens count. ``k`` tokens of it are.

    Reading ends before the last trained token: nothing of the loss depends on what follows.
    """

    ids: Ids
    """What is read, ``[n]``."""
    places: Ids
    """The places in ``ids`` after which a trained token comes, ``[k]``."""
    targets: Ids
    """Those tokens, ``[k]``."""
    ce: Floats
    """What the loss of a token is multiplied by, normaliser and scale included, ``[k]``; the same
    for ``pg`` and ``ref_kl``."""
    pg: Floats
    ref_kl: Floats
    advantages: Floats
    logprobs: Floats
    """Of the behaviour, ``[k]``; NaN where it is not known."""
    old: Floats
    """Of the weights that the update began with, ``[k]``; NaN where these are them."""
    example: Example


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A batch with its weights."""

    weighed: tuple[Weighed, ...]
    """Examples with a trained token."""
    idle: int
    """Examples without one."""
    tokens: int
    """Of all examples, context included."""
    trained: dict[str, int]
    """Tokens with a weight, by part of the loss; ``any`` for those with any."""
    missing: int
    """Tokens with a policy gradient whose log-probability is not known."""


def weigh(
    examples: Sequence[Example],
    objective: Objective,
    room: Room = ANY,
    old: Sequence[Floats] | None = None,
) -> Batch:
    """Check a batch and weigh its tokens.

    Args:
        examples: Of one update.
        objective: Says what counts alike.
        room: What the model has room for.
        old: Log-probabilities of the weights that several updates begin with, ``[n]`` for each
            example.

    Raises:
        InvalidData: An example can't be trained on; the message says which, and why.
    """
    for example in examples:
        _check(example, objective, room)
    coefficients = {part: _coefficients(examples, part, objective) for part in PARTS}
    weighed, idle, missing = [], 0, 0
    trained = dict.fromkeys((*PARTS, "any"), 0)
    for number, example in enumerate(examples):
        own = {part: coefficients[part][number] for part in PARTS}
        places = np.flatnonzero((own["ce"] != 0) | (own["pg"] != 0) | (own["ref_kl"] != 0)).astype(
            np.int32
        )
        if not len(places):
            idle += 1
            continue
        for part in PARTS:
            trained[part] += int(np.count_nonzero(own[part]))
        trained["any"] += len(places)
        drawn = (own["pg"] != 0) | ((own["ref_kl"] != 0) & objective.unbiased_kl)
        missing += int(np.count_nonzero(np.isnan(example.logprobs[drawn])))
        weighed.append(
            Weighed(
                ids=example.ids[: places[-1]].astype(np.int32),
                places=(places - 1).astype(np.int32),
                targets=example.ids[places].astype(np.int32),
                ce=own["ce"][places].astype(np.float32),
                pg=own["pg"][places].astype(np.float32),
                ref_kl=own["ref_kl"][places].astype(np.float32),
                advantages=example.advantages[places].astype(np.float32),
                logprobs=example.logprobs[places].astype(np.float32),
                old=_old(old, number, places),
                example=example,
            )
        )
    if missing and objective.missing == "refuse":
        raise InvalidData(
            f"{missing} tokens with a policy gradient have no log-probability",
            hint="leave their pg at 0, or say missing = 'one', which takes their ratio to be 1",
        )
    tokens = sum(len(example.ids) for example in examples)
    return Batch(tuple(weighed), idle, tokens, trained, missing)


def _old(old: Sequence[Floats] | None, number: int, places: Ids) -> Floats:
    if old is None:
        return np.full(len(places), np.nan, dtype=np.float32)
    return old[number][places].astype(np.float32)


def _coefficients(
    examples: Sequence[Example], part: str, objective: Objective
) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """What each token of each example is multiplied by in one part of the loss."""
    weights = [getattr(example, part).astype(np.float64) for example in examples]
    scale = getattr(objective, part)
    counts = [int(np.count_nonzero(weight)) for weight in weights]
    if not scale or not any(counts):
        return [np.zeros_like(weight) for weight in weights]
    if objective.per == "token":
        return [weight * (scale / sum(counts)) for weight in weights]
    own = [_key(example, number, objective) for number, example in enumerate(examples)]
    tokens: dict[str, int] = {}
    for key, count in zip(own, counts, strict=True):
        tokens[key] = tokens.get(key, 0) + count
    some = sum(1 for count in tokens.values() if count)
    if objective.per == "constant":
        return [weight * (scale / (some * objective.tokens)) for weight in weights]
    return [
        weight * (scale / (some * max(tokens[key], 1)))
        for key, weight in zip(own, weights, strict=True)
    ]


def _key(example: Example, number: int, objective: Objective) -> str:
    """What an example is weighted together with."""
    if objective.per == "group" and example.group:
        return f"group {example.group}"
    return f"rollout {example.rollout}" if example.rollout else f"example {number}"


def _check(example: Example, objective: Objective, room: Room) -> None:
    length, who = len(example.ids), named(example)
    for name in ("ce", "pg", "advantages", "logprobs", "ref_kl"):
        if len(getattr(example, name)) != length:
            raise InvalidData(
                f"{who}: {name} has {len(getattr(example, name))} values for {length} tokens",
                hint="give one value a token",
            )
        if name != "logprobs" and not np.isfinite(getattr(example, name)).all():
            raise InvalidData(f"{who}: {name} has values that are no numbers", hint="leave it out")
    if not length:
        return
    if any(getattr(example, part)[0] for part in PARTS):
        raise InvalidData(
            f"{who}: its first token has a weight, and nothing stands before it to predict it from",
            hint="begin with a token of context, such as the template's first",
        )
    if room.context and length > room.context:
        raise InvalidData(
            f"{who} has {length} tokens, and the model has room for {room.context}",
            hint="leave out rollouts that long when rows are made",
        )
    if example.ids.min() < 0 or (room.vocabulary and example.ids.max() >= room.vocabulary):
        raise InvalidData(
            f"{who} has ids of tokens that the model does not have: it has {room.vocabulary}",
            hint="train on rows that were made with the model's own tokenizer",
        )
    if not (example.pg.any() or example.ref_kl.any()):
        return
    why = unfit(example.temperature, example.top_p, example.top_k)
    if why == "greedy":
        raise InvalidData(
            f"{who} was drawn at temperature {example.temperature:g}: the likeliest token each "
            "time, of which there is no policy gradient",
            hint="sample rollouts for training at a temperature above 0",
        )
    if why == "truncated" and objective.truncated == "refuse":
        raise InvalidData(
            f"{who} was drawn with top_p {example.top_p:g} and top_k {example.top_k}: its "
            "log-probabilities are of a part of the vocabulary, and ratios to them are wrong",
            hint="sample rollouts for training without either, or say truncated = 'apply'",
        )


def named(example: Example) -> str:
    """An example, for an error's message."""
    return f"rollout {example.rollout}" if example.rollout else "an example"
