"""Passes: which examples a model reads at once, and how they lie beside one another.

Packed, examples lie behind one another in one row, each with positions of its own; padded, each
has a row of its own, filled up to the longest. What is padded is never looked at: attention is
causal, and the padding is on the right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch

from trainer.learner.weighing import Weighed

WASTE: Final = 0.75
"""The shortest example's share of the longest among those that attend in one call: padding is
cheaper than a call, up to about here."""


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Neighbours in a packed row whose attention is one call."""

    begin: int
    """The place in the row of the first one's first token."""
    count: int
    length: int
    """Tokens of the longest."""
    fill: torch.Tensor | None
    """Where, from ``begin``, each token of the padded ones comes from, ``[count * length]``; None
    if all are as long."""
    drain: torch.Tensor | None
    """Where each token of the row is among the padded ones, ``[tokens]``."""

    @property
    def tokens(self) -> int:
        """Of the row."""
        return self.count * self.length if self.drain is None else len(self.drain)

    def to(self, device: torch.device) -> "Span":
        """The same on a device."""
        if self.fill is None or self.drain is None:
            return self
        fill, drain = self.fill.to(device), self.drain.to(device)
        return Span(self.begin, self.count, self.length, fill, drain)


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What a model reads at once, and what of it is trained. ``k`` tokens of it are."""

    ids: torch.Tensor
    """``[rows, columns]``."""
    positions: torch.Tensor
    """``[rows, columns]``, from 0 in each example."""
    spans: tuple[Span, ...]
    """Of a packed row; empty if padded."""
    places: torch.Tensor
    """Among ``rows * columns``, the places after which a trained token comes, ``[k]``."""
    targets: torch.Tensor
    ce: torch.Tensor
    """See `Weighed`; ``[k]`` like those that follow."""
    pg: torch.Tensor
    ref_kl: torch.Tensor
    advantages: torch.Tensor
    logprobs: torch.Tensor
    old: torch.Tensor
    owners: torch.Tensor
    """Which example of the pass a token is of, from 0."""
    heat: torch.Tensor
    """The temperature that it was drawn at; 1 where there is no policy gradient."""
    top_p: torch.Tensor
    top_k: torch.Tensor
    examples: tuple[Weighed, ...]
    imitates: bool
    """Whether any token has a cross-entropy."""
    reinforces: bool
    """Whether any has a policy gradient or a divergence."""
    anchored: bool
    """Whether any has a divergence."""
    reshaped: bool
    """Whether any was drawn at another temperature than 1, or with ``top_p`` or ``top_k``."""

    def to(self, device: torch.device) -> "Pass":
        """The same on a device."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            moved[name] = value.to(device) if isinstance(value, torch.Tensor) else value
        moved["spans"] = tuple(span.to(device) for span in self.spans)
        return Pass(**moved)


class Batcher(Protocol):
    """Deals a batch into passes."""

    def __call__(self, batch: Sequence[Weighed]) -> list[Pass]:
        """The same batch gives the same passes."""


