"""What is written of a unit: rows, pairs, and the rollouts that they are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from protocol.errors import InvalidData
from trainer.advantages import PRESETS, Scheme, advantages
from trainer.datasets.chat import Chat
from trainer.datasets.conversation import (
    Conversation,
    Message,
    conversations,
    messages_of,
    numbered,
    removable,
    reply_message,
)
from trainer.datasets.facts import Facts, mistaken
from trainer.datasets.plan import Unit, Worth
from trainer.datasets.spec import Spec
from trainer.learner.example import Example
from trainer.records import Rollout
from trainer.rows import Floats, Ids, Row, rows

NO_IDS: Final[Ids] = np.zeros(0, np.int32)
NO_FLOATS: Final[Floats] = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sample:
    """One row of a data set; arrays of shape ``[n]``, empty where its tokens are not known."""

    run: str
    group: str
    segment: int
    view: str = "full"
    """Of a recovery: ``full`` or ``clean``."""
    recovery: bool = False
    ids: Ids = field(default_factory=lambda: NO_IDS)
    mask: Floats = field(default_factory=lambda: NO_FLOATS)
    """1 on what the policy wrote and this row trains."""
    logprobs: Floats = field(default_factory=lambda: NO_FLOATS)
    """Of the policy that drew the tokens; empty where nobody drew them."""
    ce: Floats = field(default_factory=lambda: NO_FLOATS)
    """Weights of the cross-entropy."""
    talk: Conversation | None = None
    turns: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    reward: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    advantage: float | None = None
    version: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    tokenizer: str = ""
    template: str = ""
    head: str = ""

    def example(self) -> Example:
        """As a learner takes it.

        Raises:
            InvalidData: Its tokens are not known.
        """
        if not len(self.ids):
            raise InvalidData(
                f"row {self.segment} of run {self.run} has no tokens",
                hint="build the data set with --tokenizer FOLDER",
            )
        zeros = np.zeros(len(self.ids), np.float32)
        trains = self.advantage is not None
        return Example(
            ids=self.ids,
            ce=zeros if trains else self.ce,
            pg=self.mask if trains else zeros,
            advantages=zeros + (self.advantage or 0.0),
            logprobs=self.logprobs if len(self.logprobs) else zeros,
            ref_kl=zeros,
            temperature=self.temperature,
            rollout=self.run,
            group=self.group,
            top_p=self.top_p,
            top_k=self.top_k,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pair:
    """Two replies to one prompt."""

    better: str
    worse: str
    group: str
    prompt: list[Message]
    tools: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    reward_chosen: float
    reward_rejected: float
    turn: int
    head_chosen: str = ""
    head_rejected: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Kept:
    """A rollout that is written, and its rows."""

    rollout: Rollout
    facts: Facts
    samples: list[Sample]
    advantage: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    """The channels of its reward."""
    trajectory: Any = None
    """Of formats that write the run itself: what `replay.formats.atif` makes of it."""


@dataclass(slots=True, eq=False)
class Made:
    """All that is written of a unit."""

    key: str
    kept: list[Kept] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Rows that could not be made, and why: counted, never silent."""

    @property
    def samples(self) -> list[Sample]:
        """The rows of all of it, in order."""
        return [sample for kept in self.kept for sample in kept.samples]

    @property
    def spoken(self) -> list[Sample]:
        """Of those, each conversation once: several rows of tokens may be of one."""
        told: set[int] = set()
        found = []
        for sample in self.samples:
            if sample.talk is None or id(sample.talk) not in told:
                found.append(sample)
            told.add(id(sample.talk))
        return found


