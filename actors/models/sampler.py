"""The batch: one token for every row at a time, rows joining and leaving between two steps.

What a row's tokens are depends on its own prompt, seed and sampling alone, up to the rounding of
floats: its random numbers are its own, and others' columns are masked.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import torch

from actors.models.decoder import Slots
from actors.models.loading import Loaded
from actors.models.question import Sampling
from actors.models.rows import Rows
from actors.models.serving import Batching

MAX_PREFILL_TOKENS: Final = 16_384
"""Tokens of prompts, padding included, that are read in one step: the rows at work wait for it."""

_BELOW_ONE: Final = 1.0 - 2.0**-40
"""Keeps a random number below the sum of all probabilities, however that is rounded."""

Ended: TypeAlias = Literal["stop", "length", "stopped"]
"""Why a row ended: a token that ends replies, its limit, or nobody waits for it any more."""


@dataclass(eq=False, slots=True)
class Row:
    """A reply that is sampled."""

    prompt: Sequence[int]
    sampling: Sampling
    limit: int
    """The most tokens, within what the model has room for."""
    deadline: float
    """When nobody waits any more, in seconds of the engine's clock."""
    output: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: Ended | None = None
    error: str = ""
    """Why it could not be sampled, if it could not."""
    chance: Callable[[], float] = field(init=False)
    """The next of its own random numbers, from 0 to below 1."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.sampling.seed).random

    def took(self, token: int, logprob: float, ends: frozenset[int]) -> None:
        """One more token."""
        self.output.append(token)
        self.logprobs.append(logprob)
        if token in ends:
            self.ended = "stop"
        elif len(self.output) >= self.limit:
            self.ended = "length"


class Batch:
    """The rows of one version, those at work and those that wait for a place.

    Args:
        loaded: The version.
        batching: How many rows fit.
    """

    def __init__(self, loaded: Loaded, batching: Batching) -> None:
        self.loaded, self._batching = loaded, batching
        self.waiting: deque[Row] = deque()
        self.working: list[Row] = []
        self._rows: Rows | Slots | None = None
        self._gone: list[Row] = []
        """Rows that have ended, and that nobody has been given yet."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.working

    def step(self, now: float) -> list[Row]:
        """Take in who waits, and sample a token for every row; the rows that have ended."""
        for row in (*self.waiting, *self.working):
            if row.deadline <= now:
                row.ended = "stopped"
        self._gone += [row for row in self.waiting if row.ended]
        self.waiting = deque(row for row in self.waiting if not row.ended)
        with torch.inference_mode():
            self._leave()
            if self._rows is not None and self.working:
                self._draw(self._rows.read([row.output[-1] for row in self.working]), self.working)
            if fresh := self._admitted():
                self._join(fresh)
            self._leave()
        gone, self._gone = self._gone, []
        return gone

    def fail(self, why: str) -> list[Row]:
        """Give up every row at work: something of the batch is broken. What `step` did not give."""
        failed, self.working, self._rows = self.working, [], None
        for row in failed:
            row.error = why
        gone, self._gone = self._gone, []
        return gone + failed

    def _admitted(self) -> list[Row]:
        """Who begins now: as they came, as far as there is room."""
        fresh: list[Row] = []
        while self.waiting:
            row = self.waiting[0]
            count = len(fresh) + len(self.working) + 1
            wide = max(len(each.prompt) + each.limit for each in (*self.working, *fresh, row))
            read = max(len(each.prompt) for each in (*fresh, row)) * (len(fresh) + 1)
            full = count > self._batching.rows or count * wide > self._batching.tokens
            if (full and count > 1) or (fresh and read > MAX_PREFILL_TOKENS):
                break
            fresh.append(self.waiting.popleft())
        return fresh

    def _join(self, fresh: list[Row]) -> None:
        """Read prompts, sample the first token of each, and have their rows join the others.

        Rows count as at work from here on, so that whatever fails, somebody hears of it.
        """
        self.working = [*self.working, *fresh]
        if self._rows is None:
            self._rows = self.loaded.rows()
        self._draw(self._rows.join([row.prompt for row in fresh]), fresh)

    def _draw(self, logits: torch.Tensor, replies: list[Row]) -> None:
        chances = [row.chance() for row in replies]
        tokens, logprobs = draw(logits, [row.sampling for row in replies], chances)
        drawn = zip(replies, tokens.tolist(), logprobs.tolist(), strict=True)
        for row, token, logprob in drawn:
            if logprob != logprob:  # no number
                row.error, row.ended = "the model's logits are no numbers", "stopped"
            else:
                row.took(token, logprob, self.loaded.ends)

    def _leave(self) -> None:
        """Take out the rows that have ended; the last ones stand in for them."""
        gone = [row for row in self.working if row.ended]
        if not gone:
            return
        self._gone += gone
        kept = list(range(len(self.working)))
        for place in reversed(kept.copy()):
            if self.working[place].ended:
                kept[place] = kept[-1]
                kept.pop()
        self.working = [self.working[place] for place in kept]
        if self._rows is not None:
            self._rows.keep(kept)


