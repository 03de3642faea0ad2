"""Options of `podium train`, and the spec that they make."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from trainer.training.spec import Spec

HOW: Final = Group("How it is trained", sort_key=1)
LIVE: Final = Group("Live rollouts", sort_key=2)
RESULT: Final = Group("What becomes of it", sort_key=3)


@Parameter(name="*", group=HOW)
@dataclass(frozen=True)
class How:
    """How it is trained."""

    spec: Annotated[str | None, Parameter(help="A TOML file that says how.")] = None
    steps: Annotated[int | None, Parameter(help="Batches.")] = None
    epochs: Annotated[float | None, Parameter(help="Instead: how often each row comes (1).")] = None
    batch: Annotated[int | None, Parameter(help="Rows, or groups, of a step (32).")] = None
    optimizer: Annotated[
        Literal["adamw", "muon"] | None, Parameter(help="What moves the weights (adamw).")
    ] = None
    rate: Annotated[float | None, Parameter(help="Learning rate (sft 2e-5, rl 1e-6).")] = None
    lora: Annotated[int | None, Parameter(help="Train an adapter of this rank instead.")] = None
    ref_kl: Annotated[
        float | None, Parameter(help="rl: weight of the divergence from the first version.")
    ] = None
    seed: Annotated[int | None, Parameter(help="Of all that is drawn (0).")] = None
    device: Annotated[str | None, Parameter(help="cpu, cuda, cuda:1; a GPU if there is one.")] = (
        None
    )
    threads: Annotated[int | None, Parameter(help="Of a CPU.")] = None
    checkpoint_every: Annotated[
        int | None, Parameter(help="Steps between two checkpoints (100; 1 for live rollouts).")
    ] = None

    def flags(self) -> dict[str, Any]:
        """By their path in the spec."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "batch": self.batch,
            "optimizer.kind": self.optimizer,
            "optimizer.rate": self.rate,
            "lora.rank": self.lora,
            "ref_kl": self.ref_kl,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "checkpoint_every": self.checkpoint_every,
        }


@Parameter(name="*", group=LIVE)
@dataclass(frozen=True)
class Played:
    """What the standing deployment plays as it trains."""

    tasks: Annotated[
        str | None, Parameter(help="A file with a task a line (JSON): text, check, inputs.")
    ] = None
    gym: Annotated[str | None, Parameter(help="Tasks of the gym instead: `train`, or `small`.")] = (
        None
    )
    family: Annotated[list[str] | None, Parameter(help="Only of these families.")] = None
    groups: Annotated[int | None, Parameter(help="Tasks of a step (8).")] = None
    members: Annotated[int | None, Parameter(help="Runs of each (8).")] = None
    temperature: Annotated[float | None, Parameter(help="At which replies are drawn (1).")] = None
    reward: Annotated[
        str | None, Parameter(help="A channel or a preset: accuracy, paramanager, conductor.")
    ] = None
    advantages: Annotated[str | None, Parameter(help="How they are made of it (grpo).")] = None
    min_std: Annotated[
        float | None, Parameter(help="Groups whose rewards deviate less teach nothing (0).")
    ] = None
    publish_every: Annotated[int | None, Parameter(help="Steps between two versions (1).")] = None

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return any(value is not None for value in vars(self).values())

    def flags(self) -> dict[str, Any]:
        """By their path in the spec."""
        names = (
            *("groups", "members", "temperature", "reward", "advantages", "min_std"),
            "publish_every",
        )
        return {f"live.{name}": getattr(self, name) for name in names}


@Parameter(name="*", group=RESULT)
@dataclass(frozen=True)
class Result:
    """What becomes of it."""

    out: Annotated[str | None, Parameter(help="The training's folder (trainings/KIND).")] = None
    fresh: Annotated[bool, Parameter(help="Begin anew where a training is.")] = False
    no_publish: Annotated[bool, Parameter(help="Publish no version at the end.")] = False
    current: Annotated[
        bool, Parameter(help="Have the version answer at once, whatever its scores.")
    ] = False
    average: Annotated[
        bool, Parameter(help="Publish the average of the weights ([optimizer] ema).")
    ] = False
    why: Annotated[str, Parameter(help="Why: it is recorded with the version.")] = ""


PLAIN: Final = How()
NOBODY: Final = Played()
USUAL: Final = Result()
"""What a command takes that is given no options."""


def spec_of(kind: Literal["sft", "rl"], how: How, played: Played, here: Path) -> "Spec":
    """The spec of a file, with flags over it. Raises `Usage`."""
    from trainer.training.spec import load

    flags = {**how.flags(), **played.flags()}
    return load(kind, here / how.spec if how.spec else None, flags)