class PackedBatcher:
    """Passes of one row each: first fit, the longest first.

    Args:
        tokens: Of one row. An example that is longer has a row of its own.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __call__(self, batch: Sequence[Weighed]) -> list[Pass]:
        """The same batch gives the same passes."""
        ordered = sorted(batch, key=lambda each: -len(each.ids))  # stable
        rows: list[list[Weighed]] = []
        free: list[int] = []
        for each in ordered:
            size = len(each.ids)
            place = next((at for at, room in enumerate(free) if room >= size), len(rows))
            if place == len(rows):
                rows.append([])
                free.append(max(self._tokens, size))
            rows[place].append(each)
            free[place] -= size
        return [_packed(row) for row in rows]


class PaddedBatcher:
    """Passes of several rows, each as wide as its longest example.

    Args:
        tokens: Of one pass, padding included. A longer example has a pass of its own.
        ordered: Whether examples of like length share a pass; else they do as they come.
    """

    def __init__(self, tokens: int, *, ordered: bool = True) -> None:
        self._tokens, self._ordered = tokens, ordered

    def __call__(self, batch: Sequence[Weighed]) -> list[Pass]:
        """The same batch gives the same passes."""
        examples = sorted(batch, key=lambda each: -len(each.ids)) if self._ordered else batch
        passes: list[list[Weighed]] = []
        width = 0
        for each in examples:
            wider = max(width, len(each.ids))
            if passes and (len(passes[-1]) + 1) * wider <= self._tokens:
                passes[-1].append(each)
                width = wider
            else:
                passes.append([each])
                width = len(each.ids)
        return [_padded(each) for each in passes]


def filled(passes: Sequence[Pass]) -> float:
    """The share of what is read that is no padding."""
    read = sum(each.ids.numel() for each in passes)
    own = sum(len(example.ids) for each in passes for example in each.examples)
    return own / read if read else 1.0


def spans_of(lengths: Sequence[int]) -> tuple[Span, ...]:
    """Which neighbours attend in one call; lengths fall from the first to the last."""
    spans: list[Span] = []
    begin = first = 0
    while first < len(lengths):
        longest, last = lengths[first], first
        while last < len(lengths) and lengths[last] >= longest * WASTE:
            last += 1
        spans.append(_span(begin, lengths[first:last]))
        begin += sum(lengths[first:last])
        first = last
    return tuple(spans)


def _span(begin: int, lengths: Sequence[int]) -> Span:
    longest = lengths[0]
    if lengths[-1] == longest:
        return Span(begin, len(lengths), longest, None, None)
    sizes = np.asarray(lengths)
    starts = np.cumsum(sizes) - sizes
    column = np.arange(longest)
    fill = starts[:, None] + np.minimum(column[None], sizes[:, None] - 1)
    own = column[None] < sizes[:, None]
    drain = np.flatnonzero(own.ravel())
    return Span(
        begin, len(lengths), longest, torch.from_numpy(fill.ravel()), torch.from_numpy(drain)
    )


def _packed(row: Sequence[Weighed]) -> Pass:
    lengths = [len(each.ids) for each in row]
    starts = np.cumsum([0, *lengths[:-1]])
    ids = np.concatenate([each.ids for each in row])[None]
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    return _pass(row, ids, positions, starts, spans_of(lengths))


def _padded(rows: Sequence[Weighed]) -> Pass:
    width = max(len(each.ids) for each in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    for at, each in enumerate(rows):
        ids[at, : len(each.ids)] = each.ids
    positions = np.broadcast_to(np.arange(width), ids.shape)
    return _pass(rows, ids, positions, np.arange(len(rows)) * width, ())


def _pass(
    examples: Sequence[Weighed],
    ids: np.ndarray[Any, Any],
    positions: np.ndarray[Any, Any],
    starts: np.ndarray[Any, Any],
    spans: tuple[Span, ...],
) -> Pass:
    counts = [len(each.places) for each in examples]

    def joined(name: str) -> np.ndarray[Any, Any]:
        return np.concatenate([getattr(each, name) for each in examples])

    def spread(name: str, dtype: Any) -> np.ndarray[Any, Any]:
        values = np.asarray([getattr(each.example, name) for each in examples], dtype=dtype)
        return np.repeat(values, counts)

    places = joined("places").astype(np.int64) + np.repeat(starts, counts)
    ce, pg, ref_kl = (joined(name) for name in ("ce", "pg", "ref_kl"))
    drawn = (pg != 0) | (ref_kl != 0)
    heat = np.where(drawn, spread("temperature", np.float32), np.float32(1))
    top_p = np.where(drawn, spread("top_p", np.float64), 1.0)
    top_k = np.where(drawn, spread("top_k", np.int64), 0)
    tensor = torch.from_numpy
    return Pass(
        ids=tensor(np.array(ids, dtype=np.int64)),
        positions=tensor(np.array(positions, dtype=np.int64)),
        spans=spans,
        places=tensor(places),
        targets=tensor(joined("targets").astype(np.int64)),
        ce=tensor(ce),
        pg=tensor(pg),
        ref_kl=tensor(ref_kl),
        advantages=tensor(joined("advantages")),
        logprobs=tensor(joined("logprobs")),
        old=tensor(joined("old")),
        owners=tensor(np.repeat(np.arange(len(examples)), counts)),
        heat=tensor(heat),
        top_p=tensor(top_p),
        top_k=tensor(top_k),
        examples=tuple(examples),
        imitates=bool(ce.any()),
        reinforces=bool(drawn.any()),
        anchored=bool(ref_kl.any()),
        reshaped=bool((heat != 1).any() or (top_p < 1).any() or (top_k > 0).any()),
    )
