"""Drills: a small pool, some questions, of each whom to ask first."""

import random
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocol.decisions import Decision, Reply, View
from protocol.dialects import parse, referable
from tests.unit.test_conductor import PLAN, alike, made
from trainer.conductor.drilling import QUESTIONS, SAME, SIZES, asked, cut, drills, questions
from trainer.conductor.plan import Plan
from trainer.conductor.teaching import SPEAKS, Teaching, batch_of, drilled, early, examples
from trainer.datasets.chat import Chat
from trainer.gym.episodes import Episode, draws
from trainer.gym.kinds import ROLES
from trainer.gym.pools import pool_key
from trainer.gym.splits import SETS, for_tests

__all__ = ["made"]


def drawn(episode: Episode, most: int = 10) -> Episode | None:
    """Its pool, cut."""
    return cut(episode, most, random.Random(episode.seed))


def test_a_drill_has_workers_that_do_one_thing_each() -> None:
    episodes = list(draws(range(60), "train"))
    found = [drawn(each, 2 + each.seed % 4) for each in episodes]
    assert sum(each is not None for each in found) > 30
    for episode, small in zip(episodes, found, strict=True):
        if small is None:
            continue
        assert 2 <= len(small.members) <= 2 + episode.seed % 4
        whole = list(zip(episode.pool.workers, episode.members, strict=True))
        places = [whole.index(each) for each in zip(small.pool.workers, small.members, strict=True)]
        assert places == sorted(places)
        assert all(each.kind in ROLES for each in small.members)
        there = {each.kind for each in episode.members}
        if episode.plan.first <= there:
            assert episode.plan.first <= {each.kind for each in small.members}


def test_no_drill_has_a_pool_that_is_kept_for_tests() -> None:
    cuts = [drawn(each, 3) for each in draws(range(300), "train")]
    kinds = [pool_key((m.kind, m.flaky) for m in each.members) for each in cuts if each]
    assert all(SETS["train"].admits("pool", each) for each in kinds)
    episodes = [each for each in draws(range(300), "train") if drawn(each, 3) is None]
    assert any(sum(m.kind in ROLES for m in each.members) >= 3 for each in episodes), "some are"


def test_a_pool_is_asked_several_things_that_its_workers_do() -> None:
    episodes = [each for each in (drawn(each) for each in draws(range(60), "train")) if each]
    found = [asked(Plan(), each, random.Random(each.seed)) for each in episodes]
    for every, episode in zip(found, episodes, strict=True):
        able = {each.kind for each in episode.members}
        own = [each for each in every if each.task.text == episode.task.text]
        assert bool(own) == (episode.plan.first <= able)
        assert len(every) <= QUESTIONS
        assert all(each.pool == episode.pool and each.plan.first <= able for each in every)
        assert max(Counter(each.plan.first for each in every).values(), default=0) <= SAME
        texts = [each.task.text for each in every]
        assert len(set(texts)) == len(texts)
        assert not any(map(for_tests, texts))
        assert all(each.outputs for each in every)
    assert sum(len(every) == QUESTIONS for every in found) > 10, "many pools can do so many"


def test_each_reply_of_a_drill_asks_who_does_what_is_needed_first() -> None:
    replies = 0
    for episode in draws(range(30), "train"):
        every = list(questions(Plan(), episode))
        assert len(every) <= len(SIZES)
        for asks, talk in zip(every, drills(Plan(), episode, SPEAKS), strict=True):
            roles = [each["role"] for each in talk.messages]
            assert roles == ["system", *["user", "assistant"] * len(asks)]
            for each, place in zip(asks, talk.replies, strict=True):
                replies += 1
                view = View(run="", task=each.task, pool=each.pool)
                said = Reply(text=talk.messages[place.message]["content"])
                decision = parse(SPEAKS, said, each.pool, referable(view))
                assert isinstance(decision, Decision)
                called = {each.member(call.worker).kind for call in decision.calls}
                assert called == each.plan.first
    assert replies > 100


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_drills_are_given_while_it_learns_to_read(made: Path, share: float) -> None:
    plan = msgspec.structs.replace(PLAN, drills=share)
    chat = Chat.load(made / "base")
    with Teaching(plan, made / "base", processes=0) as teaching:
        for step in range(plan.sft.steps):
            seeds, left = batch_of(plan, step), early(plan, step)
            lessons = len(seeds) - round(len(seeds) * share * left)
            weight = plan.sft.context * left
            wanted = [
                *examples(plan, seeds[:lessons], chat, weight),
                *drilled(plan, seeds[lessons:], chat, weight),
            ]
            given = teaching(step).examples
            assert alike(list(given), wanted)
            read = {float(part) for each in given for part in each.ce} - {0.0, 1.0}
            assert read == ({float(np.float32(weight))} if left else set())
            drilling = any(each.rollout.startswith("drill") for each in given)
            assert drilling == (left > 0 < share)
