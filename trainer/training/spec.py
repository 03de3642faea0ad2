"""What a training is asked to be: a TOML file, flags over it, and nothing else.

All of it is written down in the training's folder, and with the data it decides every step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from protocol.errors import Usage
from trainer import specfile
from trainer.advantages import Scheme, scheme
from trainer.learner.options import DEFAULT_TOKENS, Lora, Objective, Options, Steps
from trainer.rewards import CHANNELS, Recipe, preset
from trainer.rewards.presets import PRESETS
from trainer.rewards.recipes import Term

Kind: TypeAlias = Literal["sft", "rl"]

Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Positive = Annotated[float, msgspec.Meta(gt=0)]

BATCH: Final = 32
"""Rows of one step of imitation, groups of one step of reinforcement from a data set."""

TO_THE_END: Final = 10**9
"""The ``total`` of a schedule that is to end with the training."""

RATES: Final[Mapping[Kind, float]] = {"sft": 2e-5, "rl": 1e-6}
"""Learning rates, if none is said: those of TRL's trainers, for a model that is trained already.
One from scratch wants a hundred times as much."""

EVERY: Final[Mapping[bool, int]] = {False: 100, True: 1}
"""Steps between two checkpoints, by whether rollouts are live: there a step costs more than one."""

LIVE_STEPS: Final = 60
EPOCHS: Final = 1.0
"""How long, if nothing is said."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Live(_Table, frozen=True, kw_only=True):
    """Of rollouts that actors play as it trains."""

    groups: Count = 8
    """Tasks of a step."""
    members: Annotated[int, msgspec.Meta(ge=2, le=10**6)] = 8
    """Rollouts of each."""
    temperature: Positive = 1.0
    reward: str | Recipe = "accuracy"
    """What a rollout is worth: a channel or a preset of `trainer.rewards`, or terms of your own."""
    advantages: str = "grpo"
    """How rewards become advantages: a scheme of `trainer.advantages`."""
    min_std: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """The standard deviation of a group's rewards below which nothing is learned of it."""
    publish_every: Count = 1
    """Steps between two versions. Rollouts of more than one step are then of one version, and the
    ratio corrects for that."""
    in_flight: Count = 256
    """Runs that are begun and not done, at most."""
    timeout_s: Positive = 600.0
    """Seconds after which a group is taken without those of its runs that go on."""

    @property
    def scheme(self) -> Scheme:
        """How rewards become advantages. Raises `Usage` if there is no such one."""
        return scheme(self.advantages, self.min_std)

    @property
    def recipe(self) -> Recipe:
        """How channels become the reward. Raises `Usage` if there is no such one."""
        if isinstance(self.reward, Recipe):
            return self.reward
        if self.reward in PRESETS:
            return preset(self.reward)
        if self.reward in CHANNELS:
            return Recipe(terms=(Term(channel=self.reward),))
        raise Usage(
            f"there is no reward {self.reward!r}",
            hint=f"one of: {', '.join((*PRESETS, *CHANNELS))}; or terms, see docs/rewards.md",
        )


class Spec(_Table, frozen=True, kw_only=True):
    """A training."""

    kind: Kind
    steps: Whole = 0
    """Batches; 0 for as many as the epochs take."""
    epochs: Annotated[float, msgspec.Meta(gt=0, le=10**6)] = EPOCHS
    """How often each row of a data set comes."""
    batch: Count = BATCH
    """Rows of a step (sft), or whole groups (rl), of a data set."""
    seed: Whole = 0
    """Of the order of the data, of dropout, and of what is drawn."""
    device: str = ""
    """Such as ``cpu`` or ``cuda:1``; empty for a GPU if there is one."""
    threads: Whole = 0
    """Of a CPU; 0 for as many as torch takes. Another number gives other last bits."""
    checkpoint_every: Whole = 0
    """Steps; 0 for every step of live rollouts, and each hundredth else."""
    keep: Count = 3
    """Checkpoints that stay."""
    objective: Objective
    optimizer: Steps
    lora: Lora | None = None
    reference: bool = False
    ref_kl: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Weight of the divergence from the model as it began, for each reinforced token."""
    tokens: Count = DEFAULT_TOKENS
    """Of one forward pass; a batch is as many passes as it takes."""
    packing: Literal["auto", "own", "model", "padded"] = "auto"
    autocast: Literal["auto", "off", "bfloat16"] = "auto"
    recompute: bool = False
    live: Live = Live()

    def options(self, steps: int) -> Options:
        """All that a learner is told, for so many steps."""
        moves = self.optimizer
        if moves.total == TO_THE_END:
            total = max(steps, moves.warmup) + 1 if moves.schedule != "constant" else 0
            moves = msgspec.structs.replace(moves, total=total)
        return Options(
            objective=self.objective,
            steps=moves,
            lora=self.lora,
            reference=self.reference or (self.ref_kl > 0 and self.lora is None),
            tokens=self.tokens,
            packing=self.packing,
            autocast=self.autocast,
            recompute=self.recompute,
            seed=self.seed,
        )

    def every(self, *, live: bool) -> int:
        """Steps between two checkpoints."""
        return self.checkpoint_every or EVERY[live]


def load(kind: Kind, file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Spec:
    """The spec of a file, with flags over it.

    Args:
        kind: What is trained; the file may say the same.
        file: TOML with the fields of `Spec`; None for none.
        flags: Values by dotted path, such as ``{"optimizer.rate": 1e-4}``; None is not given.

    Raises:
        Usage: The file can't be read, a key is unknown, a value doesn't fit; the message names the
            place.
    """
    spec = specfile.load(
        Spec,
        kind,
        file,
        flags,
        noun="a training",
        command="podium train",
        filled=lambda tree: _filled(tree, kind),
    )
    spec.live.recipe.check()
    _ = spec.live.scheme  # is known
    if spec.ref_kl and kind == "sft":
        raise Usage(
            f"{file or 'the flags'}: ref_kl is of reinforcement, and this is supervised",
            hint="leave it out, or say: podium train rl",
        )
    return spec


def _filled(tree: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """With what is different for each kind, where nothing is said."""
    full = dict(tree)
    usual = {"per": "token"} if kind == "sft" else {"per": "rollout", "clip_high": 0.28}
    for name, values in (("objective", usual), ("optimizer", {"rate": RATES[kind]})):
        said = full.get(name, {})
        if isinstance(said, dict):
            full[name] = {**values, **said}
    if isinstance(full["optimizer"], dict):
        full["optimizer"].setdefault("total", TO_THE_END)
    return full
