"""Keys and values of a batch whose rows come and go.

Rows are padded on the left, so that all of them end in the same column and a step adds one column
to each. A row that joins is padded to the others' width, or they to its; when rows leave, columns
that nobody needs go with them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import torch
from transformers.cache_utils import Cache, DynamicLayer

Logits: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Any], torch.Tensor]

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
    """The rows of a batch, of any decoder whose cache is keys and values.

    Args:
        model: What gives logits of ids, which columns are a row's own, places and a cache; see
            `Loaded.logits`.
        device: Where it is.
    """

    def __init__(self, model: Logits, device: torch.device) -> None:
        self._model, self._device = model, device
        self._cache: Any = Cache(layer_class_to_replicate=Layer)
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)
        """1 where a column is a row's own, ``[rows, columns]``."""
        self._lengths: list[int] = []

    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts, whose rows come after the others; logits of what follows each."""
        fresh = Rows(self._model, self._device) if self._lengths else self
        logits = fresh._begin(prompts)
        if fresh is not self:
            self._add(fresh)
        return logits

    def _begin(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(map(len, prompts))
        # A batch that was left by all begins anew.
        self._cache = Cache(layer_class_to_replicate=Layer)
        padded = [[0] * (width - len(ids)) + list(ids) for ids in prompts]
        owned = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        self._mask = torch.tensor(owned, device=self._device)
        self._lengths = [len(ids) for ids in prompts]
        return self._logits(torch.tensor(padded, device=self._device))

    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        """Go on with one more token for each row; logits of what follows it."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], -1)
        self._lengths = [length + 1 for length in self._lengths]
        return self._logits(torch.tensor(tokens, device=self._device)[:, None])

    def _logits(self, ids: torch.Tensor) -> torch.Tensor:
        places = (self._mask.cumsum(-1) - 1).clamp_(min=0)[:, -ids.shape[-1] :]
        return self._model(ids, self._mask, places, self._cache)

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        if list(kept) == list(range(len(self._lengths))):
            return
        self._lengths = [self._lengths[row] for row in kept]
        if not kept:
            return
        rows = torch.tensor(kept, device=self._device)
        drop = self._mask.shape[-1] - max(self._lengths)
        self._mask = self._mask[rows, drop:]
        for layer in self._cache.layers:
            layer.keep(rows, drop)

    def _add(self, other: "Rows") -> None:
        width = max(self._mask.shape[-1], other._mask.shape[-1])
        masks = (self._mask, other._mask)
        self._mask = torch.cat(
            [torch.nn.functional.pad(each, (width - each.shape[-1], 0)) for each in masks]
        )
        self._lengths += other._lengths
        for layer, more in zip(self._cache.layers, other._cache.layers, strict=True):
            layer.join(more)


def _wider(tensor: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """With columns of zeros before and behind."""
    return torch.nn.functional.pad(tensor, (0, 0, left, right))
