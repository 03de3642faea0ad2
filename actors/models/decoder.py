"""A decoder of the Llama family in plain torch, for small models, whose steps are mostly overhead.

What a Transformers forward does around the arithmetic (masks, positions, caches, hooks) takes
longer than the arithmetic of a model of some million parameters. Here a step is a dozen operations
a layer, over keys and values that stay where they are. It is used where its logits are those of the
model, which is tried when a version is loaded; else, and for other architectures, `rows` is.

Rows stand in slots of one buffer, all ending in the same column, so a step writes one column. What
is read for the first time is packed: no padding is computed. Keys and values of rows that have
ended are kept, as far as there is room: a prompt that goes on from one of them (the next turn of a
run), or that is the prompt of one (others of its group), is read from there on.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional

logger = logging.getLogger("podium.models")

FAMILY: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures that are this one, by the library's name."""

POSITIONS: Final = frozenset({"default", "linear", "llama3"})
"""Kinds of rotary positions whose frequencies depend on nothing but the place."""

MAX_PARAMETERS: Final = 10**8
"""Of a model, above which what a step takes is arithmetic; some weights are held twice here."""

CLOSE: Final = 1e-5
"""By how much logits may differ from the library's, relative to the largest (float32)."""

AHEAD: Final = 128
"""Columns made ahead: every so many steps what is still needed is copied once."""

READ: Final = 512
"""Tokens of one prompt whose attention is computed at a time: scores are as many as these times the
context, where all at once would be its square."""

KEPT_BYTES: Final = 2**27
"""Bytes of keys and values kept of rows that have ended: a hundred thousand tokens of a model of
0.8M parameters."""

ALIGNED: Final = 8
"""Columns that a GPU's kernels read at a time: a mask has to begin with a multiple of them."""

_FAR: Final = -1e9
"""Added to a score that doesn't count: finite, for minus infinity alone gives no number."""

_TRIED: Final = ((1, 5, 2, 7, 3), (4,), (2, 2, 9))
"""Prompts that are tried when a version is loaded, of ids that every vocabulary has."""


