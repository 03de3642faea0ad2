"""Keys and values of a batch whose rows come and go.

Rows are padded on the left, so that all of them end in the same column and a step adds one column
to each. A row that joins is padded to the others' width, or they to its; when rows leave, columns
that nobody needs go with them.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROOM: Final = 64
"""Columns made ahead: a step copies one column, and only each 64th copies all of them."""


class Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, shape ``[rows, heads, columns, size]``, with room for more."""

    is_initialized: bool
    keys: Any
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self._rooms: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns, and give all of them."""
        if not self.is_initialized:
            self.device, self.is_initialized = key_states.device, True
            self._put(key_states, value_states)
            return self.keys, self.values
        begin = self.keys.shape[-2]
        end = begin + key_states.shape[-2]
        if end > self._rooms[0].shape[-2]:
            self._put(
                torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)
            )
            return self.keys, self.values
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., begin:end, :] = new
        self.keys, self.values = (room[..., :end, :] for room in self._rooms)
        return self.keys, self.values

    def _put(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        columns = keys.shape[-2]
        self._rooms = [_wider(each, 0, ROOM) for each in (keys, values)]
        self.keys, self.values = (room[..., :columns, :] for room in self._rooms)

    def keep(self, rows: torch.Tensor, drop: int) -> None:
        """Keep these rows, without the first ``drop`` columns."""
        self._put(*(each[rows, :, drop:] for each in (self.keys, self.values)))

    def join(self, other: "Layer") -> None:
        """Add the rows of another batch."""
        columns = max(self.keys.shape[-2], other.keys.shape[-2])
        pairs = ((self.keys, other.keys), (self.values, other.values))
        self._put(
            *(
                torch.cat([_wider(each, columns - each.shape[-2], 0) for each in pair])
                for pair in pairs
            )
        )


class Rows:
    """The rows of a batch: their keys and values, which columns are theirs, and how far they are.

    Args:
        prompts: Ids of the tokens of each.
        device: Where they are.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], device: torch.device) -> None:
        width = max(map(len, prompts))
        self.cache: Any = Cache(layer_class_to_replicate=Layer)
        self.ids = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts])
        self.ids = self.ids.to(device)
        """What is read in the next step, ``[rows, new columns]``."""
        self.mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
        self.mask = self.mask.to(device)
        """1 where a column is a row's own, ``[rows, columns]``, those of ``ids`` included."""
        self.lengths = [len(ids) for ids in prompts]

    @property
    def positions(self) -> torch.Tensor:
        """Where the tokens of ``ids`` stand in their own rows."""
        whole = self.mask.cumsum(-1) - 1
        return whole.clamp_(min=0)[:, -self.ids.shape[-1] :]

    def take(self, tokens: torch.Tensor) -> None:
        """Go on with one more token for each row, ``[rows]``."""
        self.ids = tokens[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], -1)
        self.lengths = [length + 1 for length in self.lengths]

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these rows only."""
        if len(kept) == len(self.lengths):
            return
        rows = torch.tensor(kept, device=self.mask.device)
        self.lengths = [self.lengths[row] for row in kept]
        drop = self.mask.shape[-1] - max(self.lengths)
        self.ids, self.mask = self.ids[rows], self.mask[rows, drop:]
        for layer in self.cache.layers:
            layer.keep(rows, drop)

    def join(self, other: "Rows") -> None:
        """Add the rows of another batch that is as far: one token for each is to be read."""
        width = max(self.mask.shape[-1], other.mask.shape[-1])
        self.ids = torch.cat([self.ids, other.ids])
        masks = (self.mask, other.mask)
        self.mask = torch.cat(
            [torch.nn.functional.pad(each, (width - each.shape[-1], 0)) for each in masks]
        )
        self.lengths += other.lengths
        for layer, more in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.join(more)


def _wider(tensor: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """With columns of zeros before and behind."""
    return torch.nn.functional.pad(tensor, (0, 0, left, right))
