"""The learner: a batch of examples in, one update of the weights, and what is to be known of it.

::

    learner = Learner.open(folder, Options(objective=Objective(per="token")))
    stepped = learner.step(examples)     # → Stepped(values={"loss": …, "grad_norm": …, …})
    learner.save(checkpoints)            # and learner.resume(checkpoints)
    replay.model_versions.publish(folder, learner.write)

A step depends on the weights, the batch and ``(seed, step)`` alone: on the same machine, with as
many threads, it is the same to the bit, whatever went before it.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
import torch

from protocol.actions import Json
from protocol.errors import InvalidData, Usage
from trainer.learner import checkpoints
from trainer.learner.example import Example
from trainer.learner.loading import adapted, merged, read, recomputing
from trainer.learner.loss import PARTS, Tally, loss
from trainer.learner.network import Entropy, Network
from trainer.learner.options import Options
from trainer.learner.packing import Batcher, Pass, filled
from trainer.learner.stepping import Stepper
from trainer.learner.weighing import Batch, weigh
from trainer.rows import Floats

SEED_STRIDE: Final = 1_000_003
"""Between the seeds of two learners: their steps share none before so many."""


class Stepped(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    step: int
    """Batches so far, this one included."""
    updates: int
    """Of them, those that moved the weights."""
    values: dict[str, float]
    """Metrics by name; ``docs/learner.md`` says what each means. One that has no value in a batch,
    such as a ratio in one without a policy gradient, is left out."""
    refused: str = ""
    """Why the weights were not moved; "" if they were."""


class Learner:
    """Weights, and how they move.

    Args:
        model: A causal model of Transformers, float32. Its parameters that want a gradient are
            trained; with `Options.lora` an adapter is put around it.
        tokenizer: Is published with it.
        options: See there.
        reference: What ``ref_kl`` is measured from; None for what `Options.reference` says.
    """

    def __init__(
        self, model: Any, tokenizer: Any, options: Options, *, reference: Any = None
    ) -> None:
        self.options, self.tokenizer = options, tokenizer
        if options.recompute:
            recomputing(model)
        if options.lora is not None:
            model = adapted(model, options.lora, options.seed)
        cast = {"auto": model.device.type == "cuda", "off": False, "bfloat16": True}
        autocast = cast[options.autocast]
        self.network = Network(model, options.packing, autocast=autocast)
        self.stepper = Stepper(model, options.steps)
        self._batcher = self.network.batcher(options.tokens)
        self._reference: Network | None = None
        if reference is not None:
            self._reference = self._frozen(reference)
        elif options.reference and options.lora is None:
            self._reference = self._frozen(copy.deepcopy(model))
        self.steps = self.updates = 0
        self.version = ""
        """The published version of these weights, if they are published."""
        self.position: Json = None
        """Where whoever feeds it is: in a log, in a file. Kept in checkpoints as it is."""
        self.ended = False
        """Whether whoever watched has ended the training with these weights."""

    @classmethod
    def open(
        cls, folder: Path, options: Options, *, device: str = "", reference: Path | None = None
    ) -> Self:
        """A learner of the model in a folder.

        Args:
            folder: What `save_pretrained` wrote.
            options: See there.
            device: See `placed`.
            reference: The folder of another model, from which ``ref_kl`` is measured.

        Raises:
            Usage: There is no such device.
            NotFound: There is no such folder, or the extra is not installed.
            InvalidData: It can't be loaded or read with; the message says why.
        """
        model, tokenizer = read(folder, device)
        other = None if reference is None else read(reference, device)[0]
        return cls(model, tokenizer, options, reference=other)

    @property
    def model(self) -> Any:
        """The model, with its adapter if it has one."""
        return self.network.model

    def deal(self, batcher: Batcher) -> None:
        """Have batches dealt into passes in another way."""
        self._batcher = batcher

    def step(self, examples: Sequence[Example], *, old: Sequence[Floats] | None = None) -> Stepped:
        """One update by a batch, however many passes it takes.

        Args:
            examples: The batch; all of it counts in the normalisers.
            old: What `known` said of them before the first of several updates by one batch; for
                ``ratio="decoupled"``.

        Raises:
            InvalidData: An example can't be trained on; nothing has changed.
        """
        batch = weigh(examples, self.options.objective, self.network.room, old)
        passes = self._batcher(batch.weighed)
        tally = Tally()
        self.model.train()
        self.stepper.forget()  # of a step that was broken off
        with self._seeded():
            for each in passes:
                part = self._loss(each.to(self.network.device), tally)
                part.backward()  # type: ignore[no-untyped-call]
        sums = tally.values()
        values = _values(sums, batch, passes)
        norm = self.stepper.clipped() if passes else 0.0
        values |= {"grad_norm": norm} if passes else {}
        refused = self._refusal(values, batch)
        if refused:
            self.stepper.forget()
        else:
            rates = self.stepper.rates(self.updates)
            values |= {f"rate_{name}": rate for name, rate in rates.items()}
            self.stepper.step(self.updates)
            self.updates += 1
            self.version = ""
        self.steps += 1
        self.ended = False
        return Stepped(step=self.steps, updates=self.updates, values=values, refused=refused)

    def evaluate(self, examples: Sequence[Example]) -> dict[str, float]:
        """What `step` would say of a batch, without a gradient and without dropout."""
        batch = weigh(examples, self.options.objective, self.network.room)
        passes = self._batcher(batch.weighed)
        tally = Tally()
        with self._still():
            for each in passes:
                self._loss(each.to(self.network.device), tally)
        return _values(tally.values(), batch, passes)

    def known(self, examples: Sequence[Example]) -> list[Floats]:
        """Log-probabilities of the trained tokens under these weights, ``[n]`` for each example.

        Under the distribution that each was drawn from; NaN where nothing is trained. So they can
        be compared with what a sampler recorded.
        """
        objective = msgspec.structs.replace(self.options.objective, missing="one")
        batch = weigh(examples, objective, self.network.room)
        found = {id(each): np.full(len(each.ids), np.nan, dtype=np.float32) for each in examples}
        with self._still():
            for each in self._batcher(batch.weighed):
                drawn = self.network.score(each.to(self.network.device)).drawn.cpu().numpy()
                begin = 0
                for own in each.examples:
                    end = begin + len(own.places)
                    found[id(own.example)][own.places + 1] = drawn[begin:end]
                    begin = end
        return [found[id(each)] for each in examples]

    def drift(self, examples: Sequence[Example]) -> float:
        """How far recorded log-probabilities are from these weights', in nats, at most.

        Of rollouts that these weights drew it is the rounding of floats: 1e-5 in float32, some
        hundredths where one of both is in bfloat16. More says that sampler and learner differ.
        """
        gaps = [
            np.abs(known - each.logprobs)[each.pg != 0]
            for known, each in zip(self.known(examples), examples, strict=True)
        ]
        return float(np.nanmax(np.concatenate(gaps), initial=0.0)) if gaps else 0.0

    def write(self, folder: Path, *, average: bool = False) -> None:
        """Write a whole Transformers folder into an empty one: what is published.

        Args:
            folder: An adapter is merged into the weights there.
            average: Whether the average of the weights is written instead of them.

        Raises:
            Usage: There is no average.
            Denied, DiskFault: The disk is full, or the folder can't be written.
        """
        if average and not self.stepper.average:
            raise Usage("no average of the weights is kept", hint="say steps.ema, such as 0.999")
        with checkpoints.writing(folder):
            with self._averaged() if average else nullcontext():
                model = self.model if self.options.lora is None else merged(self.model)
                model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def write_adapter(self, folder: Path) -> None:
        """Write the adapter alone, as ``peft`` does. Raises `Usage` if there is none."""
        if self.options.lora is None:
            raise Usage("this learner trains no adapter", hint="say lora in its options")
        self.model.save_pretrained(folder)

    def save(self, folder: Path, *, keep: int = checkpoints.KEEP) -> Path:
        """Write a checkpoint into a folder of checkpoints: whole, or not at all.

        Args:
            folder: Made if it is missing.
            keep: How many are kept, the last ones.

        Raises:
            Conflict: There is another one of that step.
            Denied, DiskFault: The disk is full, or the folder can't be written.
        """
        state = checkpoints.State(
            step=self.steps,
            updates=self.updates,
            version=self.version,
            position=self.position,
            options=self.options,
            ended=self.ended,
        )
        return checkpoints.save(
            folder,
            state,
            weights=self.stepper.parameters,
            optimizer=self.stepper.state(),
            average=self.stepper.average,
            keep=keep,
        )

    def resume(self, folder: Path) -> bool:
        """Go on from the last checkpoint of a folder; False if it has none.

        Options are those given here, whatever they were when it was written.

        Raises:
            InvalidData: It is damaged, or of another model, optimiser or adapter.
        """
        found = checkpoints.last(folder)
        if found is None:
            return False
        saved = checkpoints.load(found)
        mine = self.options
        shapes = {name: each.shape for name, each in self.stepper.parameters.items()}
        if (saved.state.options.steps.kind, saved.state.options.lora) != (
            mine.steps.kind,
            mine.lora,
        ) or {name: each.shape for name, each in saved.weights.items()} != shapes:
            raise InvalidData(
                f"checkpoint {found} is of another model, optimiser or adapter",
                hint="resume with what it was begun with, or name another folder",
            )
        with torch.no_grad():
            for name, parameter in self.stepper.parameters.items():
                parameter.copy_(saved.weights[name])
        self.stepper.restore(saved.optimizer, saved.average)
        self.steps, self.updates = saved.state.step, saved.state.updates
        self.version, self.position = saved.state.version, saved.state.position
        self.ended = saved.state.ended
        return True

    def _loss(self, each: Pass, tally: Tally) -> torch.Tensor:
        objective = self.options.objective
        wanted: Entropy = "none"
        if each.reinforces:
            wanted = "gradient" if objective.entropy else "value"
        scores = self.network.score(each, entropy=wanted)
        reference = self._referred(each) if each.anchored else None
        return loss(each, scores, objective, tally, reference)

    def _referred(self, each: Pass) -> torch.Tensor:
        """What the reference says of a pass."""
        with torch.no_grad():
            if self._reference is not None:
                return self._reference.score(each).drawn
            if self.options.lora is None:
                raise InvalidData(
                    "the batch asks for a divergence, and there is no reference model",
                    hint="say reference = true in the options, or leave ref_kl at 0",
                )
            trained = self.model.training
            self.model.eval()
            with self.network.reference():
                found = self.network.score(each).drawn
            self.model.train(trained)
            return found

    def _frozen(self, model: Any) -> Network:
        model.requires_grad_(False).eval()
        autocast = self.network.autocast
        return Network(model, self.network.mode, autocast=autocast)

    def _refusal(self, values: dict[str, float], batch: Batch) -> str:
        if not batch.weighed:
            return "nothing in it is trained"
        if not math.isfinite(values["grad_norm"]):
            return "its gradient is no number"
        share = values.get("ess_frac", 1.0)
        least = self.options.objective.min_ess_frac
        if share < least:
            return f"its effective sample size is {share:.3g} of its samples, below {least:g}"
        return ""

    def _seeded(self) -> AbstractContextManager[None]:
        return _seeded(self.options.seed * SEED_STRIDE + self.steps, self.network.device)

    @contextmanager
    def _still(self) -> Iterator[None]:
        trained = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(trained)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within it, the weights are their average."""
        kept = {name: each.detach().clone() for name, each in self.stepper.parameters.items()}
        with torch.no_grad():
            for name, each in self.stepper.parameters.items():
                each.copy_(self.stepper.average[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, each in self.stepper.parameters.items():
                    each.copy_(kept[name])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, torch's random numbers are the seed's; afterwards they go on as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _values(sums: dict[str, float], batch: Batch, passes: Sequence[Pass]) -> dict[str, float]:
    """Metrics of the sums over a batch."""
    values = {
        "loss": sum(sums[name] for name in PARTS),
        "examples": float(len(batch.weighed)),
        "idle": float(batch.idle),
        "tokens": float(batch.tokens),
        "trained": float(batch.trained["any"]),
        "passes": float(len(passes)),
        "filled": filled(passes),
    }
    if imitated := sums["imitated"]:
        values |= {"loss_ce": sums["loss_ce"], "nll": sums["nll"] / imitated}
    if drawn := sums["drawn"]:
        weights, squared, samples = (
            sums[name] for name in ("weights", "weights_squared", "samples")
        )
        size = weights * weights / squared if squared else 0.0
        values |= {
            "loss_pg": sums["loss_pg"],
            "ratio": sums["ratio"] / drawn,
            "clip_frac": (sums["clipped_low"] + sums["clipped_high"]) / drawn,
            "clip_low_frac": sums["clipped_low"] / drawn,
            "clip_high_frac": sums["clipped_high"] / drawn,
            "kl_behaviour": sums["kl_behaviour"] / drawn,
            "masked_frac": sums["masked"] / drawn,
            "missing": float(batch.missing),
            "ess": size,
            "ess_frac": size / samples if samples else 0.0,
            "entropy": sums["entropy"] / drawn,
        }
    if bonus := sums["loss_entropy"]:
        values["loss_entropy"] = bonus
    if anchored := sums["anchored"]:
        values |= {"loss_ref_kl": sums["loss_ref_kl"], "ref_kl": sums["ref_kl"] / anchored}
    return values
