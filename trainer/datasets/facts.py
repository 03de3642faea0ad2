"""What the choice among runs goes by: a few numbers and hashes of each, never its content.

Facts are a pure function of a run's log and of the spec. They stand in the data set's ledger, so
that no run is read twice for them.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec
import numpy as np

from protocol.actions import Json, Pool
from protocol.codec import HASH_CHARS
from protocol.decisions import PolicySpec, Task
from protocol.events import RunCancelled, RunFailed, RunFinished
from replay.chain import RunLog
from trainer.datasets.conversation import messages_of, numbered, reply_message
from trainer.datasets.spec import Rl, Spec
from trainer.records import Rollout, Step
from trainer.rows import logprobs_of, unfit

SHORT: Final = 16
"""Hex characters of a hash that is only compared with others of one data set."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class Scored(msgspec.Struct, frozen=True):
    """What a rollout is worth."""

    reward: float | None = None
    """None for one that nothing scores."""
    accuracy: float | None = None
    """How right its answer is, from 0 to 1; None where that is not known."""
    parts: dict[str, float] = {}
    """The channels of the reward."""


Score: TypeAlias = Callable[[Rollout], Scored]


class Facts(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One run."""

    run: str
    head: str
    """Hash of the last commit that was looked at."""
    said: str
    """Hash of the rewards and labels that were given to it."""
    redact: str
    """Hash of what its log records of what is taken for a secret; "" for nothing."""
    events: int = 0
    """How many were looked at; they are numbered from 1."""
    key: str = ""
    """What it is compared with: the hash of its task, for `rl` its group."""
    began: int = 0
    ended: int = 0
    """Milliseconds since the epoch; 0 while it goes on."""
    out: str = ""
    """Why it is not looked at; "" if it is."""
    model: str = ""
    """Of which its versions are: a hash of where the policy has its weights, or of its name."""
    versions: tuple[str, ...] = ()
    """Of the policy, in the order in which they replied."""
    reward: float | None = None
    accuracy: float | None = None
    finished: bool = False
    answered: bool = False
    """Whether the policy gave the answer."""
    unscorable: str = ""
    tokens: bool = False
    """Whether the tokens of all its replies are known."""
    unfit: str = ""
    """Of `rl`: why a learner would refuse its tokens; "" if it takes them."""
    recovers: bool = False
    """Whether something went wrong and a later call or reply made it good."""
    stuck: bool = False
    """Whether something went wrong that nothing made good."""
    sayable: bool = True
    """Whether every decision can be said by the policy that is to be trained."""
    workers: tuple[str, ...] = ()
    """Whom it called, sorted."""
    repeats: int = 0
    """Calls that repeat one that had succeeded."""
    rounds: int = 0
    cost: int = 0
    asked: tuple[str, ...] = ()
    """Of `preference`: the hash of each prompt."""
    replied: tuple[str, ...] = ()
    """The hash of each reply."""


def short(value: Json) -> str:
    """The hash of a value, for comparison."""
    return sha256(_encode(value)).hexdigest()[:SHORT]


def task_key(task: Task) -> str:
    """What the runs of one task have in common."""
    return sha256(_encode(task)).hexdigest()[:HASH_CHARS]


def pool_key(pool: Pool) -> str:
    """A pool's hash, as `Select.pools` names it."""
    return sha256(_encode(pool)).hexdigest()[:HASH_CHARS]


def ended_at(log: RunLog) -> int:
    """When a run ended, milliseconds since the epoch; 0 if it goes on."""
    for commit in reversed(log.commits):
        for event in commit.events:
            if isinstance(event, RunFinished | RunFailed | RunCancelled):
                return commit.at
    return 0


def facts(rollout: Rollout, ended: int, redact: Json, spec: Spec, score: Score) -> Facts:
    """The facts of a run.

    Args:
        rollout: The run.
        ended: When it ended, see `ended_at`.
        redact: What its log records of what is taken for a secret.
        spec: The data set.
        score: What scores it.
    """
    out = left_out(rollout, spec)
    known = Facts(
        run=rollout.run,
        head=rollout.head,
        events=rollout.events,
        said=short([rollout.rewards, rollout.labels]),
        redact=short(redact) if redact else "",
        began=rollout.started_at,
        ended=ended,
        out=out,
    )
    if out:
        return known
    scored = score(rollout) if ended else Scored()
    own = [step for step in rollout.steps if step.own]
    recovers, stuck = _made_good(rollout.steps)
    speaker = spec.speaker(rollout.policy)
    pairs = spec.kind == "preference"
    return msgspec.structs.replace(
        known,
        key=rollout.group if spec.kind == "rl" else task_key(rollout.task),
        model=short(rollout.policy.options.get("folder") or rollout.policy.name),
        versions=tuple(dict.fromkeys(step.version for step in own)),
        reward=scored.reward,
        accuracy=scored.accuracy,
        finished=rollout.outcome == "finished",
        answered=rollout.answered,
        unscorable=rollout.unscorable,
        tokens=bool(own) and all(step.sampled is not None for step in own),
        unfit=_unfit(own, spec.rl) if spec.kind == "rl" else "",
        recovers=recovers,
        stuck=stuck,
        sayable=spec.kind == "rl" or _sayable(rollout, spec),
        workers=tuple(sorted({made.call.worker for step in rollout.steps for made in step.calls})),
        repeats=_repeats(rollout.steps),
        rounds=rollout.rounds,
        cost=rollout.spend.cost,
        asked=_asked(speaker, rollout) if pairs else (),
        replied=_replied(speaker, rollout) if pairs else (),
    )


def _asked(speaker: PolicySpec, rollout: Rollout) -> tuple[str, ...]:
    prompts = (messages_of(speaker, step.view)[0] for step in rollout.steps)
    return tuple(short(numbered(each)) for each in prompts)


def _replied(speaker: PolicySpec, rollout: Rollout) -> tuple[str, ...]:
    replies = (reply_message(speaker, rollout, step) for step in rollout.steps)
    return tuple(short(numbered([each] if each is not None else [])) for each in replies)


def went_wrong(step: Step) -> bool:
    """Whether anything of a reply went wrong, whoever is at fault."""
    return step.rejection is not None or any(made.status not in (None, "OK") for made in step.calls)


def mistaken(step: Step, spec: Spec) -> bool:
    """Whether a reply is context that is not imitated: a mistake of the policy's, or a slip."""
    slips = spec.sft.slips or ()
    return step.failed or any(fnmatchcase(step.version, each) for each in slips)


def _unfit(own: Sequence[Step], rl: Rl) -> str:
    """Why a learner would refuse tokens, whatever its model; "" if it takes them."""
    drawn = [(step, step.sampled) for step in own if step.sampled is not None and step.output]
    reasons = {unfit(how.temperature, how.top_p, how.top_k) for _, how in drawn}
    if "greedy" in reasons:
        return "drawn at temperature 0"
    if "truncated" in reasons and rl.truncated == "drop":
        return "drawn with top_p or top_k"
    if rl.missing == "drop" and any(np.isnan(logprobs_of(step)).any() for step, _ in drawn):
        return "no log-probabilities"
    return "" if all(step.prompt for step, _ in drawn) else "no prompt"


def left_out(rollout: Rollout, spec: Spec) -> str:
    """Which part of the selection leaves a run out; "" for none."""
    select = spec.select
    since, until = spec.times()
    began = rollout.started_at
    if began < since or (until and began >= until):
        return "time"
    if select.runs and not rollout.run.startswith(select.runs):
        return "run"
    if not select.children and rollout.parent is not None:
        return "child"
    if select.policies and not rollout.policy.name.startswith(select.policies):
        return "policy"
    if select.versions and not _of_versions(rollout, select.versions):
        return "version"
    if select.pools and not _in_pool(rollout.pool, select.pools):
        return "pool"
    if select.outcomes and rollout.outcome and rollout.outcome not in select.outcomes:
        return "outcome"
    if not all(_labelled(rollout, label) for label in select.labels):
        return "label"
    return ""


def _of_versions(rollout: Rollout, wanted: Iterable[str]) -> bool:
    """Whether all replies are of these versions.

    A model of ours replies as ``conductor/000002@9f3ab1c27d5e``: its folder, the version, and what
    the hash of the weights begins with. People and rows call that ``000002``.
    """

    def called(version: str) -> set[str]:
        plain = version.rpartition("@")[0] or version
        return {version, plain, plain.rpartition("/")[2]}

    return not any(called(step.version).isdisjoint(wanted) for step in rollout.steps if step.own)


def _in_pool(pool: Pool, wanted: Iterable[str]) -> bool:
    known, names = pool_key(pool), {worker.name for worker in pool.workers}
    return any(known.startswith(each) or each in names for each in wanted)


def _labelled(rollout: Rollout, wanted: str) -> bool:
    """Whether the last label of a key is there, and as it is wanted."""
    key, has_value, value = wanted.partition("=")
    found = [label.value for label in rollout.labels if label.key == key]
    if not found:
        return False
    said = found[-1]
    text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return not has_value or text == value


def _made_good(steps: tuple[Step, ...]) -> tuple[bool, bool]:
    """Whether something went wrong and was made good, and whether something was not.

    A rejected reply is made good by a later one that was followed; a call by a later call that
    succeeded, of the same worker or of another.
    """
    wrong = stuck = False
    for place, step in enumerate(steps):
        if not went_wrong(step):
            continue
        wrong = True
        later = steps[place + 1 :]
        if step.rejection is not None:
            good = any(each.rejection is None for each in later)
        else:
            good = any(made.status == "OK" for each in later for made in each.calls)
        stuck = stuck or not good
    return wrong and not stuck, stuck


def _repeats(steps: tuple[Step, ...]) -> int:
    """Calls that ask a worker again for what it has given already."""
    seen: set[str] = set()
    found = 0
    for step in steps:
        made = [(_encode([m.call.worker, m.call.arguments]).decode(), m) for m in step.calls]
        found += sum(name in seen for name, _ in made)
        seen |= {name for name, each in made if each.status == "OK"}
    return found


def _sayable(rollout: Rollout, spec: Spec) -> bool:
    speaker = spec.speaker(rollout.policy)
    return all(
        reply_message(speaker, rollout, step) is not None
        for step in rollout.steps
        if step.decision is not None and not mistaken(step, spec)
    )