def draw(
    logits: torch.Tensor, sampling: Sequence[Sampling], chances: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token of each row, and its log-probability under the distribution that it is drawn from.

    Args:
        logits: Float32, ``[rows, vocabulary]``.
        sampling: Of each row, see `Sampling`.
        chances: A random number in [0, 1) for each row: the same number gives the same token.

    Returns:
        Ids and log-probabilities, ``[rows]``; NaN where the logits are no numbers.
    """
    device = logits.device
    heat = [each.temperature if each.temperature > 0 else 1.0 for each in sampling]
    scaled = logits
    if any(each != 1.0 for each in heat):
        scaled = logits / torch.tensor(heat, device=device)[:, None]
    scaled = _cut(scaled, sampling)
    logprobs = torch.log_softmax(scaled, -1)
    mass = logprobs.exp().cumsum(-1, dtype=torch.float64)
    wanted = torch.tensor(chances, dtype=torch.float64, device=device)[:, None]
    drawn = torch.searchsorted(mass, wanted * mass[:, -1:] * _BELOW_ONE, right=True)[:, 0]
    tokens = drawn.clamp_(max=logits.shape[-1] - 1)
    if all(each.temperature > 0 for each in sampling):
        return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]
    cold = torch.tensor([each.temperature <= 0 for each in sampling], device=device)
    tokens = torch.where(cold, logits.argmax(-1), tokens)
    found = logprobs.gather(-1, tokens[:, None])[:, 0]
    sure = torch.where(torch.isnan(found), found, torch.zeros_like(found))
    return tokens, torch.where(cold, sure, found)


def _cut(scaled: torch.Tensor, sampling: Sequence[Sampling]) -> torch.Tensor:
    """The logits, with minus infinity for all tokens that ``top_k`` and ``top_p`` leave out."""
    size = scaled.shape[-1]
    ks = [min(each.top_k, size) if each.top_k > 0 else size for each in sampling]
    ps = [each.top_p for each in sampling]
    if all(k == size for k in ks) and all(p >= 1 for p in ps):
        return scaled
    ordered, places = scaled.sort(stable=True, dim=-1, descending=True)
    ranks = torch.arange(size, device=scaled.device)[None]
    out = ranks >= torch.tensor(ks, device=scaled.device)[:, None]
    chance = ordered.masked_fill(out, -torch.inf).softmax(-1)
    before = chance.double().cumsum(-1) - chance
    most = torch.tensor(ps, dtype=torch.float64, device=scaled.device)[:, None]
    out |= (before >= most) & (ranks > 0) & (most < 1)
    return torch.empty_like(scaled).scatter_(-1, places, ordered.masked_fill(out, -torch.inf))
