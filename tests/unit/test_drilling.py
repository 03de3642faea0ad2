"""Drills: one pool, several questions, of each whom to ask first."""

from pathlib import Path

import msgspec
import pytest

from protocol.decisions import Decision, Reply, View
from protocol.dialects import parse, referable
from tests.unit.test_conductor import PLAN, made
from trainer.conductor.drilling import QUESTIONS, asked, drills
from trainer.conductor.plan import Plan
from trainer.conductor.teaching import SPEAKS, Teaching, batch_of, drilled, examples, reading
from trainer.datasets.chat import Chat
from trainer.gym.episodes import draws
from trainer.gym.kinds import roles_of
from trainer.gym.oracle import Oracle
from trainer.gym.splits import for_tests

__all__ = ["made"]


def test_a_drill_asks_one_pool_for_what_it_can_do() -> None:
    found = [asked(Plan(), episode) for episode in draws(range(40), "train")]
    for every, episode in zip(found, draws(range(40), "train"), strict=True):
        assert episode in every
        assert len(every) <= QUESTIONS
        assert all(each.pool == episode.pool for each in every)
        texts = [each.task.text for each in every]
        assert len(set(texts)) == len(texts)
        assert not any(map(for_tests, texts))
    assert sum(len(every) == QUESTIONS for every in found) > 20, "most pools can do so many"


def test_each_reply_of_a_drill_asks_who_can_do_what_is_needed_first() -> None:
    episodes = list(draws(range(20), "train"))
    for episode, talk in zip(episodes, drills(Plan(), episodes, SPEAKS), strict=True):
        every = asked(Plan(), episode)
        assert [each["role"] for each in talk.messages] == [
            "system",
            *["user", "assistant"] * len(every),
        ]
        assert len(talk.replies) == len(every)
        for each, place in zip(every, talk.replies, strict=True):
            view = View(run="", task=each.task, pool=each.pool)
            said = Reply(text=talk.messages[place.message]["content"])
            decision = parse(SPEAKS, said, each.pool, referable(view))
            assert isinstance(decision, Decision)
            wanted = Oracle([each], refer=True).decision(view).calls
            assert [call.worker for call in decision.calls] == [call.worker for call in wanted]
            needed = {need.role for need in each.plan.needs if not need.waits}
            for call in decision.calls:
                assert needed & {*roles_of(each.member(call.worker).kind)}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_drills_are_given_while_it_learns_to_read(made: Path, share: float) -> None:
    plan = msgspec.structs.replace(PLAN, drills=share)
    chat = Chat.load(made / "base")
    early, late = 0, plan.sft.steps - 1
    assert reading(plan, early) > 0 == reading(plan, late)
    with Teaching(plan, made / "base", processes=0) as teaching:
        for step in (early, late):
            seeds, weight = batch_of(plan, step), reading(plan, step)
            lessons = round(len(seeds) * (1 - share)) if step == early else len(seeds)
            wanted = [
                *examples(plan, seeds[:lessons], chat, weight),
                *drilled(plan, seeds[lessons:], chat, weight),
            ]
            given = teaching(step).examples
            assert [each.ids.tolist() for each in given] == [each.ids.tolist() for each in wanted]
            assert any(each.rollout.startswith("drill") for each in given) == (
                step == early and share > 0
            )
