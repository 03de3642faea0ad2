"""What a conductor is made by: a plan, whose every value is written into what it makes."""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from protocol.actions import Json
from protocol.errors import InvalidData, NotFound
from trainer.gym.teacher import Rates
from trainer.rewards.recipes import Recipe, Term
from trainer.small import Shape

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]

COST_SCALE: Final = 0.02
"""US dollars that weigh as much as a tenth of a right answer: a few calls of usual workers."""

REWARD: Final = Recipe(
    terms=(
        Term(channel="accuracy"),
        Term(channel="format", weight=0.1),
        Term(channel="efficiency", weight=0.1, only_if="accuracy"),
        Term(channel="cost", weight=-0.1, per=COST_SCALE, high=3.0),
    )
)
"""A right answer, replies that can be followed, few rounds where it is right, and little cost
always: accuracy, format and efficiency as ParaManager names them, with the cost of ToolOrchestra's
preferences in place of the diversity, which is no aim where one worker is right."""


class Sft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is taught."""

    steps: Annotated[int, msgspec.Meta(ge=0)] = 5_500
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Steps that it was taught before: its lessons are those that come after theirs."""
    episodes: Count = 16
    """Of a batch, each of them played once and never again. Small batches teach more of as many."""
    slips: bool = False
    """Whether what the teacher did wrong is imitated, too, as where nobody knows what it was."""
    context: NotNegative = 0.12
    """Weight of reading at the beginning: the cross-entropy of a token of the task and the workers,
    beside 1 of one that the model writes. It learns the words before it learns to decide."""
    read_until: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """The part of the teaching after which that weight is 0, to which it goes in a straight line:
    what is left then is learned for its own sake."""
    rate: Positive = 0.003
    matrix_rate: Positive = 0.02
    warmup: Count = 100
    floor: NotNegative = 0.05


class Correction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is corrected in what it does itself, see `trainer.conductor.correcting`."""

    steps: Annotated[int, msgspec.Meta(ge=0)] = 150
    episodes: Count = 32
    """Of a step, each played once by the model as it is then."""
    temperature: Positive = 0.5
    """Where it answers by what it holds most likely, most of what it draws at 1 never comes up."""
    rate: Positive = 0.0003
    matrix_rate: Positive = 0.002
    """Small beside those of the teaching, which would have it forget at first."""
    warmup: Count = 10
    floor: NotNegative = 0.05


class Rl(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is practised."""

    steps: Annotated[int, msgspec.Meta(ge=0)] = 60
    groups: Count = 32
    """Episodes of a step: of a model that was taught well, one in six tells right from wrong."""
    members: Annotated[int, msgspec.Meta(ge=2)] = 8
    """Rollouts of each."""
    min_std: NotNegative = 0.2
    """The standard deviation of a group's rewards below which nothing is learned of it: of eight
    of which one is wrong it is more, of eight that differ by some cents much less."""
    rate: Positive = 0.0003
    matrix_rate: Positive = 0.002
    warmup: Count = 5
    floor: NotNegative = 0.05
    temperature: Positive = 1.0
    scheme: str = "dr_grpo"
    """One of `trainer.advantages`' presets."""
    clip_low: NotNegative = 0.2
    clip_high: NotNegative = 0.28
    reward: Recipe = REWARD


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a conductor is made by."""

    seed: int = 0
    shape: Shape = Shape()
    vocabulary: Count = 1_536
    texts: Count = 2_000
    """Episodes from whose texts the vocabulary is made."""
    families: tuple[str, ...] = ()
    """Of the gym's tasks; all if empty."""
    rates: Rates = Rates()
    """How often its teacher slips."""
    storms: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.3
    """The part of the episodes, of all stages, in which half of the attempts fail: to go on from
    there is learned last, and is met seldom else."""
    twins: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.9
    """The part of the episodes, of all stages, in whose pools is who is easily taken for one that
    is needed, if there is such a kind (`trainer.gym.pools.TWINS`). What tells the two apart is
    learned of nothing else; where it matters in one episode of six, by some seeds only."""
    drills: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.85
    """The part of the lessons in whose place drills are given in the beginning, see
    `trainer.conductor.drilling`; as that of reading it goes down to 0 in a straight line."""
    sft: Sft = Sft()
    correction: Correction = Correction()
    rl: Rl = Rl()
    tokens: Count = 16_384
    """Of one pass of the learner, padding included."""
    reply_tokens: Count = 192
    """The most that one reply may have: twice what the longest round takes."""
    device: str = ""
    """Empty for a GPU if there is one."""


def described(plan: Plan) -> Json:
    """The plan as JSON, for a model's card."""
    found: Json = msgspec.to_builtins(plan)
    return found


def load(path: Path) -> Plan:
    """A plan from a TOML file.

    Raises:
        NotFound: There is no such file.
        InvalidData: It is none; the message names the place in it.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Plan)
    except FileNotFoundError:
        raise NotFound(f"there is no plan {path}", hint="name a TOML file") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidData(
            f"{path}: {error}", hint="trainer/conductor/plan.py has every key"
        ) from None
