"""What a data set is asked to be: a TOML file, flags over it, and nothing else.

Everything here is in the manifest, and with the log it decides every byte.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from protocol.decisions import Dialect, Naming, PolicySpec
from protocol.errors import Usage
from protocol.state import Outcome
from trainer import specfile

Kind: TypeAlias = Literal["sft", "rl", "preference"]

Format: TypeAlias = Literal["parquet", "trl", "verl", "prime-rl", "verifiers", "openai", "atif"]

Layout: TypeAlias = Literal["auto", "tokens", "prompt", "chat"]
"""Of TRL's SFT rows: ``tokens`` (``input_ids`` and ``labels``), ``prompt`` (one row a trained
reply, ``prompt`` and ``completion``), ``chat`` (whole conversations, every reply trained)."""

Views: TypeAlias = Literal["full", "clean", "both"]
"""Of a recovery: with what went wrong, without it, or a row of each."""

Stale: TypeAlias = Literal["drop", "error", "keep"]
"""What becomes of rollouts of weights that are too old for policy gradients."""

Refused: TypeAlias = Literal["drop", "keep"]
"""What becomes of rollouts that a learner refuses unless it is told how to take them."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Size = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=10**9)]

PART_ROWS: Final = 20_000
"""Rows after which a file is full: with some thousand tokens each, some hundred megabytes."""

PART_BYTES: Final = 128 * 2**20
"""Bytes, before compression, after which a file is full: few enough to be made again in seconds,
for the last file of a data set is made again whenever something is added."""

SETTLE_S: Final = 3_600
"""Seconds in which no run of a task is at work, after which the task's next run begins a unit of
its own."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Select(_Table, frozen=True, kw_only=True):
    """Which runs are looked at; an empty list leaves nothing out."""

    since: str = ""
    """ISO 8601, UTC where no zone is said: runs that began then or later."""
    until: str = ""
    """Runs that began before."""
    labels: tuple[str, ...] = ()
    """Tags that a run must have, all of them: a label's key, or ``key=value``."""
    versions: tuple[str, ...] = ()
    """Of the policy: every reply must be of one of them. One of a model of ours may be said by its
    name, ``000002``, with its model's, ``conductor/000002``, or whole, as replies have it."""
    policies: tuple[str, ...] = ()
    """Names, such as ``openai:gpt-5``, or what they begin with."""
    pools: tuple[str, ...] = ()
    """A pool's hash, or the beginning of it; or the name of a worker in it."""
    outcomes: tuple[Outcome, ...] = ()
    runs: tuple[str, ...] = ()
    """Ids, or what they begin with."""
    children: bool = True
    """Whether runs that answer a call of another run are looked at."""


class Sft(_Table, frozen=True, kw_only=True):
    """Of imitation: one of a task's right trajectories."""

    recovery: Share = 0.3
    """The most of the kept trajectories that may show a recovery."""
    views: Views = "full"
    unchecked: bool = False
    """Whether a finished run whose answer nobody has checked counts as right."""
    right: NotNegative = 1.0
    """The accuracy from which an answer is right."""
    slips: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Versions of replies that are read and not imitated, ``*`` for any characters, such as
    ``gym-teacher-*!*``. Unset, it is not in the manifest, so that hashes of those without it stay.
    """


class Rl(_Table, frozen=True, kw_only=True):
    """Of policy gradients: groups of rollouts of one task."""

    group: Size = 2
    """The fewest scored rollouts of a group."""
    min_std: NotNegative = 1e-6
    """The standard deviation that the rewards of a group must exceed."""
    mixed: bool = True
    """Whether a group must have right and wrong answers, where that is known of all."""
    advantages: str = "grpo"
    """How rewards become advantages: a scheme of `trainer.advantages`."""
    stale: Stale = "drop"
    lag: Count = 0
    """Versions that the weights may lie behind the newest of their model in the selection."""
    truncated: Refused = "drop"
    """Of rollouts that were drawn with ``top_p`` or ``top_k``: a learner takes them with
    ``truncated = "apply"``."""
    missing: Refused = "drop"
    """Of rollouts without log-probabilities: a learner takes them with ``missing = "one"``."""


class Preference(_Table, frozen=True, kw_only=True):
    """Of preference: two rollouts that part at one reply, the better one and the worse."""

    margin: NotNegative = 0.1
    """The least difference of their rewards."""
    completion: Literal["reply", "rest"] = "reply"
    """What is compared: the reply at which they part, or all that follows."""


class Spec(_Table, frozen=True, kw_only=True):
    """A data set."""

    kind: Kind
    format: Format = "parquet"
    layout: Layout = "auto"
    select: Select = Select()
    reward: str = "accuracy"
    """What scores a rollout: a channel or a preset of `trainer.rewards`."""
    progress: Share | None = None
    """Of a reward that is annealed: the part of a training that is done."""
    settle_s: Count = SETTLE_S
    dialect: Dialect | Literal[""] = ""
    """How the policy to be trained speaks; empty for as the run's own did."""
    naming: Naming = "names"
    system: str = ""
    """With a dialect: what it is told of its job."""
    tokenizer: str = ""
    """A folder with the tokenizer and chat template to render with. In the manifest: its hash."""
    template_values: dict[str, Any] = {}
    """What the chat template is given besides the messages, such as ``enable_thinking``."""
    text: bool = True
    """Whether rows with tokens have their messages, too."""
    max_tokens: Count = 0
    """The most tokens of a row, for a model's context; longer ones are left out. 0 for any."""
    part_rows: Size = PART_ROWS
    sft: Sft = Sft()
    rl: Rl = Rl()
    preference: Preference = Preference()

    def speaker(self, policy: PolicySpec) -> PolicySpec:
        """Who is to be trained, of the runs of a policy."""
        if self.dialect:
            wanted = (self.dialect, self.naming, self.system)
            if wanted == (policy.dialect, policy.naming, policy.system):
                return policy
            return PolicySpec(
                name=policy.name, dialect=self.dialect, naming=self.naming, system=self.system
            )
        if policy.dialect != "decision":
            return policy
        return PolicySpec(name=policy.name, dialect="openai", naming=policy.naming)

    def times(self) -> tuple[int, int]:
        """From when on and until when, milliseconds since the epoch; 0 for without end.

        Raises:
            Usage: One of them is no time.
        """
        return moment(self.select.since, "select.since"), moment(self.select.until, "select.until")


def load(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, kind: str = "sft"
) -> Spec:
    """The spec of a file, with flags over it.

    Args:
        file: TOML with the fields of `Spec`; None for none.
        flags: Values by dotted path, such as ``{"select.since": "2026-11-01"}``; None is not given.
        kind: What it is a data set of; the file may say the same.

    Raises:
        Usage: The file can't be read, a key is unknown, a value doesn't fit.
    """
    spec = specfile.load(Spec, kind, file, flags, noun="a data set", command="podium dataset build")
    spec.times()
    return spec


def moment(text: str, name: str) -> int:
    """A time in ISO 8601, in milliseconds since the epoch; 0 for "". Raises `Usage`."""
    if not text:
        return 0
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"{name}: {text!r} is no time", hint="Write 2026-11-26 or 2026-11-26T05:00:00Z."
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1_000)
