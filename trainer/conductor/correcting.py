"""Correction: the model plays, and at each decision the teacher says what it would have done.

Lessons show how a teacher goes on from where a teacher gets. A model gets elsewhere: one slip leads
to what no lesson shows, and there it slips again. So it is taught where it gets itself, as DAgger
does (Ross, Gordon and Bagnell, 2011, arXiv 1011.0686). What a step is taught is a pure function of
the plan, the step and the weights as they are then.
"""

from collections.abc import Callable
from typing import Any, Final

from protocol.dialects import referable, render
from trainer.conductor.plan import Plan
from trainer.conductor.teaching import SEEDS, drawn, imitated
from trainer.datasets.chat import Chat
from trainer.datasets.conversation import Conversation, Place, conversations, messages_of
from trainer.gym.oracle import Oracle
from trainer.gym.practice import Practice
from trainer.learner.example import Example
from trainer.learner.order import Fed
from trainer.records import Rollout, Step
from trainer.rewards.channels import accuracy

FROM: Final = 3 * 10**9
"""The first seed of the episodes that are corrected: none of a lesson's or of practice."""

MOST: Final = 2
"""Corrections of one rollout at either end: of what it did wrong first, which lost it, and last,
where it was most lost. It goes on for a dozen decisions, each as wrong as the one before: all of
them would be most of what is learned."""


def corrected(rollout: Rollout, teacher: Oracle) -> tuple[list[Conversation], int]:
    """What a rollout's policy has to learn of it, and how often the teacher said something else.

    Replies that are the teacher's, too, are trained where they stand. Each of the others is
    context, and the teacher's stands in its place in a conversation of its own.

    Args:
        rollout: In a dialect of text.
        teacher: Who knows its episode.
    """
    spec = rollout.policy
    wrong: list[tuple[Step, str]] = []
    for step in rollout.steps:
        better = teacher.decision(step.view)
        said = render(spec, better, rollout.pool, referable(step.view)).text
        if said != step.text:
            wrong.append((step, said))
    made: list[Conversation] = []
    for step, said in (*wrong[:MOST], *wrong[MOST:][-MOST:]):
        prompt, tools = messages_of(spec, step.view)
        place = Place(len(prompt), step.turn, True)
        reply = {"role": "assistant", "content": said}
        made.append(Conversation([*prompt, reply], tools, [place]))
    slips = frozenset(step.turn for step, _ in wrong)
    return [*conversations(spec, rollout, slips), *made], len(wrong)


class Correcting:
    """Gives the batch of a step; a source, as `trainer.learner.fit` takes one.

    Args:
        plan: See `Plan`.
        model: Who plays: the one that learns.
        words: Its tokenizer.
        chat: Makes tokens of what is said.
        name: Of the weights, see `Practice`.
    """

    def __init__(
        self,
        plan: Plan,
        model: Any,
        words: Any,
        chat: Chat,
        name: Callable[[], str] = lambda: "living",
    ) -> None:
        self._plan, self._chat = plan, chat
        self._practice = Practice(model, words, name, seed=plan.seed, tokens=plan.reply_tokens)

    def __call__(self, step: int) -> Fed:
        """The batch of a step, counted from 0."""
        plan, said = self._plan, self._plan.correction
        begin = FROM + (plan.seed % 100) * SEEDS + step * said.episodes
        episodes = drawn(plan, range(begin, begin + said.episodes))
        teacher = Oracle(episodes, refer=True)
        job = f"correction/{plan.seed}/{step}"
        groups = self._practice.groups(episodes, 1, job, said.temperature)
        rollouts = [rollout for group in groups for rollout in group]
        made: list[Example] = []
        decisions = wrong = 0
        for rollout in rollouts:
            talks, slips = corrected(rollout, teacher)
            decisions, wrong = decisions + len(rollout.steps), wrong + slips
            made += (
                imitated(rendered, rollout.run)
                for talk in talks
                for rendered in self._chat.render(talk)
            )
        right = [accuracy(each) or 0.0 for each in rollouts]
        return Fed(
            examples=[each for each in made if len(each.ids) <= plan.shape.context],
            values={
                "accuracy": sum(right) / len(right),
                "corrected": wrong / max(1, decisions),
            },
        )