class _Layer(NamedTuple):
    """Weights of one layer; those that are multiplied with the same are one matrix."""

    before: torch.Tensor
    qkv: torch.Tensor
    bias: torch.Tensor | None
    qk_norm: torch.Tensor | None
    """Weights of the norm of queries and keys, ``[heads, size]``."""
    out: torch.Tensor
    out_bias: torch.Tensor | None
    between: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Decoder:
    """The weights of a model, arranged for sampling.

    Args:
        model: A causal model for which `fits` holds.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self._model = model
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.kept = Kept(KEPT_BYTES)
        self._places = torch.empty(0), torch.empty(0)
        self.refresh()

    def refresh(self) -> None:
        """Take the model's weights as they are; what was kept of others is forgotten."""
        inner = self._model.model
        self.layers = [self._layer(each) for each in inner.layers]
        self.embedding = inner.embed_tokens.weight.detach()
        self.norm = inner.norm.weight.detach()
        self.head = self._model.lm_head.weight.detach()
        self.kept.clear()

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [each.bias.detach() for each in parts if each.bias is not None]
        normed = getattr(attention, "q_norm", None)
        norms = None
        if normed is not None:
            queries = normed.weight.detach().expand(self.heads, -1)
            keys = attention.k_norm.weight.detach().expand(self.kv_heads, -1)
            norms = torch.cat([queries, keys])
        out = attention.o_proj
        return _Layer(
            before=layer.input_layernorm.weight.detach(),
            qkv=torch.cat([each.weight.detach() for each in parts]),
            bias=torch.cat(biases) if biases else None,
            qk_norm=norms,
            out=out.weight.detach(),
            out_bias=out.bias.detach() if out.bias is not None else None,
            between=layer.post_attention_layernorm.weight.detach(),
            gate_up=torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()]),
            down=mlp.down_proj.weight.detach(),
        )

    def places(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines of the first places, at least up to ``end``."""
        if len(self._places[0]) < end:
            count = max(AHEAD, 2 * end)
            frequencies = self._model.model.rotary_emb.inv_freq.float()
            turned = torch.arange(count, device=frequencies.device).float()[:, None] * frequencies
            cos, sin = turned.cos(), turned.sin()
            self._places = torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]
        return self._places

    def attended(
        self, layer: _Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries ``[tokens, heads, size]``, keys and values ``[tokens, kv_heads, size]``."""
        normed = functional.rms_norm(x, (x.shape[-1],), layer.before, self.eps)
        qkv = functional.linear(normed, layer.qkv, layer.bias)
        turning = self.heads + self.kv_heads
        qkv = qkv.view(-1, turning + self.kv_heads, self.size)
        qk, values = qkv[:, :turning], qkv[:, turning:]
        if layer.qk_norm is not None:
            qk = functional.rms_norm(qk, (self.size,), None, self.eps) * layer.qk_norm
        half = self.size // 2
        swapped = torch.cat((qk[..., half:], qk[..., :half]), -1)
        qk = torch.addcmul(qk * cos, swapped, sin)
        return qk[:, : self.heads], qk[:, self.heads :], values

    def rest(self, layer: _Layer, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """What comes after attention, ``[tokens, width]``."""
        x = x + functional.linear(seen, layer.out, layer.out_bias)
        normed = functional.rms_norm(x, (x.shape[-1],), layer.between, self.eps)
        gate, up = functional.linear(normed, layer.gate_up).chunk(2, -1)
        return x + functional.linear(functional.silu(gate).mul_(up), layer.down)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Of the next token, ``[tokens, vocabulary]``."""
        normed = functional.rms_norm(x, (x.shape[-1],), self.norm, self.eps)
        return functional.linear(normed, self.head)


class Kept:
    """Keys and values of rows that have ended, by the ids that they are of. The oldest go first.

    Args:
        limit: Bytes of all of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._known: OrderedDict[tuple[int, ...], tuple[torch.Tensor, int]] = OrderedDict()
        """What is kept, and the length of the prompt that it began as."""
        self._prefixes: dict[tuple[int, ...], tuple[int, ...]] = {}
        """Ids that may be gone on from, to those of what they begin."""
        self._lengths: dict[int, int] = {}

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._prefixes.clear()
        self._lengths.clear()
        self._bytes = 0

    def add(self, ids: Sequence[int], prompt: int, columns: torch.Tensor) -> None:
        """Keep a row's.

        Args:
            ids: The tokens.
            prompt: How many of them it began with.
            columns: ``[layers, 2, kv_heads, tokens, size]``; copied.
        """
        size = columns.numel() * columns.element_size()
        whole = tuple(ids)
        if size > self._limit or whole in self._known:
            return
        while self._bytes + size > self._limit:
            self._drop()
        self._known[whole] = columns.clone(), prompt
        self._bytes += size
        for key in {whole, whole[: prompt - 1]}:
            if key and key not in self._prefixes:
                self._prefixes[key] = whole
                self._lengths[len(key)] = self._lengths.get(len(key), 0) + 1

    def _drop(self) -> None:
        whole, (columns, prompt) = self._known.popitem(last=False)
        self._bytes -= columns.numel() * columns.element_size()
        for key in {whole, whole[: prompt - 1]}:
            if self._prefixes.get(key) == whole:
                del self._prefixes[key]
                self._lengths[len(key)] -= 1
                if not self._lengths[len(key)]:
                    del self._lengths[len(key)]

    def find(self, ids: tuple[int, ...]) -> torch.Tensor | None:
        """The most that is kept of a prompt: never its last token, whose logits are wanted."""
        for length in sorted(self._lengths, reverse=True):
            if length >= len(ids):
                continue
            whole = self._prefixes.get(ids[:length])
            if whole is not None:
                self._known.move_to_end(whole)
                return self._known[whole][0][..., :length, :]
        return None


class Slots:
    """Rows at work: their keys and values, see `rows.Rows`.

    Args:
        decoder: The weights.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._d = decoder
        self._device = decoder.embedding.device
        self._ids: list[list[int]] = []
        self._prompts: list[int] = []
        self._starts: list[int] = []
        """The column in which each row begins."""
        self._at = 0
        """The column in which all of them go on."""
        self._held = self._made(1, AHEAD)
        """``[layers, 2, slots, kv_heads, columns, size]``; slots from the first on are rows."""
        self._mask = torch.zeros(1, 1, 1, AHEAD, device=self._device)
        self._aligned = ALIGNED if self._device.type == "cuda" else 1
        self._ahead = torch.empty(0, 0)

    def _made(self, slots: int, columns: int) -> torch.Tensor:
        shape = (len(self._d.layers), 2, slots, self._d.kv_heads, columns, self._d.size)
        return torch.zeros(shape, device=self._device)

    # ------------------------------------------------------------------------------------- reading

    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read prompts, whose rows come after the others; logits of what follows each."""
        first: dict[tuple[int, ...], int] = {}
        fresh = [tuple(ids) for ids in prompts]
        begin = len(self._ids)
        self._room(begin + len(fresh), max(map(len, fresh)))
        reading: list[tuple[int, int]] = []
        """Slots of prompts that nobody else has, and how much of each is known."""
        for place, ids in enumerate(fresh, begin):
            self._ids.append(list(ids))
            self._prompts.append(len(ids))
            self._starts.append(self._at - len(ids))
            if ids not in first:
                first[ids] = place
                known = self._d.kept.find(ids)
                count = 0 if known is None else known.shape[-2]
                if known is not None:
                    start = self._starts[place]
                    self._held[:, :, place, :, start : start + count] = known
                reading.append((place, count))
        self._masked()
        made = self._read(reading)
        for place, ids in enumerate(fresh, begin):
            if first[ids] != place:
                start = self._starts[place]
                columns = self._held[:, :, first[ids], :, start : self._at]
                self._held[:, :, place, :, start : self._at] = columns
        order = {ids: row for row, ids in enumerate(first)}
        rows = [order[ids] for ids in fresh]
        return made if len(made) == len(rows) else made[rows]

    def _read(self, reading: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Read what is not known of prompts, packed; logits after each."""
        d = self._d
        new = [self._ids[place][known:] for place, known in reading]
        lengths = [len(ids) for ids in new]
        ids = torch.tensor([each for row in new for each in row], device=self._device)
        places = torch.tensor(
            [
                place
                for (_, known), count in zip(reading, lengths, strict=True)
                for place in range(known, known + count)
            ],
            device=self._device,
        )
        longest = max(known + count for (_, known), count in zip(reading, lengths, strict=True))
        cos, sin = (each[places] for each in d.places(longest))
        x = d.embedding[ids]
        for number, layer in enumerate(d.layers):
            queries, keys, values = d.attended(layer, x, cos, sin)
            seen = torch.empty_like(queries)
            begin = 0
            for (place, known), count in zip(reading, lengths, strict=True):
                end, start = begin + count, self._starts[place]
                held = self._held[number, :, place]
                held[0, :, start + known : self._at] = keys[begin:end].transpose(0, 1)
                held[1, :, start + known : self._at] = values[begin:end].transpose(0, 1)
                seen[begin:end] = self._looked(held[:, :, start : self._at], queries[begin:end])
                begin = end
            if number == len(d.layers) - 1:  # of the rest, only the last tokens' is wanted
                last = torch.tensor(lengths, device=self._device).cumsum(0) - 1
                x, seen = x[last], seen[last]
            x = d.rest(layer, x, seen.flatten(1))
        return d.logits(x)

    def _looked(self, held: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """What the last tokens of a row see in it, ``[tokens, heads, size]``.

        Args:
            held: Its keys and values, ``[2, kv_heads, columns, size]``.
            asked: The queries of those tokens, ``[tokens, heads, size]``.
        """
        heads, groups, size = self._d.kv_heads, self._d.heads // self._d.kv_heads, self._d.size
        seen = torch.empty_like(asked)
        for first in range(0, len(asked), READ):
            part = asked[first : first + READ]
            count, end = len(part), held.shape[2] - len(asked) + first + len(part)
            part = part.view(count, heads, groups, size).permute(1, 2, 0, 3)
            found = functional.scaled_dot_product_attention(
                part.reshape(1, heads, groups * count, size),
                held[None, 0, :, :end],
                held[None, 1, :, :end],
                attn_mask=self._causal(count, end).repeat(groups, 1),
            )
            found = found.view(heads, groups, count, size).permute(2, 0, 1, 3)
            seen[first : first + count] = found.reshape(count, heads * groups, size)
        return seen

    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        """Go on with one more token for each row; logits of what follows it."""
        d, count = self._d, len(self._ids)
        self._room(count, 0)
        at, low = self._at, min(self._starts)
        low -= low % self._aligned
        ids = torch.tensor(tokens, device=self._device)
        places = torch.tensor([at - start for start in self._starts], device=self._device)
        cos, sin = (each[places] for each in d.places(at - low + 1))
        x = d.embedding[ids]
        mask = self._mask[:count, :, :, low : at + 1]
        groups = d.heads // d.kv_heads
        for number, layer in enumerate(d.layers):
            queries, keys, values = d.attended(layer, x, cos, sin)
            held = self._held[number, :, :count]
            held[0, :, :, at] = keys
            held[1, :, :, at] = values
            seen = functional.scaled_dot_product_attention(
                queries.view(count, d.kv_heads, groups, d.size),
                held[0, :, :, low : at + 1],
                held[1, :, :, low : at + 1],
                attn_mask=mask,
            )
            x = d.rest(layer, x, seen.reshape(count, -1))
        for known, token in zip(self._ids, tokens, strict=True):
            known.append(token)
        self._at += 1
        return d.logits(x)

    # -------------------------------------------------------------------------------------- moving

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these rows, in this order; of the others, what later prompts may go on from."""
        for place in {*range(len(self._ids))} - {*kept}:
            columns = self._held[:, :, place, :, self._starts[place] : self._at]
            self._d.kept.add(self._ids[place], self._prompts[place], columns)
        moved = [(to, place) for to, place in enumerate(kept) if to != place]
        if moved:
            low = min(self._starts[place] for place in kept)
            to, of = ([pair[side] for pair in moved] for side in (0, 1))
            self._held[:, :, to, :, low : self._at] = self._held[:, :, of, :, low : self._at]
        self._ids = [self._ids[place] for place in kept]
        self._prompts = [self._prompts[place] for place in kept]
        self._starts = [self._starts[place] for place in kept]
        self._masked()

    def _room(self, slots: int, prompt: int) -> None:
        """Make room for one more column, so many slots, and a prompt of that length."""
        there, columns = self._held.shape[2], self._held.shape[4]
        count = len(self._starts)
        if not count:
            self._at = prompt
        if prompt <= self._at < columns and slots <= there:
            return
        wide = self._at - min(self._starts, default=self._at)
        at = max(prompt, wide)
        if slots > there:
            there = max(slots, there + there // 2)
        columns = at + AHEAD
        held = self._made(there, columns)
        held[:, :, :count, :, at - wide : at] = self._held[
            :, :, :count, :, self._at - wide : self._at
        ]
        self._starts = [start - self._at + at for start in self._starts]
        self._held, self._at = held, at
        self._mask = torch.zeros(there, 1, 1, columns, device=self._device)
        self._masked()

    def _masked(self) -> None:
        """Have no row see what is before it."""
        if self._starts:
            starts = torch.tensor(self._starts, device=self._device)[:, None]
            before = torch.arange(self._mask.shape[-1], device=self._device) < starts
            self._mask[: len(self._starts), 0, 0] = before * _FAR

    def _causal(self, count: int, end: int) -> torch.Tensor:
        """Which of ``end`` tokens each of the last ``count`` doesn't see, ``[count, end]``."""
        before, wide = end - count, self._ahead.shape[-1] - READ
        if wide < before:
            wide = max(AHEAD, 2 * before)
            far = torch.full((READ, wide + READ), _FAR, device=self._device)
            self._ahead = far.triu_(wide + 1)
        return self._ahead[:count, wide - before : wide + count]


def fits(model: Any) -> bool:
    """Whether a model is one of these: its architecture, its numbers, its size."""
    config = model.config
    rotary = getattr(config, "rope_parameters", None) or {}
    layers = {*(getattr(config, "layer_types", None) or ["full_attention"])}
    return bool(
        config.model_type in FAMILY
        and model.dtype == torch.float32
        and getattr(config, "hidden_act", "") == "silu"
        and rotary.get("rope_type") in POSITIONS
        and layers == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "mlp_bias", False)
        and getattr(model.lm_head, "bias", None) is None
        and _bare(model)
        and sum(each.numel() for each in model.parameters()) <= MAX_PARAMETERS
    )


def _bare(model: Any) -> bool:
    """Whether its matrices are just that: an adapter, or fewer bits, would be left out here."""
    layers = getattr(getattr(model, "model", None), "layers", ())
    parts = [
        getattr(part, f"{name}_proj")
        for layer in layers
        for part, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down")))
        for name in names
    ]
    return bool(parts) and all(type(each) is torch.nn.Linear for each in (*parts, model.lm_head))


def decoder(model: Any) -> Decoder | None:
    """The decoder of a model, if it is one of these and gives the same logits."""
    if not fits(model):
        return None
    try:
        return _tried(model)
    except Exception as error:  # whatever is other in it; the library knows it
        logger.info("a model is left to the library: %s: %s", type(error).__name__, error)
        return None


def _tried(model: Any) -> Decoder | None:
    """The decoder, if its logits are the model's."""
    made = Decoder(model)
    with torch.inference_mode():
        rows = Slots(made)
        found = [rows.join([ids[:1] for ids in _TRIED])]
        found.append(rows.read([ids[-1] for ids in _TRIED]))
        for row, ids in enumerate(_TRIED):
            for step, tokens in enumerate((ids[:1], [ids[0], ids[-1]])):
                wanted = model(input_ids=torch.tensor([list(tokens)], device=model.device))
                if not _close(found[step][row], wanted.logits[0, -1].float()):
                    return None
        whole = Slots(made).join(_TRIED)
        for row, ids in enumerate(_TRIED):
            wanted = model(input_ids=torch.tensor([list(ids)], device=model.device))
            if not _close(whole[row], wanted.logits[0, -1].float()):
                return None
    return made


def _close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    most = float(wanted.abs().max())
    return bool(torch.allclose(found, wanted, rtol=0.0, atol=CLOSE * max(1.0, most)))
