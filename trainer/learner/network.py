"""A model as the learner reads with it: passes in, log-probabilities of the trained tokens out.

Whether examples may lie behind one another, and whether logits may be computed for the trained
tokens alone, is tried once on the model itself against what it gives for each example alone. So few
tokens show no windows; these are compared with its configuration.
"""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from protocol.errors import InvalidData
from trainer.learner import attention
from trainer.learner.example import Example
from trainer.learner.options import Objective
from trainer.learner.packing import Batcher, PackedBatcher, PaddedBatcher, Pass
from trainer.learner.weighing import Room, weigh

Mode: TypeAlias = Literal["own", "model", "padded"]
"""How examples share a pass, see `Options.packing`."""

Entropy: TypeAlias = Literal["none", "value", "gradient"]
"""Whether the entropy of a distribution is wanted, and whether with a gradient."""

MODES: Final[tuple[Mode, ...]] = ("own", "model", "padded")

MAX_LOGITS: Final = 2**26
"""Logits that are computed at a time, 256 MiB in float32; above, they are computed in pieces, and
again for the gradient."""

TRIED: Final = (9, 5, 4, 2)
"""Tokens of the examples that a model is tried with."""

TOLERANCE: Final = 1e-3
"""Nats between two ways to read the same tokens, by the rounding of floats: a mistake is larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a model says of the trained tokens of a pass, float32, ``[k]``."""

    plain: torch.Tensor
    """Log-probabilities as they are."""
    drawn: torch.Tensor
    """Log-probabilities under the distribution that each was drawn from: its temperature applied,
    and its ``top_p`` and ``top_k``."""
    entropy: torch.Tensor | None
    """Nats, of that distribution; None where nobody asks."""