def make(
    unit: Unit,
    rollouts: Mapping[str, Rollout],
    spec: Spec,
    chat: Chat | None = None,
    scheme: Scheme = PRESETS["grpo"],
    parts: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Made:
    """What is written of a unit.

    Args:
        unit: As it was planned.
        rollouts: The kept ones, by run.
        spec: The data set.
        chat: What renders messages; None where only recorded tokens are wanted.
        scheme: How rewards become advantages, for `rl`.
        parts: The channels of each run's reward.
    """
    made = Made(unit.key)
    match spec.kind:
        case "sft":
            for facts in unit.kept:
                made.kept.append(_imitated(rollouts[facts.run], facts, spec, chat, made.notes))
        case "rl":
            kept = unit.kept
            worth = advantages([Worth(unit.key, each.reward) for each in kept], scheme)
            for facts, each in zip(kept, worth, strict=True):
                made.kept.append(_drawn(rollouts[facts.run], facts, each.value or 0.0, spec))
        case _:
            made.kept = [Kept(rollout=rollouts[f.run], facts=f, samples=[]) for f in unit.kept]
            made.pairs = [
                pair
                for each in unit.pairs
                if (
                    pair := _pair(
                        each.parts,
                        rollouts[each.better],
                        rollouts[each.worse],
                        {f.run: f for f in unit.kept},
                        spec,
                        unit.key,
                    )
                )
                is not None
            ]
    made.kept = [_finished(each, parts, spec.max_tokens, made.notes) for each in made.kept]
    return made


def _finished(
    kept: Kept, parts: Mapping[str, Mapping[str, float]], most: int, notes: list[str]
) -> Kept:
    """With the channels of its reward, and without rows that are too long."""
    own = parts.get(kept.facts.run) or {}
    fit = [each for each in kept.samples if not most or len(each.ids) <= most]
    notes += ["longer than max_tokens"] * (len(kept.samples) - len(fit))
    return replace(kept, samples=[replace(each, parts=own) for each in fit], parts=own)


# ---------------------------------------------------------------------------------------- imitation


def _imitated(
    rollout: Rollout, facts: Facts, spec: Spec, chat: Chat | None, notes: list[str]
) -> Kept:
    mistakes = frozenset(step.turn for step in rollout.steps if mistaken(step, spec))
    samples: list[Sample] = []
    wanted = {"full": ["full"], "clean": ["clean"], "both": ["full", "clean"]}[spec.sft.views]
    if not facts.recovers or not mistakes:
        wanted = ["full"]
    for view in wanted:
        if view == "clean" and not removable(rollout, mistakes):
            notes.append("clean view not possible: what came of the mistake is used later")
            continue
        samples += _view(rollout, facts, mistakes, view, len(samples), spec, chat)
    if not samples:
        notes.append("no reply to train")
    return Kept(rollout=rollout, facts=facts, samples=samples)


def _view(
    rollout: Rollout,
    facts: Facts,
    mistakes: frozenset[int],
    view: str,
    first: int,
    spec: Spec,
    chat: Chat | None,
) -> list[Sample]:
    speaker = spec.speaker(rollout.policy)
    series: list[Row] = []
    if view == "full" and speaker == rollout.policy and facts.tokens:
        series = rows(rollout)
        if chat is not None and not all(_same_tokens(row, chat) for row in series):
            series = []  # of another tokenizer: rendered anew
    talks: list[Conversation] = []
    if spec.text or not series:
        talks = conversations(speaker, rollout, mistakes, clean=view == "clean")
    about: dict[str, Any] = {
        "run": rollout.run,
        "group": rollout.group,
        "view": view,
        "recovery": facts.recovers and view == "full",
        "reward": facts.reward,
        "version": "|".join(facts.versions),
        "head": facts.head,
    }
    if series:
        return [
            _of_row(row, first + place, mistakes, talks, about)
            for place, row in enumerate(series)
            if any(turn not in mistakes for turn in row.turns)
        ]
    if chat is None:
        return [
            Sample(segment=first + place, talk=talk, turns=_trained(talk), **about)
            for place, talk in enumerate(talks)
        ]
    return [
        Sample(
            segment=first + place,
            ids=each.ids,
            mask=each.ce,
            ce=each.ce,
            talk=talk if spec.text else None,
            turns=each.turns,
            starts=each.starts,
            tokenizer=chat.tokenizer_hash,
            template=chat.template_hash,
            **about,
        )
        for place, (talk, each) in enumerate(
            (talk, each) for talk in talks for each in chat.render(talk)
        )
    ]


def _trained(talk: Conversation) -> tuple[int, ...]:
    return tuple(place.turn for place in talk.replies if place.trained)


def _same_tokens(row: Row, chat: Chat) -> bool:
    return (row.tokenizer, row.template) == (chat.tokenizer_hash, chat.template_hash)


def _of_row(
    row: Row,
    segment: int,
    mistakes: frozenset[int],
    talks: list[Conversation],
    about: dict[str, Any],
) -> Sample:
    """A row of recorded tokens, without the loss of its mistakes."""
    mask = row.sampled.astype(np.float32)
    ends = [*row.starts[1:], len(row.ids)]
    for turn, begin, end in zip(row.turns, row.starts, ends, strict=True):
        if turn in mistakes:
            mask[begin:end] = 0.0
    good = [place for place, turn in enumerate(row.turns) if turn not in mistakes]
    return Sample(
        segment=segment,
        ids=row.ids,
        mask=mask,
        logprobs=row.logprobs,
        ce=mask,
        talk=_talk_of(row.turns, talks),
        turns=tuple(row.turns[place] for place in good),
        starts=tuple(row.starts[place] for place in good),
        temperature=row.temperature,
        top_p=row.top_p,
        top_k=row.top_k,
        tokenizer=row.tokenizer,
        template=row.template,
        **{**about, "version": row.version},
    )


def _talk_of(turns: Sequence[int], talks: list[Conversation]) -> Conversation | None:
    """The conversation that shows the last of these turns."""
    for talk in talks:
        if any(place.turn == turns[-1] for place in talk.replies):
            return talk
    return talks[-1] if talks else None


# -------------------------------------------------------------------------------- policy gradients


def _drawn(rollout: Rollout, facts: Facts, advantage: float, spec: Spec) -> Kept:
    speaker = rollout.policy
    talks = conversations(speaker, rollout, frozenset()) if spec.text else []
    samples = [
        Sample(
            run=rollout.run,
            group=rollout.group,
            segment=row.segment,
            recovery=facts.recovers,
            ids=row.ids,
            mask=row.sampled.astype(np.float32),
            logprobs=row.logprobs,
            ce=np.zeros(len(row.ids), np.float32),
            talk=_talk_of(row.turns, talks),
            turns=row.turns,
            starts=row.starts,
            reward=facts.reward,
            advantage=advantage,
            version=row.version,
            temperature=row.temperature,
            top_p=row.top_p,
            top_k=row.top_k,
            tokenizer=row.tokenizer,
            template=row.template,
            head=facts.head,
        )
        for row in rows(rollout)
    ]
    return Kept(rollout=rollout, facts=facts, samples=samples, advantage=advantage)


# --------------------------------------------------------------------------------------- preference


def _pair(
    place: int,
    better: Rollout,
    worse: Rollout,
    facts: Mapping[str, Facts],
    spec: Spec,
    key: str,
) -> Pair | None:
    speaker = spec.speaker(better.policy)
    prompt, tools = messages_of(speaker, better.steps[place].view)
    chosen = _following(speaker, better, place, len(prompt), spec)
    rejected = _following(speaker, worse, place, len(prompt), spec)
    if not chosen or not rejected or numbered(chosen) == numbered(rejected):
        return None
    good, bad = facts[better.run], facts[worse.run]
    return Pair(
        better=better.run,
        worse=worse.run,
        group=key,
        prompt=prompt,
        tools=tools,
        chosen=chosen,
        rejected=rejected,
        reward_chosen=good.reward or 0.0,
        reward_rejected=bad.reward or 0.0,
        turn=better.steps[place].turn,
        head_chosen=good.head,
        head_rejected=bad.head,
    )


def _following(speaker: Any, rollout: Rollout, place: int, known: int, spec: Spec) -> list[Message]:
    step = rollout.steps[place]
    said = reply_message(speaker, rollout, step)
    if said is None:
        return []
    if spec.preference.completion == "reply":
        return [said]
    last = rollout.steps[-1]
    answer = reply_message(speaker, rollout, last)
    shown, _ = messages_of(speaker, last.view)
    return [*shown[known:], answer] if answer is not None else []
