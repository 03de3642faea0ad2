"""Attention of a packed row: each example for itself, at no more than its own length squared.

Everything else of a model treats tokens one by one, so only attention has to know where examples
begin. It is registered with Transformers under `NAME`; a pass hands its spans to the model, which
hands them on. A model that doesn't, or whose attention does more than this one knows, is found out
when it is tried (`trainer.learner.network`), and reads in another way.

Windows are longer than what a model is tried with, and many a model keeps them in a mask, which is
not looked at here. So the trial notes which layers handed theirs over, and `untold` compares.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from trainer.learner.packing import Span

NAME: Final = "podium_packed"

KEYWORD: Final = "podium_spans"
"""Of the model's call, under which the spans go through it."""

NOTED: Final = "podium_windows"
"""Of the model's call, under which a dictionary goes through it: by layer, the window it handed
over is noted there."""

WHOLE: Final = "full_attention"
WINDOWED: Final = "sliding_attention"

UNKNOWN: Final = ("softcap", "s_aux", "position_bias", "head_mask")
"""What other attentions are given, and this one does not do."""


def register() -> None:
    """Make it known to Transformers."""
    AttentionInterface.register(NAME, attention)


def untold(config: Any, noted: Mapping[int, int | None]) -> str:
    """What a model's layers attend to by its configuration and did not say; "" if they said all.

    Args:
        config: Of its decoder.
        noted: What a pass noted under `NOTED`.
    """
    kinds = getattr(config, "layer_types", None)
    told = sum(window is not None for window in noted.values())
    if kinds is not None:
        other = sorted({*kinds} - {WHOLE, WINDOWED})
        if other:
            return f"it has layers of {', '.join(other)}"
        wanted = sum(kind == WINDOWED for kind in kinds)
    elif getattr(config, "attention_chunk_size", None):
        return "it attends within chunks"
    elif getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        wanted = max(1, len(noted))
    else:
        wanted = told
    return "" if told == wanted else f"{told} of {wanted} layers hand their window over"


class _Fill(torch.autograd.Function):
    """Rows to padded rows. What is in the padding is never looked at, and has no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, fill: torch.Tensor, drain: torch.Tensor) -> Any:
        ctx.save_for_backward(drain)
        return rows.index_select(0, fill)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (drain,) = ctx.saved_tensors
        return gradients[0].index_select(0, drain), None, None


class _Drain(torch.autograd.Function):
    """Padded rows to rows."""

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, drain: torch.Tensor) -> Any:
        ctx.save_for_backward(drain)
        ctx.size = padded.shape[0]
        return padded.index_select(0, drain)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (drain,) = ctx.saved_tensors
        whole = gradients[0].new_zeros((ctx.size, *gradients[0].shape[1:]))
        return whole.index_copy_(0, drain, gradients[0]), None


# Its own type says that it takes no keyword.
_fill: Callable[..., torch.Tensor] = _Fill.apply
_drain: Callable[..., torch.Tensor] = _Drain.apply


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as Transformers calls it.

    Args:
        module: The layer.
        query: ``[rows, heads, columns, size]``.
        key: The same, with as many heads as there are of keys.
        value: The same.
        attention_mask: None: spans are all there is to know.
        dropout: Share of weights that is left out.
        scaling: What products are multiplied by; None for one over the root of ``size``.
        sliding_window: How many tokens each sees, itself included; None for all before it.
        given: `KEYWORD`; without it each row is one example. `NOTED`, if windows are to be noted.

    Returns:
        ``[rows, columns, heads, size]``, and None for the weights.

    Raises:
        ValueError: It is asked for what it does not do.
    """
    if any(given.get(name) is not None for name in UNKNOWN) or attention_mask is not None:
        raise ValueError(f"{NAME} is asked for more than causal attention")
    if not getattr(module, "is_causal", True) or given.get("is_causal") is False:
        raise ValueError(f"{NAME} is causal")
    if NOTED in given:
        given[NOTED][id(module)] = sliding_window
    one = _One(dropout, scaling, sliding_window)
    spans: Sequence[Span] = given.get(KEYWORD) or ()
    if not spans:
        return one(query, key, value).transpose(1, 2), None
    # Split, whose gradient is one concatenation: that of a slice is as large as the whole row.
    sizes = [span.tokens for span in spans]
    rows = [torch.split(each[0].transpose(0, 1), sizes) for each in (query, key, value)]
    made = [one.spanned(span, *own) for span, *own in zip(spans, *rows, strict=True)]
    whole = made[0] if len(made) == 1 else torch.cat(made)
    return whole[None], None


class _One:
    """Attention within examples of one width."""

    def __init__(self, dropout: float, scaling: float | None, window: int | None) -> None:
        self._dropout, self._scaling, self._window = dropout, scaling, window

    def spanned(
        self, span: Span, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Attention within the examples of a span; all ``[tokens, heads, size]``."""
        shaped = []
        for each in (query, key, value):
            own = each if span.fill is None else _fill(each, span.fill, span.drain)
            shaped.append(own.view(span.count, span.length, *own.shape[1:]).transpose(1, 2))
        found = self(*shaped).transpose(1, 2).flatten(0, 1)
        return found if span.drain is None else _drain(found, span.drain)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """``[examples, heads, columns, size]`` of each, and of what comes out."""
        columns, groups = query.shape[-2], query.shape[1] // key.shape[1]
        mask = None
        if self._window is not None and columns > self._window:
            mask = torch.ones(columns, columns, dtype=torch.bool, device=query.device).tril()
            mask = mask.triu(1 - self._window)
            if groups > 1:  # with a mask, fast kernels want as many heads of each
                key, value = (each.repeat_interleave(groups, 1) for each in (key, value))
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self._dropout,
            is_causal=mask is None,
            scale=self._scaling,
            enable_gqa=groups > 1 and mask is None,
        )