class Network:
    """A causal model.

    Args:
        model: Of Transformers, or of ``peft`` around one.
        packing: As in `Options`.
        autocast: Whether activations are bfloat16.

    Raises:
        InvalidData: It reads wrongly in the way that is asked for, or can't be read with at all.
    """

    def __init__(self, model: Any, packing: str = "auto", *, autocast: bool = False) -> None:
        self.model = model
        self.autocast = autocast
        """Whether activations are bfloat16."""
        self._core = model.get_base_model() if hasattr(model, "peft_config") else model
        self._keeps = "logits_to_keep" in inspect.signature(self._core.forward).parameters
        self._decoder, self._head = self._parts()
        self._noted: dict[int, int | None] | None = None
        """The windows of its layers, while they are noted."""
        self.mode: Mode = self._tried(packing)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        found: torch.device = self._core.device
        return found

    @property
    def room(self) -> Room:
        """What it has room for, as its configuration says."""
        said = getattr(self._core.config.get_text_config(), "max_position_embeddings", 0)
        return Room(int(said or 0), self._vocabulary())

    def batcher(self, tokens: int) -> Batcher:
        """What deals a batch into passes for it."""
        return PaddedBatcher(tokens) if self.mode == "padded" else PackedBatcher(tokens)

    def score(self, read: Pass, *, entropy: Entropy = "none") -> Scores:
        """Read a pass.

        Args:
            read: The pass.
            entropy: Whether it is wanted, and whether with a gradient.
        """
        with self._cast():
            hidden = self._hidden(read)
            size = self._vocabulary()
            step = max(1, MAX_LOGITS // size)
            if len(read.places) <= step:
                return _scores(self._logits(hidden), read, slice(None), entropy)
            pieces = []
            for begin in range(0, len(read.places), step):
                part = slice(begin, begin + step)
                pieces.append(
                    checkpoint(self._piece, hidden[part], read, part, entropy, use_reentrant=False)
                )
        return Scores(
            torch.cat([piece.plain for piece in pieces]),
            torch.cat([piece.drawn for piece in pieces]),
            torch.cat([piece.entropy for piece in pieces]) if entropy != "none" else None,
        )

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it, a model with an adapter reads without it."""
        with self.model.disable_adapter():
            yield

    def _cast(self) -> AbstractContextManager[Any]:
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _piece(self, hidden: torch.Tensor, read: Pass, part: slice, entropy: Entropy) -> Scores:
        return _scores(self._logits(hidden), read, part, entropy)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden) if self._head is not None else hidden

    def _vocabulary(self) -> int:
        return int(self._core.get_input_embeddings().num_embeddings)

    def _hidden(self, read: Pass) -> torch.Tensor:
        """What stands before the head at the trained places, ``[k, size]``, or the logits there."""
        given: dict[str, Any] = {"input_ids": read.ids, "use_cache": False}
        if read.spans:
            given["position_ids"] = read.positions
            if self.mode == "own":
                given[attention.KEYWORD] = read.spans
                if self._noted is not None:
                    given[attention.NOTED] = self._noted
        if self._decoder is not None:
            whole = self._decoder(**given).last_hidden_state
        elif self._keeps and len(read.ids) == 1:
            kept: torch.Tensor = self._core(**given, logits_to_keep=read.places).logits[0]
            return kept
        else:
            whole = self._core(**given).logits
        picked: torch.Tensor = whole.flatten(0, 1).index_select(0, read.places)
        return picked

    def _parts(self) -> tuple[Any, Any]:
        """Decoder and head, where logits are the head of what the decoder gives; else None."""
        head = self._core.get_output_embeddings()
        decoder = getattr(self._core, self._core.base_model_prefix, None)
        if head is None or decoder is None or decoder is self._core:
            return None, None
        ids = _some(self._vocabulary())[0][None].to(self.device)
        try:
            with _still(self._core):
                whole = self._core(input_ids=ids, use_cache=False).logits.float()
                apart = head(decoder(input_ids=ids, use_cache=False).last_hidden_state).float()
        except Exception:  # whatever a model makes of being read in parts
            return None, None
        same = whole.shape == apart.shape and torch.allclose(whole, apart, atol=TOLERANCE)
        return (decoder, head) if same else (None, None)

    def _tried(self, packing: str) -> Mode:
        """The first way to read that gives what the model gives for each example alone."""
        own = self._core.config._attn_implementation
        wanted = self._alone()
        said = ""
        for mode in MODES if packing == "auto" else (packing,):
            self.mode = mode  # type: ignore[assignment]
            self._attend(attention.NAME if mode == "own" else own)
            noted = self._noted = {}
            try:
                far = float((self._together() - wanted).abs().max())
            except Exception as error:  # whatever a model makes of what it does not know
                said = f"{type(error).__name__}: {error}"
                continue
            finally:
                self._noted = None
            said = "" if far <= TOLERANCE else f"log-probabilities are {far:.3g} nats off"
            if not said and mode == "own":
                said = attention.untold(self._core.config.get_text_config(), noted)
            if not said:
                return self.mode
        self._attend(own)
        raise InvalidData(
            f"{type(self._core).__name__} can't be read with packing = {packing!r}: {said}",
            hint="say packing = 'auto', which tries all ways",
        )

    def _attend(self, how: str) -> None:
        if how == attention.NAME:
            attention.register()
        if self._core.config._attn_implementation != how:
            self._core.set_attn_implementation(how)
        if self._core.config._attn_implementation != how:
            raise ValueError(f"it takes no attention called {how}")

    def _alone(self) -> torch.Tensor:
        """Log-probabilities of some examples by the model's own call, each alone."""
        found = []
        with _still(self._core):
            for ids in _some(self._vocabulary()):
                logits = self._core(input_ids=ids[None].to(self.device), use_cache=False).logits
                known = logits[0, :-1].float().log_softmax(-1)
                found.append(known.gather(-1, ids[1:, None].to(self.device))[:, 0])
        return torch.cat(found)

    def _together(self) -> torch.Tensor:
        """The same by a pass of all of them."""
        examples = [_imitated(ids) for ids in _some(self._vocabulary())]
        batch = weigh(examples, Objective(per="token")).weighed
        (read,) = self.batcher(1_000)(batch)
        autocast, self.autocast = self.autocast, False
        try:
            with _still(self._core):
                return self.score(read.to(self.device)).plain
        finally:
            self.autocast = autocast


def _some(size: int) -> list[torch.Tensor]:
    """Examples that a model is tried with: ids below ``size``."""
    drawn = np.random.default_rng(0)
    return [torch.from_numpy(drawn.integers(0, size, length)) for length in TRIED]


def _imitated(ids: torch.Tensor) -> Example:
    weights = np.ones(len(ids), dtype=np.float32)
    weights[0] = 0
    none = np.zeros_like(weights)
    return Example(ids.numpy().astype(np.int32), weights, none, none, none, none)


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """Without gradients and dropout."""
    trained = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(trained)


def _scores(logits: torch.Tensor, read: Pass, part: slice, entropy: Entropy) -> Scores:
    logits = logits.float()
    targets = read.targets[part, None]
    if not read.reshaped:
        every = torch.log_softmax(logits, -1)
        plain = every.gather(-1, targets)[:, 0]
        return Scores(plain, plain, _entropy(every, entropy))
    heated = logits / read.heat[part, None]
    heated = cut(heated, targets, read.top_p[part], read.top_k[part])
    every = torch.log_softmax(heated, -1)
    drawn = every.gather(-1, targets)[:, 0]
    if read.imitates:
        plain = torch.log_softmax(logits, -1).gather(-1, targets)[:, 0]
    else:
        plain = drawn
    return Scores(plain, drawn, _entropy(every, entropy))


def _entropy(every: torch.Tensor, wanted: Entropy) -> torch.Tensor | None:
    """Of distributions, given as log-probabilities, in nats."""
    if wanted == "none":
        return None
    logs = every.detach() if wanted == "value" else every
    # What is left out of a distribution has a log-probability of minus infinity.
    return -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)


def cut(
    logits: torch.Tensor, targets: torch.Tensor, top_p: torch.Tensor, top_k: torch.Tensor
) -> torch.Tensor:
    """Logits with minus infinity for what ``top_k`` and ``top_p`` leave out, as a sampler does it.

    The target itself is never left out: it was drawn, whatever these weights would have left.

    Args:
        logits: ``[k, vocabulary]``, the temperature applied.
        targets: ``[k, 1]``.
        top_p: ``[k]``, float64; 1 leaves all.
        top_k: ``[k]``; 0 leaves all.
    """
    size = logits.shape[-1]
    if bool(((top_p >= 1) & ((top_k <= 0) | (top_k >= size))).all()):
        return logits
    with torch.no_grad():
        ordered, places = logits.sort(stable=True, dim=-1, descending=True)
        ranks = torch.arange(size, device=logits.device)[None]
        most = torch.where(top_k > 0, top_k, size)[:, None]
        out = ranks >= most
        chance = ordered.masked_fill(out, -torch.inf).softmax(-1)
        before = chance.double().cumsum(-1) - chance
        out |= (before >= top_p[:, None]) & (ranks > 0) & (top_p[:, None] < 1)
        gone = torch.empty_like(out).scatter_(-1, places, out)
        gone.scatter_(-1, targets, value=False)
    return logits.masked_fill(gone, -torch.inf)
