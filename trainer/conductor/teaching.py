"""Lessons: the teacher's runs of fresh episodes, as examples; made beside the training.

A batch is a pure function of the plan and the step. Its episodes are played in the fast lane by the
real rules, and read back from their logs: slips stay in the context and out of the loss.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Self

import numpy as np

from protocol.decisions import PolicySpec
from trainer.conductor.drilling import drills
from trainer.conductor.plan import Plan
from trainer.datasets.chat import Chat, Rendered
from trainer.datasets.conversation import conversations
from trainer.gym.episodes import Episode, draw, in_storm
from trainer.gym.play import run
from trainer.gym.teacher import Teacher, slip_of
from trainer.gym.workers import chance
from trainer.learner.example import Example
from trainer.learner.order import Fed
from trainer.records import Rollout

SPEAKS: Final = PolicySpec(name="student", dialect="slots")
"""Who is taught: what the teacher decides is written as it would say it."""

TEXTS_FROM: Final = 10**9
"""The first seed of the episodes that the vocabulary is made from: none of a lesson's."""

SEEDS: Final = 10**7
"""Episodes between those of two plans' seeds, of lessons and of practice: more than any takes."""

AHEAD: Final = 6
"""Batches that are made before they are wanted, for each process: the learner never waits for one,
and they take some megabytes."""


def drawn(plan: Plan, seeds: range) -> list[Episode]:
    """Episodes to learn from: with a twin of who is needed, or in a storm, as often as planned."""

    def one(seed: int) -> Episode:
        twins = chance("twins", seed) < plan.twins
        found = draw(seed, "train", plan.families, twins=twins)
        return in_storm(found) if chance("storm", seed) < plan.storms else found

    return [one(seed) for seed in seeds]


def lesson(plan: Plan, seeds: range) -> Iterator[tuple[Episode, Rollout, frozenset[int]]]:
    """Episodes played by the teacher, each with the turns that are not imitated: its slips."""
    episodes = drawn(plan, seeds)
    teacher = Teacher(episodes, plan.rates, seed=plan.seed, refer=True)
    for episode, rollout in zip(episodes, run(episodes, teacher), strict=True):
        slips = (step.turn for step in rollout.steps if slip_of(step.version))
        yield episode, rollout, frozenset(() if plan.sft.slips else slips)


def texts(plan: Plan) -> Iterator[str]:
    """What the vocabulary is made from: all that would be read and written."""
    for _, rollout, slips in lesson(plan, range(TEXTS_FROM, TEXTS_FROM + plan.texts)):
        for talk in conversations(SPEAKS, rollout, slips):
            yield from (each["content"] for each in talk.messages)


def examples(plan: Plan, seeds: range, chat: Chat, reading: float = 0.0) -> list[Example]:
    """The examples of some episodes, those that fit the model.

    Args:
        plan: See `Plan`.
        seeds: Of the episodes.
        chat: Makes tokens of what is said.
        reading: Weight of what stands before the first reply, see `Sft.context`.
    """
    made = [
        imitated(rendered, rollout.run, reading)
        for _, rollout, slips in lesson(plan, seeds)
        for talk in conversations(SPEAKS, rollout, slips)
        for rendered in chat.render(talk)
    ]
    return [each for each in made if len(each.ids) <= plan.shape.context]


def drilled(plan: Plan, seeds: range, chat: Chat, reading: float = 0.0) -> list[Example]:
    """The examples of drills in the pools of some episodes; see `examples`."""
    made = [
        imitated(rendered, f"drill-{episode.seed}", reading)
        for episode in drawn(plan, seeds)
        for talk in drills(plan, episode, SPEAKS)
        for rendered in chat.render(talk)
    ]
    return [each for each in made if len(each.ids) <= plan.shape.context]


def imitated(rendered: Rendered, run: str, reading: float = 0.0) -> Example:
    """What is to be written, as an example of supervised learning.

    Args:
        rendered: A conversation in tokens.
        run: Whose it is.
        reading: See `examples`.
    """
    read = np.zeros(len(rendered.ids), dtype=np.float32)
    # Nothing stands before the first token; and what workers report is not to be foretold.
    read[1 : int(np.argmax(rendered.written))] = reading
    none = np.zeros(len(rendered.ids), dtype=np.float32)
    return Example(
        ids=rendered.ids,
        ce=rendered.ce + read,
        pg=none,
        advantages=none,
        logprobs=none,
        ref_kl=none,
        rollout=run,
    )


def early(plan: Plan, step: int) -> float:
    """What is left of the part in which it learns to read: 1 at first, then less, then 0."""
    return max(0.0, 1.0 - step / (plan.sft.read_until * max(1, plan.sft.steps)))


def batch_of(plan: Plan, step: int) -> range:
    """The seeds of a step's episodes."""
    begin = (plan.seed % 100) * SEEDS + (plan.sft.after + step) * plan.sft.episodes
    return range(begin, begin + plan.sft.episodes)


def parts_of(plan: Plan, step: int) -> tuple[range, range]:
    """The seeds of a step's lessons, and of the episodes in whose pools it has drills."""
    seeds = batch_of(plan, step)
    lessons = len(seeds) - round(len(seeds) * plan.drills * early(plan, step))
    return seeds[:lessons], seeds[lessons:]


def examples_of(plan: Plan, step: int, chat: Chat) -> list[Example]:
    """The examples of a step, counted from 0: lessons, and drills while it learns to read."""
    lessons, pools = parts_of(plan, step)
    weight = plan.sft.context * early(plan, step)
    return examples(plan, lessons, chat, weight) + drilled(plan, pools, chat, weight)


class Teaching:
    """Gives the batch of a step; a source, as `trainer.learner.fit` takes one.

    Args:
        plan: See `Plan`.
        folder: Of the tokenizer.
        processes: That make batches; 0 for this one.
    """

    def __init__(self, plan: Plan, folder: Path, processes: int = 1) -> None:
        self._plan, self._folder = plan, folder
        self._coming: deque[tuple[int, Future[list[Example]]]] = deque()
        self._ahead = AHEAD * processes
        self._workers: ProcessPoolExecutor | None = None
        self._chat: Chat | None = None
        if processes:
            self._workers = ProcessPoolExecutor(
                processes, get_context("spawn"), _begin, (plan, str(folder))
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> Fed:
        """The batch of a step, counted from 0."""
        if self._workers is None:
            self._chat = self._chat or Chat.load(self._folder)
            return Fed(examples=examples_of(self._plan, step, self._chat))
        if not self._coming or self._coming[0][0] != step:
            self._coming.clear()
        following = self._coming[-1][0] + 1 if self._coming else step
        for later in range(following, min(step + self._ahead, self._plan.sft.steps)):
            self._coming.append((later, self._workers.submit(_made, later)))
        if not self._coming:
            self._coming.append((step, self._workers.submit(_made, step)))
        return Fed(examples=self._coming.popleft()[1].result())


class _Mine:
    """What a process that makes batches has."""

    plan: Plan
    chat: Chat


def _begin(plan: Plan, folder: str) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _Mine.plan, _Mine.chat = plan, Chat.load(Path(folder))


def _made(step: int) -> list[Example]:
    return examples_of(_Mine.plan, step, _Mine.chat)
